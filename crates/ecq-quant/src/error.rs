//! What a quantizer refuses. Whoever knows the tensor's name adds it.

/// Why a tensor cannot be quantized.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A weight is NaN or infinite.
    #[error(
        "the weight in row {row}, column {column} is {value}; a lossy scheme needs finite weights: use --scheme lossless"
    )]
    NotFinite {
        /// Row in the matrix.
        row: usize,
        /// Column in the matrix.
        column: usize,
        /// The weight.
        value: f32,
    },
    /// A weight is so large that arithmetic with it would overflow.
    #[error(
        "the weight in row {row}, column {column} is {value:e}, above 2^120; a lossy scheme cannot take it: use --scheme lossless"
    )]
    TooLarge {
        /// Row in the matrix.
        row: usize,
        /// Column in the matrix.
        column: usize,
        /// The weight.
        value: f32,
    },
    /// A rate outside the range of the native scheme.
    #[error("{0} bits a weight: expected {min} to {max}", min = crate::scheme::BITS.start(), max = crate::scheme::BITS.end())]
    Rate(f64),
    /// The group size is 0.
    #[error("groups of 0 weights: expected at least 1")]
    Group,
    /// The scheme's parameters do not fit the format.
    #[error("{0}")]
    Unstorable(String),
}

//! AVX2 as Haswell and Excavator have it.

pub(crate) mod byte;
pub(crate) mod nibble;

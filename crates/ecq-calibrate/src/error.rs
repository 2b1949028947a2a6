//! What can go wrong.

use std::path::PathBuf;

/// Why a model cannot be calibrated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be run.
    #[error(transparent)]
    Model(#[from] ecq_llm::Error),
    /// A coded model cannot be read.
    #[error(transparent)]
    Convert(ecq_convert::Error),
    /// A tensor cannot be quantized.
    #[error("tensor {tensor}: {why}")]
    Quantize {
        /// Its name.
        tensor: String,
        /// Why.
        why: ecq_quant::Error,
    },
    /// The text does not serve.
    #[error("{path}: {why}", path = path.display())]
    Text {
        /// Where it is.
        path: PathBuf,
        /// What was expected.
        why: String,
    },
    /// A file of statistics cannot be read or written, or is of another model.
    #[error("{path}: {why}", path = path.display())]
    Statistics {
        /// Where it is.
        path: PathBuf,
        /// What was expected, and what to do.
        why: String,
    },
    /// What stands where statistics shall be gathered is not what an interrupted run left of these.
    #[error("{path}: {why}: delete it, or name another file", path = path.display())]
    Other {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        why: &'static str,
    },
    /// The model computes numbers that are none.
    #[error("{path}: block {block} gives numbers that are not finite: weights are damaged, or not for this architecture", path = path.display())]
    NotFinite {
        /// The model.
        path: PathBuf,
        /// The block, from 0 on.
        block: usize,
    },
    /// It was stopped.
    #[error("stopped")]
    Cancelled,
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

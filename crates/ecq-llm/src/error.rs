//! What can go wrong between a file and a text.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is damaged, or cannot be read.
    #[error(transparent)]
    Format(#[from] ecq_format::Error),
    /// The description of the model in the file is damaged.
    #[error("{path}: {what}: {source}", path = path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// Which part.
        what: &'static str,
        /// What is wrong.
        source: Box<ecq_convert::source::SourceError>,
    },
    /// The model cannot be run.
    #[error("{path}: {what}: expected {expected}, found {got}", path = path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// The tensor, or the entry of its description.
        what: String,
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// The file has no tokenizer, or one that cannot be used.
    #[error("{path}: tokenizer: {why}", path = path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// The model cannot be converted.
    #[error(transparent)]
    Convert(#[from] ecq_convert::Error),
    /// A file of a model cannot be read, or none be written among the converted models.
    #[error("{path}: {why}; converted models are kept in the folder that ECQ_CACHE names", path = path.display())]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        why: String,
    },
    /// There is no GPU to run on.
    #[error("{source}; --device cpu works without one")]
    NoGpu {
        /// What is missing.
        source: Box<ecq_gpu::Error>,
    },
    /// The GPU could not do what a model needs.
    #[error("{path}: {what}: {source}; --device cpu works without a GPU", path = path.display())]
    Gpu {
        /// The file.
        path: PathBuf,
        /// The tensor, or where it was computed.
        what: String,
        /// What was wrong.
        source: Box<ecq_gpu::Error>,
    },
    /// What was asked for cannot be done.
    #[error("{what}: expected {expected}, got {got}")]
    Argument {
        /// Which argument.
        what: &'static str,
        /// What it should be.
        expected: String,
        /// What it was.
        got: String,
    },
}

impl Error {
    /// Whether a model did not fit a GPU.
    pub(crate) fn is_for_room(&self) -> bool {
        let Self::Gpu { source, .. } = self else { return matches!(self, Self::Argument { .. }) };
        matches!(**source, ecq_gpu::Error::OutOfMemory { .. } | ecq_gpu::Error::Limit { .. })
    }
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

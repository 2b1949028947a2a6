//! What can go wrong between a file and a text.

use std::path::PathBuf;

use ecq_format::shown;

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
    #[error("{path}: {}: expected {}, found {}", shown(what), shown(expected), shown(got), path = path.display())]
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
    #[error("{path}: tokenizer: {}", shown(why), path = path.display())]
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
    #[error("{what}: expected {}, got {}", shown(expected), shown(got))]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_short_and_move_no_cursor() {
        let got = format!("\u{1b}[2J{}", "x".repeat(100_000));
        let error = Error::Argument { what: "the chat", expected: "a text".into(), got };
        let message = error.to_string();
        assert!(!message.contains('\u{1b}') && message.len() < 500 && message.ends_with("xx…"), "{message}");
    }
}

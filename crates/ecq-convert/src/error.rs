//! Errors of the pipeline.

use std::path::{Path, PathBuf};

use ecq_format::shown;

use crate::source::SourceError;

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, with the file and the tensor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The `.ecq` file cannot be read or written, or the operating system refused a file.
    #[error(transparent)]
    Format(ecq_format::Error),
    /// A tensor cannot be quantized.
    #[error("{}: tensor '{}': {why}", path.display(), shown(tensor))]
    Quantize {
        /// The source file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Why not.
        why: ecq_quant::Error,
    },
    /// The output would be a folder, and a folder with something in it is there.
    #[error("{}: is a folder with files in it, which is never overwritten; choose another name", .0.display())]
    FolderInTheWay(PathBuf),
    /// A file of the input would be overwritten by the output.
    #[error("{}: is input and output at once; choose another output", .0.display())]
    OntoInput(PathBuf),
    /// A tensor has a name that no `.ecq` file can hold.
    #[error("{}: cannot store '{}': {why}", path.display(), shown(tensor))]
    TensorName {
        /// The source file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Why not.
        why: &'static str,
    },
    /// The source has too much that is no tensor.
    #[error("{}: {bytes} bytes belong to no tensor, at most {limit} are kept; is the file damaged?", path.display())]
    TooMuchElse {
        /// The source file.
        path: PathBuf,
        /// Bytes outside of tensors.
        bytes: u64,
        /// Most that is kept.
        limit: u64,
    },
    /// A file name inside an `.ecq` file is not a plain name.
    #[error("{}: holds a file called {:?}, which is no plain file name or occurs twice; it is not restored", path.display(), shown(name))]
    FileName {
        /// The `.ecq` file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// What the file says of a source or a tensor contradicts itself.
    #[error("{}: '{}': {}; fetch or convert the file again", path.display(), shown(name), shown(why))]
    Inconsistent {
        /// The `.ecq` file.
        path: PathBuf,
        /// The source file or tensor.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A restored source does not have the checksum that it had.
    #[error("{}: '{}' comes back with SHA-256 {found}, it was {}; fetch or convert the file again", path.display(), shown(name), shown(expected))]
    Sha256 {
        /// The `.ecq` file.
        path: PathBuf,
        /// The source file.
        name: String,
        /// The checksum in the file.
        expected: String,
        /// The checksum of what came back.
        found: String,
    },
    /// The file and the source do not belong together.
    #[error("{}: {}; is this the model that {} was made from?", source_path.display(), shown(why), path.display())]
    NotTheSource {
        /// The `.ecq` file.
        path: PathBuf,
        /// The source.
        source_path: PathBuf,
        /// The difference.
        why: String,
    },
    /// No tensor of the source is wanted.
    #[error("{}: none of the {tensors} tensors has a name that is asked for; the first is '{}'", path.display(), shown(first))]
    NoneWanted {
        /// The source.
        path: PathBuf,
        /// How many tensors it has.
        tensors: usize,
        /// The name of the first.
        first: String,
    },
    /// A pattern of tensor names that is none, or that no name matches.
    #[error("pattern '{pattern}': {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        why: String,
    },
    /// A file of sensitivities that cannot be used.
    #[error("{}: {why}", path.display())]
    Sensitivities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A size, rate or ratio that the model cannot have.
    #[error("{}: {why}", path.display())]
    Target {
        /// The source.
        path: PathBuf,
        /// What is wrong, and what can be had.
        why: String,
    },
    /// The caller asked to stop.
    #[error("stopped; nothing was written")]
    Cancelled,
}

impl From<ecq_format::Error> for Error {
    fn from(error: ecq_format::Error) -> Self {
        match error {
            ecq_format::Error::Stopped => Self::Cancelled,
            other => Self::Format(other),
        }
    }
}

impl Error {
    /// Attaches a path and an action to a system error; for `map_err`.
    pub(crate) fn io<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| ecq_format::Error::Io { path: path.to_owned(), action, source }.into()
    }
}

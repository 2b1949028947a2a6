//! Errors that name the file, the tensor and the part, what was expected, and what to do.

use std::path::{Path, PathBuf};

/// The result of everything that touches a file.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong with a `.ecq` file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: "open", "write", …
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The output exists and overwriting was not asked for.
    #[error("{}: exists already; choose another name, or overwrite it with --force", .0.display())]
    Exists(PathBuf),
    /// The output is a folder, a device or a pipe, or no name at all.
    #[error("{}: is no name for a file; give the output a file name", .0.display())]
    NoFileName(PathBuf),
    /// The file is not an `.ecq` file at all.
    #[error("{}: not an .ecq file: {why}", path.display())]
    NotEcq {
        /// The file.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// The file has another format version.
    #[error("{}: format version {found}, this program reads versions 1 to {}; use a newer ecq", path.display(), crate::VERSION)]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The header contradicts itself or the file.
    #[error("{}: corrupt header: {why}; fetch or convert the file again", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A part of a tensor or blob is damaged.
    #[error("{}: '{name}': corrupt {part}: {why}; fetch or convert the file again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The tensor or blob.
        name: String,
        /// Which part: "tile 3", "side data", …
        part: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file asks for more than the caller allows.
    #[error("{}: {what} is {value}, above the limit of {limit}; raise the limit if the file is to be trusted", path.display())]
    Limit {
        /// The file.
        path: PathBuf,
        /// What is limited.
        what: String,
        /// The file's value.
        value: u64,
        /// The caller's limit.
        limit: u64,
    },
    /// There is no tensor of that name.
    #[error("{}: no tensor '{name}'; `ecq inspect` lists what is inside", path.display())]
    NoSuchTensor {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A tensor of this kind cannot be used as asked.
    #[error("{}: '{name}': {why}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Why not, and what to do instead.
        why: String,
    },
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
    /// A tensor cannot be written as asked.
    #[error("{}: cannot store '{name}': {why}", path.display())]
    Unstorable {
        /// The file.
        path: PathBuf,
        /// The tensor or blob.
        name: String,
        /// Why not.
        why: String,
    },
}

impl Error {
    /// Attaches a path and an action to a system error; for `map_err`.
    pub fn io<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Error::Io { path: path.to_owned(), action, source }
    }
}

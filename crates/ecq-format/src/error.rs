//! Errors that name the file, the tensor and the part, what was expected, and what to do.

use std::path::{Path, PathBuf};

/// Most letters of a text from a file in a message.
const MOST_SHOWN: usize = 400;

/// A text from a file as a message can hold it: not too long, and with nothing in it that moves a terminal's cursor.
pub fn shown(text: &str) -> String {
    let text = text.trim();
    let clean =
        text.chars().take(MOST_SHOWN).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
    let more = if text.chars().nth(MOST_SHOWN).is_some() { "…" } else { "" };
    clean.chain(more.chars()).collect()
}

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
    /// A file that was being read is not what it was when it was opened, or cannot be read any more.
    #[error("{}: {why}, then try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What happened, and what to look at.
        why: &'static str,
    },
    /// The output exists and overwriting was not asked for.
    #[error("{}: exists already; choose another name, or overwrite it with --force", .0.display())]
    Exists(PathBuf),
    /// The output is a folder, a device or a pipe, or no name at all.
    #[error("{}: is no name for a file; give the output a file name", .0.display())]
    NoFileName(PathBuf),
    /// The file is not an `.ecq` file at all.
    #[error("{}: not an .ecq file: {}", path.display(), shown(why))]
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
    #[error("{}: corrupt header: {}; fetch or convert the file again", path.display(), shown(why))]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A part of a tensor or blob is damaged.
    #[error("{}: '{}': corrupt {}: {}; fetch or convert the file again", path.display(), shown(name), shown(part), shown(why))]
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
    #[error("{}: {} is {value}, above the limit of {limit}; a program that trusts the file can raise it", path.display(), shown(what))]
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
    #[error("{}: no tensor '{}'; `ecq inspect` lists what is inside", path.display(), shown(name))]
    NoSuchTensor {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A tensor of this kind cannot be used as asked.
    #[error("{}: '{}': {}", path.display(), shown(name), shown(why))]
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
    #[error("{}: cannot store '{}': {}", path.display(), shown(name), shown(why))]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_short_and_move_no_cursor() {
        let (path, text) = (PathBuf::from("a.ecq"), format!("\u{1b}[2J{}", "x".repeat(100_000)));
        let (name, why, part, what) = (text.clone(), text.clone(), text.clone(), text);
        for error in [
            Error::NotEcq { path: path.clone(), why: why.clone() },
            Error::Header { path: path.clone(), why: why.clone() },
            Error::Corrupt { path: path.clone(), name: name.clone(), part, why: why.clone() },
            Error::Limit { path: path.clone(), what, value: 1, limit: 0 },
            Error::NoSuchTensor { path: path.clone(), name: name.clone() },
            Error::Unsupported { path: path.clone(), name: name.clone(), why: why.clone() },
            Error::Unstorable { path, name, why },
        ] {
            let message = error.to_string();
            assert!(
                !message.contains('\u{1b}') && message.len() < 1500 && message.contains("xx…"),
                "{message}"
            );
        }
    }
}

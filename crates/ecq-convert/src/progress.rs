//! Who is told how far the work is, and who can stop it.

use crate::{Error, Result};

/// Told of progress, in bytes of input.
pub trait Progress: Sync {
    /// A piece of work of this size begins: a verb and the name of the file.
    fn begin(&self, _what: &str, _bytes: u64) {}
    /// This much more is done.
    fn advance(&self, _bytes: u64) {}
    /// Whether to stop. Asked now and then; work that stops leaves nothing behind.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {}

/// Reports progress and stops with [`Error::Cancelled`] if asked to.
pub(crate) fn step(progress: &dyn Progress, bytes: u64) -> Result<()> {
    progress.advance(bytes);
    if progress.cancelled() { Err(Error::Cancelled) } else { Ok(()) }
}

//! A file of at most so many bytes.
//!
//! Tensors are coded one after another, and each gets its share of what is left, so that what one takes too much the
//! others make up for. What else is in the file (header, blobs, tensors that do not share) is estimated at first and
//! known after the first try.

use super::rules::Choice;
use super::share::Allocation;
use crate::{Error, Result};

/// How far below its limit a file may stay, as a part of it.
const SLACK: f64 = 0.002;
/// What is aimed at below the limit: less than half of the slack, more than the last tensors usually miss by.
const AIM: f64 = 0.0006;
/// Tries before a file that is small enough is taken as it is.
const TRIES: u32 = 6;

/// Bytes on their way to a limit.
pub struct SizeControl<'a> {
    shares: &'a dyn Allocation,
    limit: u64,
    /// Bytes of everything else.
    rest: u64,
    /// What the last try took too much in spite of its aim.
    margin: u64,
    /// Bytes that sharing tensors have taken.
    taken: u64,
    tries: u32,
}

/// What is to be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it should be.
    Keep,
    /// Another try will be better.
    Again,
}

impl<'a> SizeControl<'a> {
    /// `rest`: an estimate of what is no sharing tensor; `unsure`: how far too high it may be.
    ///
    /// Error: [`Error::Target`] with the least size that can be had, if that is above the limit.
    pub fn new(
        shares: &'a dyn Allocation,
        limit: u64,
        rest: u64,
        unsure: u64,
        path: &std::path::Path,
    ) -> Result<Self> {
        let control = Self { shares, limit, rest, margin: 0, taken: 0, tries: 0 };
        control.possible(unsure, path)?;
        Ok(control)
    }

    fn possible(&self, unsure: u64, path: &std::path::Path) -> Result<()> {
        let (least, limit) = (self.shares.bytes(0).0 + self.rest, self.limit);
        if least.saturating_sub(unsure) <= limit {
            return Ok(());
        }
        let why = format!(
            "{limit} bytes are too few: at the lowest rate the file would take about {least}; ask for more"
        );
        Err(Error::Target { path: path.into(), why })
    }

    fn aim(&self) -> u64 {
        let margin = (self.limit as f64 * AIM) as u64 + self.margin;
        self.limit.saturating_sub(self.rest + margin)
    }

    /// What a tensor gets; `None` if it does not share. To be asked in the order of the source.
    pub fn choice(&self, index: usize) -> Option<Choice> {
        self.shares.within(index, self.aim().saturating_sub(self.taken))
    }

    /// Is told what a sharing tensor took.
    pub fn took(&mut self, bytes: u64) {
        self.taken += bytes;
    }

    /// Judges a whole file and prepares for the next try.
    ///
    /// Error: [`Error::Target`] when the file is still too large after all tries.
    pub fn judge(&mut self, bytes: u64, path: &std::path::Path) -> Result<Verdict> {
        self.tries += 1;
        tracing::debug!(bytes, limit = self.limit, tries = self.tries, "size of the file");
        let within = bytes <= self.limit;
        let near = bytes as f64 >= self.limit as f64 * (1.0 - SLACK);
        // all tensors have the highest rate there is
        let full = within && self.aim() >= self.shares.bytes(0).1;
        if within && (near || full || self.tries >= TRIES) {
            return Ok(Verdict::Keep);
        }
        if self.tries >= TRIES {
            let why =
                format!("{} bytes cannot be met: the file would take {bytes}; ask for more", self.limit);
            return Err(Error::Target { path: path.into(), why });
        }
        self.margin += self.taken.saturating_sub(self.aim());
        self.rest = bytes.saturating_sub(self.taken);
        self.taken = 0;
        if !within {
            self.possible(0, path)?;
        }
        Ok(Verdict::Again)
    }
}

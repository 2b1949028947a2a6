//! Which lanes code a symbol in which step.

use crate::{Error, LANES};

/// The shape of a stream: bands of blocks of up to 32 columns.
///
/// A band has as many blocks as its columns fill, and one narrower block for columns that are left. A block has a step
/// for each pair of rows of the band. The last band may have fewer pairs than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    cols: usize,
    bands: usize,
    pairs: usize,
    last_pairs: usize,
}

impl Blocks {
    /// `bands` bands of `cols` columns with `pairs` symbols a column, then one with `last_pairs` symbols a column, if
    /// that is not 0. Error: [`Error::TooManySymbols`].
    pub fn new(cols: usize, bands: usize, pairs: usize, last_pairs: usize) -> Result<Self, Error> {
        let rows = bands.checked_mul(pairs).and_then(|rows| rows.checked_add(last_pairs));
        rows.and_then(|rows| rows.checked_mul(cols)).ok_or(Error::TooManySymbols)?;
        // there are no bands without symbols to walk through
        let bands = if pairs == 0 || cols == 0 { 0 } else { bands };
        Ok(Self { cols, bands, pairs, last_pairs: if cols == 0 { 0 } else { last_pairs } })
    }

    /// Number of symbols.
    pub fn symbols(&self) -> usize {
        (self.bands * self.pairs + self.last_pairs) * self.cols
    }

    /// The steps, in order.
    pub(crate) fn turns(self) -> Turns {
        Turns { bands: self, height: 0, cols: 0, steps: 0 }
    }
}

/// Two steps of a block, or its last one: what lies between two refills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Lanes that code a symbol in each step: those from 0 on.
    pub(crate) width: usize,
    /// It is two steps.
    pub(crate) two: bool,
}

impl Turn {
    /// Symbols of the turn.
    pub(crate) fn symbols(self) -> usize {
        self.width << u32::from(self.two)
    }
}

/// What is left of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    /// The bands after this one.
    bands: Blocks,
    /// Steps of a block of this band.
    height: usize,
    /// Columns that are left of this band, those of this block among them.
    cols: usize,
    /// Steps that are left of this block.
    steps: usize,
}

impl Iterator for Turns {
    type Item = Turn;

    #[inline]
    fn next(&mut self) -> Option<Turn> {
        if self.steps == 0 {
            self.cols -= self.cols.min(LANES);
            if self.cols == 0 {
                self.next_band()?;
            }
            self.steps = self.height;
        }
        let two = self.steps > 1;
        self.steps -= 1 + usize::from(two);
        Some(Turn { width: self.cols.min(LANES), two })
    }
}

impl Turns {
    fn next_band(&mut self) -> Option<()> {
        let Blocks { cols, bands, pairs, last_pairs } = &mut self.bands;
        self.height = if *bands > 0 {
            *bands -= 1;
            *pairs
        } else {
            core::mem::take(last_pairs)
        };
        // after the last band there are no columns, however often one asks
        self.cols = if self.height > 0 { *cols } else { 0 };
        (self.height > 0).then_some(())
    }
}

//! Lanes of the prefix code.

use super::streams::{Lanes, Stream, look};
use super::{Buffers, Error, LANES, Result, get};

/// Most bits of a code, which slots are numbered by.
const MOST_BITS: u32 = 12;

/// A lane sees 64 bits of its string.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// The window; earlier bits are lower.
    window: u64,
    /// Bits of codes that were taken from it, below 32 between steps. A string begins with two zeros that are not counted:
    /// they make what a kernel masks out of the window the byte offset of a word.
    used: u32,
}

/// The lanes of a stream of the prefix code.
pub struct PrefixLanes<'a> {
    lanes: [Lane; LANES],
    codes: &'a [u32],
    words: &'a [u32],
    /// The next word.
    at: u64,
}

impl<'a> PrefixLanes<'a> {
    /// A stream begins with the first word of each lane, then the second of each.
    pub(super) fn start(b: &Buffers<'a>, stream: &Stream) -> Result<Self> {
        let (words, codes) = (b.words, b.codes);
        let mut lanes = [Lane::default(); LANES];
        for (i, lane) in lanes.iter_mut().enumerate() {
            let low = get("words", words, stream.words + i as u64)?;
            let high = get("words", words, stream.words + (LANES + i) as u64)?;
            lane.window = u64::from(high) << 32 | u64::from(low);
        }
        Ok(Self { lanes, codes, words, at: stream.words + 2 * LANES as u64 })
    }

    /// Gives a word to each lane that asks for one, in the order of lanes.
    fn refill(&mut self) -> Result<()> {
        for lane in self.lanes.iter_mut().filter(|lane| lane.used >= 32) {
            let fresh = get("words", self.words, self.at)?;
            lane.window = lane.window >> 32 | u64::from(fresh) << 32;
            lane.used -= 32;
            self.at += 1;
        }
        Ok(())
    }
}

impl Lanes for PrefixLanes<'_> {
    /// All lanes take two symbols (or the one that is left), before those that have used up the lower half of their window
    /// get a word: two codes fit what a lane then has at least, and one ballot serves both.
    fn block(&mut self, columns: usize, pairs: usize) -> Result<[[u8; 4]; LANES]> {
        let mut symbols = [[0; 4]; LANES];
        for pair in (0..pairs).step_by(2) {
            for (lane, symbols) in self.lanes.iter_mut().zip(&mut symbols).take(columns) {
                for symbol in &mut symbols[pair..pairs.min(pair + 2)] {
                    *symbol = lane.symbol(self.codes)?;
                }
            }
            self.refill()?;
        }
        Ok(symbols)
    }
}

impl Lane {
    /// Takes a symbol: the next 12 bits are the slot of the table that says which it is and how long its code.
    fn symbol(&mut self, codes: &[u32]) -> Result<u8> {
        let slot = (self.window >> (2 + self.used)) as u32 & ((1 << MOST_BITS) - 1);
        let (symbol, length) = look(codes, slot)?;
        if length > MOST_BITS {
            return Err(Error::Code { symbol, slot, expected: "a length of at most 12 bits", got: length });
        }
        self.used += length;
        Ok(symbol)
    }
}

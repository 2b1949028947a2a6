//! Lanes of the rANS code.

use super::streams::{Lanes, Stream, look};
use super::{Buffers, Error, LANES, Result, get};

/// States are at least this between steps, but for the last ones.
const LEAST: u32 = 1 << 16;
/// Bits of a slot.
const SLOT_BITS: u32 = 12;

/// A lane.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    state: u32,
    /// Symbols that are still to come; the last two are verbatim.
    left: u32,
}

/// The lanes of a stream of the rANS code.
pub struct RansLanes<'a> {
    lanes: [Lane; LANES],
    codes: &'a [u32],
    words: &'a [u32],
    /// The next 16 bits, counted in such.
    at: u64,
}

impl<'a> RansLanes<'a> {
    /// A stream begins with the state of each lane; 16-bit words follow.
    pub(super) fn start(b: &Buffers<'a>, stream: &Stream) -> Result<Self> {
        let mut lanes = [Lane::default(); LANES];
        // in a band of n rows a lane has (n + 1) / 2 symbols for each of its columns
        let rows = stream.end_row - stream.row;
        let symbols = rows / 8 * 4 + (rows % 8).div_ceil(2);
        let width = stream.end_col - stream.col;
        for (i, lane) in lanes.iter_mut().enumerate() {
            lane.state = get("words", b.words, stream.words + i as u64)?;
            let columns = (u64::from(width) + (LANES - 1 - i) as u64) / LANES as u64;
            lane.left = (columns * u64::from(symbols)) as u32;
        }
        Ok(Self { lanes, codes: b.codes, words: b.words, at: 2 * (stream.words + LANES as u64) })
    }

    /// Gives 16 bits to each lane that asks for them, in the order of lanes; of a word the lower half comes first.
    fn refill(&mut self) -> Result<()> {
        for lane in self.lanes.iter_mut().filter(|lane| lane.state < LEAST) {
            let fresh = get("words", self.words, self.at / 2)? >> (self.at % 2 * 16) & 0xffff;
            lane.state = lane.state << 16 | fresh;
            self.at += 1;
        }
        Ok(())
    }
}

impl Lanes for RansLanes<'_> {
    /// All lanes take a symbol, before those whose states have become too small get 16 bits.
    fn block(&mut self, columns: usize, pairs: usize) -> Result<[[u8; 4]; LANES]> {
        let mut symbols = [[0; 4]; LANES];
        for pair in 0..pairs {
            for (lane, symbols) in self.lanes.iter_mut().zip(&mut symbols).take(columns) {
                symbols[pair] = lane.symbol(self.codes)?;
            }
            self.refill()?;
        }
        Ok(symbols)
    }
}

impl Lane {
    /// Takes a symbol.
    fn symbol(&mut self, codes: &[u32]) -> Result<u8> {
        let verbatim = self.left <= 2;
        self.left = self.left.saturating_sub(1);
        if verbatim {
            // the earlier of the last two is in the low byte; taken, it leaves its place to the other one, and a state that
            // asks for nothing
            let symbol = self.state as u8;
            self.state = self.state >> 8 | 1 << 31;
            return Ok(symbol);
        }
        let slot = self.state & ((1 << SLOT_BITS) - 1);
        let (symbol, about) = look(codes, slot)?;
        let (first, frequency) = (about >> 16, about & 0xffff);
        match slot.checked_sub(first) {
            Some(rank) if rank < frequency && frequency < 1 << SLOT_BITS => {
                self.state = frequency * (self.state >> SLOT_BITS) + rank;
                Ok(symbol)
            }
            _ => Err(Error::Code { symbol, slot, expected: "a first slot and a frequency", got: about }),
        }
    }
}

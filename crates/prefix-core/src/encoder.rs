//! Symbols to a stream.

use crate::{Blocks, EncodeTable, Error, LANES, LEAD};

/// Bytes that a stream can need at most: 12 bits a symbol, and what lanes take before they use it.
pub fn max_len(blocks: &Blocks) -> usize {
    let symbols = blocks.symbols();
    // 12 bits a symbol are 3 words for 8; the lead is less than one word of any lane, and two words more are taken
    if symbols == 0 { 0 } else { (symbols.div_ceil(8) * 3).saturating_add(3 * LANES).saturating_mul(4) }
}

/// A lane of the decoder, as the encoder foresees it: where its words are, and not yet what they hold.
#[derive(Clone, Copy)]
struct Lane {
    /// Place of the word `lo` in the stream, in words.
    lo: usize,
    /// Place of the word `hi`.
    hi: usize,
    /// Bits of `lo` and `hi` that are used.
    used: u32,
    /// Those bits.
    bits: u64,
}

/// Codes `symbols` into the start of `out` and returns the length in bytes; [`max_len`] bytes are always enough.
///
/// The symbols are those of the blocks in order, each block row by row. On an error the contents of `out` are
/// unspecified. Errors: [`Error::Layout`], [`Error::SymbolWithoutCode`], [`Error::BufferTooSmall`].
pub fn encode(table: &EncodeTable, blocks: &Blocks, symbols: &[u8], out: &mut [u8]) -> Result<usize, Error> {
    if symbols.len() != blocks.symbols() {
        return Err(Error::Layout { holds: blocks.symbols(), given: symbols.len() });
    }
    let small = Error::BufferTooSmall { needed: max_len(blocks), given: out.len() };
    let (words, _) = out.as_chunks_mut();
    let start = |lane| Lane { lo: lane, hi: LANES + lane, used: LEAD, bits: 0 };
    let mut lanes: [Lane; LANES] = core::array::from_fn(start);
    let mut next = 2 * LANES;
    let mut done = 0;
    for turn in blocks.turns() {
        let turn_symbols = &symbols[done..done + turn.symbols()];
        for (i, &symbol) in turn_symbols.iter().enumerate() {
            let lane = &mut lanes[i % turn.width];
            let position = done + i;
            let (code, bits) = table.get(symbol).ok_or(Error::SymbolWithoutCode { position, symbol })?;
            lane.bits |= code << lane.used;
            lane.used += bits;
        }
        for lane in lanes[..turn.width].iter_mut().filter(|lane| lane.used >= 32) {
            *words.get_mut(lane.lo).ok_or(small)? = (lane.bits as u32).to_le_bytes();
            *lane = Lane { lo: lane.hi, hi: next, used: lane.used - 32, bits: lane.bits >> 32 };
            next += 1;
        }
        done += turn.symbols();
    }
    finish(&lanes, next, words).ok_or(small)
}

/// Writes the words that lanes hold at the end; returns the length in bytes, or `None` if there is no room.
fn finish(lanes: &[Lane; LANES], taken: usize, words: &mut [[u8; 4]]) -> Option<usize> {
    // Words that hold nothing are the last two of lanes. So a word that does hold something is among the last 65.
    let holds_nothing = |place: usize| {
        lanes.iter().any(|lane| {
            let empty = lane.used == if place < LANES { LEAD } else { 0 };
            place == lane.hi || (place == lane.lo && empty)
        })
    };
    let len = (0..taken).rev().find(|&place| !holds_nothing(place)).map_or(0, |place| place + 1);
    let words = words.get_mut(..len)?;
    for lane in lanes {
        for (place, bits) in [(lane.lo, lane.bits as u32), (lane.hi, 0)] {
            if let Some(word) = words.get_mut(place) {
                *word = bits.to_le_bytes();
            }
        }
    }
    Some(4 * len)
}

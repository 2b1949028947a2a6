//! Symbols to a stream.

use super::{EncodeTable, GROUP, LOW, MAX_LANES, Strips, check_count, max_len};
use crate::Error;

/// Codes `symbols` into the start of `out` and returns the length in bytes.
///
/// A plane with a single symbol has an empty stream. `out` of [`max_len`] bytes is always enough.
/// Errors: [`Error::Layout`], [`Error::SymbolWithoutFrequency`], [`Error::BufferTooSmall`].
pub fn encode(table: &EncodeTable, strips: &Strips, symbols: &[u8], out: &mut [u8]) -> Result<usize, Error> {
    check_count(strips, symbols.len())?;
    let known = |s: u8| table.freq.get(usize::from(s)).is_some_and(|&f| f > 0);
    if let Some(position) = symbols.iter().position(|&s| !known(s)) {
        return Err(Error::SymbolWithoutFrequency { position, symbol: symbols[position] });
    }
    if table.single.is_some() || symbols.is_empty() {
        return Ok(0);
    }
    let (given, head) = (out.len(), 2 * strips.lanes);
    let full = Error::BufferTooSmall { needed: max_len(strips), given };
    if given < head {
        return Err(full);
    }
    let mut state = [LOW as u16; MAX_LANES];
    let mut at = given; // refill bytes grow downwards from the end
    for step in (0..strips.steps()).rev() {
        for group in (0..strips.lanes / GROUP).rev() {
            let (positions, end) = strips.at(step, group);
            for (lane, position) in (group * GROUP..(group + 1) * GROUP).zip(positions).rev() {
                let symbol = symbols[position];
                if let Some(place) = strips.verbatim(lane, end - position) {
                    state[lane] |= u16::from(symbol) << (4 * place);
                    continue;
                }
                let s = usize::from(symbol);
                let (f, mut x) = (u32::from(table.freq[s]), u32::from(state[lane]));
                if x >= f << 8 {
                    if at == head {
                        return Err(full);
                    }
                    at -= 1;
                    out[at] = x as u8;
                    x >>= 8;
                }
                let slot = table.slot[usize::from(table.first[s] + (x % f) as u16)];
                state[lane] = ((x / f) << 8) as u16 | u16::from(slot);
            }
        }
    }
    for (bytes, x) in out.chunks_exact_mut(2).zip(&state[..strips.lanes]) {
        bytes.copy_from_slice(&x.to_le_bytes());
    }
    out.copy_within(at.., head);
    Ok(head + given - at)
}

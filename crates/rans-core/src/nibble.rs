//! The `nibble` codec: up to 16 symbols, 8-bit probabilities with spread slots, `u16` states, byte refill.
//!
//! # Layout
//! A stream is `lanes` start states (`u16`, little-endian) and then refill bytes. Lanes come in groups of 64; each
//! group codes one *strip*, a contiguous piece of the symbols, 64 at a time. Step k codes symbols 64k..64k+64 of
//! every strip, strips ascending, lanes ascending inside a strip; a lane whose symbol would lie beyond its strip
//! does nothing. So a decoder with 64-byte vectors writes whole vectors in place, and rows of a matrix that lie one
//! in each strip come out side by side.
//!
//! # Coding
//! Slot k of 256 belongs to a symbol by sorting (rank + 1/2) / frequency over all ranks of all symbols. Decoding a
//! symbol: `slot = x & 255`, `x = freq * (x >> 8) + rank`, and if `x < 256` then `x = x << 8 | next byte`. One byte is
//! always enough, because `freq * (x >> 8) >= 1`.
//!
//! The last two symbols of a lane are not coded but stand in its end state, `0x100 | a | b << 4`: the constant 1
//! that remains is the check that a stream ended where its encoder began.

use core::ops::Range;

use crate::Error;

/// Lanes in a group, which work on one strip.
pub const GROUP: usize = 64;
/// The largest lane count: the decoder keeps one `u16` a lane on the stack.
pub const MAX_LANES: usize = 1024;
/// Symbols that a lane's end state carries.
const VERBATIM: usize = 2;
const LOW: u32 = 1 << 8;

/// Frequencies of 16 symbols that sum to 256.
pub type Frequencies = crate::Frequencies<16, 256>;

/// Which lane codes which symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strips {
    lanes: usize,
    strip: usize,
    symbols: usize,
}

impl Strips {
    /// `symbols` symbols in strips of `strip`, one strip for each 64 lanes; the last strips may be short or empty.
    ///
    /// Errors: [`Error::LaneCount`]; [`Error::Layout`] if the strips do not hold all symbols.
    pub fn new(lanes: usize, strip: usize, symbols: usize) -> Result<Self, Error> {
        if lanes == 0 || lanes > MAX_LANES || !lanes.is_multiple_of(GROUP) {
            return Err(Error::LaneCount { lanes });
        }
        let holds = strip.saturating_mul(lanes / GROUP);
        if holds < symbols {
            return Err(Error::Layout { holds, given: symbols });
        }
        Ok(Self { lanes, strip, symbols })
    }

    /// Symbols in equally long strips. Error: [`Error::LaneCount`].
    pub fn flat(lanes: usize, symbols: usize) -> Result<Self, Error> {
        Self::new(lanes, symbols.div_ceil((lanes / GROUP).max(1)), symbols)
    }

    /// Number of lanes.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Number of symbols.
    pub fn symbols(&self) -> usize {
        self.symbols
    }

    /// Symbols in a full strip.
    pub fn strip(&self) -> usize {
        self.strip
    }

    /// Steps that the longest strip takes.
    pub fn steps(&self) -> usize {
        self.strip.min(self.symbols).div_ceil(GROUP)
    }

    /// Where the symbols of this strip lie in the sequence.
    fn span(&self, strip: usize) -> (usize, usize) {
        let start = strip.saturating_mul(self.strip).min(self.symbols);
        (start, start.saturating_add(self.strip).min(self.symbols))
    }

    /// The symbols that a group of lanes codes in a step, and where the group's strip ends.
    fn at(&self, step: usize, group: usize) -> (Range<usize>, usize) {
        let (start, end) = self.span(group);
        let start = start.saturating_add(step * GROUP).min(end);
        (start..end.min(start + GROUP), end)
    }

    /// Which verbatim place a symbol takes that lies `left` symbols before the end of its strip; `None` if coded.
    fn verbatim(&self, lane: usize, left: usize) -> Option<usize> {
        let left = left.div_ceil(GROUP); // symbols of this lane, this one included
        if left > VERBATIM { None } else { Some(VERBATIM.min(self.count(lane)) - left) }
    }

    /// Symbols that a lane codes in total.
    fn count(&self, lane: usize) -> usize {
        let (start, end) = self.span(lane / GROUP);
        (end - start).saturating_sub(lane % GROUP).div_ceil(GROUP)
    }
}

/// Bytes that [`encode`] can need at most: all states, and one byte a symbol.
pub fn max_len(strips: &Strips) -> usize {
    strips.symbols.saturating_add(2 * strips.lanes)
}

/// Calls `each(slot, symbol, rank)` for the 256 slots in order.
fn spread(freqs: &Frequencies, mut each: impl FnMut(usize, usize, u16)) {
    let freq = freqs.as_array();
    let mut rank = [0u16; 16];
    for slot in 0..256 {
        // the smallest (rank + 1/2) / freq, ties to the smaller symbol
        let mut best = usize::MAX;
        for s in 0..16 {
            let key = |s: usize| u32::from(2 * rank[s] + 1);
            if rank[s] < freq[s]
                && (best == usize::MAX || key(s) * u32::from(freq[best]) < key(best) * u32::from(freq[s]))
            {
                best = s;
            }
        }
        each(slot, best, rank[best]);
        rank[best] += 1;
    }
}

/// What the encoder looks up: the slot of each rank of each symbol.
#[derive(Clone, Debug)]
pub struct EncodeTable {
    freq: [u16; 16],
    first: [u16; 16],
    slot: [u8; 256],
    single: Option<u8>,
}

impl EncodeTable {
    /// The table of these frequencies.
    pub fn new(freqs: &Frequencies) -> Self {
        let freq = *freqs.as_array();
        let mut first = [0; 16];
        for s in 1..16 {
            first[s] = first[s - 1] + freq[s - 1];
        }
        let mut slot = [0; 256];
        spread(freqs, |k, s, rank| slot[usize::from(first[s] + rank)] = k as u8);
        Self { freq, first, slot, single: freqs.single() }
    }
}

/// What the decoder looks up: symbol and rank of each slot, and the frequencies.
#[derive(Clone, Debug)]
pub struct DecodeTable {
    symbol: [u8; 256],
    rank: [u8; 256],
    freq: [u16; 16],
    single: Option<u8>,
}

impl DecodeTable {
    /// The table of these frequencies.
    pub fn new(freqs: &Frequencies) -> Self {
        let (mut symbol, mut rank) = ([0; 256], [0; 256]);
        spread(freqs, |k, s, r| (symbol[k], rank[k]) = (s as u8, r as u8));
        Self { symbol, rank, freq: *freqs.as_array(), single: freqs.single() }
    }
}

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

/// Decodes a stream into `out`. This is the reference that every fast path must equal.
///
/// Errors: [`Error::Layout`], [`Error::Truncated`], [`Error::StateBelowBound`], [`Error::EndState`],
/// [`Error::TrailingBytes`]. On an error the contents of `out` are unspecified.
pub fn decode(table: &DecodeTable, strips: &Strips, bytes: &[u8], out: &mut [u8]) -> Result<(), Error> {
    check_count(strips, out.len())?;
    if table.single.is_some() || out.is_empty() {
        out.fill(table.single.unwrap_or(0));
        return if bytes.is_empty() { Ok(()) } else { Err(Error::TrailingBytes { left: bytes.len() }) };
    }
    let head = 2 * strips.lanes;
    let states = bytes.get(..head).ok_or(Error::Truncated { at: bytes.len() })?;
    let mut state = [0u16; MAX_LANES];
    for (lane, pair) in states.chunks_exact(2).enumerate() {
        state[lane] = u16::from_le_bytes([pair[0], pair[1]]);
        if u32::from(state[lane]) < LOW {
            return Err(Error::StateBelowBound { lane });
        }
    }
    let mut at = head;
    for step in 0..strips.steps() {
        for group in 0..strips.lanes / GROUP {
            let (positions, end) = strips.at(step, group);
            for (lane, position) in (group * GROUP..(group + 1) * GROUP).zip(positions) {
                let x = u32::from(state[lane]);
                if let Some(place) = strips.verbatim(lane, end - position) {
                    out[position] = (x >> (4 * place)) as u8 & 15;
                    continue;
                }
                let slot = (x & 0xff) as usize;
                let symbol = table.symbol[slot];
                out[position] = symbol;
                let mut x =
                    u32::from(table.freq[usize::from(symbol)]) * (x >> 8) + u32::from(table.rank[slot]);
                if x < LOW {
                    let &byte = bytes.get(at).ok_or(Error::Truncated { at })?;
                    at += 1;
                    x = x << 8 | u32::from(byte);
                }
                state[lane] = x as u16;
            }
        }
    }
    for (lane, &x) in state[..strips.lanes].iter().enumerate() {
        if u32::from(x) >> (4 * VERBATIM.min(strips.count(lane)))
            != LOW >> (4 * VERBATIM.min(strips.count(lane)))
        {
            return Err(Error::EndState { lane });
        }
    }
    if at < bytes.len() { Err(Error::TrailingBytes { left: bytes.len() - at }) } else { Ok(()) }
}

fn check_count(strips: &Strips, given: usize) -> Result<(), Error> {
    if given == strips.symbols { Ok(()) } else { Err(Error::Layout { holds: strips.symbols, given }) }
}

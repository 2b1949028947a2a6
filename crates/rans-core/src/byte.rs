//! The `byte` codec: up to 256 symbols, 12-bit probabilities, `u32` states, `u16` words, 32 lanes.
//!
//! # Layout
//! A stream is 32 start states (`u32`, little-endian) and then refill words (`u16`, little-endian). A stream is a
//! sequence of *runs*; symbol i of a run belongs to lane i mod 32, and the states go on from run to run. Within a
//! step, lanes refill in ascending order.
//!
//! # Coding
//! A symbol owns the slots from the sum of the frequencies before it. Decoding: `slot = x & 4095`,
//! `x = freq * (x >> 12) + rank`, and if `x < 2^16` then `x = x << 16 | next word`; one word is always enough.
//!
//! A lane ends in `2^16 | payload`, where the 16 bits of payload are the caller's. [`encode`] and [`decode`] put
//! each lane's last two symbols there, the earlier one in the low byte; a lane with fewer leaves zeros.

use crate::Error;

/// Lanes that share a stream.
pub const LANES: usize = 32;
const STATES: usize = 4 * LANES;
const LOW: u32 = 1 << 16;
const VERBATIM: usize = 2;

/// Frequencies of 256 symbols that sum to 4,096.
pub type Frequencies = crate::Frequencies<256, 4096>;

/// What the encoder looks up: frequency and first slot of each symbol.
#[derive(Clone, Debug)]
pub struct EncodeTable {
    freq: [u16; 256],
    first: [u16; 256],
}

impl EncodeTable {
    /// The table of these frequencies.
    pub fn new(freqs: &Frequencies) -> Self {
        let freq = *freqs.as_array();
        let mut first = [0; 256];
        for s in 1..256 {
            first[s] = first[s - 1] + freq[s - 1];
        }
        Self { freq, first }
    }
}

/// What the decoder looks up, 16 KiB: an entry a slot, `symbol << 24 | (freq - 1) << 12 | rank`.
#[derive(Clone, Debug)]
pub struct DecodeTable([u32; 4096]);

impl DecodeTable {
    /// A table to be filled by [`Self::rebuild`]: for a `static`, where 16 KiB are too much for the stack.
    pub const EMPTY: Self = Self([0; 4096]);

    /// The table of these frequencies.
    pub fn new(freqs: &Frequencies) -> Self {
        let mut table = Self::EMPTY;
        table.rebuild(freqs);
        table
    }

    /// Fills the table for these frequencies.
    pub fn rebuild(&mut self, freqs: &Frequencies) {
        let mut slots = self.0.iter_mut();
        for (s, &f) in freqs.as_array().iter().enumerate() {
            for (rank, slot) in (0..u32::from(f)).zip(&mut slots) {
                *slot = (s as u32) << 24 | (u32::from(f) - 1) << 12 | rank;
            }
        }
    }
}

/// Bytes that a stream of `symbols` symbols can need at most: all states, and one word a symbol.
pub fn max_len(symbols: usize) -> usize {
    symbols.saturating_mul(2).saturating_add(STATES)
}

/// Codes runs into a caller's buffer, backwards: the last run first.
#[derive(Debug)]
pub struct Encoder<'a> {
    state: [u32; LANES],
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Encoder<'a> {
    /// Starts a stream whose lanes end with `payload`. Error: [`Error::BufferTooSmall`].
    pub fn new(payload: [u16; LANES], out: &'a mut [u8]) -> Result<Self, Error> {
        let at = out.len();
        if at < STATES {
            return Err(Error::BufferTooSmall { needed: STATES, given: at });
        }
        Ok(Self { state: payload.map(|p| LOW | u32::from(p)), out, at })
    }

    /// Codes a run with one table. Errors: [`Error::SymbolWithoutFrequency`], [`Error::BufferTooSmall`].
    pub fn run(&mut self, table: &EncodeTable, symbols: &[u8]) -> Result<(), Error> {
        (0..symbols.len()).rev().try_for_each(|i| self.push(i, table, symbols[i]))
    }

    /// Codes a run in which symbol i uses `tables[contexts[i]]`. `contexts` must be as long as `symbols`.
    ///
    /// Errors: as [`Self::run`]; [`Error::NoSuchTable`], [`Error::Layout`].
    pub fn run_with_contexts(
        &mut self,
        tables: &[EncodeTable],
        contexts: &[u8],
        symbols: &[u8],
    ) -> Result<(), Error> {
        same_length(contexts, symbols)?;
        (0..symbols.len()).rev().try_for_each(|i| {
            let table = usize::from(contexts[i]);
            self.push(i, tables.get(table).ok_or(Error::NoSuchTable { table })?, symbols[i])
        })
    }

    fn push(&mut self, position: usize, table: &EncodeTable, symbol: u8) -> Result<(), Error> {
        let f = u32::from(table.freq[usize::from(symbol)]);
        if f == 0 {
            return Err(Error::SymbolWithoutFrequency { position, symbol });
        }
        let x = &mut self.state[position % LANES];
        if u64::from(*x) >= u64::from(f) << 20 {
            if self.at < STATES + 2 {
                return Err(Error::BufferTooSmall { needed: self.out.len() + 2, given: self.out.len() });
            }
            self.at -= 2;
            self.out[self.at..self.at + 2].copy_from_slice(&(*x as u16).to_le_bytes());
            *x >>= 16;
        }
        *x = ((*x / f) << 12) + *x % f + u32::from(table.first[usize::from(symbol)]);
        Ok(())
    }

    /// Moves the stream to the start of the buffer and returns its length in bytes.
    pub fn finish(self) -> usize {
        for (bytes, x) in self.out.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&x.to_le_bytes());
        }
        self.out.copy_within(self.at.., STATES);
        STATES + self.out.len() - self.at
    }
}

/// Decodes runs, first to last.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    state: [u32; LANES],
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    /// Reads the start states. Errors: [`Error::Truncated`], [`Error::StateBelowBound`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let head = bytes.get(..STATES).ok_or(Error::Truncated { at: bytes.len() })?;
        let mut state = [0; LANES];
        for (lane, b) in head.chunks_exact(4).enumerate() {
            state[lane] = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            if state[lane] < LOW {
                return Err(Error::StateBelowBound { lane });
            }
        }
        Ok(Self { state, bytes, at: STATES })
    }

    /// Decodes a run of `out.len()` symbols with one table. Error: [`Error::Truncated`].
    pub fn run(&mut self, table: &DecodeTable, out: &mut [u8]) -> Result<(), Error> {
        for (i, symbol) in out.iter_mut().enumerate() {
            *symbol = self.pull(i % LANES, table)?;
        }
        Ok(())
    }

    /// Decodes a run in which symbol i uses `tables[contexts[i]]`. `contexts` must be as long as `out`.
    ///
    /// Errors: [`Error::Truncated`], [`Error::NoSuchTable`], [`Error::Layout`].
    pub fn run_with_contexts(
        &mut self,
        tables: &[DecodeTable],
        contexts: &[u8],
        out: &mut [u8],
    ) -> Result<(), Error> {
        same_length(contexts, out)?;
        for (i, symbol) in out.iter_mut().enumerate() {
            let table = usize::from(contexts[i]);
            *symbol = self.pull(i % LANES, tables.get(table).ok_or(Error::NoSuchTable { table })?)?;
        }
        Ok(())
    }

    fn pull(&mut self, lane: usize, table: &DecodeTable) -> Result<u8, Error> {
        let entry = table.0[(self.state[lane] & 0xfff) as usize];
        let freq = ((entry >> 12) & 0xfff) + 1;
        let mut x = freq * (self.state[lane] >> 12) + (entry & 0xfff);
        if x < LOW {
            let word = self.bytes.get(self.at..self.at + 2).ok_or(Error::Truncated { at: self.at })?;
            self.at += 2;
            x = x << 16 | u32::from(u16::from_le_bytes([word[0], word[1]]));
        }
        self.state[lane] = x;
        Ok((entry >> 24) as u8)
    }

    /// Checks that every lane ends in a start state and no byte is left; returns the payloads.
    ///
    /// Errors: [`Error::EndState`], [`Error::TrailingBytes`].
    pub fn finish(self) -> Result<[u16; LANES], Error> {
        match self.finish_prefix()? {
            (payload, []) => Ok(payload),
            (_, rest) => Err(Error::TrailingBytes { left: rest.len() }),
        }
    }

    /// Checks that every lane ends in a start state; returns the payloads and the bytes after the stream.
    ///
    /// Error: [`Error::EndState`].
    pub fn finish_prefix(self) -> Result<([u16; LANES], &'a [u8]), Error> {
        match self.state.iter().position(|x| x >> 16 != 1) {
            Some(lane) => Err(Error::EndState { lane }),
            None => Ok((self.state.map(|x| x as u16), &self.bytes[self.at..])),
        }
    }
}

/// The shape of a one-table stream: `full` steps of 32 symbols, then `narrow` steps of `width` < 32 symbols.
///
/// A plain sequence ends in one narrow step ([`Steps::flat`]). A tile whose columns lie on lanes has as many narrow
/// steps as it has rows where the column count is no multiple of 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    full: usize,
    narrow: usize,
    width: usize,
}

impl Steps {
    /// Error: [`Error::Layout`] if `width` is 32 or more, or the symbols are too many to count.
    pub fn new(full: usize, narrow: usize, width: usize) -> Result<Self, Error> {
        let total = narrow.checked_mul(width).and_then(|n| full.checked_mul(LANES)?.checked_add(n));
        if width >= LANES || total.is_none() {
            return Err(Error::Layout { holds: LANES, given: width });
        }
        Ok(Self { full, narrow: if width == 0 { 0 } else { narrow }, width })
    }

    /// The shape of a plain sequence.
    pub fn flat(symbols: usize) -> Self {
        let width = symbols % LANES;
        Self { full: symbols / LANES, narrow: usize::from(width > 0), width }
    }

    /// Number of symbols.
    pub fn symbols(&self) -> usize {
        self.full * LANES + self.narrow * self.width
    }

    /// Symbols of a lane.
    fn count(&self, lane: usize) -> usize {
        self.full + if lane < self.width { self.narrow } else { 0 }
    }

    /// (lane, step) of every symbol, in order; reversible.
    fn places(self) -> impl DoubleEndedIterator<Item = (usize, usize)> {
        let wide = (0..self.full).flat_map(|step| (0..LANES).map(move |lane| (lane, step)));
        let narrow = (self.full..self.full + self.narrow)
            .flat_map(move |step| (0..self.width).map(move |lane| (lane, step)));
        wide.chain(narrow)
    }
}

/// Codes `symbols` into the start of `out` and returns the length in bytes; [`max_len`] bytes are always enough.
///
/// Errors: [`Error::Layout`], [`Error::SymbolWithoutFrequency`], [`Error::BufferTooSmall`].
pub fn encode(table: &EncodeTable, steps: &Steps, symbols: &[u8], out: &mut [u8]) -> Result<usize, Error> {
    if symbols.len() != steps.symbols() {
        return Err(Error::Layout { holds: steps.symbols(), given: symbols.len() });
    }
    let mut encoder = Encoder::new([0; LANES], out)?;
    for ((lane, step), (position, &symbol)) in steps.places().rev().zip(symbols.iter().enumerate().rev()) {
        let count = steps.count(lane);
        if step + VERBATIM >= count {
            encoder.state[lane] |= u32::from(symbol) << (8 * (step - count.saturating_sub(VERBATIM)));
        } else {
            encoder.push(lane, table, symbol).map_err(|e| match e {
                Error::SymbolWithoutFrequency { symbol, .. } => {
                    Error::SymbolWithoutFrequency { position, symbol }
                }
                other => other,
            })?;
        }
    }
    Ok(encoder.finish())
}

/// Decodes a stream into `out`. This is the reference that every fast path must equal.
///
/// Errors: [`Error::Layout`], [`Error::Truncated`], [`Error::StateBelowBound`], [`Error::EndState`],
/// [`Error::TrailingBytes`]. On an error the contents of `out` are unspecified.
pub fn decode(table: &DecodeTable, steps: &Steps, bytes: &[u8], out: &mut [u8]) -> Result<(), Error> {
    if out.len() != steps.symbols() {
        return Err(Error::Layout { holds: steps.symbols(), given: out.len() });
    }
    let mut decoder = Decoder::new(bytes)?;
    for ((lane, step), symbol) in steps.places().zip(out) {
        let coded = steps.count(lane).saturating_sub(VERBATIM);
        *symbol = match step.checked_sub(coded) {
            Some(place) => (decoder.state[lane] >> (8 * place)) as u8,
            None => decoder.pull(lane, table)?,
        };
    }
    let payload = decoder.finish()?;
    match (0..LANES).find(|&lane| u32::from(payload[lane]) >> (8 * VERBATIM.min(steps.count(lane))) != 0) {
        Some(lane) => Err(Error::EndState { lane }),
        None => Ok(()),
    }
}

fn same_length(contexts: &[u8], symbols: &[u8]) -> Result<(), Error> {
    if contexts.len() == symbols.len() {
        return Ok(());
    }
    Err(Error::Layout { holds: contexts.len(), given: symbols.len() })
}

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
//!
//! # Speed
//! A stream has only 32 lanes, two vectors of AVX-512, each step of which waits for the one before. [`decode_many`]
//! decodes several streams side by side, which is up to twice as fast. There are fast paths for AVX2 and AVX-512; NEON
//! has no gather, and takes the scalar path.

use crate::Error;

mod decoder;

#[cfg(target_arch = "x86_64")]
pub(crate) use decoder::{Cursor, Run};
pub use decoder::{Decoder, Job, decode, decode_many, decode_with};

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
pub struct DecodeTable(pub(crate) [u32; 4096]);

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

/// The shape of a one-table stream: bands of `full` steps of 32 symbols, then `narrow` steps of `width` < 32 symbols.
///
/// A plain sequence is one band that ends in one narrow step ([`Steps::flat`]). A tile whose columns lie on lanes has as
/// many narrow steps in a band as it has rows there, where the column count is no multiple of 32 ([`Steps::banded`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// Bands of equal shape, before the last one.
    bands: usize,
    band: Band,
    last: Band,
    width: usize,
}

/// Steps of a band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Band {
    full: usize,
    narrow: usize,
}

impl Band {
    const NONE: Self = Self { full: 0, narrow: 0 };

    fn symbols(self, width: usize) -> Option<usize> {
        self.full.checked_mul(LANES)?.checked_add(self.narrow.checked_mul(width)?)
    }

    fn steps(self) -> usize {
        self.full + self.narrow
    }
}

impl Steps {
    /// One band. Error: [`Error::Layout`] if `width` is 32 or more, or the symbols are too many to count.
    pub fn new(full: usize, narrow: usize, width: usize) -> Result<Self, Error> {
        Self::of(0, Band::NONE, Band { full, narrow: if width == 0 { 0 } else { narrow } }, width)
    }

    /// A tile of `cols` columns: `bands` bands with `pairs` symbols a column, then one with `last_pairs`. In each band all
    /// symbols of a block of 32 columns are coded, row by row, then those of the next block.
    ///
    /// Error: [`Error::Layout`] if the symbols are too many to count.
    pub fn banded(cols: usize, bands: usize, pairs: usize, last_pairs: usize) -> Result<Self, Error> {
        let (blocks, width) = (cols / LANES, cols % LANES);
        let band = |pairs: usize| {
            let full = blocks.checked_mul(pairs).ok_or(Error::Layout { holds: usize::MAX, given: cols })?;
            Ok(Band { full, narrow: if width == 0 { 0 } else { pairs } })
        };
        Self::of(bands, band(pairs)?, band(last_pairs)?, width)
    }

    fn of(bands: usize, band: Band, last: Band, width: usize) -> Result<Self, Error> {
        let count = |band: Band| band.symbols(width);
        let total = count(band).and_then(|n| n.checked_mul(bands)?.checked_add(count(last)?));
        if width >= LANES || total.is_none() {
            return Err(Error::Layout { holds: LANES, given: width });
        }
        Ok(Self { bands, band, last, width })
    }

    /// The shape of a plain sequence.
    pub fn flat(symbols: usize) -> Self {
        let width = symbols % LANES;
        let last = Band { full: symbols / LANES, narrow: usize::from(width > 0) };
        Self { bands: 0, band: Band::NONE, last, width }
    }

    /// Number of symbols.
    pub fn symbols(&self) -> usize {
        self.full() * LANES + (self.bands * self.band.narrow + self.last.narrow) * self.width
    }

    /// Steps in which all lanes code a symbol.
    fn full(&self) -> usize {
        self.bands * self.band.full + self.last.full
    }

    /// Steps at the beginning in which all lanes code a symbol.
    fn full_at_first(&self) -> usize {
        let first = if self.bands > 0 { self.band } else { self.last };
        if self.width == 0 { self.full() } else { first.full }
    }

    /// Symbols of a lane.
    fn count(&self, lane: usize) -> usize {
        let narrow = self.bands * self.band.narrow + self.last.narrow;
        self.full() + if lane < self.width { narrow } else { 0 }
    }

    /// (lane, its symbols so far) of every symbol from a step on, in order; reversible.
    fn places(self, from: usize) -> impl DoubleEndedIterator<Item = (usize, usize)> {
        let steps = self.bands * self.band.steps() + self.last.steps();
        (from..steps).flat_map(move |step| {
            let band = step.checked_div(self.band.steps()).unwrap_or(0).min(self.bands);
            let within = step - band * self.band.steps();
            let shape = if band < self.bands { self.band } else { self.last };
            let (width, wide) = if within < shape.full { (LANES, within) } else { (self.width, 0) };
            // lanes beyond a narrow block have sat out the narrow steps before
            let sat_out = band * self.band.full + wide;
            (0..width).map(move |lane| (lane, if lane < self.width { step } else { sat_out }))
        })
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
    for ((lane, step), (position, &symbol)) in steps.places(0).rev().zip(symbols.iter().enumerate().rev()) {
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

fn same_length(contexts: &[u8], symbols: &[u8]) -> Result<(), Error> {
    if contexts.len() == symbols.len() {
        return Ok(());
    }
    Err(Error::Layout { holds: contexts.len(), given: symbols.len() })
}

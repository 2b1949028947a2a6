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

use crate::{Error, Isa};

mod decoder;
mod encoder;

pub use decoder::Decoder;
pub(crate) use decoder::Steps;
pub use encoder::{encode, encode_with};

/// Lanes in a group, which work on one strip.
pub const GROUP: usize = 64;
/// The largest lane count: the decoder keeps one `u16` a lane on the stack.
pub const MAX_LANES: usize = 1024;
/// Symbols that a lane's end state carries.
const VERBATIM: usize = 2;
const LOW: u32 = 1 << 8;

/// Frequencies of 16 symbols that sum to 256.
pub type Frequencies = crate::Frequencies<16, 256>;

/// Most that [`fast_frequencies`] may cost: a 1,024th of the code length.
const SPEED_WORTH: u128 = 1024;

/// Frequencies that are all even, if that lengthens the code by less than 0.1 %; else the best.
///
/// Tables of even frequencies repeat after 128 slots, and SIMD decoders then look up one half: about 20 % faster
/// with AVX-512, 30 % with AVX2. Typically it costs 0.03 %. Error: [`Error::NoSymbols`].
pub fn fast_frequencies(counts: &[u64; 16]) -> Result<Frequencies, Error> {
    let best = Frequencies::from_counts(counts)?;
    let halves = crate::Frequencies::<16, 128>::from_counts(counts)?;
    let even = Frequencies::new(halves.as_array().map(|f| 2 * f))?;
    let (least, length) = (best.code_length(counts), even.code_length(counts));
    Ok(if length - least <= least / SPEED_WORTH { even } else { best })
}

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

    /// The lanes of a group in two runs, within each of which all code the same number of symbols; and that number.
    fn counts(&self, group: usize) -> [(Range<usize>, usize); 2] {
        let (start, end) = self.span(group);
        let (whole, more) = ((end - start) / GROUP, (end - start) % GROUP);
        [(0..more, whole + 1), (more..GROUP, whole)]
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
    pub(crate) freq: [u16; 16],
    pub(crate) first: [u16; 16],
    pub(crate) slot: [u8; 256],
    /// `ceil(2^24 / freq)`: `x * reciprocal >> 24` is `x / freq` for all x below 2^16, as `x * freq` is below 2^24.
    reciprocal: [u32; 16],
    /// Whether a byte is no symbol or one without a frequency.
    pub(crate) absent: [bool; 256],
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
        let absent = core::array::from_fn(|s| freq.get(s).is_none_or(|&f| f == 0));
        let reciprocal = freq.map(|f| (1u32 << 24).div_ceil(u32::from(f).max(1)));
        Self { freq, first, slot, reciprocal, absent, single: freqs.single() }
    }
}

/// What the decoder looks up: a byte a slot, and the frequencies.
///
/// Slots are spread, so the rank of slot k is almost `freq * k >> 8`, and what that is too much fits in four bits beside
/// the symbol. Then `freq * (x >> 8) + rank` is `(freq * x >> 8) - correction`: one look-up of one byte does it all, and
/// the product is what SIMD units have as the high half of a 16-bit multiplication.
///
/// Why four bits: where symbol s has reached rank + 1/2 = freq * t, each of at most 15 others has reached its own
/// freq * t to within 1/2, so the slot is 256 t - 1/2 to within 7.5 and freq * slot / 256 is rank + 1/2 - freq / 512 to
/// within 7.5 * freq / 256 < 7.5.
#[derive(Clone, Debug)]
pub struct DecodeTable {
    /// Symbol in the low half, correction (-8..=7) in the high half.
    pub(crate) slot: [u8; 256],
    pub(crate) freq: [u16; 16],
    /// Whether the entries repeat after 128, as they do if all frequencies are even.
    #[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]
    pub(crate) even: bool,
    single: Option<u8>,
}

impl DecodeTable {
    /// The table of these frequencies.
    pub fn new(freqs: &Frequencies) -> Self {
        let freq = *freqs.as_array();
        let mut slot = [0; 256];
        spread(freqs, |k, s, rank| {
            let correction = ((i32::from(freq[s]) * k as i32) >> 8) - i32::from(rank);
            slot[k] = (correction << 4) as u8 | s as u8;
        });
        Self { slot, freq, even: slot[..128] == slot[128..], single: freqs.single() }
    }

    /// Symbol, its frequency and the rank of all 256 slots, ascending.
    pub fn entries(&self) -> impl Iterator<Item = (u8, u16, u16)> {
        (0..256).map(|k| {
            let symbol = self.slot[k] & 15;
            let (freq, correction) = (self.freq[usize::from(symbol)], i32::from(self.slot[k] as i8 >> 4));
            (symbol, freq, (((i32::from(freq) * k as i32) >> 8) - correction) as u16)
        })
    }
}

/// Decodes a stream into `out`, as fast as this CPU can.
///
/// Errors: [`Error::Layout`], [`Error::Truncated`], [`Error::StateBelowBound`], [`Error::EndState`],
/// [`Error::TrailingBytes`]. On an error the contents of `out` are unspecified.
pub fn decode(table: &DecodeTable, strips: &Strips, bytes: &[u8], out: &mut [u8]) -> Result<(), Error> {
    decode_with(Isa::best(), table, strips, bytes, out)
}

/// [`decode`] with a given instruction set.
pub fn decode_with(
    isa: Isa,
    table: &DecodeTable,
    strips: &Strips,
    bytes: &[u8],
    out: &mut [u8],
) -> Result<(), Error> {
    check_count(strips, out.len())?;
    let mut decoder = Decoder::new(isa, table, *strips, bytes)?;
    decoder.advance(strips.steps(), out, strips.strip.min(strips.symbols))?;
    decoder.finish()
}

fn check_count(strips: &Strips, given: usize) -> Result<(), Error> {
    if given == strips.symbols { Ok(()) } else { Err(Error::Layout { holds: strips.symbols, given }) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    extern crate std;
    use super::*;

    /// The smallest and the largest correction of a table, which is checked slot by slot.
    fn corrections(freqs: [u16; 16]) -> (i32, i32) {
        let freqs = Frequencies::new(freqs).unwrap();
        let table = DecodeTable::new(&freqs);
        let mut seen = (0, 0);
        spread(&freqs, |slot, symbol, rank| {
            let correction = i32::from(table.slot[slot] as i8 >> 4);
            assert_eq!(usize::from(table.slot[slot] & 15), symbol);
            let product = (i32::from(freqs.as_array()[symbol]) * slot as i32) >> 8;
            assert_eq!(product - correction, i32::from(rank), "{freqs:?} {slot}");
            let entry = (symbol as u8, freqs.as_array()[symbol], rank);
            assert_eq!(table.entries().nth(slot), Some(entry), "{freqs:?} {slot}");
            seen = (correction.min(seen.0), correction.max(seen.1));
        });
        seen
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes minutes")]
    fn corrections_fit_into_four_bits() {
        let mut seen = (0, 0);
        let mut check = |freqs| {
            let (least, most) = corrections(freqs);
            seen = (least.min(seen.0), most.max(seen.1));
        };
        // the worst by the proof: many rare symbols, and a frequent one before or behind them
        for rare in 1..=15u16 {
            for f in 1..=255 / rare {
                for last in [false, true] {
                    let mut freqs = [0; 16];
                    (0..usize::from(rare)).for_each(|s| freqs[s + usize::from(!last)] = f);
                    freqs[if last { usize::from(rare) } else { 0 }] = 256 - rare * f;
                    check(freqs);
                }
            }
        }
        let mut x = 88172645463325252u64;
        for _ in 0..2000 {
            let mut freqs = [0; 16];
            for _ in 0..256 {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let (a, b) = ((x >> 60) as usize, (x >> 33 & 15) as usize);
                freqs[a.min(b & (x >> 40) as usize)] += 1;
            }
            check(freqs);
        }
        assert_eq!(seen, (-8, 7), "the bounds are met and not passed");
    }
}

//! Counts to frequencies, and frequencies to bytes: the same for both codecs.

use crate::Error;

/// Frequencies of `SYMBOLS` symbols, at most 256, that sum to exactly `TOTAL` (a power of two up to 4,096).
///
/// A symbol with frequency 0 cannot be coded. A symbol with frequency `TOTAL` is the only one, and costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequencies<const SYMBOLS: usize, const TOTAL: u32>([u16; SYMBOLS]);

impl<const SYMBOLS: usize, const TOTAL: u32> Frequencies<SYMBOLS, TOTAL> {
    /// Takes frequencies as they are. Error: [`Error::FrequencySum`].
    pub fn new(freqs: [u16; SYMBOLS]) -> Result<Self, Error> {
        let sum = freqs.iter().map(|&f| u32::from(f)).sum();
        if sum == TOTAL { Ok(Self(freqs)) } else { Err(Error::FrequencySum { sum, expected: TOTAL }) }
    }

    /// The frequencies with the shortest code for these counts, each present symbol getting at least 1.
    ///
    /// Greatest gain: the code length is a sum of convex functions of the single frequencies, so moving one unit at
    /// a time to where it shortens the code most, until no move helps, ends in the optimum. At 8 bits, rounding and
    /// repairing the sum instead costs measurably more. Integer arithmetic only: every machine gets the same table.
    ///
    /// Error: [`Error::NoSymbols`] if all counts are zero.
    pub fn from_counts(counts: &[u64; SYMBOLS]) -> Result<Self, Error> {
        const { assert!(SYMBOLS <= 256 && SYMBOLS as u32 <= TOTAL && TOTAL <= 4096 && TOTAL.is_power_of_two()) };
        let sum: u128 = counts.iter().map(|&c| u128::from(c)).sum();
        if sum == 0 {
            return Err(Error::NoSymbols);
        }
        let largest = counts.iter().fold(0, |a, &c| a.max(c));
        // 31-bit weights: a weight times a difference of logarithms (at most 2^32) fits into 64 bits
        let shift = (64 - largest.leading_zeros()).saturating_sub(31);
        let mut weight = [0u64; SYMBOLS];
        let mut freqs = [0u16; SYMBOLS];
        for s in 0..SYMBOLS {
            if counts[s] > 0 {
                weight[s] = (counts[s] >> shift).max(1);
                freqs[s] = ((u128::from(counts[s]) * u128::from(TOTAL) / sum) as u16).max(1);
            }
        }
        settle(&weight, &mut freqs, TOTAL);
        Ok(Self(freqs))
    }

    /// The frequencies, indexed by symbol.
    pub fn as_array(&self) -> &[u16; SYMBOLS] {
        &self.0
    }

    /// The only symbol of a plane that has just one: it needs no stream.
    pub fn single(&self) -> Option<u8> {
        self.0.iter().position(|&f| u32::from(f) == TOTAL).map(|s| s as u8)
    }

    /// Most bytes that [`Self::write`] can need.
    pub const MAX_BYTES: usize = 4 * SYMBOLS;

    /// Serialises the table to the start of `out` and returns the length.
    ///
    /// One entry for each present symbol, ascending: `v = (frequency - 1) * 2 + skip` as a LEB128 number, where
    /// `skip` is 1 if absent symbols precede; their count follows, also LEB128. The table ends when the sum is
    /// reached, so it needs no length. Error: [`Error::BufferTooSmall`].
    pub fn write(&self, out: &mut [u8]) -> Result<usize, Error> {
        let given = out.len();
        let mut at = 0;
        let mut put = |mut v: u32| {
            loop {
                let byte = (v & 0x7f) as u8 | if v > 0x7f { 0x80 } else { 0 };
                *out.get_mut(at).ok_or(Error::BufferTooSmall { needed: Self::MAX_BYTES, given })? = byte;
                at += 1;
                v >>= 7;
                if v == 0 {
                    return Ok(());
                }
            }
        };
        let mut skipped = 0;
        for &f in &self.0 {
            if f == 0 {
                skipped += 1;
                continue;
            }
            put((u32::from(f) - 1) << 1 | u32::from(skipped > 0))?;
            if skipped > 0 {
                put(skipped)?;
                skipped = 0;
            }
        }
        Ok(at)
    }

    /// Length of the code for these counts, in units of 2^-32 bits. Symbols without a frequency must not occur.
    pub(crate) fn code_length(&self, counts: &[u64; SYMBOLS]) -> u128 {
        let total = u64::from(TOTAL.ilog2()) << 32;
        let each = counts.iter().zip(&self.0).filter(|(c, _)| **c > 0);
        each.map(|(&c, &f)| u128::from(c) * u128::from(total - log2(f.max(1)))).sum()
    }

    /// Reads a table from the start of `bytes`; returns it with its length in bytes.
    ///
    /// Errors: [`Error::FrequencyTable`] where the bytes end early, a number has more than two bytes, or the
    /// symbols run past the alphabet; [`Error::FrequencySum`] where the last frequency overshoots.
    pub fn read(bytes: &[u8]) -> Result<(Self, usize), Error> {
        let mut at = 0;
        let mut get = || {
            let start = at;
            let mut v = 0;
            for shift in [0, 7] {
                let &byte = bytes.get(at).ok_or(Error::FrequencyTable { at })?;
                at += 1;
                v |= u32::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    return Ok((v, at));
                }
            }
            Err(Error::FrequencyTable { at: start })
        };
        let mut freqs = [0u16; SYMBOLS];
        let (mut sum, mut symbol, mut end) = (0, 0usize, 0);
        while sum < TOTAL {
            let (v, after) = get()?;
            end = after;
            if v & 1 == 1 {
                let (skip, after) = get()?;
                symbol += skip as usize;
                end = after;
            }
            let slot = freqs.get_mut(symbol).ok_or(Error::FrequencyTable { at: end })?;
            *slot = (v >> 1) as u16 + 1;
            sum += (v >> 1) + 1;
            symbol += 1;
        }
        if sum > TOTAL {
            return Err(Error::FrequencySum { sum, expected: TOTAL });
        }
        Ok((Self(freqs), end))
    }
}

/// Moves `freqs` to the optimum for `weight` under the sum `total`; absent symbols (weight 0) stay at 0. At most 256 symbols.
fn settle(weight: &[u64], freqs: &mut [u16], total: u32) {
    let gain = |s: usize, f: u16| weight[s] * (log2(f + 1) - log2(f)); // of going from f to f + 1; never 0
    // what the next unit of each symbol gains, and what its last one would lose: a logarithm is dear, so only the symbols
    // that moved are computed again
    let (mut up, mut down) = ([0u64; 256], [u64::MAX; 256]);
    let price = |s: usize, f: u16, up: &mut [u64; 256], down: &mut [u64; 256]| {
        up[s] = if weight[s] > 0 && u32::from(f) < total { gain(s, f) } else { 0 };
        down[s] = if f > 1 { gain(s, f - 1) } else { u64::MAX };
    };
    (0..freqs.len()).for_each(|s| price(s, freqs[s], &mut up, &mut down));
    let mut sum: u32 = freqs.iter().map(|&f| u32::from(f)).sum();
    loop {
        let first = |better: &dyn Fn(usize, usize) -> bool| {
            (1..freqs.len()).fold(0, |a, b| if better(b, a) { b } else { a })
        };
        let (a, b) = (first(&|x, y| up[x] > up[y]), first(&|x, y| down[x] < down[y]));
        let (raise, lower) = match sum {
            _ if sum < total => (up[a] > 0, false),
            _ if sum > total => (false, down[b] < u64::MAX),
            // the sum is right: exchange while it pays, which strictly shortens the code and so ends
            _ => (up[a] > down[b], up[a] > down[b]),
        };
        if !raise && !lower {
            return;
        }
        for (symbol, wanted, step) in [(a, raise, 1i32), (b, lower, -1)] {
            if wanted {
                freqs[symbol] = (i32::from(freqs[symbol]) + step) as u16;
                sum = sum.wrapping_add_signed(step);
                price(symbol, freqs[symbol], &mut up, &mut down);
            }
        }
    }
}

/// Logarithms of all frequencies of nibbles: a search for a rate settles thousands of tables.
static LOG2: [u64; 257] = {
    let mut table = [0; 257];
    let mut v = 1;
    while v < 257 {
        table[v] = compute_log2(v as u16);
        v += 1;
    }
    table
};

/// log2 of `v` in 1..=4096 with 32 fractional bits.
fn log2(v: u16) -> u64 {
    LOG2.get(usize::from(v)).copied().unwrap_or_else(|| compute_log2(v))
}

/// [`log2`] by repeated squaring.
const fn compute_log2(v: u16) -> u64 {
    let whole = 15 - v.leading_zeros();
    let mut m = (v as u64) << (31 - whole); // [1, 2) with 31 fractional bits
    let mut bits = whole as u64;
    let mut i = 0;
    while i < 32 {
        m = (m * m) >> 31;
        let carry = m >> 32;
        m >>= carry;
        bits = bits << 1 | carry;
        i += 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    type Nibble = Frequencies<16, 256>;
    type Byte = Frequencies<256, 4096>;

    fn code_length(counts: &[u64], freqs: &[u16], total: f64) -> f64 {
        counts
            .iter()
            .zip(freqs)
            .filter(|(c, _)| **c > 0)
            .map(|(&c, &f)| c as f64 * (total / f64::from(f)).log2())
            .sum()
    }

    #[test]
    fn log2_is_right_to_nine_digits() {
        for v in 1..=4096u16 {
            let exact = f64::from(v).log2();
            assert!((log2(v) as f64 / 2f64.powi(32) - exact).abs() < 1e-8, "{v}");
        }
    }

    #[test]
    fn no_exchange_of_one_unit_shortens_the_code() {
        let mut seed = 1u64;
        for round in 0..if cfg!(miri) { 3 } else { 200 } {
            let counts: [u64; 16] = core::array::from_fn(|_| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (seed >> 33) >> (seed % 31)
            });
            if counts.iter().all(|&c| c == 0) {
                continue;
            }
            let freqs = *Nibble::from_counts(&counts).unwrap().as_array();
            let best = code_length(&counts, &freqs, 256.0);
            for a in 0..16 {
                assert_eq!(freqs[a] == 0, counts[a] == 0);
                for b in 0..16 {
                    if a != b && freqs[a] > 0 && freqs[b] > 1 {
                        let mut other = freqs;
                        other[a] += 1;
                        other[b] -= 1;
                        let length = code_length(&counts, &other, 256.0);
                        assert!(length >= best * (1.0 - 1e-9), "round {round}: {a} from {b}");
                    }
                }
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes a minute")]
    fn extreme_counts_are_fine() {
        let mut counts = [0u64; 256];
        assert_eq!(Byte::from_counts(&counts), Err(Error::NoSymbols));
        counts[7] = u64::MAX;
        assert_eq!(Byte::from_counts(&counts).unwrap().single(), Some(7));
        let full = Byte::from_counts(&[u64::MAX; 256]).unwrap();
        assert_eq!(full.as_array(), &[16; 256]);
        counts = [1; 256];
        counts[0] = u64::MAX;
        let skewed = Byte::from_counts(&counts).unwrap();
        assert_eq!(skewed.as_array()[0], 4096 - 255);
    }

    #[test]
    fn tables_survive_the_trip_through_bytes() {
        let mut sparse = [0u64; 256];
        for (i, s) in [0usize, 3, 4, 99, 255].into_iter().enumerate() {
            sparse[s] = 10u64.pow(i as u32);
        }
        for counts in [sparse, [1; 256], core::array::from_fn(|i| u64::from(i == 200))] {
            let freqs = Byte::from_counts(&counts).unwrap();
            let mut bytes = [0u8; Byte::MAX_BYTES];
            let len = freqs.write(&mut bytes).unwrap();
            assert_eq!(Byte::read(&bytes), Ok((freqs, len)));
            let every = if cfg!(miri) { 50 } else { 1 };
            assert!((0..len).step_by(every).all(|cut| Byte::read(&bytes[..cut]).is_err()));
            assert!(freqs.write(&mut bytes[..len - 1]).is_err());
        }
    }

    #[test]
    fn corrupt_tables_are_errors() {
        assert_eq!(Nibble::read(&[]), Err(Error::FrequencyTable { at: 0 }));
        assert_eq!(Nibble::read(&[0xff, 0xff, 0]), Err(Error::FrequencyTable { at: 0 }));
        assert_eq!(Nibble::read(&[1, 16]), Err(Error::FrequencyTable { at: 2 }));
        assert_eq!(Nibble::read(&[0xfe, 0x7f]), Err(Error::FrequencySum { sum: 8192, expected: 256 }));
        assert_eq!(Nibble::new([17; 16]), Err(Error::FrequencySum { sum: 272, expected: 256 }));
        let all: Vec<u8> = (0..=255).collect();
        assert!(Nibble::read(&all).is_err());
    }
}

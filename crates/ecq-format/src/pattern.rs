//! Floats of 8 and 16 bits without loss: their bit patterns as levels.
//!
//! A pattern is a sign and a magnitude of all other bits. With `k = (magnitude - base) mod 2^(bits - 1)` the level is k,
//! or, if the sign is set, `!k`. So the split of a level does the rest: the sign and the lowest bits of the mantissa are
//! raw, the nibble is the exponent within a window of sixteen, and what lies outside escapes.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::levels::Split;
use crate::plan::{NibbleCounts, Plan};

/// Weights that are counted to find frequencies: a nibble that they miss escapes, so a part of a tensor is enough.
const SAMPLE: usize = 1 << 19;

/// A float format that is coded by its bit patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FloatFormat {
    /// bfloat16.
    #[serde(rename = "bf16")]
    Bf16,
    /// IEEE binary16.
    #[serde(rename = "f16")]
    F16,
    /// 8 bits, of which 4 exponent and 3 mantissa; without infinities.
    #[serde(rename = "f8_e4m3")]
    F8E4M3,
    /// 8 bits, of which 5 exponent and 2 mantissa: the upper half of a binary16.
    #[serde(rename = "f8_e5m2")]
    F8E5M2,
}

impl FloatFormat {
    /// Bits of a weight.
    pub fn bits(self) -> u32 {
        match self {
            Self::Bf16 | Self::F16 => 16,
            Self::F8E4M3 | Self::F8E5M2 => 8,
        }
    }

    /// Bytes of a weight.
    pub fn bytes(self) -> usize {
        self.bits() as usize / 8
    }

    /// Bits of the mantissa.
    pub fn mantissa(self) -> u32 {
        match self {
            Self::Bf16 => 7,
            Self::F16 => 10,
            Self::F8E4M3 => 3,
            Self::F8E5M2 => 2,
        }
    }

    /// Most raw bits: with more a nibble would reach beyond the magnitudes.
    pub fn max_raw_bits(self) -> u32 {
        self.bits() - 4
    }
}

/// Which bit pattern a level stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// The format of the weights.
    pub format: FloatFormat,
    /// The magnitude whose level is 0, below `2^(bits - 1)`.
    pub base: u32,
}

impl Pattern {
    fn mask(self) -> u32 {
        (1 << (self.format.bits() - 1)) - 1
    }

    /// The level of a bit pattern.
    pub fn level(self, bits: u16) -> i32 {
        let k = (u32::from(bits).wrapping_sub(self.base) & self.mask()) as i32;
        if u32::from(bits) > self.mask() { !k } else { k }
    }

    /// The bit pattern of a level; `None` if it has none.
    pub fn bits(self, level: i32) -> Option<u16> {
        let (negative, k) = (level < 0, (level ^ (level >> 31)) as u32);
        let magnitude = k.wrapping_add(self.base) & self.mask();
        (k <= self.mask()).then_some((magnitude | u32::from(negative) << (self.format.bits() - 1)) as u16)
    }

    /// Checks the base, and whether all nibbles and raw bits of a split stand for patterns.
    pub(crate) fn check(self, split: Split) -> Result<(), String> {
        if self.base > self.mask() {
            return Err(format!("patterns from {} on, of {} bits", self.base, self.format.bits()));
        }
        if split.center != 0 || split.raw_bits > self.format.max_raw_bits() {
            let Split { raw_bits, center } = split;
            return Err(format!("{raw_bits} raw bits around {center} for {:?}", self.format));
        }
        Ok(())
    }
}

/// The cheapest window of exponents, and the plan for it, for a matrix of weights as they are in the source:
/// little-endian, rows of `cols` weights. A large matrix is judged by a part of its rows. `None` if it is empty.
pub fn plan(format: FloatFormat, bytes: &[u8], cols: usize) -> Option<(Pattern, Plan)> {
    let exponents = exponents(format, bytes, cols)?;
    let mantissa = format.mantissa();
    // pairs of exponents in a nibble cost less than they save, but for two bits of mantissa
    let splits = mantissa + 1..=(mantissa + 2).min(format.max_raw_bits()).max(mantissa + 1);
    let splits = splits.filter(|&r| r == mantissa + 1 || format.bits() == 8);
    let plans = splits.filter_map(|raw_bits| {
        let step = 1 << (raw_bits - 1 - mantissa); // exponents in a nibble
        let window = |from: usize| {
            let all = exponents.iter().cycle().skip(from).take((16 * step).min(exponents.len()));
            all.copied().collect::<Vec<u64>>()
        };
        // the first of the best
        let from = (0..exponents.len()).rev().max_by_key(|&from| window(from).iter().sum::<u64>())?;
        let mut counts = NibbleCounts::new(exponents.iter().sum());
        for (nibble, all) in window(from).chunks(step).enumerate() {
            let level = (nibble as u64) << (raw_bits - 1);
            counts.add(nibble, level, all.iter().sum());
        }
        counts.outside(1 << (format.bits() - 2));
        let plan = Plan::for_counts(Split { raw_bits, center: 0 }, &counts)?;
        Some((Pattern { format, base: (from as u32) << mantissa }, plan))
    });
    plans.min_by(|a, b| a.1.bits.total_cmp(&b.1.bits))
}

/// How often each exponent occurs; extrapolated from some rows if the matrix is large. `None` if it is empty.
fn exponents(format: FloatFormat, bytes: &[u8], cols: usize) -> Option<Vec<u64>> {
    let row_bytes = cols * format.bytes();
    let rows = bytes.len().checked_div(row_bytes)?;
    let wanted = if bytes.len() / format.bytes() <= 2 * SAMPLE { rows } else { SAMPLE.div_ceil(cols) };
    let stride = rows.checked_div(wanted)?;
    let count = |i: usize| {
        // not evenly spaced: rows can have a period
        let row = i * rows / wanted + (i.wrapping_mul(0x9e37_79b9) >> 7) % stride;
        let bytes = &bytes[row * row_bytes..(row + 1) * row_bytes];
        let mut counts = vec![[0u32; 256]; 4];
        match format.bytes() {
            1 => tally(bytes.as_chunks::<1>().0, |[b]| u32::from(b & 0x7f) >> format.mantissa(), &mut counts),
            _ => {
                let exponent = |b| u32::from(u16::from_le_bytes(b) & 0x7fff) >> format.mantissa();
                tally(bytes.as_chunks::<2>().0, exponent, &mut counts);
            }
        }
        counts
    };
    let zero = || vec![0u64; 1 << (format.bits() - 1 - format.mantissa())];
    let add = |mut sum: Vec<u64>, other: Vec<u64>| {
        sum.iter_mut().zip(&other).for_each(|(a, b)| *a += b);
        sum
    };
    let counted = (0..wanted).into_par_iter().fold(zero, |mut sum, i| {
        for table in count(i) {
            sum.iter_mut().zip(table).for_each(|(a, b)| *a += u64::from(b));
        }
        sum
    });
    let mut sum = counted.reduce(zero, add);
    // one that was seen stays seen
    sum.iter_mut().for_each(|n| *n = (u128::from(*n) * rows as u128 / wanted as u128) as u64);
    Some(sum)
}

/// Counts exponents in four tables in turn: equal neighbours would wait for each other in one.
fn tally<B: Copy>(weights: &[B], exponent: impl Fn(B) -> u32, counts: &mut [[u32; 256]]) {
    for four in weights.chunks(4) {
        for (table, &weight) in counts.iter_mut().zip(four) {
            table[exponent(weight) as usize & 255] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const FORMATS: [FloatFormat; 4] =
        [FloatFormat::Bf16, FloatFormat::F16, FloatFormat::F8E4M3, FloatFormat::F8E5M2];

    #[test]
    fn every_pattern_has_its_own_level() {
        for format in FORMATS {
            let all = 1u32 << format.bits();
            for base in [0, 1, all / 2 - 1, 5 << format.mantissa()] {
                let pattern = Pattern { format, base };
                let mut seen = vec![false; all as usize];
                for bits in 0..all {
                    let level = pattern.level(bits as u16);
                    assert_eq!(pattern.bits(level), Some(bits as u16), "{pattern:?} {bits:#x}");
                    let at = &mut seen[(level + all as i32 / 2) as usize];
                    assert!(!std::mem::replace(at, true));
                }
                for level in [all as i32 / 2, -(all as i32) / 2 - 1, i32::MIN, i32::MAX] {
                    assert_eq!(pattern.bits(level), None);
                }
            }
        }
    }

    #[test]
    fn the_window_holds_the_exponents_that_occur() {
        for format in FORMATS {
            let exponents = 1u16 << (format.bits() - 1 - format.mantissa());
            for around in 0..exponents {
                let weights = (0..6000u16).map(|i| {
                    let exponent = (around + i % 7 % 3) % exponents;
                    exponent << format.mantissa() | (i % 2) << (format.bits() - 1)
                });
                let bytes: Vec<u8> =
                    weights.flat_map(|w| w.to_le_bytes()[..format.bytes()].to_vec()).collect();
                let (pattern, plan) = plan(format, &bytes, 60).unwrap();
                assert_eq!(plan.escapes, 0, "{format:?} {around}");
                assert!(plan.nibble_entropy < 1.6, "{format:?} {around}: {}", plan.nibble_entropy);
                pattern.check(plan.split).unwrap();
            }
        }
        assert!(plan(FloatFormat::Bf16, &[], 4).is_none() && plan(FloatFormat::Bf16, &[], 0).is_none());
    }
}

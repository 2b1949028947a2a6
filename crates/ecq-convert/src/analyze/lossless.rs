//! What coding without loss gives, and how near it comes to the entropies: floats by their bit patterns, weights that
//! are quantized already by their levels and scales.

use std::collections::HashMap;

use ecq_format::directory::{Min, Scales};
use ecq_format::encode::{Encoder, Profile};
use ecq_format::pattern::{self, FloatFormat};
use ecq_format::plan::entropy;
use ecq_format::side;
use ecq_quant::Error;
use ecq_quant::weights::Weights;
use rayon::prelude::*;
use serde::Serialize;

use super::schemes::{SchemeAnalysis, Sum};
use crate::tensors::{BlockTensor, SourceMatrix};

/// Name of the lossless way among the schemes.
pub const LOSSLESS: &str = "lossless";

/// Floats coded without loss.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FloatAnalysis {
    /// Weights.
    pub weights: u64,
    /// Bits a weight in the source.
    pub source_bits: f64,
    /// Order-0 entropy of the exponents, in bits a weight.
    pub exponent_entropy: f64,
    /// Order-0 entropy of sign and mantissa together, in bits a weight.
    pub rest_entropy: f64,
    /// Coded bits a weight, all side costs included.
    pub bits: f64,
}

/// Weights that are quantized already, coded without loss.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BlockAnalysis {
    /// Weights.
    pub weights: u64,
    /// Order-0 entropy of the levels, in bits a weight.
    pub level_entropy: f64,
    /// Coded bits a weight of the levels, with tables, tile index and start states.
    pub level_bits: f64,
    /// Scales, and minima where the type has them.
    pub numbers: Vec<NumberAnalysis>,
    /// How many scales and minima there are.
    pub number_count: u64,
    /// Their order-0 entropy, each kind on its own, as the numbers that the source has; in bits a number.
    pub number_entropy: f64,
    /// Coded bits a number, tables included.
    pub number_bits: f64,
    /// Coded bits above the order-0 entropy, a number; below 0 where contexts beat order 0.
    pub number_excess: f64,
}

/// The scales of a tensor, or the minima.
#[derive(Clone, Debug, Serialize)]
pub struct NumberAnalysis {
    /// `scale`, `minimum`, or what else the format has.
    pub what: String,
    /// Bits of a number in the source's format, widened to whole bytes.
    pub bits: u32,
    /// How many.
    pub count: u64,
    /// Distinct values.
    pub distinct: u64,
    /// Order-0 entropy in bits a number.
    pub entropy: f64,
}

/// A tensor of floats that lossless coding takes; `None` for others.
pub(super) fn floats(matrix: &SourceMatrix<'_>) -> Result<Option<(FloatAnalysis, SchemeAnalysis)>, Error> {
    let planned = matrix.floats().and_then(|(f, b)| Some((f, pattern::plan(f, b, matrix.cols())?, b)));
    let Some((format, (pattern, plan), bytes)) = planned else { return Ok(None) };
    let shape = [matrix.rows() as u64, matrix.cols() as u64];
    let encoder = Encoder::floats(LOSSLESS, &shape, Profile::Cpu, &plan, pattern, bytes);
    let bits = 8.0 * encoder.map_err(Error::Unstorable)?.count_bytes() as f64;
    let weights = shape[0] * shape[1];
    let (exponent_entropy, rest_entropy) = float_entropies(format, bytes);
    let n = weights as f64;
    let sum = Sum {
        weights,
        entropy: (plan.nibble_entropy + f64::from(plan.split.raw_bits)) * n,
        bits,
        stored: f64::from(format.bits()) * n,
        escapes: plan.escapes,
        ..Sum::default()
    };
    let source_bits = f64::from(format.bits());
    let made = FloatAnalysis { weights, source_bits, exponent_entropy, rest_entropy, bits: bits / n };
    Ok(Some((made, SchemeAnalysis::new(LOSSLESS.into(), sum, None))))
}

/// Order-0 entropies of exponents, and of sign and mantissa together.
fn float_entropies(format: FloatFormat, bytes: &[u8]) -> (f64, f64) {
    const PIECE: usize = 1 << 18;
    let mantissa = format.mantissa();
    let sign = format.bits() - 1;
    let exponents = 1usize << (sign - mantissa);
    let rests = 2usize << mantissa;
    let count = |piece: &[u8]| {
        let mut counts = vec![0u64; exponents + rests];
        let mut add = |bits: u32| {
            counts[(bits >> mantissa) as usize & (exponents - 1)] += 1;
            let rest = bits & ((1 << mantissa) - 1) | (bits >> sign) << mantissa;
            counts[exponents + rest as usize] += 1;
        };
        if format.bytes() == 1 {
            piece.iter().for_each(|&b| add(b.into()));
        } else {
            piece.as_chunks::<2>().0.iter().for_each(|&b| add(u16::from_le_bytes(b).into()));
        }
        counts
    };
    let zero = || vec![0u64; exponents + rests];
    let counts = bytes.par_chunks(PIECE).map(count).reduce(zero, |mut a, b| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    });
    (entropy(counts[..exponents].iter().copied()), entropy(counts[exponents..].iter().copied()))
}

/// A tensor that is quantized already; `None` for others.
pub(super) fn blocks(
    matrix: &SourceMatrix<'_>,
    source_bits: f64,
) -> Result<Option<(BlockAnalysis, SchemeAnalysis)>, Error> {
    let Some(blocks) = BlockTensor::new(matrix) else { return Ok(None) };
    let shape = [matrix.rows() as u64, matrix.cols() as u64];
    let encoder = Encoder::new(blocks.scheme, &shape, blocks.values, Profile::Cpu, &blocks.plan, &blocks);
    let level_bits = 8.0 * encoder.map_err(Error::Unstorable)?.count_bytes() as f64;
    let side_bits = 8.0 * side::encode(&blocks.planes).len().next_multiple_of(8) as f64;
    let weights = shape[0] * shape[1];
    let n = weights as f64;
    let numbers = numbers(&blocks.values.scales, &blocks.planes);
    let number_count = numbers.iter().map(|x| x.count).sum::<u64>();
    let entropy = numbers.iter().map(|x| x.entropy * x.count as f64).sum::<f64>();
    let each = number_count.max(1) as f64;
    let made = BlockAnalysis {
        weights,
        level_entropy: blocks.histogram.entropy(),
        level_bits: level_bits / n,
        number_count,
        number_entropy: entropy / each,
        number_bits: side_bits / each,
        number_excess: (side_bits - entropy) / each,
        numbers,
    };
    let sum = Sum {
        weights,
        entropy: blocks.histogram.entropy() * n,
        bits: level_bits + side_bits,
        stored: source_bits * n,
        scales: side_bits,
        escapes: blocks.plan.escapes,
        ..Sum::default()
    };
    Ok(Some((made, SchemeAnalysis::new(LOSSLESS.into(), sum, Some(&blocks.histogram)))))
}

/// What the planes of a source's scales hold, in order: names, and bytes of a number, each a plane.
fn parts(scales: &Scales) -> Vec<(&'static str, usize)> {
    let both = |n: usize, min: bool| [("scale", n)].into_iter().chain(min.then_some(("minimum", n)));
    match *scales {
        Scales::None => Vec::new(),
        Scales::RowColumn { row, column } => {
            row.then_some(("row", 1)).into_iter().chain(column.then_some(("column", 1))).collect()
        }
        Scales::Group { min, .. } => both(2, min).collect(),
        Scales::Numbers { format, min, mapped, .. } => {
            let zero = (min == Min::Zero).then_some(("zero", 1));
            let map = mapped.then_some(("group", 2));
            both(format.bytes(), min == Min::Number).chain(zero).chain(map).collect()
        }
        Scales::Nested { min, .. } => {
            let outer = [("outer scale", 2)].into_iter().chain(min.then_some(("outer minimum", 2)));
            both(1, min).chain(outer).collect()
        }
        Scales::Lookup { .. } => vec![("scale", 1), ("table", 4), ("outer scale", 4)],
    }
}

/// Order-0 entropy of each kind of number that a source has beside its levels.
fn numbers(scales: &Scales, planes: &[Vec<u8>]) -> Vec<NumberAnalysis> {
    let mut planes = planes.iter();
    let analyze = |(what, bytes): (&str, usize)| {
        let own: Vec<&Vec<u8>> = planes.by_ref().take(bytes).collect();
        let count = own.iter().map(|p| p.len()).min().unwrap_or(0);
        let mut counts: HashMap<u32, u64> = HashMap::new();
        for i in 0..count {
            let number = own.iter().fold(0, |number, plane| number << 8 | u32::from(plane[i]));
            *counts.entry(number).or_default() += 1;
        }
        NumberAnalysis {
            what: what.into(),
            bits: 8 * bytes as u32,
            count: count as u64,
            distinct: counts.len() as u64,
            entropy: entropy(counts.values().copied()),
        }
    };
    parts(scales).into_iter().map(analyze).collect()
}

impl FloatAnalysis {
    /// All tensors together; `None` if there are none.
    pub(super) fn pool<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Option<Self> {
        let weights = all.clone().map(|f| f.weights).sum::<u64>();
        let mean = |of: fn(&Self) -> f64| {
            all.clone().map(|f| of(f) * f.weights as f64).sum::<f64>() / weights as f64
        };
        (weights > 0).then(|| Self {
            weights,
            source_bits: mean(|f| f.source_bits),
            exponent_entropy: mean(|f| f.exponent_entropy),
            rest_entropy: mean(|f| f.rest_entropy),
            bits: mean(|f| f.bits),
        })
    }
}

impl BlockAnalysis {
    /// All tensors together, each with its own tables; `None` if there are none.
    pub(super) fn pool<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Option<Self> {
        let weights = all.clone().map(|b| b.weights).sum::<u64>();
        let number_count = all.clone().map(|b| b.number_count).sum::<u64>();
        let sum = |of: fn(&Self) -> f64| all.clone().map(of).sum::<f64>();
        let (n, each) = (weights as f64, number_count.max(1) as f64);
        let number_entropy = sum(|b| b.number_entropy * b.number_count as f64) / each;
        let number_bits = sum(|b| b.number_bits * b.number_count as f64) / each;
        (weights > 0).then(|| Self {
            weights,
            level_entropy: sum(|b| b.level_entropy * b.weights as f64) / n,
            level_bits: sum(|b| b.level_bits * b.weights as f64) / n,
            numbers: Vec::new(),
            number_count,
            number_entropy,
            number_bits,
            number_excess: number_bits - number_entropy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float_entropies_are_those_of_their_parts() {
        // two exponents, four mantissas, both signs: 1 and 3 bits
        let bf16: Vec<u8> = (0..4096u16)
            .flat_map(|i| ((i & 1) << 15 | (120 + (i >> 1 & 1)) << 7 | (i >> 2 & 3) << 5).to_le_bytes())
            .collect();
        let (exponent, rest) = float_entropies(FloatFormat::Bf16, &bf16);
        assert!((exponent - 1.0).abs() < 1e-9 && (rest - 3.0).abs() < 1e-9);
        let e5m2: Vec<u8> = (0..=255).collect();
        let (exponent, rest) = float_entropies(FloatFormat::F8E5M2, &e5m2);
        assert!((exponent - 5.0).abs() < 1e-9 && (rest - 3.0).abs() < 1e-9);
    }

    #[test]
    fn numbers_are_counted_as_the_source_has_them() {
        let high: Vec<u8> = (0..64u8).map(|i| i % 4).collect();
        let low: Vec<u8> = (0..64u8).map(|i| i / 4 % 4).collect();
        let scales = Scales::Group { size: 32, min: true };
        let found = numbers(&scales, &[high.clone(), low, high, vec![9; 64]]);
        assert_eq!(found.iter().map(|n| n.distinct).collect::<Vec<_>>(), [16, 4]);
        assert_eq!(found.iter().map(|n| n.entropy).collect::<Vec<_>>(), [4.0, 2.0]);
        assert_eq!((&*found[1].what, found[1].bits), ("minimum", 16));
        let scales = Scales::Nested { size: 16, supers: 16, bias: 0, min: false };
        let found = numbers(&scales, &[(0..64).collect(), vec![1; 4], vec![1, 1, 2, 2]]);
        assert_eq!(found.iter().map(|n| (n.count, n.entropy)).collect::<Vec<_>>(), [(64, 6.0), (4, 1.0)]);
    }
}

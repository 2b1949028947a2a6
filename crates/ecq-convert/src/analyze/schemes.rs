//! The schemes that are compared, and what each gives on a tensor or on all.

use ecq_format::encode::Profile;
use ecq_format::plan::Histogram;
use ecq_format::side::Side;
use ecq_quant::measure::Distortion;
use ecq_quant::quantize::Quantized;
use ecq_quant::weights::Weights;
use ecq_quant::{Error, Granularity, Scheme};
use serde::Serialize;

use super::curve::Curve;
use super::lossless::LOSSLESS;

/// Bars of a histogram.
pub const BARS: usize = 32;

/// Rates at which the native scheme is measured, in bits a weight; the curve is read in between.
pub const RATES: [f64; 12] = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0];
/// Those of them that are listed among the schemes.
pub const LISTED: std::ops::RangeInclusive<f64> = 1.5..=5.0;

/// The scheme whose error the summaries take for comparison: what 4-bit formats with scales in binary16 commonly do.
pub const COMMON: Scheme = Scheme::Absmax4(Granularity::Group(32));

/// The schemes that are compared with the native one. A new one is added here, its bits without entropy coding in
/// `stored_bits` below.
pub fn classic() -> Vec<Scheme> {
    use Granularity::{Group, Row, Tensor};
    let mut all: Vec<Scheme> = [Tensor, Row, Group(64), Group(128)].map(Scheme::Affine4).into();
    all.extend([Tensor, Row, Group(32), Group(64), Group(128)].map(Scheme::Absmax4));
    all.push(Scheme::Nf4(Group(64)));
    all.extend([Tensor, Row].map(Scheme::Int8));
    all.extend([1.5, 2.0, 3.0].map(|bits| Scheme::Uniform { bits }));
    all
}

/// A scheme on a tensor, or on all.
#[derive(Clone, Debug, Serialize)]
pub struct SchemeAnalysis {
    /// The scheme and its granularity or rate.
    pub scheme: String,
    /// Bits a weight without entropy coding: levels of 4 or 8 bits, scales and minima of 16. Of uniform quantizers: the coded
    /// bits; of lossless coding: the source's.
    pub stored_bits: f64,
    /// Order-0 entropy of the levels, in bits a weight; of floats coded without loss that of their exponents, and all other
    /// bits.
    pub entropy: f64,
    /// Coded bits a weight, scales, tables, tile index and start states included.
    pub bits: f64,
    /// What of these are scales and minima.
    pub scale_bits: f64,
    /// Signal to quantization noise ratio in dB; none where nothing is lost.
    pub sqnr_db: Option<f64>,
    /// Energy of the error over that of the weights.
    pub error_share: f64,
    /// Largest absolute error.
    pub max_error: f64,
    /// Share of weights stored as escapes.
    pub escapes: f64,
    /// Coded bits a weight of the native scheme at the SQNR that this one has on each tensor.
    pub ecq_bits: Option<f64>,
    /// `bits - ecq_bits`.
    pub bits_saved: Option<f64>,
    /// SQNR of the native scheme at the coded bits that this one takes on each tensor, in dB.
    pub ecq_sqnr_db: Option<f64>,
    /// `ecq_sqnr_db - sqnr_db`.
    pub db_gained: Option<f64>,
    /// Share of the levels in [`BARS`] equal bars from the lowest to the highest level that holds at least one weight in
    /// a million.
    pub histogram: Vec<f64>,
    /// First and last level of the histogram.
    pub levels: (i32, i32),
    #[serde(skip)]
    pub(super) sum: Sum,
}

/// What adds up over tensors. All but counts and distortion in bits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub weights: u64,
    pub entropy: f64,
    pub bits: f64,
    pub stored: f64,
    pub scales: f64,
    pub escapes: u64,
    pub distortion: Distortion,
    /// Of the native scheme at the same SQNR, and its squared error at the same rate.
    pub ecq: Option<(f64, f64)>,
}

impl Sum {
    /// What a quantized tensor takes and loses.
    pub fn of(weights: &dyn Weights, quantized: &Quantized<'_>) -> Result<Self, Error> {
        let n = (weights.rows() * weights.cols()) as u64;
        let bits = quantized.coded_bits(Profile::Cpu)?;
        Ok(Self {
            weights: n,
            entropy: quantized.histogram().entropy() * n as f64,
            bits,
            stored: stored_bits(quantized).unwrap_or(bits),
            scales: 8.0 * Side::new(quantized.planes()).bytes() as f64,
            escapes: quantized.plan().escapes,
            distortion: Distortion::of_quantized(weights, quantized),
            ecq: None,
        })
    }

    /// Sets beside it what the native scheme does at the same SQNR and at the same rate. Where that cannot be told (no error at
    /// all) it is taken to do the same.
    pub fn compare(&mut self, curve: &Curve) {
        let n = self.weights as f64;
        let Distortion { signal, noise, .. } = self.distortion;
        let same_sqnr = if noise > 0.0 { curve.bits_at(self.distortion.sqnr()) } else { curve.exact };
        let same_rate = curve.sqnr_at(self.bits / n).map(|s| signal * 10f64.powf(-s / 10.0));
        let noise_there = match same_rate {
            Some(noise) => noise,
            None if curve.exact.is_some_and(|exact| exact <= self.bits / n) => 0.0,
            None => noise,
        };
        self.ecq = Some((same_sqnr.map_or(self.bits, |bits| bits * n), noise_there));
    }

    fn add(&mut self, other: &Self) {
        self.weights += other.weights;
        self.entropy += other.entropy;
        self.bits += other.bits;
        self.stored += other.stored;
        self.scales += other.scales;
        self.escapes += other.escapes;
        self.distortion = self.distortion.and(other.distortion);
        if let Some((bits, noise)) = other.ecq {
            let sum = self.ecq.get_or_insert_default();
            *sum = (sum.0 + bits, sum.1 + noise);
        }
    }
}

/// Bits that a classic scheme takes without entropy coding.
fn stored_bits(quantized: &Quantized<'_>) -> Option<f64> {
    let level = match quantized.scheme() {
        Scheme::Affine4(_) | Scheme::Absmax4(_) | Scheme::Nf4(_) => 4.0,
        Scheme::Int8(_) => 8.0,
        _ => return None,
    };
    // where one scale serves the tensor it is not in the planes: a scale and a minimum of 32 bits
    let side: usize = quantized.planes().iter().map(Vec::len).sum();
    Some(level * quantized.histogram().total() as f64 + 8.0 * side.max(8) as f64)
}

impl SchemeAnalysis {
    pub(super) fn new(scheme: String, sum: Sum, histogram: Option<&Histogram>) -> Self {
        let (histogram, levels) = histogram.map_or((Vec::new(), (0, 0)), bars);
        let n = sum.weights as f64;
        let Distortion { signal, noise, max_error, .. } = sum.distortion;
        let sqnr_db = (noise > 0.0).then(|| sum.distortion.sqnr());
        let ecq_bits = sum.ecq.map(|e| e.0 / n);
        let ecq_sqnr_db = sum.ecq.filter(|e| e.1 > 0.0).map(|e| 10.0 * (signal / e.1).log10());
        Self {
            scheme,
            stored_bits: sum.stored / n,
            entropy: sum.entropy / n,
            bits: sum.bits / n,
            scale_bits: sum.scales / n,
            sqnr_db,
            error_share: if noise > 0.0 { noise / signal } else { 0.0 },
            max_error,
            escapes: sum.escapes as f64 / n,
            ecq_bits,
            bits_saved: ecq_bits.map(|bits| sum.bits / n - bits),
            ecq_sqnr_db,
            db_gained: ecq_sqnr_db.zip(sqnr_db).map(|(a, b)| a - b),
            histogram,
            levels,
            sum,
        }
    }

    /// Sets beside it what the native scheme does.
    pub(super) fn compared(self, curve: &Curve) -> Self {
        let (mut sum, histogram, levels) = (self.sum, self.histogram, self.levels);
        sum.compare(curve);
        Self { histogram, levels, ..Self::new(self.scheme, sum, None) }
    }
}

fn bars(histogram: &Histogram) -> (Vec<f64>, (i32, i32)) {
    let total = histogram.total().max(1);
    let common = histogram.levels().filter(|&(_, c)| c * 1_000_000 >= total).map(|(l, _)| l);
    let (low, high) = common.fold((i32::MAX, i32::MIN), |(a, b), l| (a.min(l), b.max(l)));
    if low > high {
        return (Vec::new(), (0, 0));
    }
    let count = BARS.min((high - low) as usize + 1);
    let mut bars = vec![0.0; count];
    for (level, c) in histogram.levels().filter(|(l, _)| (low..=high).contains(l)) {
        let at = (i64::from(level - low) * count as i64 / i64::from(high - low + 1)) as usize;
        bars[at] += c as f64 / total as f64;
    }
    (bars, (low, high))
}

/// Sums each scheme over tensors, in the order in which they first occur; lossless coding, which not all have, first.
pub(super) fn pool<'a>(all: impl Iterator<Item = &'a SchemeAnalysis>) -> Vec<SchemeAnalysis> {
    let mut pooled: Vec<(&str, Sum)> = Vec::new();
    for analysis in all {
        let at = pooled.iter().position(|p| p.0 == analysis.scheme).unwrap_or_else(|| {
            pooled.push((&analysis.scheme, Sum::default()));
            pooled.len() - 1
        });
        pooled[at].1.add(&analysis.sum);
    }
    pooled.sort_by_key(|p| p.0 != LOSSLESS);
    pooled.into_iter().map(|(name, sum)| SchemeAnalysis::new(name.into(), sum, None)).collect()
}

//! What each scheme would give for a model: rate and distortion, side by side, tensor by tensor.

use std::path::Path;

use ecq_format::encode::Profile;
use ecq_format::plan::Histogram;
use ecq_format::{pattern, side};
use ecq_quant::measure::Distortion;
use ecq_quant::quantize::Quantized;
use ecq_quant::weights::Weights;
use ecq_quant::{Granularity, Scheme};
use serde::Serialize;

use crate::progress::step;
use crate::source::{Source, SourceLimits, SourceTensor};
use crate::tensors::{BlockTensor, SourceMatrix};
use crate::{Error, Progress, Result};

/// Bars of a histogram.
pub const BARS: usize = 32;

/// A whole model.
#[derive(Clone, Debug, Serialize)]
pub struct Analysis {
    /// Tensors that can be coded, in source order.
    pub tensors: Vec<TensorAnalysis>,
    /// Each scheme over all those tensors.
    pub pooled: Vec<SchemeAnalysis>,
    /// Names of the tensors that are stored as they are.
    pub plain: Vec<String>,
}

/// A tensor.
#[derive(Clone, Debug, Serialize)]
pub struct TensorAnalysis {
    /// Name.
    pub name: String,
    /// Shape, outermost first.
    pub shape: Vec<u64>,
    /// Type in the source.
    pub dtype: String,
    /// Number of weights.
    pub weights: u64,
    /// Bits a weight in the source.
    pub source_bits: f64,
    /// What each scheme gives.
    pub schemes: Vec<SchemeAnalysis>,
}

/// A scheme on a tensor, or on all.
#[derive(Clone, Debug, Serialize)]
pub struct SchemeAnalysis {
    /// The scheme and its granularity or rate.
    pub scheme: String,
    /// Order-0 entropy of the levels, in bits a weight; of floats coded without loss that of their exponents, and all other
    /// bits.
    pub entropy: f64,
    /// Coded bits a weight, scales, tables and start states included.
    pub bits: f64,
    /// Signal to quantization noise ratio in dB; none where nothing is lost.
    pub sqnr_db: Option<f64>,
    /// Largest absolute error.
    pub max_error: f64,
    /// Share of weights stored as escapes.
    pub escapes: f64,
    /// Share of the levels in [`BARS`] equal bars from the lowest to the highest level that holds at least one weight in
    /// a million.
    pub histogram: Vec<f64>,
    /// First and last level of the histogram.
    pub levels: (i32, i32),
    #[serde(skip)]
    sum: Sum,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    weights: u64,
    entropy: f64,
    bits: f64,
    escapes: u64,
    distortion: Distortion,
}

/// The schemes that are compared.
pub fn schemes() -> Vec<Scheme> {
    let mut all = vec![
        Scheme::Affine4(Granularity::Tensor),
        Scheme::Absmax4(Granularity::Tensor),
        Scheme::Absmax4(Granularity::Row),
        Scheme::Absmax4(Granularity::Group(32)),
        Scheme::Int8(Granularity::Tensor),
        Scheme::Int8(Granularity::Row),
    ];
    all.extend([2.0, 3.5].map(|bits| Scheme::Uniform { bits }));
    all.extend([2.0, 2.5, 3.0, 3.5, 4.0, 4.5].map(Scheme::ecq));
    all
}

/// Analyzes a model. Errors: those of reading it; NaN or infinite weights.
pub fn analyze(input: &Path, progress: &dyn Progress) -> Result<Analysis> {
    let source = Source::open(input, &SourceLimits::default())?;
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    progress.begin(&format!("analyzing {name}"), source.tensors().iter().map(|t| t.len).sum());
    let mut analysis = Analysis { tensors: Vec::new(), pooled: Vec::new(), plain: Vec::new() };
    for tensor in source.tensors() {
        match SourceMatrix::new(&source, tensor) {
            Some(matrix) => {
                let made = one(tensor, &matrix).map_err(|why| Error::Quantize {
                    path: source.files()[tensor.file].path.clone(),
                    tensor: tensor.name.clone(),
                    why,
                })?;
                analysis.tensors.push(made);
            }
            None => analysis.plain.push(tensor.name.clone()),
        }
        step(progress, tensor.len)?;
    }
    analysis.pooled = pool(&analysis.tensors);
    Ok(analysis)
}

fn one(
    tensor: &SourceTensor,
    matrix: &SourceMatrix<'_>,
) -> std::result::Result<TensorAnalysis, ecq_quant::Error> {
    let weights = (matrix.rows() * matrix.cols()) as u64;
    let mut all = Vec::new();
    if let Some(blocks) = BlockTensor::new(matrix) {
        let side = side::encode(&blocks.planes).len();
        let sum = Sum {
            weights,
            entropy: blocks.histogram.entropy() * weights as f64,
            bits: blocks.plan.bits + 8.0 * side as f64,
            escapes: blocks.plan.escapes,
            distortion: Distortion::default(),
        };
        all.push(SchemeAnalysis::new("lossless".into(), sum, Some(&blocks.histogram)));
    }
    let floats = matrix.floats().and_then(|(format, bytes)| pattern::plan(format, bytes, matrix.cols()));
    if let Some((_, plan)) = floats {
        let per_weight = plan.nibble_entropy + f64::from(plan.split.raw_bits);
        let (entropy, bits, escapes) = (per_weight * weights as f64, plan.bits, plan.escapes);
        let sum = Sum { weights, entropy, bits, escapes, distortion: Distortion::default() };
        all.push(SchemeAnalysis::new("lossless".into(), sum, None));
    }
    for scheme in schemes() {
        let quantized = Quantized::new(scheme, matrix, Profile::Cpu)?;
        let sum = Sum {
            weights,
            entropy: quantized.histogram().entropy() * weights as f64,
            bits: quantized.coded_bits(Profile::Cpu)?,
            escapes: quantized.plan().escapes,
            distortion: Distortion::of_quantized(matrix, &quantized),
        };
        all.push(SchemeAnalysis::new(scheme.to_string(), sum, Some(quantized.histogram())));
    }
    Ok(TensorAnalysis {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        dtype: tensor.dtype.name().into(),
        weights,
        source_bits: 8.0 * tensor.len as f64 / weights as f64,
        schemes: all,
    })
}

impl SchemeAnalysis {
    fn new(scheme: String, sum: Sum, histogram: Option<&Histogram>) -> Self {
        let (histogram, levels) = histogram.map_or((Vec::new(), (0, 0)), bars);
        let n = sum.weights as f64;
        Self {
            scheme,
            entropy: sum.entropy / n,
            bits: sum.bits / n,
            sqnr_db: (sum.distortion.noise > 0.0).then(|| sum.distortion.sqnr()),
            max_error: sum.distortion.max_error,
            escapes: sum.escapes as f64 / n,
            histogram,
            levels,
            sum,
        }
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

/// Sums each scheme over the tensors, in the order in which they first occur.
fn pool(tensors: &[TensorAnalysis]) -> Vec<SchemeAnalysis> {
    let mut pooled: Vec<(String, Sum)> = Vec::new();
    for analysis in tensors.iter().flat_map(|t| &t.schemes) {
        let at = pooled.iter().position(|p| p.0 == analysis.scheme).unwrap_or_else(|| {
            pooled.push((analysis.scheme.clone(), Sum::default()));
            pooled.len() - 1
        });
        let (a, b) = (&mut pooled[at].1, &analysis.sum);
        a.weights += b.weights;
        a.entropy += b.entropy;
        a.bits += b.bits;
        a.escapes += b.escapes;
        a.distortion = a.distortion.and(b.distortion);
    }
    pooled.into_iter().map(|(name, sum)| SchemeAnalysis::new(name, sum, None)).collect()
}

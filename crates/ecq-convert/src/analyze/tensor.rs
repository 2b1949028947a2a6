//! One tensor: every scheme, the native one's curve, and what is special to its type.

use ecq_format::encode::Profile;
use ecq_quant::measure::Distortion;
use ecq_quant::quantize::Quantized;
use ecq_quant::weights::{Dense, Weights};
use ecq_quant::{Error, Granularity, Scheme};
use rayon::prelude::*;
use serde::Serialize;

use super::curve::Curve;
use super::lossless::{self, BlockAnalysis, FloatAnalysis};
use super::prediction::Prediction;
use super::schemes::{LISTED, RATES, SchemeAnalysis, Sum, classic};
use super::statistics::Statistics;
use crate::source::SourceTensor;
use crate::tensors::SourceMatrix;

/// Most weights of a tensor that is held as floats (128 MiB) instead of being read anew for every scheme.
const HELD: usize = 1 << 25;
/// Most weights of a tensor whose schemes run side by side; of larger ones each keeps all cores busy.
const SMALL: usize = 1 << 22;

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
    /// How its weights are distributed.
    pub statistics: Statistics,
    /// What each scheme gives.
    pub schemes: Vec<SchemeAnalysis>,
    /// The native scheme's rate and distortion.
    pub curve: Curve,
    /// What prediction would cost.
    pub prediction: Prediction,
    /// Lossless coding of floats; none for other types.
    pub floats: Option<FloatAnalysis>,
    /// Lossless coding of blocks; none for other types.
    pub blocks: Option<BlockAnalysis>,
    /// What the native scheme gives at each of [`RATES`]; bits a weight and the distortion.
    #[serde(skip)]
    pub(super) native: Vec<(f64, Distortion)>,
}

impl TensorAnalysis {
    /// The scheme of this name.
    pub fn scheme(&self, name: &str) -> Option<&SchemeAnalysis> {
        self.schemes.iter().find(|s| s.scheme == name)
    }

    /// Analyzes a tensor; `step(share)` is told which share of the work is done and may stop it.
    pub(super) fn new<E: From<Error> + Send>(
        tensor: &SourceTensor,
        matrix: &SourceMatrix<'_>,
        step: &(dyn Fn(f64) -> Result<(), E> + Sync),
    ) -> Result<Self, E> {
        let (rows, cols) = (matrix.rows(), matrix.cols());
        let weights = rows * cols;
        let source_bits = 8.0 * matrix.source_bytes() as f64 / weights as f64;
        let held = if weights <= HELD { read(matrix) } else { Vec::new() };
        let dense = Dense::new(&held, cols).filter(|_| !held.is_empty());
        let source: &dyn Weights = dense.as_ref().map_or(matrix, |dense| dense);
        let all: Vec<Scheme> = classic().into_iter().chain(RATES.map(Scheme::ecq)).collect();
        let share = 1.0 / (all.len() + 1) as f64;
        let each = |&scheme: &Scheme| {
            let made = measure(scheme, source);
            step(share)?;
            Ok(made?)
        };
        let measured: Vec<Measured> = if weights <= SMALL {
            all.par_iter().map(each).collect::<Result<_, E>>()?
        } else {
            all.iter().map(each).collect::<Result<_, E>>()?
        };
        let native: Vec<(f64, Distortion)> = measured[all.len() - RATES.len()..]
            .iter()
            .map(|m| (m.analysis.bits, m.analysis.sum.distortion))
            .collect();
        let curve = Curve::new(native.iter().copied());
        let prediction = measured.iter().find_map(|m| m.prediction).unwrap_or_default();
        let mut schemes = Vec::new();
        let (floats, blocks) = (lossless::floats(matrix)?, lossless::blocks(matrix, source_bits)?);
        let (floats, exact) = floats.map_or((None, None), |(f, s)| (Some(f), Some(s)));
        let (blocks, packed) = blocks.map_or((None, None), |(b, s)| (Some(b), Some(s)));
        schemes.extend(exact.into_iter().chain(packed));
        for (scheme, measured) in all.iter().zip(measured) {
            match scheme {
                Scheme::Ecq { bits, .. } if !LISTED.contains(bits) => {}
                Scheme::Ecq { .. } => schemes.push(measured.analysis),
                _ => schemes.push(measured.analysis.compared(&curve)),
            }
        }
        let statistics = Statistics::of(source);
        step(share)?;
        Ok(Self {
            name: tensor.name.clone(),
            shape: matrix.shape().to_vec(),
            dtype: tensor.dtype.name().into(),
            weights: weights as u64,
            source_bits,
            statistics,
            schemes,
            curve,
            prediction,
            floats,
            blocks,
            native,
        })
    }
}

/// A scheme on a tensor, and prediction on its levels where they are of 8 bits a row.
struct Measured {
    analysis: SchemeAnalysis,
    prediction: Option<Prediction>,
}

fn measure(scheme: Scheme, weights: &dyn Weights) -> Result<Measured, Error> {
    let quantized = Quantized::new(scheme, weights, Profile::Cpu)?;
    let sum = Sum::of(weights, &quantized)?;
    let predicted = scheme == Scheme::Int8(Granularity::Row);
    Ok(Measured {
        analysis: SchemeAnalysis::new(scheme.to_string(), sum, Some(quantized.histogram())),
        prediction: predicted.then(|| Prediction::of(&quantized, weights.rows(), weights.cols())),
    })
}

/// All weights of a matrix.
fn read(matrix: &SourceMatrix<'_>) -> Vec<f32> {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let mut all = vec![0.0; rows * cols];
    let height = (1usize << 16).div_ceil(cols);
    let parts = all.par_chunks_mut(height * cols).enumerate();
    parts.for_each(|(i, out)| matrix.fill(i * height..rows.min((i + 1) * height), out));
    all
}

//! What entropy coding is worth for a model: rate and distortion of every scheme side by side, tensor by tensor, with
//! the native scheme's rate at each other scheme's error and its error at each other scheme's rate.
//!
//! What each figure means, and the formulas: `docs/analyze.md`.

pub mod curve;
pub mod lossless;
pub mod prediction;
pub mod projection;
pub mod schemes;
pub mod statistics;
mod tensor;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use ecq_quant::measure::Distortion;
use serde::Serialize;

pub use tensor::TensorAnalysis;

use crate::progress::step;
use crate::rates::share::quantize_error;
use crate::source::Source;
use crate::source::packed::Role;
use crate::tensors::SourceMatrix;
use crate::{Error, Progress, Result};
use curve::{Curve, Point};
use lossless::{BlockAnalysis, FloatAnalysis};
use prediction::Prediction;
use schemes::{RATES, SchemeAnalysis};

/// A whole model.
#[derive(Clone, Debug, Serialize)]
pub struct Analysis {
    /// Name of the file or folder.
    pub model: String,
    /// Tensors that can be coded, in source order.
    pub tensors: Vec<TensorAnalysis>,
    /// All those tensors together.
    pub pooled: Pooled,
    /// Tensors that are stored as they are.
    pub plain: Vec<PlainTensor>,
    /// Names of the tensors that were not to be looked at.
    pub left_out: Vec<String>,
}

/// A tensor that is not coded: too small, of one dimension, or of a type that is carried through.
#[derive(Clone, Debug, Serialize)]
pub struct PlainTensor {
    /// Name.
    pub name: String,
    /// Bytes in the source.
    pub bytes: u64,
}

/// Several tensors together.
#[derive(Clone, Debug, Serialize)]
pub struct Pooled {
    /// Number of weights.
    pub weights: u64,
    /// Bits a weight in the source.
    pub source_bits: f64,
    /// What each scheme gives; rates weighted by weights, errors added. The native scheme at equal SQNR and at equal rate
    /// is taken tensor by tensor.
    pub schemes: Vec<SchemeAnalysis>,
    /// The native scheme with every tensor asked for the same rate.
    pub curve: Curve,
    /// What prediction would cost.
    pub prediction: Prediction,
    /// Lossless coding of floats, where there are any.
    pub floats: Option<FloatAnalysis>,
    /// Lossless coding of blocks, where there are any.
    pub blocks: Option<BlockAnalysis>,
}

impl Pooled {
    /// Pools tensors.
    pub fn new<'a>(tensors: impl Iterator<Item = &'a TensorAnalysis> + Clone) -> Self {
        let weights = tensors.clone().map(|t| t.weights).sum::<u64>();
        let n = weights.max(1) as f64;
        let mut prediction = Prediction::default();
        tensors.clone().for_each(|t| prediction.add(&t.prediction, t.weights as f64 / n));
        let native = (0..RATES.len()).map(|i| {
            let here = tensors.clone().filter_map(|t| Some((t.weights as f64, t.native.get(i)?)));
            let sum = here.fold((0.0, Distortion::default()), |a, (w, b)| (a.0 + w * b.0, a.1.and(b.1)));
            (sum.0 / n, sum.1)
        });
        Self {
            weights,
            // the sum of nothing is -0
            source_bits: tensors.clone().map(|t| t.source_bits * t.weights as f64).sum::<f64>() / n + 0.0,
            schemes: schemes::pool(tensors.clone().flat_map(|t| &t.schemes)),
            curve: if weights > 0 { Curve::new(native) } else { Curve::default() },
            prediction,
            floats: FloatAnalysis::pool(tensors.clone().filter_map(|t| t.floats.as_ref())),
            blocks: BlockAnalysis::pool(tensors.filter_map(|t| t.blocks.as_ref())),
        }
    }

    /// The scheme of this name.
    pub fn scheme(&self, name: &str) -> Option<&SchemeAnalysis> {
        self.schemes.iter().find(|s| s.scheme == name)
    }

    /// The rate-distortion points of the schemes that lose something.
    pub fn points(&self) -> impl Iterator<Item = (&SchemeAnalysis, Point)> {
        self.schemes.iter().filter_map(|s| Some((s, Point::new(s.bits, s.sqnr_db?))))
    }
}

/// Analyzes the tensors of a model whose names are `wanted`. `input` is where the source was opened, for names. Errors: NaN
/// or infinite weights; no tensor is wanted though there are some; cancelled.
pub fn analyze(
    source: &Source,
    input: &Path,
    wanted: &(dyn Fn(&str) -> bool + Sync),
    progress: &dyn Progress,
) -> Result<Analysis> {
    source.explained(|_| false)?;
    source.notes().iter().for_each(|note| tracing::warn!("{note}"));
    let model = input.file_name().unwrap_or(input.as_os_str()).to_string_lossy().into_owned();
    let (chosen, others): (Vec<_>, Vec<_>) = source.tensors().iter().partition(|t| wanted(&t.name));
    if let (Some(first), true) = (others.first(), chosen.is_empty()) {
        let (path, tensor) = (input.to_owned(), first.name.clone());
        return Err(Error::NoneWanted { path, tensors: others.len(), first: tensor });
    }
    progress.begin(&format!("analyzing {model}"), chosen.iter().map(|t| t.len).sum());
    let (mut tensors, mut plain) = (Vec::new(), Vec::new());
    for tensor in chosen {
        let Some(matrix) = SourceMatrix::new(source, tensor) else {
            // what belongs to packed levels is counted with them
            if !matches!(source.role(tensor), Role::Member) {
                plain.push(PlainTensor { name: tensor.name.clone(), bytes: tensor.len });
            }
            step(progress, tensor.len)?;
            continue;
        };
        let advanced = AtomicU64::new(0);
        let advance = |share: f64| {
            let bytes = (share * tensor.len as f64) as u64;
            advanced.fetch_add(bytes, Ordering::Relaxed);
            step(progress, bytes).map_err(Stop::Asked)
        };
        let made = TensorAnalysis::new(tensor, &matrix, &advance).map_err(|stop| match stop {
            Stop::Asked(error) => error,
            Stop::Quantize(why) => quantize_error(source, tensor)(why),
        })?;
        tensors.push(made);
        step(progress, tensor.len.saturating_sub(advanced.into_inner()))?;
    }
    let pooled = Pooled::new(tensors.iter());
    let left_out = others.into_iter().map(|t| t.name.clone()).collect();
    Ok(Analysis { model, tensors, pooled, plain, left_out })
}

/// Why a tensor was not finished.
enum Stop {
    Asked(Error),
    Quantize(ecq_quant::Error),
}

impl From<ecq_quant::Error> for Stop {
    fn from(why: ecq_quant::Error) -> Self {
        Self::Quantize(why)
    }
}

#[cfg(test)]
mod tests {
    use super::Pooled;

    #[test]
    fn no_tensors_have_no_bits() {
        let pooled = Pooled::new([].iter());
        assert_eq!((pooled.weights, format!("{:.2}", pooled.source_bits)), (0, "0.00".into()));
    }
}

//! Bits for each tensor from one multiplier for all.
//!
//! What counts is the error of a tensor against its own power, times its sensitivity: errors of a layer spread through
//! the model in proportion to the layer's output, not to the size of its weights. At the least sum of these errors for
//! a number of bits, a further bit saves the same in every tensor; that slope, the multiplier, is searched by bisection
//! on the tensors' [curves](Curve).

use ecq_format::encode::Profile;
use ecq_quant::scheme::BITS;
use ecq_quant::weights::Weights;
use ecq_quant::{Curve, Scheme};

use super::rules::{Choice, Rules, Sensitivities};
use super::sensitivity::Defaults;
use crate::progress::step;
use crate::source::{Source, SourceTensor};
use crate::tensors::{BlockTensor, SourceMatrix};
use crate::{Error, Progress, Result};

/// What the model as a whole shall have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Bits a weight of all tensors that share, side costs included.
    Bits(f64),
    /// Signal to noise of all their weights together, in dB.
    Sqnr(f64),
    /// Bytes of the file: at most so many.
    Size(u64),
}

/// How the native scheme is controlled.
#[derive(Clone, Debug)]
pub struct RateControl {
    /// What is to be met.
    pub target: Target,
    /// Factors of the errors of tensors; those that are not listed have their default.
    pub sensitivities: Sensitivities,
    /// Scale the step of each row.
    pub row_scales: bool,
    /// Scale the step of each column.
    pub column_scales: bool,
}

/// Who shares bytes among the tensors of a source.
pub trait Allocation {
    /// Whether the tensor `index` of the source shares.
    fn has(&self, index: usize) -> bool;
    /// Weights of all tensors that share.
    fn weights(&self) -> u64;
    /// The least and the most bytes that the sharing tensors from the `first` on can take.
    fn bytes(&self, first: usize) -> (u64, u64);
    /// What the tensor `index` gets if those from it on together take so many bytes. `None` if it does not share.
    fn within(&self, index: usize, bytes: u64) -> Option<Choice>;
}

/// A tensor that shares.
struct Candidate {
    /// Index in the source.
    tensor: usize,
    curve: Curve,
    /// What an error counts.
    factor: f64,
    /// Bits a weight without loss, where the source is quantized already.
    lossless: Option<f64>,
}

/// Tensors and their curves.
pub struct Shares {
    candidates: Vec<Candidate>,
    row_scales: bool,
    column_scales: bool,
}

impl Shares {
    /// Measures all tensors that no rule names.
    ///
    /// Errors: [`Error::Quantize`], [`Error::Source`], [`Error::Cancelled`].
    pub fn measure(
        source: &Source,
        control: &RateControl,
        rules: &Rules,
        profile: Profile,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let defaults = Defaults::of(source.tensors());
        let mut candidates = Vec::new();
        for (index, tensor) in source.tensors().iter().enumerate() {
            let rule = rules.of(&tensor.name);
            if rule.is_none()
                && let Some(matrix) = SourceMatrix::new(source, tensor)
            {
                let own = control.sensitivities.of(&tensor.name);
                let default = || defaults.sensitivity(&tensor.name, matrix.rows(), matrix.cols());
                let sensitivity = own.unwrap_or_else(default);
                let curve = Curve::of(&matrix, control.row_scales, control.column_scales, profile);
                let curve = curve.map_err(quantize_error(source, tensor))?;
                let power = curve.signal() / curve.weights() as f64;
                let factor = if power > 0.0 { sensitivity / power } else { 0.0 };
                let lossless = lossless_bits(&matrix);
                candidates.push(Candidate { tensor: index, curve, factor, lossless });
                source.files()[tensor.file].check()?;
            }
            step(progress, 0)?;
        }
        let RateControl { row_scales, column_scales, .. } = *control;
        Ok(Self { candidates, row_scales, column_scales })
    }

    fn from(&self, first: usize) -> impl Iterator<Item = &Candidate> + Clone {
        self.candidates.iter().filter(move |c| c.tensor >= first)
    }

    /// The multiplier at which the tensors from the `first` on together take so many bits.
    fn meeting(&self, first: usize, bits: f64) -> f64 {
        search(|m| self.from(first).map(|c| c.total(m)).sum::<f64>() - bits)
    }

    /// The multiplier at which all tensors meet a rate or a ratio.
    pub fn multiplier(&self, target: Target) -> f64 {
        match target {
            Target::Size(bytes) => self.meeting(0, 8.0 * bytes as f64),
            Target::Bits(bits) => self.meeting(0, bits * self.weights() as f64),
            Target::Sqnr(db) => {
                let all = || self.candidates.iter();
                let noise = all().map(|c| c.curve.signal()).sum::<f64>() / 10f64.powf(db / 10.0);
                // more bits, less error
                search(|m| noise - all().map(|c| c.error(m)).sum::<f64>())
            }
        }
    }

    /// What the tensor `index` of the source gets at a multiplier. `None` if it does not share.
    pub fn choice(&self, index: usize, multiplier: f64) -> Option<Choice> {
        let candidate = self.candidates.iter().find(|c| c.tensor == index)?;
        let (bits, lossless) = candidate.bits(multiplier);
        let Self { row_scales, column_scales, .. } = *self;
        Some(match lossless {
            true => Choice::Lossless,
            false => Choice::Scheme(Scheme::Ecq { bits, row_scales, column_scales }),
        })
    }
}

impl Allocation for Shares {
    fn has(&self, index: usize) -> bool {
        self.candidates.iter().any(|c| c.tensor == index)
    }

    fn weights(&self) -> u64 {
        self.candidates.iter().map(|c| c.curve.weights()).sum()
    }

    fn bytes(&self, first: usize) -> (u64, u64) {
        let at = |multiplier| (self.from(first).map(|c| c.total(multiplier)).sum::<f64>() / 8.0) as u64;
        (at(f64::INFINITY), at(0.0))
    }

    fn within(&self, index: usize, bytes: u64) -> Option<Choice> {
        self.choice(index, self.meeting(index, 8.0 * bytes as f64))
    }
}

impl Candidate {
    /// Bits a weight at a multiplier, and whether that is the tensor without loss.
    fn bits(&self, multiplier: f64) -> (f64, bool) {
        let slope = if self.factor > 0.0 { multiplier / self.factor } else { f64::INFINITY };
        let bits = self.curve.bits_at_slope(slope).clamp(*BITS.start(), *BITS.end());
        match self.lossless {
            Some(exact) if exact <= bits => (exact, true),
            _ => (bits, false),
        }
    }

    /// Bits of the whole tensor.
    fn total(&self, multiplier: f64) -> f64 {
        self.bits(multiplier).0 * self.curve.weights() as f64
    }

    fn error(&self, multiplier: f64) -> f64 {
        let (bits, lossless) = self.bits(multiplier);
        if lossless { 0.0 } else { self.curve.error_at(bits) }
    }
}

/// Bits a weight of a quantized source without loss; `None` for floats.
pub fn lossless_bits(matrix: &SourceMatrix<'_>) -> Option<f64> {
    let blocks = BlockTensor::new(matrix)?;
    let side = ecq_format::side::Side::new(&blocks.planes).bytes();
    Some((blocks.plan.bits + 8.0 * side as f64) / (matrix.rows() * matrix.cols()) as f64)
}

/// Adds file and tensor to an error of a quantizer.
pub(crate) fn quantize_error<'a>(
    source: &'a Source,
    tensor: &'a SourceTensor,
) -> impl Fn(ecq_quant::Error) -> Error + 'a {
    |why| Error::Quantize { path: source.files()[tensor.file].path.clone(), tensor: tensor.name.clone(), why }
}

/// The least multiplier at which `excess`, which falls with it, is not above zero.
fn search(excess: impl Fn(f64) -> f64) -> f64 {
    // slopes of errors relative to a tensor's power, a weight: from beyond 8 bits to below 1
    let (mut low, mut high) = (-60.0f64, 20.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if excess(middle.exp2()) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    high.exp2()
}

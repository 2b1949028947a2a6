//! Schemes of one scale (and minimum) for each group of columns.

use ecq_format::directory::{Codebook, Scales, Values};
use half::f16;

use crate::Error;
use crate::groups::planes_of;
use crate::quantize::{Quantized, bounds};
use crate::rule::Rule;
use crate::scheme::{Granularity, Scheme};
use crate::weights::{Weights, map_pieces};

/// Scales (and minima) of groups, as the file will have them.
struct Fitted {
    /// Columns of a group.
    size: usize,
    /// Of all groups, row by row.
    scale: Vec<f32>,
    /// The same; empty without minima.
    min: Vec<f32>,
    values: Values,
    /// Planes of the side data.
    planes: Vec<Vec<u8>>,
}

impl Fitted {
    /// `fit` gives scale and minimum from a group's smallest and largest weight; those of the tensor are `range`. `affine`
    /// says that groups have minima.
    ///
    /// One scale for the tensor is a number of the directory; others are binary16 numbers times a power of two that brings
    /// them all into range.
    fn new(
        weights: &dyn Weights,
        granularity: Granularity,
        range: (f32, f32),
        affine: bool,
        fit: impl Fn(f32, f32) -> (f32, f32) + Sync,
    ) -> Self {
        let cols = weights.cols();
        let Some(size) = granularity.columns(cols as u64) else {
            let (step, offset) = fit(range.0, range.1);
            let values = Values { step: step.into(), offset: offset.into(), ..Values::ONE };
            let min = if affine { vec![offset; weights.rows()] } else { Vec::new() };
            return Self { size: cols, scale: vec![step; weights.rows()], min, values, planes: Vec::new() };
        };
        let pieces = map_pieces(weights, |_, w| {
            let groups = w.chunks_exact(cols).flat_map(|row| row.chunks(size as usize));
            groups.map(bounds).map(|(low, high, _)| fit(low, high)).collect::<Vec<_>>()
        });
        let fits = pieces.concat();
        let largest = fits.iter().fold(0f32, |a, &(s, m)| a.max(s).max(m.abs()));
        let step =
            if largest > 0.0 { (largest.log2().ceil() - 14.0).clamp(-120.0, 120.0).exp2() } else { 1.0 };
        let mut planes = Vec::new();
        let mut stored = |number: fn(&(f32, f32)) -> f32| -> Vec<f32> {
            let halves = fits.iter().map(|fit| f16::from_f32(number(fit) / step));
            planes.extend(planes_of(halves.clone().map(|h| h.to_bits().to_be_bytes())));
            halves.map(|h| h.to_f32() * step).collect()
        };
        let scale = stored(|fit| fit.0);
        let min = if affine { stored(|fit| fit.1) } else { Vec::new() };
        let values = Values { step: step.into(), scales: Scales::Group { size, min: affine }, ..Values::ONE };
        Self { size: size as usize, scale, min, values, planes }
    }
}

/// Levels from `levels.0` to `levels.1`. `range` is that of the weights; `affine` says that groups have minima.
pub(crate) fn grouped<'a>(
    scheme: Scheme,
    weights: &'a dyn Weights,
    granularity: Granularity,
    range: (f32, f32),
    (lowest, highest): (i32, i32),
    affine: bool,
) -> Result<Quantized<'a>, Error> {
    let fit = |low: f32, high: f32| {
        if affine {
            // halves first: the difference of two finite weights can overflow
            ((high / 15.0 - low / 15.0).max(0.0), low)
        } else {
            (high.max(-low) / highest as f32, 0.0)
        }
    };
    let Fitted { size, scale, min, values, planes } = Fitted::new(weights, granularity, range, affine, fit);
    // the middle of 16 unsigned levels folds without loss, and so does the zero of signed ones
    let center = if affine { 8 } else { 0 };
    let rule = Rule::Grouped { size, scale, min, lowest, highest };
    Quantized::build(scheme, weights, values, rule, planes, center)
}

/// The values of NF4: quantiles of the normal distribution, scaled to -1..=1, with a zero among them (Dettmers et al. 2023,
/// QLoRA).
pub const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Each group's largest magnitude is its scale, and weights go to the nearest value of [`NF4`] times that.
pub(crate) fn nf4<'a>(
    scheme: Scheme,
    weights: &'a dyn Weights,
    granularity: Granularity,
    range: (f32, f32),
) -> Result<Quantized<'a>, Error> {
    let fit = |low: f32, high: f32| (high.max(-low), 0.0);
    let Fitted { size, scale, values, planes, .. } = Fitted::new(weights, granularity, range, false, fit);
    let thresholds = std::array::from_fn(|i| (NF4[i] + NF4[i + 1]) / 2.0);
    let values = Values { codebook: Some(Codebook(NF4)), ..values };
    Quantized::build(scheme, weights, values, Rule::Listed { size, scale, thresholds }, planes, 0)
}

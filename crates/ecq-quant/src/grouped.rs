//! Schemes of one scale (and minimum) for each group of columns.

use ecq_format::directory::{Codebook, Scales, Values};
use half::f16;

use crate::Error;
use crate::groups::planes_of;
use crate::quantize::{Quantized, bounds};
use crate::rule::Rule;
use crate::scheme::{Granularity, Scheme};
use crate::weights::{Weights, map_pieces};

/// Levels from `levels.0` to `levels.1`. `range` is that of the weights; `affine` says that groups have minima.
pub(crate) fn grouped<'a>(
    scheme: Scheme,
    weights: &'a dyn Weights,
    granularity: Granularity,
    range: (f32, f32),
    levels: (i32, i32),
    affine: bool,
) -> Result<Quantized<'a>, Error> {
    let fit = |low: f32, high: f32| -> (f32, f32) {
        if affine {
            // halves first: the difference of two finite weights can overflow
            ((high / 15.0 - low / 15.0).max(0.0), low)
        } else {
            (high.max(-low) / levels.1 as f32, 0.0)
        }
    };
    // the middle of 16 unsigned levels folds without loss, and so does the zero of signed ones
    let center = if affine { 8 } else { 0 };
    let (lowest, highest) = levels;
    let Some(size) = granularity.columns(weights.cols() as u64) else {
        let (step, offset) = fit(range.0, range.1);
        let values = Values { step: step.into(), offset: offset.into(), ..Values::ONE };
        let min = if affine { vec![offset; weights.rows()] } else { Vec::new() };
        let (size, scale) = (weights.cols(), vec![step; weights.rows()]);
        let rule = Rule::Grouped { size, scale, min, lowest, highest };
        return Quantized::build(scheme, weights, values, rule, Vec::new(), center);
    };
    let size = size as usize;
    let pieces = map_pieces(weights, |_, w| {
        let groups = w.chunks_exact(weights.cols()).flat_map(|row| row.chunks(size));
        groups.map(bounds).map(|(low, high, _)| fit(low, high)).collect::<Vec<_>>()
    });
    let fits: Vec<(f32, f32)> = pieces.into_iter().flatten().collect();
    let (step, planes, mut stored) = halves(&fits, affine);
    let min = if affine { stored.pop().unwrap_or_default() } else { Vec::new() };
    let scale = stored.pop().unwrap_or_default();
    let scales = Scales::Group { size: size as u64, min: affine };
    let values = Values { step: step.into(), scales, ..Values::ONE };
    Quantized::build(
        scheme,
        weights,
        values,
        Rule::Grouped { size, scale, min, lowest, highest },
        planes,
        center,
    )
}

/// Scales (and minima) as binary16 numbers times a power of two that brings them all into range: that power, the planes of
/// their bytes, and what they became.
fn halves(fits: &[(f32, f32)], affine: bool) -> (f32, Vec<Vec<u8>>, Vec<Vec<f32>>) {
    let largest = fits.iter().fold(0f32, |a, &(s, m)| a.max(s).max(m.abs()));
    let step = if largest > 0.0 { (largest.log2().ceil() - 14.0).clamp(-120.0, 120.0).exp2() } else { 1.0 };
    let (mut planes, mut stored) = (Vec::new(), Vec::new());
    for param in 0..1 + usize::from(affine) {
        let halves = fits.iter().map(|&(s, m)| f16::from_f32(if param == 0 { s } else { m } / step));
        planes.extend(planes_of(halves.clone().map(|h| h.to_bits().to_be_bytes())));
        stored.push(halves.map(|h| h.to_f32() * step).collect());
    }
    (step, planes, stored)
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

/// Each group's largest magnitude is its scale, and weights go to the nearest value of a codebook times that.
pub(crate) fn listed<'a>(
    scheme: Scheme,
    weights: &'a dyn Weights,
    granularity: Granularity,
    range: (f32, f32),
    book: [f32; 16],
) -> Result<Quantized<'a>, Error> {
    let cols = weights.cols();
    let codebook = Some(Codebook(book));
    let thresholds = std::array::from_fn(|i| (book[i] + book[i + 1]) / 2.0);
    let Some(size) = granularity.columns(cols as u64) else {
        let step = range.1.max(-range.0);
        let rule = Rule::Listed { size: cols, scale: vec![step; weights.rows()], thresholds };
        let values = Values { step: step.into(), codebook, ..Values::ONE };
        return Quantized::build(scheme, weights, values, rule, Vec::new(), 0);
    };
    let pieces = map_pieces(weights, |_, w| {
        let groups = w.chunks_exact(cols).flat_map(|row| row.chunks(size as usize));
        groups.map(bounds).map(|(low, high, _)| (high.max(-low), 0.0)).collect::<Vec<_>>()
    });
    let fits: Vec<(f32, f32)> = pieces.into_iter().flatten().collect();
    let (step, planes, mut stored) = halves(&fits, false);
    let rule = Rule::Listed { size: size as usize, scale: stored.pop().unwrap_or_default(), thresholds };
    let values =
        Values { step: step.into(), scales: Scales::Group { size, min: false }, codebook, ..Values::ONE };
    Quantized::build(scheme, weights, values, rule, planes, 0)
}

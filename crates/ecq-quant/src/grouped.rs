//! Schemes of one scale (and minimum) for each group of columns.

use ecq_format::directory::{Scales, Values};
use half::f16;

use crate::Error;
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
    // a power of two brings all scales and minima into the range of binary16
    let largest = fits.iter().fold(0f32, |a, &(s, m)| a.max(s).max(m.abs()));
    let step = if largest > 0.0 { (largest.log2().ceil() - 14.0).clamp(-120.0, 120.0).exp2() } else { 1.0 };
    let (mut planes, mut stored) = (Vec::new(), Vec::new());
    for param in 0..1 + usize::from(affine) {
        let halves = fits.iter().map(|&(s, m)| f16::from_f32(if param == 0 { s } else { m } / step));
        let bits: Vec<[u8; 2]> = halves.clone().map(|h| h.to_bits().to_be_bytes()).collect();
        planes.push(bits.iter().map(|b| b[0]).collect());
        planes.push(bits.iter().map(|b| b[1]).collect());
        stored.push(halves.map(|h| h.to_f32() * step).collect::<Vec<_>>());
    }
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

//! How a weight becomes a level: plain loops, compiled for several instruction sets.

use std::ops::{Range, RangeInclusive};

use multiversion::multiversion;

/// Magnitudes that have thresholds of their own: all nibbles of a folded level.
pub(crate) const MAGNITUDES: usize = 16;

/// How a weight becomes a level.
pub(crate) enum Rule {
    /// Uniform values, times a factor a row and a column if given.
    Uniform(Steps, Factors),
    /// A scale (and a minimum) for each group of columns, as the file will have them; levels are clamped.
    Grouped { size: usize, scale: Vec<f32>, min: Vec<f32>, lowest: i32, highest: i32 },
    /// A scale for each group of columns; the level is the number of thresholds that weight / scale reaches.
    Listed { size: usize, scale: Vec<f32>, thresholds: [f32; 15] },
    /// Levels that were found before, row by row.
    Given { levels: Vec<i16>, between: bool },
}

/// Factors of the step; empty for 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Factors {
    pub row: Vec<f32>,
    pub column: Vec<f32>,
}

impl Factors {
    pub fn of_row(&self, row: usize) -> f32 {
        self.row.get(row).copied().unwrap_or(1.0)
    }

    pub fn of_column(&self, column: usize) -> f32 {
        self.column.get(column).copied().unwrap_or(1.0)
    }
}

/// A uniform quantizer. The magnitude of a level is the number of thresholds that |w| / step reaches; beyond the last
/// one, another magnitude each whole step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Steps {
    pub step: f32,
    /// Whether values lie between the multiples of the step, with a sign for each, or on them, with a lone zero.
    pub between: bool,
    /// Ascending; in steps.
    pub thresholds: [f32; MAGNITUDES],
}

impl Steps {
    /// To the nearest value. The step is 2^`octave`.
    pub fn plain(octave: f64, between: bool) -> Self {
        let first = if between { 1.0 } else { 0.5 };
        let steps = Self { step: 1.0, between, thresholds: std::array::from_fn(|k| k as f32 + first) };
        steps.at(octave)
    }

    /// With the step 2^`octave`.
    pub fn at(&self, octave: f64) -> Self {
        Self { step: (octave.exp2() as f32).max(f32::MIN_POSITIVE), ..*self }
    }

    /// What is added to a level.
    pub fn bias(&self) -> f64 {
        if self.between { 0.5 } else { 0.0 }
    }

    /// The magnitude of a weight that is `x` steps from zero. Saturates: a weight too far out for 32 bits gets the
    /// outermost level, and the measured error shows it.
    pub fn magnitude(&self, x: f32) -> i32 {
        let reached = self.thresholds.iter().filter(|t| x >= **t).count() as i32;
        reached.saturating_add((x - self.thresholds[MAGNITUDES - 1]).floor().max(0.0) as i32)
    }

    /// The level of this magnitude on the side of zero where `negative` says.
    pub fn signed(&self, magnitude: i32, negative: bool) -> i32 {
        match (negative, self.between) {
            (false, _) => magnitude,
            (true, false) => -magnitude,
            (true, true) => !magnitude,
        }
    }
}

impl Rule {
    /// Numbers of raw bits that its levels can be coded with.
    pub fn raw_bits(&self) -> RangeInclusive<u32> {
        match self {
            Self::Uniform(steps, _) => raw_bits(steps.between),
            Self::Grouped { .. } => 0..=8,
            Self::Listed { .. } => 0..=0,
            Self::Given { between, .. } => raw_bits(*between),
        }
    }

    pub fn fill(&self, rows: Range<usize>, weights: &[f32], cols: usize, out: &mut [i32]) {
        for ((r, w), out) in rows.zip(weights.chunks_exact(cols)).zip(out.chunks_exact_mut(cols)) {
            self.row(r, w, out);
        }
    }

    fn row(&self, r: usize, weights: &[f32], out: &mut [i32]) {
        match self {
            Self::Uniform(steps, factors) => uniform_row(steps, factors, r, weights, out),
            Self::Grouped { size, scale, min, lowest, highest } => {
                let first = r * weights.len().div_ceil(*size);
                for (g, (out, weights)) in out.chunks_mut(*size).zip(weights.chunks(*size)).enumerate() {
                    let (s, m) = (scale[first + g], min.get(first + g).copied().unwrap_or(0.0));
                    clamped(s, m, (*lowest, *highest), weights, out);
                }
            }
            Self::Listed { size, scale, thresholds } => {
                let first = r * weights.len().div_ceil(*size);
                let groups = out.chunks_mut(*size).zip(weights.chunks(*size));
                for ((out, weights), &s) in groups.zip(&scale[first..]) {
                    listed(s, thresholds, weights, out);
                }
            }
            Self::Given { .. } => unreachable!("no weights are needed for levels that are known"),
        }
    }
}

/// Numbers of raw bits for uniform values: those on the multiples of the step have a lone zero, and folding would spend
/// a sign on it.
pub(crate) fn raw_bits(between: bool) -> RangeInclusive<u32> {
    if between { 1..=8 } else { 0..=0 }
}

/// Levels of a row of a uniform quantizer.
pub(crate) fn uniform_row(steps: &Steps, factors: &Factors, r: usize, weights: &[f32], out: &mut [i32]) {
    uniform(steps, steps.step * factors.of_row(r), &factors.column, weights, out);
}

/// Levels of a uniform quantizer with another step, which is times a factor a column, if there are any.
#[multiversion(targets = "simd")]
pub(crate) fn uniform(steps: &Steps, step: f32, column: &[f32], weights: &[f32], out: &mut [i32]) {
    // one length for all, so that no index is checked
    let n = out.len();
    let weights = &weights[..n];
    let column = if column.is_empty() { column } else { &column[..n] };
    let near = match column {
        [] => levels(out, steps, |i| weights[i] / step),
        _ => levels(out, steps, |i| weights[i] / (step * column[i])),
    };
    if !near {
        for (i, (q, &w)) in out.iter_mut().zip(weights).enumerate() {
            let x = w / column.get(i).map_or(step, |c| step * c);
            *q = steps.signed(steps.magnitude(x.abs()), x < 0.0);
        }
    }
}

/// Integers that lie nearer to 0 than this are [`whole`] ones.
const NEAR: f32 = (1 << 22) as f32;

/// The integer that a float is, if it is one and at most [`NEAR`]. A cast checks for more and is no vector instruction.
#[inline(always)]
fn whole(x: f32) -> i32 {
    const UNIT: f32 = 3.0 * NEAR; // its lowest bit is 1
    (x + UNIT).to_bits().wrapping_sub(UNIT.to_bits()) as i32
}

/// Weights that are compared with a threshold at a time: they stay in the first cache.
const BLOCK: usize = 256;

/// Writes the levels of `x(i)` for all i, and tells whether all were near enough.
///
/// Thresholds outside, weights inside, and nothing checked: so a comparison is one of vectors.
#[inline(always)]
fn levels(out: &mut [i32], steps: &Steps, x: impl Fn(usize) -> f32) -> bool {
    let last = steps.thresholds[MAGNITUDES - 1];
    // from !m to -m
    let lone = if steps.between { 0 } else { -1 };
    let mut near = true;
    let mut xs = [0.0f32; BLOCK];
    for (b, out) in out.chunks_mut(BLOCK).enumerate() {
        let xs = &mut xs[..out.len()];
        for (i, (q, to)) in out.iter_mut().zip(xs.iter_mut()).enumerate() {
            *to = x(b * BLOCK + i);
            let far = (to.abs() - last).floor();
            near &= to.abs() <= NEAR;
            *q = whole(if far > 0.0 { far } else { 0.0 });
        }
        for t in steps.thresholds {
            let reached = |x: f32| i32::from(x.abs() >= t);
            out.iter_mut().zip(xs.iter()).for_each(|(q, &x)| *q = q.wrapping_add(reached(x)));
        }
        for (q, &x) in out.iter_mut().zip(xs.iter()) {
            let sign = i32::from(x < 0.0).wrapping_neg();
            *q = (*q ^ sign).wrapping_sub(sign & lone);
        }
    }
    near
}

/// Levels of a group with this scale, by thresholds. A group of zeros has the level whose interval holds zero.
#[multiversion(targets = "simd")]
fn listed(scale: f32, thresholds: &[f32; 15], weights: &[f32], out: &mut [i32]) {
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    for (q, &w) in out.iter_mut().zip(weights) {
        let x = w * inverse;
        *q = thresholds.iter().map(|&t| i32::from(x >= t)).sum();
    }
}

/// Levels of a group with this scale and minimum.
#[multiversion(targets = "simd")]
fn clamped(scale: f32, min: f32, range: (i32, i32), weights: &[f32], out: &mut [i32]) {
    let (low, high) = (range.0 as f32, range.1 as f32);
    let level = |w: f32| if scale > 0.0 { whole(((w - min) / scale).round().clamp(low, high)) } else { 0 };
    out.iter_mut().zip(weights).for_each(|(q, &w)| *q = level(w));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_steps_round_to_the_nearest_value() {
        let weights: Vec<f32> = (-5000..5000).map(|i| i as f32 * 0.0137 + 0.00123).collect();
        for between in [false, true] {
            let steps = Steps::plain(-1.0, between);
            let mut levels = vec![0; weights.len()];
            uniform_row(&steps, &Factors::default(), 0, &weights, &mut levels);
            for (w, q) in weights.iter().zip(levels) {
                let x = w / steps.step;
                assert_eq!(q, if between { x.floor() } else { x.round() } as i32, "{w}, between: {between}");
            }
        }
    }

    #[test]
    fn loop_and_definition_agree_near_and_far() {
        let thresholds = std::array::from_fn(|k| [0.7, 1.6, 1.6, 2.9][k % 4] + 3.0 * (k / 4) as f32);
        let row = vec![0.0, -0.0, 0.69, -0.7, 1.6, -1.6, 11.9, 12.0, -14.0, 3e6, -5e6, 1e30, -1e30];
        for between in [false, true] {
            let steps = Steps { step: 1.0, between, thresholds };
            for weights in [&row[..9], &row[..10], &row[..]] {
                let mut levels = vec![0; weights.len()];
                uniform_row(&steps, &Factors::default(), 0, weights, &mut levels);
                for (&w, &q) in weights.iter().zip(&levels) {
                    assert_eq!(q, steps.signed(steps.magnitude(w.abs()), w < 0.0), "{w}");
                }
                let expected = if between { [0, 0, 0, -2, 3, -4] } else { [0, 0, 0, -1, 3, -3] };
                assert_eq!(levels[..6], expected);
            }
        }
    }
}

//! The step that makes a tensor take a given number of bits a weight.
//!
//! A uniform quantizer of step Δ has about h - log2 Δ bits of entropy, so a bit of rate is an octave of step; that
//! slope steers the search, bisection guards it. Two families are tried: levels on the multiples of the step with
//! no raw bits (better below about 3 bits, where many weights become 0), and levels between them, whose sign folds
//! away without loss.

use ecq_format::directory::Codec;
use ecq_format::encode::{Profile, layout};
use ecq_format::plan::{Histogram, Plan};
use ecq_format::tile::ENTRY_BYTES;

use crate::quantize::Rule;
use crate::weights::{Weights, map_pieces};

/// Weights that the first search looks at.
const SAMPLE: usize = 1 << 18;
/// How near the search comes, in bits a weight.
const NEAR: f64 = 0.001;

/// Some rows of a matrix.
struct Sample {
    rows: Vec<usize>,
    weights: Vec<f32>,
    cols: usize,
}

impl Sample {
    /// Evenly spaced rows of about [`SAMPLE`] weights.
    fn new(weights: &dyn Weights) -> Self {
        let (height, cols) = (weights.rows(), weights.cols());
        let wanted = SAMPLE.div_ceil(cols).min(height);
        let rows: Vec<usize> = (0..wanted).map(|i| i * height / wanted).collect();
        let mut sample = vec![0.0; wanted * cols];
        for (&row, out) in rows.iter().zip(sample.chunks_exact_mut(cols)) {
            weights.fill(row..row + 1, out);
        }
        Self { rows, weights: sample, cols }
    }

    /// Levels counted, and the sum of squared errors in units of the squared weights.
    fn quantize(&self, rule: &Rule) -> (Histogram, f64) {
        let Rule::Uniform { step, between, row, column } = rule else {
            unreachable!("the search is for uniform rules")
        };
        let mut histogram = Histogram::new(0);
        let mut levels = vec![0; self.cols];
        let mut error = 0.0;
        for (&r, weights) in self.rows.iter().zip(self.weights.chunks_exact(self.cols)) {
            rule.row(r, weights, &mut levels);
            let step = f64::from(*step) * f64::from(row.get(r).copied().unwrap_or(1.0));
            for (c, (&q, &w)) in levels.iter().zip(weights).enumerate() {
                histogram.add(q);
                let back = (f64::from(q) + if *between { 0.5 } else { 0.0 }) * step;
                let e = f64::from(w) - back * f64::from(column.get(c).copied().unwrap_or(1.0));
                error += e * e;
            }
        }
        (histogram, error)
    }
}

/// Sets the step of a uniform rule so that the matrix takes `bits` a weight; `side` bytes of side data are included.
/// Also decides whether levels lie on or between the multiples. `largest` is the largest magnitude.
pub(crate) fn meet(
    weights: &dyn Weights,
    rule: &mut Rule,
    side: usize,
    bits: f64,
    profile: Profile,
    largest: f32,
) {
    if largest == 0.0 {
        return; // any step makes all levels 0
    }
    let fixed = Fixed { rows: weights.rows() as u64, cols: weights.cols() as u64, profile, side };
    let sample = Sample::new(weights);
    let start = f64::from(largest).log2() + 1.0 - bits;
    let mut best: Option<(f64, bool, f64)> = None;
    for on in [false, true] {
        let mut error = 0.0;
        let octave = search(start, bits, |octave| {
            set(rule, octave, on);
            let (histogram, e) = sample.quantize(rule);
            error = e;
            fixed.rate(&histogram, on)
        });
        // at equal rate: 6 dB a bit
        let at_rate = error * (2.0 * (octave.1 - bits)).exp2();
        if best.is_none_or(|b| at_rate < b.2) {
            best = Some((octave.0, on, at_rate));
        }
    }
    let Some((octave, between, _)) = best else { return };
    if sample.rows.len() < weights.rows() {
        let cols = weights.cols();
        let found = search(octave, bits, |octave| {
            set(rule, octave, between);
            let counted = map_pieces(weights, |rows, w| {
                let mut histogram = Histogram::new(0);
                let mut levels = vec![0; cols];
                for (r, w) in rows.zip(w.chunks_exact(cols)) {
                    rule.row(r, w, &mut levels);
                    levels.iter().for_each(|&q| histogram.add(q));
                }
                histogram
            });
            fixed.rate(&counted.iter().fold(Histogram::new(0), |a, b| a.merge(b)), between)
        });
        set(rule, found.0, between);
    } else {
        set(rule, octave, between);
    }
}

fn set(rule: &mut Rule, octave: f64, on_halves: bool) {
    if let Rule::Uniform { step, between, .. } = rule {
        *step = (octave.exp2() as f32).max(f32::MIN_POSITIVE);
        *between = on_halves;
    }
}

/// Finds the octave (log2 of the step) at which `rate` is `bits`; returns it with the rate there.
fn search(start: f64, bits: f64, mut rate: impl FnMut(f64) -> f64) -> (f64, f64) {
    let (mut low, mut high) = (start - 16.0, start + 16.0);
    let mut octave = start;
    for _ in 0..40 {
        let excess = rate(octave) - bits;
        if excess.abs() < NEAR || high - low < 1e-6 {
            return (octave, bits + excess);
        }
        if excess > 0.0 {
            low = octave;
        } else {
            high = octave;
        }
        octave += excess;
        if octave <= low || octave >= high {
            octave = (low + high) / 2.0;
        }
    }
    (octave, rate(octave))
}

/// What the rate depends on besides the levels.
struct Fixed {
    rows: u64,
    cols: u64,
    profile: Profile,
    side: usize,
}

impl Fixed {
    /// Estimated bits a weight, everything counted.
    fn rate(&self, histogram: &Histogram, between: bool) -> f64 {
        let raw_bits = if between { 1..=8 } else { 0..=0 };
        let Some(plan) = Plan::cheapest(histogram, raw_bits) else { return 0.0 };
        let weights = (self.rows * self.cols) as f64;
        let (codec, tile_rows) = layout(self.rows, self.cols, self.profile);
        let tiles = self.rows.div_ceil(tile_rows) as f64;
        // a start state of b bits holds b/2 bits of the stream on average, and the encoder's first one carries two
        // symbols in half a bit more than b/2
        let (states, tables) = match codec {
            Codec::Nibble(lanes) => (f64::from(lanes) * (12.5 - 2.0 * plan.nibble_entropy), 24.0),
            Codec::BytePairs => (32.0 * (24.5 - 4.0 * plan.nibble_entropy), 300.0),
        };
        let index = (ENTRY_BYTES + 3) as f64;
        let fixed = tiles * (states + 8.0 * index) + 8.0 * (tables + self.side as f64);
        plan.bits / histogram.total() as f64 + fixed / weights
    }
}

//! The step that makes a tensor take a given number of bits a weight.
//!
//! A uniform quantizer of step Δ has about h - log2 Δ bits of entropy, so a bit of rate is an octave of step; that
//! slope steers the search, bisection guards it. Two families are tried: levels on the multiples of the step with
//! no raw bits (better below about 3 bits, where many weights become 0), and levels between them, whose sign folds
//! away without loss.

use ecq_format::directory::Codec;
use ecq_format::encode::{Profile, layout};
use ecq_format::plan::{Histogram, Plan};
use ecq_format::side::Side;
use ecq_format::tile::ENTRY_BYTES;
use multiversion::multiversion;
use rayon::prelude::*;

use crate::curve::Point;
use crate::quantize::Rule;
use crate::weights::Weights;

/// Weights that the first search looks at, and the second: the rate of four million is that of all to 0.001 bit.
const SAMPLES: [usize; 2] = [1 << 18, 1 << 22];
/// Weights that a thread counts at a time.
const PIECE: usize = 1 << 16;
/// How near the search comes, in bits a weight.
const NEAR: f64 = 0.001;

/// Some rows of a matrix.
struct Sample {
    rows: Vec<usize>,
    weights: Vec<f32>,
    cols: usize,
}

impl Sample {
    /// Evenly spaced rows of about this many weights.
    fn new(weights: &dyn Weights, size: usize) -> Self {
        let (height, cols) = (weights.rows(), weights.cols());
        let wanted = size.div_ceil(cols).min(height);
        let rows: Vec<usize> = (0..wanted).map(|i| i * height / wanted).collect();
        let mut sample = vec![0.0; wanted * cols];
        let filled = rows.par_iter().zip(sample.par_chunks_exact_mut(cols));
        filled.for_each(|(&row, out)| weights.fill(row..row + 1, out));
        Self { rows, weights: sample, cols }
    }

    /// Levels counted, and the sum of squared errors.
    fn count(&self, rule: &Rule) -> (Histogram, f64) {
        let height = PIECE.div_ceil(self.cols);
        let pieces = self.rows.par_chunks(height).zip(self.weights.par_chunks(height * self.cols));
        let counted: Vec<_> = pieces.map(|(rows, weights)| count(rule, rows, weights, self.cols)).collect();
        let zero = (Histogram::new(0), 0.0);
        counted.iter().fold(zero, |a, b| (a.0.merge(&b.0), a.1 + b.1))
    }

    /// The magnitude that one weight in 50 exceeds; unlike the largest it does not follow outliers.
    fn typical(&self) -> f32 {
        let mut magnitudes: Vec<f32> = self.weights.iter().map(|w| w.abs()).collect();
        let at = magnitudes.len() - 1 - magnitudes.len() / 50;
        *magnitudes.select_nth_unstable_by(at, f32::total_cmp).1
    }
}

/// Levels of some rows counted, and the sum of squared errors.
fn count(rule: &Rule, rows: &[usize], weights: &[f32], cols: usize) -> (Histogram, f64) {
    let Rule::Uniform { step, between, row, column } = rule else {
        unreachable!("the search is for uniform rules")
    };
    let mut histogram = Histogram::new(0);
    let mut levels = vec![0; cols];
    let mut error = 0.0;
    for (&r, weights) in rows.iter().zip(weights.chunks_exact(cols)) {
        rule.row(r, weights, &mut levels);
        histogram.add_all(&levels);
        let step = f64::from(*step) * f64::from(row.get(r).copied().unwrap_or(1.0));
        error += squared_error(step, if *between { 0.5 } else { 0.0 }, column, weights, &levels);
    }
    (histogram, error)
}

/// Sum of squared errors of a row, whose step is times a factor a column, if there are any.
#[multiversion(targets = "simd")]
fn squared_error(step: f64, bias: f64, column: &[f32], weights: &[f32], levels: &[i32]) -> f64 {
    const SUMS: usize = 8; // a single one would be added to one by one
    let mut sums = [0.0; SUMS];
    for (i, (weights, levels)) in weights.chunks(SUMS).zip(levels.chunks(SUMS)).enumerate() {
        for (j, ((sum, &w), &q)) in sums.iter_mut().zip(weights).zip(levels).enumerate() {
            let factor = if column.is_empty() { 1.0 } else { f64::from(column[SUMS * i + j]) };
            let e = f64::from(w) - (f64::from(q) + bias) * step * factor;
            *sum += e * e;
        }
    }
    sums.iter().sum()
}

/// Steps tried on a sample of a matrix.
pub(crate) struct Search<'a> {
    sample: Sample,
    fixed: Fixed,
    rule: &'a Rule,
    weights: u64,
}

impl<'a> Search<'a> {
    /// On the smaller sample. The rule gives the scales, whose planes are those given.
    pub fn new(weights: &dyn Weights, rule: &'a Rule, planes: &[Vec<u8>], profile: Profile) -> Self {
        Self::on(Sample::new(weights, SAMPLES[0]), weights, rule, planes, profile)
    }

    fn on(
        sample: Sample,
        weights: &dyn Weights,
        rule: &'a Rule,
        planes: &[Vec<u8>],
        profile: Profile,
    ) -> Self {
        let (rows, cols) = (weights.rows() as u64, weights.cols() as u64);
        let fixed = Fixed { rows, cols, profile, side: Side::new(planes).bytes() };
        Self { sample, fixed, rule, weights: rows * cols }
    }

    /// Rate and error of the sample at a step.
    pub fn probe(&self, octave: f64, between: bool) -> Probe {
        let (histogram, error) = self.sample.count(&self.rule.at(octave, between));
        Probe { octave, rate: self.fixed.rate(&histogram, between), error }
    }

    /// The same, with the error of all weights.
    pub fn point(&self, octave: f64, between: bool) -> Point {
        let Probe { rate, error, .. } = self.probe(octave, between);
        Point { bits: rate, error: error * self.share() }
    }

    /// Sum of all squared weights.
    pub fn signal(&self) -> f64 {
        self.sample.weights.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>() * self.share()
    }

    /// Weights for each one of the sample.
    fn share(&self) -> f64 {
        self.weights as f64 / self.sample.weights.len() as f64
    }

    /// About where a rate is met.
    pub fn octave_for(&self, largest: f32, bits: f64) -> f64 {
        let typical = self.sample.typical();
        f64::from(if typical > 0.0 { typical } else { largest }).log2() + 1.0 - bits
    }
}

/// A step at which all levels are 0 or -1.
pub(crate) fn coarsest(largest: f32) -> f64 {
    f64::from(largest).log2() + 1.0
}

/// Sets the step of a uniform rule so that the matrix takes `bits` a weight, its planes of scales included. Also decides
/// whether levels lie on or between the multiples. `largest` is the largest magnitude.
pub(crate) fn meet(
    weights: &dyn Weights,
    rule: Rule,
    planes: &[Vec<u8>],
    bits: f64,
    profile: Profile,
    largest: f32,
) -> Rule {
    if largest == 0.0 {
        return rule; // any step makes all levels 0
    }
    let small = Search::new(weights, &rule, planes, profile);
    let (start, most) = (small.octave_for(largest, bits), coarsest(largest));
    let [on, between] = [false, true].map(|b| search(start, most, bits, |octave| small.probe(octave, b)));
    let between_wins = between.better(&on, bits);
    let mut found = if between_wins { between } else { on };
    if small.sample.rows.len() < weights.rows() {
        let large = Search::on(Sample::new(weights, SAMPLES[1]), weights, &rule, planes, profile);
        found = search(found.octave, most, bits, |octave| large.probe(octave, between_wins));
    }
    rule.at(found.octave, between_wins)
}

/// A step that was tried.
#[derive(Clone, Copy)]
pub(crate) struct Probe {
    /// log2 of the step.
    octave: f64,
    /// Bits a weight, everything counted.
    pub rate: f64,
    /// Sum of squared errors of the sample.
    error: f64,
}

impl Probe {
    /// A rate within the asked one beats one above it; then the smaller error wins, or above it the smaller rate.
    fn better(&self, other: &Self, bits: f64) -> bool {
        let key = |p: &Self| if p.rate <= bits + NEAR { (0, p.error) } else { (1, p.rate) };
        let ((a, x), (b, y)) = (key(self), key(other));
        a < b || (a == b && x < y)
    }
}

/// Looks for the octave (log2 of the step, at most `most`) at which `try_it` gives `bits`. Where the
/// rate jumps over `bits` (few distinct weights), the best probe is the answer.
fn search(start: f64, most: f64, bits: f64, mut try_it: impl FnMut(f64) -> Probe) -> Probe {
    let (mut low, mut high) = (start - 24.0, (start + 24.0).min(most));
    let mut octave = start.min(most);
    let mut best: Option<Probe> = None;
    for _ in 0..48 {
        let probe = try_it(octave);
        let excess = probe.rate - bits;
        if best.is_none_or(|b| probe.better(&b, bits)) {
            best = Some(probe);
        }
        if excess.abs() < NEAR || high - low < 1e-6 {
            break;
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
    best.unwrap_or(Probe { octave, rate: 0.0, error: 0.0 })
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

//! The quantizer that makes a tensor take a given number of bits a weight.
//!
//! A uniform quantizer of step Δ has about h - log2 Δ bits of entropy, so a bit of rate is an octave of step; that
//! slope steers the search, bisection guards it. Two families are tried: levels on the multiples of the step with
//! no raw bits (better below about 3 bits, where many weights become 0), and levels between them, whose sign folds
//! away without loss.
//!
//! Rounding weighs error against rate: a weight takes the level of least (w - t)² + λ × bits of the level. Bits depend on
//! the level alone, so this moves the thresholds between magnitudes and nothing else; bits, thresholds and counts are
//! computed in turn, from a sorted sample. λ = `LAMBDA` Δ²: at high rates error is Δ²/12 and falls by 2 ln 2 of itself a
//! bit, which is 0.116 Δ²; what was measured is least near that at all rates.

use ecq_format::directory::{Codebook, Codec, PairCode, Pairs};
use ecq_format::encode::{MOST_LOSS, Profile, layout};
use ecq_format::plan::{Histogram, Plan};
use ecq_format::tile::ENTRY_BYTES;
use multiversion::multiversion;
use rayon::prelude::*;

use crate::curve::Point;
use crate::rule::{Factors, MAGNITUDES, Steps, raw_bits, uniform_row};
use crate::sorted::{Cells, Sorted, packed};
use crate::weights::Weights;

/// Weights that the first search looks at, and the second: the rate of four million is that of all to 0.001 bit.
pub(crate) const SAMPLES: [usize; 2] = [1 << 18, 1 << 22];
/// Rows that a part of a sample has at least.
const FEWEST_ROWS: usize = 16;
/// Weights that a thread counts at a time.
const PIECE: usize = 1 << 16;
/// How near the search comes, in bits a weight.
const NEAR: f64 = 0.001;
/// Error, in squared steps, that a bit is worth.
pub(crate) const LAMBDA: f64 = 0.12;
/// How often bits and thresholds are computed in turn.
const ROUNDS: usize = 3;
/// Bits of an escape, besides its filler.
const ESCAPE: f64 = 24.0;

/// Bits a weight that a codebook must save: products look its values up.
const CODEBOOK_WORTH: f64 = 0.01;

/// Some rows of a matrix.
pub(crate) struct Sample {
    pub rows: Vec<usize>,
    pub weights: Vec<f32>,
    pub cols: usize,
}

impl Sample {
    /// Evenly spaced rows of about this many weights.
    pub fn new(weights: &dyn Weights, size: usize) -> Self {
        let (height, cols) = (weights.rows(), weights.cols());
        let wanted = size.div_ceil(cols).min(height);
        let rows: Vec<usize> = (0..wanted).map(|i| i * height / wanted).collect();
        let mut sample = vec![0.0; wanted * cols];
        let filled = rows.par_iter().zip(sample.par_chunks_exact_mut(cols));
        filled.for_each(|(&row, out)| weights.fill(row..row + 1, out));
        Self { rows, weights: sample, cols }
    }

    /// Every fourth row, of a sample that has enough of them.
    pub fn part(&self) -> Self {
        let every = if self.rows.len() >= 4 * FEWEST_ROWS { 4 } else { 1 };
        let rows = self.rows.iter().copied().step_by(every).collect();
        let weights = self.weights.chunks_exact(self.cols).step_by(every).flatten().copied().collect();
        Self { rows, weights, cols: self.cols }
    }

    /// Levels counted, and the sum of squared errors of values on or between the multiples.
    fn count(&self, steps: &Steps, factors: &Factors) -> (Histogram, f64) {
        let height = PIECE.div_ceil(self.cols);
        let pieces = self.rows.par_chunks(height).zip(self.weights.par_chunks(height * self.cols));
        let count = |(rows, weights)| count(steps, factors, rows, weights, self.cols);
        let counted: Vec<_> = pieces.map(count).collect();
        let zero = (Histogram::new(0), 0.0);
        counted.iter().fold(zero, |a, b| (a.0.merge(&b.0), a.1 + b.1))
    }

    /// Divided by the factors, and sorted.
    pub fn sorted(&self, factors: &Factors) -> Sorted {
        let rows = self.rows.par_iter().zip(self.weights.par_chunks_exact(self.cols));
        let pairs = rows.flat_map_iter(|(&r, weights)| {
            let row = factors.of_row(r);
            weights.iter().enumerate().map(move |(c, w)| {
                let factor = row * factors.of_column(c);
                packed(w / factor, factor)
            })
        });
        Sorted::new(pairs.collect())
    }
}

/// Levels of some rows counted, and the sum of squared errors.
fn count(steps: &Steps, factors: &Factors, rows: &[usize], weights: &[f32], cols: usize) -> (Histogram, f64) {
    let mut histogram = Histogram::new(0);
    let mut levels = vec![0; cols];
    let mut error = 0.0;
    for (&r, weights) in rows.iter().zip(weights.chunks_exact(cols)) {
        uniform_row(steps, factors, r, weights, &mut levels);
        histogram.add_all(&levels);
        let step = f64::from(steps.step) * f64::from(factors.of_row(r));
        error += squared_error(step, steps.bias(), &factors.column, weights, &levels);
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

/// Quantizers tried on a sorted sample of a matrix.
pub(crate) struct Search {
    sorted: Sorted,
    fixed: Fixed,
    /// `LAMBDA`, or 0 for plain rounding.
    lambda: f64,
    /// The largest magnitude that is known of.
    largest: f32,
}

impl Search {
    /// `side` bytes of scales are part of the rate; no weight is larger than `largest` or what is in the sample.
    pub fn new(
        weights: &dyn Weights,
        sorted: Sorted,
        side: usize,
        profile: Profile,
        lambda: f64,
        largest: f32,
    ) -> Self {
        let (rows, cols) = (weights.rows() as u64, weights.cols() as u64);
        let largest = largest.max(sorted.largest());
        Self { sorted, fixed: Fixed { rows, cols, profile, side }, lambda, largest }
    }

    /// Bits a weight that levels which occur so often take, everything counted.
    pub fn rate(&self, histogram: &Histogram, between: bool) -> f64 {
        let plan = Plan::cheapest(histogram, raw_bits(between));
        plan.map_or(0.0, |plan| self.fixed.rate(&plan, histogram.total()))
    }

    /// Number of weights of the sample.
    pub fn sample_len(&self) -> usize {
        self.sorted.len()
    }

    /// Rate and error of the sample at a step, with the best thresholds for it.
    pub fn probe(&self, octave: f64, between: bool) -> Probe {
        let mut steps = Steps::plain(octave, between);
        let mut cells = self.sorted.cells(&steps);
        let mut plan = Plan::cheapest(&cells.histogram(), raw_bits(between));
        for _ in 0..if self.lambda > 0.0 { ROUNDS } else { 0 } {
            let Some(p) = &plan else { break };
            let counts = cells.cells.iter().map(|c| (c.level, c.count));
            steps.thresholds = thresholds(&bits_of_magnitudes(p, counts, &steps), between, self.lambda);
            cells = self.sorted.cells(&steps);
            // moved thresholds change the best number of raw bits by one at most; a plan takes longer than the cells
            let (few, r) = (raw_bits(between), p.split.raw_bits);
            let near = r.saturating_sub(1).max(*few.start())..=(r + 1).min(*few.end());
            plan = Plan::cheapest(&cells.histogram(), near);
        }
        let rate = plan.map_or(0.0, |plan| self.fixed.rate(&plan, self.sorted.len() as u64));
        Probe { octave, rate, error: cells.error, steps }
    }

    /// The same, with the error of all weights.
    pub fn point(&self, octave: f64, between: bool) -> Point {
        let Probe { rate, error, .. } = self.probe(octave, between);
        Point { bits: rate, error: error * self.share() }
    }

    /// Sum of all squared weights.
    pub fn signal(&self) -> f64 {
        self.sorted.square() * self.share()
    }

    /// Weights for each one of the sample.
    fn share(&self) -> f64 {
        self.fixed.weights() / self.sorted.len() as f64
    }

    /// About where a rate is met.
    pub fn octave_for(&self, bits: f64) -> f64 {
        let typical = self.sorted.typical();
        f64::from(if typical > 0.0 { typical } else { self.largest }).log2() + 1.0 - bits
    }

    /// A step at which all plain levels of the sample are 0 or -1.
    pub fn coarsest(&self) -> f64 {
        f64::from(self.largest).log2() + 1.0
    }

    /// Looks for the step at which the sample takes `bits` a weight, among the families of levels given.
    pub fn meet(&self, bits: f64, families: &[bool]) -> Probe {
        let (start, most) = (self.octave_for(bits), self.coarsest());
        let found = families.iter().map(|&b| search(start, most, bits, |octave| self.probe(octave, b)));
        // the error of a rate that is so much lower, at 6.02 dB a bit
        let worth = if self.fixed.profile == Profile::Gpu { 4f64.powf(WITHOUT_RAW_BITS * bits) } else { 1.0 };
        let best = found.reduce(|a, b| {
            let simpler = !a.steps.between && b.steps.between && (a.rate - b.rate).abs() < 2.0 * NEAR;
            if b.better(&Probe { error: a.error / if simpler { worth } else { 1.0 }, ..a }, bits) {
                b
            } else {
                a
            }
        });
        best.unwrap_or_else(|| self.probe(start, false))
    }

    /// The same on a larger sample of the matrix, for the family and thresholds found on this one.
    pub fn refine(&self, weights: &dyn Weights, factors: &Factors, found: &Probe, bits: f64) -> Probe {
        let large = Sample::new(weights, SAMPLES[1]);
        search(found.octave, self.coarsest() + 1.0, bits, |octave| {
            let steps = found.steps.at(octave);
            let (histogram, error) = large.count(&steps, factors);
            Probe { octave, rate: self.rate(&histogram, steps.between), error, steps }
        })
    }
}

/// The codebook's parts of [`Search`].
impl Search {
    /// Centroids of the sixteen levels from `center` on, for levels on the multiples; `None` where they do not save
    /// [`CODEBOOK_WORTH`] besides what their digits take.
    pub fn codebook(&self, steps: &Steps, center: i32) -> Option<Codebook> {
        let Cells { cells, error } = self.sorted.cells(steps);
        let index = |level: i32| usize::try_from(i64::from(level) - i64::from(center)).ok();
        // level 0 has a cell on each side of zero
        let mut sums = [[0.0; 2]; 16];
        for cell in &cells {
            if let Some([factors, x]) = index(cell.level).and_then(|i| sums.get_mut(i)) {
                *factors += cell.sums[0];
                *x += cell.sums[1];
            }
        }
        let exact: [f32; 16] = std::array::from_fn(|i| match sums[i] {
            [0.0, _] => (i64::from(center) + i as i64) as f32,
            [factors, x] => (x / (factors * f64::from(steps.step))) as f32,
        });
        // few digits where that does not hurt
        let round = exact.map(|v| (v * 64.0).round() / 64.0);
        let [exact, round] = [exact, round].map(|values| {
            let of = |q: i32| index(q).and_then(|i| values.get(i)).copied();
            let error = self.sorted.error(steps, &cells, |q| of(q).map_or(q.into(), f64::from));
            (error, values)
        });
        let (better, values) = if round.0 <= 1.001 * exact.0 { round } else { exact };
        let digits: usize = values.iter().map(|&v| format!("{},", f64::from(v)).len()).sum();
        let weights = self.fixed.weights();
        let saved = (error / better).log2() / 2.0 * weights - 8.0 * digits as f64;
        let finite = values.iter().all(|v| v.is_finite());
        (self.lambda > 0.0 && finite && saved > CODEBOOK_WORTH * weights).then_some(Codebook(values))
    }
}

/// Steps whose thresholds weigh error against the bits of these levels.
pub(crate) fn weighed(steps: &Steps, histogram: &Histogram) -> Steps {
    let Some(plan) = Plan::cheapest(histogram, raw_bits(steps.between)) else { return *steps };
    let bits = bits_of_magnitudes(&plan, histogram.levels(), steps);
    Steps { thresholds: thresholds(&bits, steps.between, LAMBDA), ..*steps }
}

/// Bits of a level of each magnitude; both signs of it count by how often they occur.
fn bits_of_magnitudes(
    plan: &Plan,
    levels: impl Iterator<Item = (i32, u64)>,
    steps: &Steps,
) -> [f64; MAGNITUDES + 1] {
    let mut counts = [[0; MAGNITUDES + 1]; 2];
    for (level, occurs) in levels {
        let negative = level < 0;
        let magnitude = if negative && steps.between { !level } else { level.saturating_abs() };
        if let Some(count) = counts[usize::from(negative)].get_mut(magnitude as usize) {
            *count += occurs;
        }
    }
    let nibble = |n: u8| (256.0 / f64::from(plan.freqs.as_array()[usize::from(n)])).log2();
    let of_level = |level: i32| {
        let coded = plan.split.split(level).map(|(n, _)| nibble(n)).filter(|b| b.is_finite());
        f64::from(plan.split.raw_bits) + coded.unwrap_or_else(|| nibble(plan.filler) + ESCAPE)
    };
    std::array::from_fn(|m| {
        let [positive, negative] = [false, true].map(|n| of_level(steps.signed(m as i32, n)));
        // a magnitude that does not occur has the bits of its cheaper sign
        match [counts[0][m] as f64, counts[1][m] as f64] {
            [0.0, 0.0] => positive.min(negative),
            [p, n] => (p * positive + n * negative) / (p + n),
        }
    })
}

/// The magnitudes' thresholds in steps: each magnitude where it has the least (x - t)² + lambda × bits.
///
/// With x² left out, costs are lines of x, so the magnitudes that are the best somewhere are on their lower envelope;
/// the threshold of one that is not is that of the next one that is.
fn thresholds(bits: &[f64; MAGNITUDES + 1], between: bool, lambda: f64) -> [f32; MAGNITUDES] {
    let value = |m: usize| m as f64 + if between { 0.5 } else { 0.0 };
    let crossing = |a: usize, b: usize| {
        (value(a) + value(b)) / 2.0 + lambda * (bits[b] - bits[a]) / (2.0 * (value(b) - value(a)))
    };
    // magnitudes of the envelope, each with the x from which on it is the best
    let mut best = vec![(0, 0.0)];
    for m in 1..=MAGNITUDES {
        while let Some(&(last, from)) = best.last()
            && best.len() > 1
            && crossing(last, m) <= from
        {
            best.pop();
        }
        let last = best.last().map_or(0, |b| b.0);
        best.push((m, crossing(last, m)));
    }
    let mut all = [f32::INFINITY; MAGNITUDES];
    for pair in best.windows(2) {
        // all above the one before, up to this one
        all[pair[0].0..pair[1].0].fill(pair[1].1.max(0.0) as f32);
    }
    all
}

/// A step that was tried.
#[derive(Clone, Copy)]
pub(crate) struct Probe {
    /// log2 of the step.
    pub octave: f64,
    /// Bits a weight, everything counted.
    pub rate: f64,
    /// Sum of squared errors of the sample.
    pub error: f64,
    /// What was tried.
    pub steps: Steps,
}

impl Probe {
    /// A rate within the asked one beats one above it; then the smaller error wins, or above it the smaller rate.
    pub fn better(&self, other: &Self, bits: f64) -> bool {
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
    best.unwrap_or_else(|| try_it(octave))
}

/// Share of the rate that levels without raw bits are worth on GPUs, where joining both takes a kernel's time.
const WITHOUT_RAW_BITS: f64 = 0.01;

/// Bits that a stream of the prefix code takes beyond its codes: half a word of each lane, the leads, and words that lanes
/// take ahead of their need. Measured.
const PREFIX_STREAM: f64 = 8.0 * 92.0;

/// What the rate depends on besides the levels.
struct Fixed {
    rows: u64,
    cols: u64,
    profile: Profile,
    side: usize,
}

impl Fixed {
    fn weights(&self) -> f64 {
        (self.rows * self.cols) as f64
    }

    /// Estimated bits a weight, everything counted, by a plan for this many weights.
    fn rate(&self, plan: &Plan, planned: u64) -> f64 {
        let (codec, tile_rows) = layout(self.rows, self.cols, self.profile);
        let tiles = self.rows.div_ceil(tile_rows) as f64;
        let bits = plan.bits / planned as f64;
        let strips = |pairs: Pairs| self.cols.div_ceil(pairs.strip.max(1)) as f64;
        // a start state of b bits holds b/2 bits of the stream on average, and the encoder's first one carries two
        // symbols in half a bit more than b/2
        let (states, tables, loss) = match codec {
            Codec::Nibble(lanes) => (f64::from(lanes) * (12.5 - 2.0 * plan.nibble_entropy), 24.0, 0.0),
            Codec::Pairs(pairs) => match plan.prefix_loss() {
                loss if pairs.code == PairCode::Prefix && loss <= MOST_LOSS * bits => {
                    (strips(pairs) * PREFIX_STREAM, 128.0, loss)
                }
                _ => (strips(pairs) * 32.0 * (24.5 - 4.0 * plan.nibble_entropy), 300.0, 0.0),
            },
        };
        let index = (ENTRY_BYTES + 3) as f64;
        let fixed = tiles * (states + 8.0 * index) + 8.0 * (tables + self.side as f64);
        bits + loss + fixed / self.weights()
    }
}

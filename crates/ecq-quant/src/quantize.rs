//! Weights to levels and scales.

use std::ops::Range;

use ecq_format::directory::{Scales, Values};
use ecq_format::encode::{Encoder, Levels, Profile, histogram};
use ecq_format::plan::{Histogram, Plan};
use ecq_format::side::Side;
use half::f16;
use multiversion::multiversion;

use crate::Error;
use crate::rate;
use crate::scheme::{Granularity, Scheme};
use crate::values::{Dequantizer, octaves};
use crate::weights::{Weights, map_pieces};

/// A tensor with a rule that gives its levels; nothing is stored but the scales.
pub struct Quantized<'a> {
    weights: &'a dyn Weights,
    scheme: Scheme,
    values: Values,
    rule: Rule,
    /// Planes of the side data.
    planes: Vec<Vec<u8>>,
    histogram: Histogram,
    plan: Plan,
}

/// How a weight becomes a level.
#[derive(Clone)]
pub(crate) enum Rule {
    /// Uniform steps, times a factor a row and a column if given; levels between the multiples of the step, or on them.
    Uniform { step: f32, between: bool, row: Vec<f32>, column: Vec<f32> },
    /// A scale (and a minimum) for each group of columns, as the file will have them; levels are clamped.
    Grouped { size: usize, scale: Vec<f32>, min: Vec<f32>, lowest: i32, highest: i32 },
}

impl Rule {
    fn fill(&self, rows: Range<usize>, weights: &[f32], cols: usize, out: &mut [i32]) {
        for ((r, w), out) in rows.zip(weights.chunks_exact(cols)).zip(out.chunks_exact_mut(cols)) {
            self.row(r, w, out);
        }
    }

    /// A uniform rule with another step, 2^`octave`, and family of levels.
    pub(crate) fn at(&self, octave: f64, on_halves: bool) -> Self {
        let mut rule = self.clone();
        if let Self::Uniform { step, between, .. } = &mut rule {
            *step = (octave.exp2() as f32).max(f32::MIN_POSITIVE);
            *between = on_halves;
        }
        rule
    }

    pub(crate) fn row(&self, r: usize, weights: &[f32], out: &mut [i32]) {
        match self {
            Self::Uniform { step, between, row, column } => {
                uniform(step * row.get(r).copied().unwrap_or(1.0), *between, column, weights, out);
            }
            Self::Grouped { size, scale, min, lowest, highest } => {
                let first = r * weights.len().div_ceil(*size);
                for (g, (out, weights)) in out.chunks_mut(*size).zip(weights.chunks(*size)).enumerate() {
                    let (s, m) = (scale[first + g], min.get(first + g).copied().unwrap_or(0.0));
                    clamped(s, m, (*lowest, *highest), weights, out);
                }
            }
        }
    }
}

/// Levels of a uniform quantizer whose step is times a factor a column, if there are any.
#[multiversion(targets = "simd")]
fn uniform(step: f32, between: bool, column: &[f32], weights: &[f32], out: &mut [i32]) {
    let near = match (column, between) {
        ([], true) => levels(out, weights, |i| (weights[i] / step).floor()),
        ([], false) => levels(out, weights, |i| (weights[i] / step).round()),
        (_, true) => levels(out, column, |i| (weights[i] / (step * column[i])).floor()),
        (_, false) => levels(out, column, |i| (weights[i] / (step * column[i])).round()),
    };
    if !near {
        // `as` saturates: a weight too far out for 32 bits gets the outermost level, and the measured error shows it
        for (i, (q, &w)) in out.iter_mut().zip(weights).enumerate() {
            let x = w / column.get(i).map_or(step, |c| step * c);
            *q = if between { x.floor() as i32 } else { x.round() as i32 };
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

/// Writes `level(i)` for all i, and tells whether all were [`whole`]. `longest` is what `level` reads, for its length.
#[inline(always)]
fn levels(out: &mut [i32], longest: &[f32], level: impl Fn(usize) -> f32) -> bool {
    let mut near = true;
    for (i, (q, _)) in out.iter_mut().zip(longest).enumerate() {
        let x = level(i);
        near &= x.abs() <= NEAR;
        *q = whole(x);
    }
    near
}

/// Levels of a group with this scale and minimum.
#[multiversion(targets = "simd")]
fn clamped(scale: f32, min: f32, range: (i32, i32), weights: &[f32], out: &mut [i32]) {
    let (low, high) = (range.0 as f32, range.1 as f32);
    let level = |w: f32| if scale > 0.0 { whole(((w - min) / scale).round().clamp(low, high)) } else { 0 };
    out.iter_mut().zip(weights).for_each(|(q, &w)| *q = level(w));
}

impl<'a> Quantized<'a> {
    /// Quantizes a matrix. `profile` decides codec and tiles, whose cost the native scheme's rate includes.
    ///
    /// Errors: [`Error::NotFinite`], [`Error::TooLarge`], [`Error::Rate`], [`Error::Group`].
    pub fn new(scheme: Scheme, weights: &'a dyn Weights, profile: Profile) -> Result<Self, Error> {
        scheme.check()?;
        let range = range(weights)?;
        match scheme {
            Scheme::Ecq { bits, row_scales, column_scales } => {
                native(scheme, weights, profile, bits, (row_scales, column_scales), range)
            }
            Scheme::Affine4(g) => grouped(scheme, weights, g, range, (0, 15), true),
            Scheme::Absmax4(g) => grouped(scheme, weights, g, range, (-7, 7), false),
            Scheme::Int8(g) => grouped(scheme, weights, g, range, (-127, 127), false),
        }
    }

    fn build(
        scheme: Scheme,
        weights: &'a dyn Weights,
        values: Values,
        rule: Rule,
        planes: Vec<Vec<u8>>,
        center: i32,
    ) -> Result<Self, Error> {
        let levels = Ruled { weights, rule: &rule };
        let histogram = histogram(&levels, weights.rows(), weights.cols(), center);
        // levels on the multiples of the step have a lone zero: folding would spend a sign on it
        let raw_bits = match rule {
            Rule::Uniform { between: true, .. } => 1..=8,
            Rule::Uniform { between: false, .. } => 0..=0,
            Rule::Grouped { .. } => 0..=8,
        };
        let plan =
            Plan::cheapest(&histogram, raw_bits).ok_or(Error::Unstorable("the tensor is empty".into()))?;
        Ok(Self { weights, scheme, values, rule, planes, histogram, plan })
    }

    /// How levels become weights again.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The planes of the side data.
    pub fn planes(&self) -> &[Vec<u8>] {
        &self.planes
    }

    /// How often each level occurs.
    pub fn histogram(&self) -> &Histogram {
        &self.histogram
    }

    /// How the levels will be coded.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Prepares the coding. `shape` must be the tensor's. Error: [`Error::Unstorable`].
    pub fn encoder(&self, shape: &[u64], profile: Profile) -> Result<Encoder<'_>, Error> {
        Encoder::new(self.scheme.name(), shape, self.values, profile, &self.plan, self)
            .map_err(Error::Unstorable)
    }

    /// Bits that the tensor takes in a file, all side costs included; found by coding it.
    pub fn coded_bits(&self, profile: Profile) -> Result<f64, Error> {
        let shape = [self.weights.rows() as u64, self.weights.cols() as u64];
        let encoder = self.encoder(&shape, profile)?;
        let mut bytes = 0;
        let counted: Result<(), std::convert::Infallible> = encoder.run(|_, tile, _| {
            bytes += tile.len();
            Ok(())
        });
        let Ok(()) = counted;
        let side = Side::new(&self.planes).bytes();
        let index = ecq_format::tile::ENTRY_BYTES * encoder.coded().tiles() as usize;
        let parts = [bytes, index, encoder.frequencies().to_bytes().len(), side];
        Ok(8.0 * parts.iter().map(|n| n.next_multiple_of(8)).sum::<usize>() as f64)
    }

    /// What turns the levels into weights.
    pub fn dequantizer(&self) -> Dequantizer {
        let shape = (self.weights.rows(), self.weights.cols());
        Dequantizer::with(&self.values, self.plan.split.center, shape, &self.planes)
    }
}

impl Levels for Quantized<'_> {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        Ruled { weights: self.weights, rule: &self.rule }.fill(rows, out);
    }
}

struct Ruled<'a> {
    weights: &'a dyn Weights,
    rule: &'a Rule,
}

impl Levels for Ruled<'_> {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        // a few rows at a time: their floats stay in the cache
        let cols = self.weights.cols();
        let height = FLOATS.div_ceil(cols);
        let mut weights = vec![0.0; height.min(rows.len()) * cols];
        for (first, out) in rows.clone().step_by(height).zip(out.chunks_mut(height * cols)) {
            let (rows, weights) = (first..first + out.len() / cols, &mut weights[..out.len()]);
            self.weights.fill(rows.clone(), weights);
            self.rule.fill(rows, weights, cols, out);
        }
    }
}

/// Weights that are held as floats at a time.
const FLOATS: usize = 1 << 13;

/// Largest magnitude of a weight: 2^120, so that a few times it is still finite.
const LARGEST: f32 = f32::from_bits((127 + 120) << 23);

/// Whether a weight is finite and not too large.
#[inline(always)]
fn sane(w: f32) -> bool {
    w.abs() <= LARGEST
}

/// Smallest and largest weight, and whether all are [`sane`]; if not, the bounds mean nothing.
#[multiversion(targets = "simd")]
fn bounds(weights: &[f32]) -> (f32, f32, bool) {
    // of sixteen columns each: a single one would wait for itself
    let (mut low, mut high, mut largest) = ([f32::INFINITY; 16], [f32::NEG_INFINITY; 16], [0u32; 16]);
    let (whole, rest) = weights.as_chunks::<16>();
    let mut last = [weights.first().copied().unwrap_or(0.0); 16];
    last[..rest.len()].copy_from_slice(rest);
    for weights in whole.iter().chain([&last]) {
        for i in 0..16 {
            let w = weights[i];
            low[i] = if w < low[i] { w } else { low[i] };
            high[i] = if w > high[i] { w } else { high[i] };
            // magnitudes are ordered as their bits are, infinities and NaNs above
            largest[i] = largest[i].max(w.to_bits() & 0x7fff_ffff);
        }
    }
    let sound = largest.iter().all(|&bits| sane(f32::from_bits(bits)));
    (low.iter().fold(low[0], |a, &b| a.min(b)), high.iter().fold(high[0], |a, &b| a.max(b)), sound)
}

/// Smallest and largest weight. Errors: [`Error::NotFinite`], [`Error::TooLarge`].
pub(crate) fn range(weights: &dyn Weights) -> Result<(f32, f32), Error> {
    let cols = weights.cols();
    let pieces = map_pieces(weights, |rows, w| {
        let (low, high, sound) = bounds(w);
        if sound {
            return Ok((low, high));
        }
        let Some(i) = w.iter().position(|w| !sane(*w)) else { return Ok((low, high)) };
        let (row, column, value) = (rows.start + i / cols, i % cols, w[i]);
        Err(if value.is_finite() {
            Error::TooLarge { row, column, value }
        } else {
            Error::NotFinite { row, column, value }
        })
    });
    pieces
        .into_iter()
        .try_fold((f32::INFINITY, f32::NEG_INFINITY), |a, b| b.map(|b| (a.0.min(b.0), a.1.max(b.1))))
}

/// A rule of step 1 with these scales, and their planes.
pub(crate) fn scaled(weights: &dyn Weights, scaled: (bool, bool)) -> (Rule, Vec<Vec<u8>>) {
    let (mut row, mut column, mut planes) = (Vec::new(), Vec::new(), Vec::new());
    let (rows_rms, columns_rms) = if scaled == (false, false) { Default::default() } else { rms(weights) };
    for (wanted, rms, factors) in [(scaled.0, rows_rms, &mut row), (scaled.1, columns_rms, &mut column)] {
        if wanted {
            let bytes = octave_bytes(&rms);
            *factors = bytes.iter().map(|&b| octaves(b)).collect();
            planes.push(bytes);
        }
    }
    (Rule::Uniform { step: 1.0, between: false, row, column }, planes)
}

fn native<'a>(
    scheme: Scheme,
    weights: &'a dyn Weights,
    profile: Profile,
    bits: f64,
    scaled: (bool, bool),
    range: (f32, f32),
) -> Result<Quantized<'a>, Error> {
    let (rule, planes) = self::scaled(weights, scaled);
    let scales = match scaled {
        (false, false) => Scales::None,
        (row, column) => Scales::RowColumn { row, column },
    };
    let rule = rate::meet(weights, rule, &planes, bits, profile, range.1.max(-range.0));
    loop_to_rate(scheme, weights, profile, bits, (rule, scales, planes))
}

/// Builds the tensor with this rule. A small one is coded for trials and its step corrected by what it really takes,
/// because there tables and start states, which can only be estimated, are a visible share. Where no step meets the
/// rate (few distinct weights), the largest rate below it is kept.
fn loop_to_rate<'a>(
    scheme: Scheme,
    weights: &'a dyn Weights,
    profile: Profile,
    bits: f64,
    parts: (Rule, Scales, Vec<Vec<u8>>),
) -> Result<Quantized<'a>, Error> {
    let (mut rule, scales, planes) = parts;
    let n = (weights.rows() * weights.cols()) as f64;
    let trials = if n <= f64::from(1 << 21) { 6 } else { 0 };
    let mut tried: Vec<(f32, f64)> = Vec::new();
    loop {
        let Rule::Uniform { step, between, .. } = rule else { unreachable!("a uniform rule stays one") };
        let bias = if between { 0.5 } else { 0.0 };
        let values = Values { step: step.into(), bias, offset: 0.0, scales, codebook: None };
        let mut made = Quantized::build(scheme, weights, values, rule, planes.clone(), 0)?;
        let enough = tried.len() >= trials;
        let excess = if enough { 0.0 } else { made.coded_bits(profile)? / n - bits };
        let stuck = tried.iter().any(|t| t.1 == excess);
        if excess.abs() < MET || tried.iter().any(|t| t.0 == step) {
            return Ok(made);
        }
        tried.push((step, excess));
        let next = if stuck || tried.len() >= trials {
            best_step(&tried)
        } else {
            step * excess.clamp(-1.0, 1.0).exp2() as f32 // about a bit an octave
        };
        let Rule::Uniform { step, .. } = &mut made.rule else { unreachable!("a uniform rule stays one") };
        *step = next;
        rule = made.rule;
    }
}

/// How near a trial must come, in bits a weight.
const MET: f64 = 0.002;

/// The step whose rate is the largest within the asked one; if there is none, the one that exceeds it least.
fn best_step(tried: &[(f32, f64)]) -> f32 {
    let key = |t: &&(f32, f64)| if t.1 <= MET { -t.1 } else { 1e3 + t.1 };
    tried.iter().min_by(|a, b| key(a).total_cmp(&key(b))).map_or(1.0, |t| t.0)
}

/// Root mean squares of rows and of columns.
fn rms(weights: &dyn Weights) -> (Vec<f64>, Vec<f64>) {
    let cols = weights.cols();
    let pieces = map_pieces(weights, |_, w| {
        let mut columns = vec![0f64; cols];
        let rows: Vec<f64> = w
            .chunks_exact(cols)
            .map(|row| {
                let square = |(c, &w): (&mut f64, &f32)| {
                    let s = f64::from(w) * f64::from(w);
                    *c += s;
                    s
                };
                columns.iter_mut().zip(row).map(square).sum()
            })
            .collect();
        (rows, columns)
    });
    let mut columns = vec![0f64; cols];
    pieces.iter().for_each(|(_, c)| columns.iter_mut().zip(c).for_each(|(a, b)| *a += b));
    let rows: Vec<f64> = pieces.into_iter().flat_map(|(r, _)| r).collect();
    let height = rows.len().max(1) as f64;
    (
        rows.iter().map(|s| (s / cols as f64).sqrt()).collect(),
        columns.iter().map(|s| (s / height).sqrt()).collect(),
    )
}

/// Eighths of an octave around the mean, where 128 is 1; zeros get 128.
fn octave_bytes(rms: &[f64]) -> Vec<u8> {
    let present = rms.iter().filter(|&&x| x > 0.0);
    let mean = present.clone().map(|x| x.log2()).sum::<f64>() / present.count().max(1) as f64;
    let byte = |&x: &f64| {
        if x > 0.0 { (128.0 + 8.0 * (x.log2() - mean)).round().clamp(0.0, 255.0) as u8 } else { 128 }
    };
    rms.iter().map(byte).collect()
}

fn grouped<'a>(
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

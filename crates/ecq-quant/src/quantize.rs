//! Weights to levels and scales.

use std::ops::Range;

use ecq_format::directory::Values;
use ecq_format::encode::{Encoder, Levels, Profile, histogram, layout};
use ecq_format::levels::Split;
use ecq_format::plan::{Histogram, Plan};
use ecq_format::predict::{Differences, Predictor};
use ecq_format::side::Side;
use multiversion::multiversion;

use crate::Error;
use crate::grouped::{grouped, nf4};
use crate::native::native;
use crate::rule::Rule;
use crate::scheme::{Prediction, Scheme};
use crate::values::Dequantizer;
use crate::weights::{Weights, map_pieces};

/// A tensor with a rule that gives its levels; nothing is stored but the scales.
pub struct Quantized<'a> {
    weights: &'a dyn Weights,
    scheme: Scheme,
    pub(crate) values: Values,
    rule: Rule,
    /// Planes of the side data.
    planes: Vec<Vec<u8>>,
    histogram: Histogram,
    plan: Plan,
    /// Set if differences are coded: the prediction, and the rows of a tile.
    predicted: Option<(Predictor, usize)>,
}

impl<'a> Quantized<'a> {
    /// Quantizes a matrix. `profile` decides codec and tiles, whose cost the native scheme's rate includes.
    ///
    /// Errors: [`Error::NotFinite`], [`Error::TooLarge`], [`Error::Rate`], [`Error::Group`].
    pub fn new(scheme: Scheme, weights: &'a dyn Weights, profile: Profile) -> Result<Self, Error> {
        scheme.check()?;
        let range = range(weights)?;
        match scheme {
            Scheme::Ecq { .. } | Scheme::Uniform { .. } => native(scheme, weights, profile, range),
            Scheme::Affine4(g) => grouped(scheme, weights, g, range, (0, 15), true),
            Scheme::Absmax4(g) => grouped(scheme, weights, g, range, (-7, 7), false),
            Scheme::Nf4(g) => nf4(scheme, weights, g, range),
            Scheme::Int8(g) => grouped(scheme, weights, g, range, (-127, 127), false),
            Scheme::Int8Predicted(g, prediction) => {
                let plain = grouped(scheme, weights, g, range, (-127, 127), false)?;
                Ok(plain.predicted(prediction, profile))
            }
        }
    }

    /// Codes differences of levels of 8 bits from a prediction, if that is wanted or cheaper.
    fn predicted(mut self, prediction: Prediction, profile: Profile) -> Self {
        let (rows, cols) = (self.weights.rows(), self.weights.cols());
        let (_, tile_rows) = layout(rows as u64, cols as u64, profile);
        let tile_rows = tile_rows as usize;
        let candidates = match prediction {
            Prediction::Auto => &Predictor::ALL[..],
            Prediction::By(ref predictor) => std::slice::from_ref(predictor),
        };
        let mut best: Option<(Predictor, Histogram, Plan)> = None;
        for &predictor in candidates {
            let levels = Ruled { weights: self.weights, rule: &self.rule };
            let differences = Differences { levels: &levels, tile_rows, cols, predictor };
            let histogram = histogram(&differences, rows, cols, 0);
            let Some(plan) = Plan::cheapest(&histogram, 0..=8) else { continue };
            let least = best.as_ref().map_or(self.plan.bits, |b| b.2.bits);
            if plan.bits < least || prediction != Prediction::Auto {
                best = Some((predictor, histogram, plan));
            }
        }
        if let Some((predictor, histogram, plan)) = best {
            (self.predicted, self.histogram, self.plan) = (Some((predictor, tile_rows)), histogram, plan);
        }
        self
    }

    /// The prediction whose differences are coded, if any.
    pub fn predictor(&self) -> Option<Predictor> {
        self.predicted.map(|p| p.0)
    }

    /// Writes the levels of whole rows, row by row. (As [`Levels`], it gives what is coded: differences if predicted.)
    pub fn levels(&self, rows: Range<usize>, out: &mut [i32]) {
        Ruled { weights: self.weights, rule: &self.rule }.fill(rows, out);
    }

    /// Counts the levels that a rule gives and plans their coding. `center` is the level at which signs fold.
    pub(crate) fn build(
        scheme: Scheme,
        weights: &'a dyn Weights,
        values: Values,
        rule: Rule,
        planes: Vec<Vec<u8>>,
        center: i32,
    ) -> Result<Self, Error> {
        let levels = Ruled { weights, rule: &rule };
        let histogram = histogram(&levels, weights.rows(), weights.cols(), center);
        let plan = match rule {
            // a codebook begins at its centre, however few of its values occur
            Rule::Listed { .. } => Plan::for_split(&histogram, Split { raw_bits: 0, center }),
            _ => Plan::cheapest(&histogram, rule.raw_bits()),
        };
        let plan = plan.ok_or(Error::Unstorable("the tensor is empty".into()))?;
        Ok(Self { weights, scheme, values, rule, planes, histogram, plan, predicted: None })
    }

    /// How levels become weights again.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The planes of the side data.
    pub fn planes(&self) -> &[Vec<u8>] {
        &self.planes
    }

    /// How often each coded level occurs: each difference, if they are predicted.
    pub fn histogram(&self) -> &Histogram {
        &self.histogram
    }

    /// How the levels will be coded.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Codes with the split and the frequencies of another plan, whose histogram had the same centre.
    #[must_use]
    pub fn with_table(mut self, plan: &Plan) -> Self {
        self.plan = plan.applied(&self.histogram);
        self
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Prepares the coding. `shape` must be the tensor's. Error: [`Error::Unstorable`].
    pub fn encoder(&self, shape: &[u64], profile: Profile) -> Result<Encoder<'_>, Error> {
        let encoder = Encoder::new(self.scheme.name(), shape, self.values, profile, &self.plan, self);
        let encoder = encoder.map_err(Error::Unstorable)?.predicted(self.predictor());
        // differences were counted for tiles of one height
        match self.predicted {
            Some((_, rows)) if encoder.coded().tile_rows != rows as u64 => {
                Err(Error::Unstorable("it was predicted for another profile".into()))
            }
            _ => Ok(encoder),
        }
    }

    /// Bits that the tensor takes in a file, all side costs included; found by coding it.
    pub fn coded_bits(&self, profile: Profile) -> Result<f64, Error> {
        let shape = [self.weights.rows() as u64, self.weights.cols() as u64];
        let encoder = self.encoder(&shape, profile)?;
        let side = Side::new(&self.planes).bytes().next_multiple_of(8) as u64;
        Ok(8.0 * (encoder.count_bytes() + side) as f64)
    }

    /// What turns the levels into weights.
    pub fn dequantizer(&self) -> Dequantizer {
        let shape = (self.weights.rows(), self.weights.cols());
        Dequantizer::with(&self.values, self.plan.split.center, shape, &self.planes)
    }
}

impl Levels for Quantized<'_> {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        let levels = Ruled { weights: self.weights, rule: &self.rule };
        match self.predicted {
            None => levels.fill(rows, out),
            Some((predictor, tile_rows)) => {
                let cols = self.weights.cols();
                Differences { levels: &levels, tile_rows, cols, predictor }.fill(rows, out);
            }
        }
    }
}

struct Ruled<'a> {
    weights: &'a dyn Weights,
    rule: &'a Rule,
}

impl Levels for Ruled<'_> {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        if let Rule::Given { levels, .. } = self.rule {
            let own = &levels[rows.start * self.weights.cols()..][..out.len()];
            return out.iter_mut().zip(own).for_each(|(q, &level)| *q = level.into());
        }
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
pub(crate) fn bounds(weights: &[f32]) -> (f32, f32, bool) {
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

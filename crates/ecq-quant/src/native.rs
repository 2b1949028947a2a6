//! The native scheme, and the plain uniform one that it is compared with.

use ecq_format::directory::Values;
use ecq_format::encode::Profile;

use crate::Error;
use crate::factors::{Scaling, worthwhile};
use crate::quantize::Quantized;
use crate::rate::{LAMBDA, Probe, SAMPLES, Sample, Search};
use crate::rule::{Rule, Steps};
use crate::scheme::Scheme;
use crate::weights::Weights;

/// Both families of levels: on the multiples of the step, and between them.
pub(crate) const FAMILIES: [bool; 2] = [false, true];

/// A matrix with its factors, and a search on a sample of it.
pub(crate) struct Native {
    pub scaling: Scaling,
    pub search: Search,
    /// What the search gives at the rate asked for; nothing for a matrix of zeros.
    found: Option<Probe>,
}

impl Native {
    /// With the factors asked for, or if none are, with those that pay at this rate. `largest` is the largest magnitude.
    pub fn new(
        weights: &dyn Weights,
        bits: f64,
        scaled: (bool, bool),
        profile: Profile,
        largest: f32,
    ) -> Self {
        let sample = Sample::new(weights, SAMPLES[0]);
        let with = |scaling: Scaling| {
            let (sorted, side) = (sample.sorted(&scaling.factors), scaling.bytes());
            let search = Search::new(weights, sorted, side, profile, LAMBDA, largest);
            let found = (largest > 0.0).then(|| search.meet(bits, &FAMILIES));
            Self { scaling, search, found }
        };
        if scaled != (false, false) {
            return with(Scaling::new(weights, scaled.0, scaled.1));
        }
        let none = with(Scaling::default());
        let Some(found) = &none.found else { return none };
        match worthwhile(weights, &sample, (bits, found.steps.between), LAMBDA, profile) {
            (false, false) => none,
            (row, column) => with(Scaling::new(weights, row, column)),
        }
    }

    /// Plain rounding to the multiples, no factors.
    fn plain(weights: &dyn Weights, bits: f64, profile: Profile, largest: f32) -> Self {
        let sorted = Sample::new(weights, SAMPLES[0]).sorted(&Default::default());
        let search = Search::new(weights, sorted, 0, profile, 0.0, largest);
        let found = (largest > 0.0).then(|| search.meet(bits, &FAMILIES[..1]));
        Self { scaling: Scaling::default(), search, found }
    }
}

/// Quantizes with [`Scheme::Ecq`] or [`Scheme::Uniform`]. `range` is that of the weights.
pub(crate) fn native<'a>(
    scheme: Scheme,
    weights: &'a dyn Weights,
    profile: Profile,
    range: (f32, f32),
) -> Result<Quantized<'a>, Error> {
    let largest = range.1.max(-range.0);
    let (bits, native) = match scheme {
        Scheme::Ecq { bits, row_scales, column_scales } => {
            (bits, Native::new(weights, bits, (row_scales, column_scales), profile, largest))
        }
        Scheme::Uniform { bits } => (bits, Native::plain(weights, bits, profile, largest)),
        _ => return Err(Error::Unstorable(format!("{scheme} has no rate"))),
    };
    let Some(mut found) = native.found else {
        // any step makes all levels 0
        return build(scheme, weights, &native, Steps::plain(0.0, false));
    };
    if weights.rows() * weights.cols() > native.search.sample_len() {
        found = native.search.refine(weights, &native.scaling.factors, &found, bits);
    }
    loop_to_rate(scheme, weights, profile, bits, &native, found)
}

fn build<'a>(
    scheme: Scheme,
    weights: &'a dyn Weights,
    native: &Native,
    steps: Steps,
) -> Result<Quantized<'a>, Error> {
    let Scaling { factors, planes } = &native.scaling;
    let (step, bias, scales) = (steps.step.into(), steps.bias(), native.scaling.scales());
    let values = Values { step, bias, scales, ..Values::ONE };
    let mut made =
        Quantized::build(scheme, weights, values, Rule::Uniform(steps, factors.clone()), planes.clone(), 0)?;
    if !steps.between {
        made.values.codebook = native.search.codebook(&steps, made.plan().split.center);
    }
    Ok(made)
}

/// Builds the tensor with what was found. A small one is coded for trials and its step corrected by what it really takes,
/// because there tables and start states, which can only be estimated, are a visible share. Where no step meets the
/// rate (few distinct weights), the largest rate below it is kept.
fn loop_to_rate<'a>(
    scheme: Scheme,
    weights: &'a dyn Weights,
    profile: Profile,
    bits: f64,
    native: &Native,
    found: Probe,
) -> Result<Quantized<'a>, Error> {
    let n = (weights.rows() * weights.cols()) as f64;
    let trials = if n <= f64::from(1 << 21) { 6 } else { 0 };
    let mut tried: Vec<(f32, f64)> = Vec::new();
    let mut steps = found.steps;
    loop {
        let step = steps.step;
        let made = build(scheme, weights, native, steps)?;
        let enough = tried.len() >= trials;
        let excess = if enough { 0.0 } else { made.coded_bits(profile)? / n - bits };
        let (again, stuck) = (tried.iter().any(|t| t.0 == step), tried.iter().any(|t| t.1 == excess));
        if excess.abs() < MET || (again && step == best_step(&tried)) {
            return Ok(made);
        }
        if !again {
            tried.push((step, excess));
        }
        // where a code gives way to another, trials can go round in a circle, above the rate and below it
        let next = if again || stuck || tried.len() >= trials {
            best_step(&tried)
        } else {
            step * excess.clamp(-1.0, 1.0).exp2() as f32 // about a bit an octave
        };
        steps.step = next;
    }
}

/// How near a trial must come, in bits a weight.
const MET: f64 = 0.002;

/// The step whose rate is the largest within the asked one; if there is none, the one that exceeds it least.
fn best_step(tried: &[(f32, f64)]) -> f32 {
    let key = |t: &&(f32, f64)| if t.1 <= MET { -t.1 } else { 1e3 + t.1 };
    tried.iter().min_by(|a, b| key(a).total_cmp(&key(b))).map_or(1.0, |t| t.0)
}

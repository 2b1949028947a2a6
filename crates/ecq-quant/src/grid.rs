//! A uniform quantizer whose scales are given: for whoever quantizes a column at a time and feeds its errors to the next.
//!
//! The native scheme quantizes all weights of a matrix at once, each by itself. Where the second moments of a layer's inputs
//! are known, the error of a column can be made up for by later columns, which are then other weights than the matrix had.

use ecq_format::directory::{Scales, Values};
use ecq_format::encode::Profile;
use ecq_format::plan::Histogram;

use crate::Error;
use crate::quantize::{Quantized, range};
use crate::rate::{LAMBDA, SAMPLES, Sample, Search, weighed};
use crate::rule::{Factors, Rule, Steps, uniform};
use crate::scheme::Scheme;
use crate::values::octaves;
use crate::weights::Weights;

/// Scales of the rows and columns of a matrix, and a sample of it, from which grids of any step are made.
pub struct Scaled {
    factors: Factors,
    planes: Vec<Vec<u8>>,
    search: Search,
}

impl Scaled {
    /// `row` and `column` are factors of the step in eighths of an octave, one a row and one a column; 128 is 1.
    ///
    /// Errors: [`Error::NotFinite`], [`Error::TooLarge`].
    pub fn new(
        weights: &dyn Weights,
        row: Vec<u8>,
        column: Vec<u8>,
        profile: Profile,
    ) -> Result<Self, Error> {
        let (low, high) = range(weights)?;
        let planes = vec![row, column];
        let [row, column] = [0, 1].map(|i: usize| planes[i].iter().map(|&b| octaves(b)).collect());
        let factors = Factors { row, column };
        let sorted = Sample::new(weights, SAMPLES[0]).sorted(&factors);
        let side = ecq_format::side::Side::new(&planes).bytes();
        let search = Search::new(weights, sorted, side, profile, LAMBDA, high.max(-low));
        Ok(Self { factors, planes, search })
    }

    /// log2 of the step at which the matrix, quantized without feedback, takes about so many bits a weight.
    pub fn octave_for(&self, bits: f64) -> f64 {
        self.search.octave_for(bits)
    }

    /// The grid of step 2^`octave`; values lie `between` the multiples of the step or on them. Rounding weighs error against
    /// rate as in the native scheme, for weights that no feedback has changed.
    pub fn grid(&self, octave: f64, between: bool) -> Grid<'_> {
        Grid { scaled: self, steps: self.search.probe(octave, between).steps }
    }
}

/// A uniform quantizer of a matrix.
#[derive(Clone, Copy)]
pub struct Grid<'a> {
    scaled: &'a Scaled,
    steps: Steps,
}

impl Grid<'_> {
    /// Factors of the step in some rows.
    pub fn rows(&self, rows: &[usize]) -> Vec<f32> {
        rows.iter().map(|&r| self.scaled.factors.of_row(r)).collect()
    }

    /// Quantizes weights of one column in rows with these [factors](Self::rows). Levels go to `levels`, what they stand for to
    /// `values`. Returns the sum of squared errors, each in steps of its own weight.
    pub fn column(
        &self,
        row: &[f32],
        column: usize,
        weights: &[f32],
        levels: &mut [i32],
        values: &mut [f32],
    ) -> f64 {
        let step = self.steps.step * self.scaled.factors.column[column];
        // a column is quantized as a row is
        uniform(&self.steps, step, row, weights, levels);
        let bias = self.steps.bias() as f32;
        let mut error = 0.0;
        for (((value, q), row), w) in values.iter_mut().zip(levels).zip(row).zip(weights) {
            // what a file can hold; beyond, the error shows
            *q = (*q).clamp(i16::MIN.into(), i16::MAX.into());
            *value = (*q as f32 + bias) * (step * row);
            error += ((w - *value) / (step * row)).powi(2);
        }
        error.into()
    }

    /// The same grid, whose rounding weighs error against the bits of levels that occur so often.
    #[must_use]
    pub fn weighed(&self, histogram: &Histogram) -> Self {
        Self { steps: weighed(&self.steps, histogram), ..*self }
    }

    /// Bits a weight of the tensor if its levels occur as often as these; scales, tables and start states included.
    pub fn rate(&self, histogram: &Histogram) -> f64 {
        self.scaled.search.rate(histogram, self.steps.between)
    }

    /// The tensor with these levels, row by row.
    ///
    /// # Panics
    /// If there are not as many levels as weights.
    pub fn quantized<'a>(&self, weights: &'a dyn Weights, levels: Vec<i16>) -> Result<Quantized<'a>, Error> {
        assert_eq!(levels.len(), weights.rows() * weights.cols(), "a level for each weight");
        let Steps { step, between, .. } = self.steps;
        let scales = Scales::RowColumn { row: true, column: true };
        let values = Values { step: step.into(), bias: self.steps.bias(), scales, ..Values::ONE };
        let bits = {
            let mut all = Histogram::new(0);
            levels.iter().for_each(|&q| all.add(q.into()));
            self.rate(&all)
        };
        let rule = Rule::Given { levels, between };
        Quantized::build(Scheme::ecq(bits), weights, values, rule, self.scaled.planes.clone(), 0)
    }
}

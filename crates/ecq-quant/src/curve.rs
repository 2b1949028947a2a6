//! Rate against distortion of a tensor, for who shares bits among tensors.
//!
//! A tensor is measured once, on a sample, at steps a third of an octave apart. What several tensors should take
//! follows from their curves alone: error falls by the same amount a bit in all of them (equal slope), which is where no
//! bit is better spent elsewhere.

use std::ops::RangeInclusive;

use ecq_format::encode::Profile;
use rayon::prelude::*;

use crate::Error;
use crate::native::{FAMILIES, Native};
use crate::quantize;
use crate::rate::Search;
use crate::scheme::BITS;
use crate::weights::Weights;

/// Steps an octave.
const DENSITY: f64 = 3.0;
/// Most steps of a curve: what the widest range of rates takes twice over.
const MOST_STEPS: usize = 64;

/// The rate at which it is decided whether row and column scales pay.
const MIDDLE: f64 = 3.0;

/// A rate and the error that it buys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Bits a weight, all side costs of the tensor included, as estimated.
    pub bits: f64,
    /// Sum of squared errors over all weights of the tensor, as estimated.
    pub error: f64,
}

/// The lower convex hull of what the native scheme reaches on a tensor, about [`BITS`] wide.
///
/// Between points, the logarithm of the error is linear in bits, and so is that of the slope, which halves and halves
/// again a bit: a curve of few points gives rates without jumps.
#[derive(Clone, Debug)]
pub struct Curve {
    weights: u64,
    signal: f64,
    points: Vec<Point>,
    /// Error saved a bit a weight, with the rate in the middle of the pieces of the hull; ascending rates.
    slopes: Vec<Point>,
}

impl Curve {
    /// Measures a matrix on a sample of 2^18 weights. The flags are those of [`Scheme::Ecq`](crate::Scheme::Ecq).
    ///
    /// Errors: [`Error::NotFinite`], [`Error::TooLarge`], and [`Error::Unstorable`] for an empty matrix.
    pub fn of(
        weights: &dyn Weights,
        row_scales: bool,
        column_scales: bool,
        profile: Profile,
    ) -> Result<Self, Error> {
        let n = weights.rows() as u64 * weights.cols() as u64;
        if n == 0 {
            return Err(Error::Unstorable("the tensor is empty".into()));
        }
        let range = quantize::range(weights)?;
        let largest = range.1.max(-range.0);
        let search = Native::new(weights, MIDDLE, (row_scales, column_scales), profile, largest).search;
        let signal = search.signal();
        if largest == 0.0 {
            return Ok(Self::new(n, signal, vec![search.point(0.0, false)]));
        }
        let measured: Vec<_> =
            FAMILIES.into_par_iter().map(|between| Self::measure(&search, between)).collect();
        Ok(Self::new(n, signal, measured.concat()))
    }

    /// One family of levels at all steps.
    fn measure(search: &Search, between: bool) -> Vec<Point> {
        let most = search.coarsest();
        let first = search.octave_for(*BITS.start()).min(most);
        let mut points = Vec::new();
        // up to the rates below the range, then down to those above
        let coarser =
            (1..MOST_STEPS).map(|i| first + i as f64 / DENSITY).take_while(|&o| o < most).chain([most]);
        for octave in coarser {
            let point = search.point(octave, between);
            points.push(point);
            if point.bits < *BITS.start() {
                break;
            }
        }
        for i in 0..MOST_STEPS {
            let point = search.point(first - i as f64 / DENSITY, between);
            points.push(point);
            if point.bits > *BITS.end() || point.error == 0.0 {
                break;
            }
        }
        points
    }

    /// The lower hull of any points, of which there is at least one.
    fn new(weights: u64, signal: f64, mut measured: Vec<Point>) -> Self {
        measured.sort_by(|a, b| a.bits.total_cmp(&b.bits).then(a.error.total_cmp(&b.error)));
        let mut points: Vec<Point> = Vec::new();
        for point in measured {
            if points.last().is_some_and(|last| last.error <= point.error || last.bits >= point.bits) {
                continue;
            }
            while let [.., a, b] = points[..]
                && saving(a, b) <= saving(b, point)
            {
                points.pop();
            }
            points.push(point);
        }
        let middle = |p: &[Point]| Point { bits: (p[0].bits + p[1].bits) / 2.0, error: saving(p[0], p[1]) };
        let slopes = points.windows(2).map(middle).collect();
        Self { weights, signal, points, slopes }
    }

    /// The points, rates ascending, errors descending; at least one.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Number of weights.
    pub fn weights(&self) -> u64 {
        self.weights
    }

    /// Sum of the squared weights, as estimated from the sample.
    pub fn signal(&self) -> f64 {
        self.signal
    }

    /// The rates that the curve tells something about, in bits a weight. What a tensor of few distinct weights cannot
    /// reach is not in it.
    pub fn range(&self) -> RangeInclusive<f64> {
        let end = |p: Option<&Point>| p.map_or(0.0, |p| p.bits);
        end(self.points.first())..=end(self.points.last())
    }

    /// The rate at which error + `lambda` × bits × weights is least, in bits a weight; within [`Self::range`].
    pub fn bits_at_slope(&self, lambda: f64) -> f64 {
        let (first, last) = self.range().into_inner();
        let wanted = lambda * self.weights as f64;
        let [.., end] = self.slopes[..] else { return first };
        if wanted.is_nan() || wanted <= 0.0 {
            return last;
        }
        // beyond the middle of the outermost pieces, as between the two next to them
        let at = self.slopes.partition_point(|s| s.error > wanted).clamp(1, self.slopes.len().max(2) - 1);
        let bits = match self.slopes.get(at) {
            Some(&b) => interpolated(self.slopes[at - 1], b, wanted),
            None => end.bits + (end.error / wanted).log2() / 2.0, // a single piece
        };
        bits.clamp(first, last)
    }

    /// The sum of squared errors at a rate; that of the nearest end for rates outside [`Self::range`].
    pub fn error_at(&self, bits: f64) -> f64 {
        let at = self.points.partition_point(|p| p.bits < bits);
        match (at.checked_sub(1).and_then(|i| self.points.get(i)), self.points.get(at)) {
            (Some(a), Some(b)) => {
                let t = (bits - a.bits) / (b.bits - a.bits);
                if b.error > 0.0 { a.error * (b.error / a.error).powf(t) } else { a.error * (1.0 - t) }
            }
            (Some(end), None) | (None, Some(end)) => end.error,
            (None, None) => 0.0,
        }
    }

    /// The least rate whose sum of squared errors is at most this, in bits a weight; within [`Self::range`].
    pub fn bits_for_error(&self, error: f64) -> f64 {
        let at = self.points.partition_point(|p| p.error > error);
        match (at.checked_sub(1).and_then(|i| self.points.get(i)), self.points.get(at)) {
            (Some(a), Some(b)) if b.error > 0.0 => {
                a.bits + (b.bits - a.bits) * (a.error / error).ln() / (a.error / b.error).ln()
            }
            (Some(a), Some(b)) => a.bits + (b.bits - a.bits) * (1.0 - error / a.error),
            (Some(end), None) | (None, Some(end)) => end.bits,
            (None, None) => 0.0,
        }
    }
}

/// Error saved a bit from one point to the next.
fn saving(a: Point, b: Point) -> f64 {
    (a.error - b.error) / (b.bits - a.bits)
}

/// The rate at which the logarithm of the slope is that of `wanted`, on the line through two of them.
fn interpolated(a: Point, b: Point, wanted: f64) -> f64 {
    let fall = (a.error / b.error).ln();
    if fall > 0.0 { a.bits + (b.bits - a.bits) * (a.error / wanted).ln() / fall } else { a.bits }
}

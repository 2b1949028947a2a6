//! The native scheme's rate against its distortion on one tensor, measured at some rates and read in between.

use ecq_quant::measure::Distortion;
use serde::Serialize;

/// dB that a bit a weight is worth at high rate: 20 log10 2. The Gaussian bound D = 2^(-2R) has this slope everywhere.
pub const DB_PER_BIT: f64 = 6.020_599_913_279_624;

/// A point of a rate-distortion curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Coded bits a weight, all side costs included.
    pub bits: f64,
    /// Signal to quantization noise ratio in dB.
    pub sqnr_db: f64,
    /// Bits above what a Gaussian source of this SQNR needs: `bits - sqnr_db / 6.02`. Below 0 where the weights are easier
    /// than Gaussian ones.
    pub above_bound: f64,
}

impl Point {
    /// A rate and the SQNR there.
    pub fn new(bits: f64, sqnr_db: f64) -> Self {
        Self { bits, sqnr_db, above_bound: bits - sqnr_db / DB_PER_BIT }
    }
}

/// A rate-distortion curve: rate and SQNR rise together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Curve {
    /// Measured points.
    pub points: Vec<Point>,
    /// The least measured rate that loses nothing, if one does (few distinct weights).
    pub exact: Option<f64>,
}

impl Curve {
    /// From measured rates, in bits a weight, and distortions. Points that another one beats in both are left out.
    pub fn new(measured: impl IntoIterator<Item = (f64, Distortion)>) -> Self {
        let mut measured: Vec<_> = measured.into_iter().collect();
        measured.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut curve = Self::default();
        for (bits, distortion) in measured {
            if distortion.noise == 0.0 {
                curve.exact = Some(bits);
                break;
            }
            let point = Point::new(bits, distortion.sqnr());
            if point.sqnr_db > curve.points.last().map_or(0.0, |last| last.sqnr_db) {
                if curve.points.last().is_some_and(|last| last.bits == bits) {
                    curve.points.pop();
                }
                curve.points.push(point);
            }
        }
        curve
    }

    /// Bits a weight at this SQNR in dB. Straight lines between points; below the first, a share of the weights coded at
    /// its rate and the others not at all (an upper bound); above the last 6.02 dB a bit. `None` without any point.
    pub fn bits_at(&self, sqnr_db: f64) -> Option<f64> {
        let (first, last) = (self.points.first(), self.points.last());
        if sqnr_db.is_nan() {
            return None;
        }
        if sqnr_db <= 0.0 {
            return Some(0.0);
        }
        let (Some(first), Some(last)) = (first, last) else { return self.exact };
        if sqnr_db <= first.sqnr_db {
            return Some(first.bits * (1.0 - noise(sqnr_db)) / (1.0 - noise(first.sqnr_db)));
        }
        if sqnr_db >= last.sqnr_db {
            let beyond = last.bits + (sqnr_db - last.sqnr_db) / DB_PER_BIT;
            return match self.exact {
                Some(exact) if sqnr_db > last.sqnr_db => Some(exact.min(beyond)),
                _ => beyond.is_finite().then_some(beyond),
            };
        }
        let at = self.points.partition_point(|p| p.sqnr_db < sqnr_db);
        let (a, b) = (self.points[at - 1], self.points[at]);
        Some(a.bits + (b.bits - a.bits) * (sqnr_db - a.sqnr_db) / (b.sqnr_db - a.sqnr_db))
    }

    /// SQNR in dB at this rate, by the same rules as [`Self::bits_at`]. `None` without any point, and where nothing is lost.
    pub fn sqnr_at(&self, bits: f64) -> Option<f64> {
        let (first, last) = (self.points.first()?, self.points.last()?);
        if bits.is_nan() || self.exact.is_some_and(|exact| bits >= exact) {
            return None;
        }
        if bits <= first.bits {
            let share = (bits / first.bits).max(0.0);
            return Some(-10.0 * (1.0 - share * (1.0 - noise(first.sqnr_db))).log10());
        }
        if bits >= last.bits {
            return Some(last.sqnr_db + (bits - last.bits) * DB_PER_BIT);
        }
        let at = self.points.partition_point(|p| p.bits < bits);
        let (a, b) = (self.points[at - 1], self.points[at]);
        Some(a.sqnr_db + (b.sqnr_db - a.sqnr_db) * (bits - a.bits) / (b.bits - a.bits))
    }
}

/// Noise over signal at an SQNR in dB.
fn noise(sqnr_db: f64) -> f64 {
    10f64.powf(-sqnr_db / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(bits: f64, sqnr: f64) -> (f64, Distortion) {
        let noise = if sqnr.is_finite() { noise(sqnr) } else { 0.0 };
        (bits, Distortion { signal: 1.0, noise, max_error: 0.0, weights: 1 })
    }

    #[test]
    fn both_readings_are_inverse_everywhere() {
        let curve = Curve::new([(1.0, 4.6), (2.0, 10.0), (4.0, 22.0)].map(|(b, s)| measured(b, s)));
        for i in 0..70 {
            let bits = 0.1 * f64::from(i);
            let sqnr = curve.sqnr_at(bits).unwrap();
            assert!((curve.bits_at(sqnr).unwrap() - bits).abs() < 1e-9, "{bits} {sqnr}");
        }
        assert!((curve.bits_at(16.0).unwrap() - 3.0).abs() < 1e-9);
        assert!((curve.sqnr_at(5.0).unwrap() - 28.02).abs() < 0.01);
        assert_eq!(curve.bits_at(-3.0), Some(0.0));
        assert_eq!(curve.bits_at(f64::INFINITY), None);
    }

    #[test]
    fn points_that_are_beaten_are_left_out() {
        let curve =
            Curve::new([(2.0, 9.0), (3.0, 8.0), (1.0, 4.0), (2.0, 10.0)].map(|(b, s)| measured(b, s)));
        assert_eq!(curve.points.iter().map(|p| p.bits).collect::<Vec<_>>(), [1.0, 2.0]);
        assert!((curve.points[1].sqnr_db - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_curve_that_loses_nothing_ends_there() {
        let curve =
            Curve::new([(1.0, 5.0), (2.0, f64::INFINITY), (3.0, f64::INFINITY)].map(|(b, s)| measured(b, s)));
        assert_eq!((curve.points.len(), curve.exact), (1, Some(2.0)));
        assert_eq!(curve.bits_at(f64::INFINITY), Some(2.0));
        assert_eq!(curve.sqnr_at(2.5), None);
        assert_eq!(Curve::new([measured(0.1, f64::INFINITY)]).bits_at(20.0), Some(0.1));
        assert_eq!(Curve::default().bits_at(20.0), None);
    }
}

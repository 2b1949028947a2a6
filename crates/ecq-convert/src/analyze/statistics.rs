//! How the weights of a tensor are distributed.

use ecq_quant::weights::{Weights, map_pieces};
use serde::Serialize;

/// Bars of a histogram of weights, over [`REACH`] rms to either side of zero.
const BARS: usize = 32;
/// Where such a histogram ends, in rms.
const REACH: f64 = 4.0;
/// Beyond this many rms a weight counts as an outlier.
const OUTLIER: f64 = 6.0;

/// The distribution of weights.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Statistics {
    /// Mean.
    pub mean: f64,
    /// Root mean square.
    pub rms: f64,
    /// Largest magnitude.
    pub max: f64,
    /// Largest magnitude over the rms: what a scale for all of the tensor must span. 0 where all weights are 0.
    pub max_over_rms: f64,
    /// Share of weights beyond 6 rms.
    pub outliers: f64,
    /// Fourth central moment over the squared variance: 3 for a Gaussian, 6 for a Laplacian. 0 where all weights are equal.
    pub kurtosis: f64,
    /// Share of the weights in 32 equal bars from -4 to 4 rms; those beyond are in no bar.
    pub histogram: Vec<f64>,
}

/// Sums over weights.
#[derive(Clone, Copy, Default)]
struct Moments {
    powers: [f64; 4],
    max: f64,
}

impl Moments {
    fn of(weights: &[f32]) -> Self {
        let mut sum = Self::default();
        for &w in weights {
            let w = f64::from(w);
            let square = w * w;
            let powers = [w, square, square * w, square * square];
            sum.powers.iter_mut().zip(powers).for_each(|(a, b)| *a += b);
            sum.max = sum.max.max(w.abs());
        }
        sum
    }

    fn and(mut self, other: Self) -> Self {
        self.powers.iter_mut().zip(other.powers).for_each(|(a, b)| *a += b);
        self.max = self.max.max(other.max);
        self
    }
}

impl Statistics {
    /// Looks at a matrix twice.
    pub(super) fn of(weights: &dyn Weights) -> Self {
        let n = (weights.rows() * weights.cols()) as f64;
        let moments =
            map_pieces(weights, |_, w| Moments::of(w)).into_iter().fold(Moments::default(), Moments::and);
        let [m1, m2, m3, m4] = moments.powers.map(|sum| sum / n);
        let (mean, rms) = (m1, m2.sqrt());
        let variance = m2 - mean * mean;
        let fourth = m4 - 4.0 * mean * m3 + 6.0 * mean * mean * m2 - 3.0 * mean.powi(4);
        // where rounding is all that is left there is no spread to speak of
        let spread = variance > 1e-12 * m2;
        let counts = map_pieces(weights, |_, w| count(w, rms));
        let total = counts.into_iter().fold([0u64; BARS + 1], |mut a, b| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            a
        });
        Self {
            mean,
            rms,
            max: moments.max,
            max_over_rms: if rms > 0.0 { moments.max / rms } else { 0.0 },
            outliers: total[BARS] as f64 / n,
            kurtosis: if spread { fourth / (variance * variance) } else { 0.0 },
            histogram: total[..BARS].iter().map(|&c| c as f64 / n).collect(),
        }
    }
}

/// Weights in each bar, and last the outliers.
fn count(weights: &[f32], rms: f64) -> [u64; BARS + 1] {
    let mut counts = [0; BARS + 1];
    let scale = if rms > 0.0 { 1.0 / rms } else { 0.0 };
    for &w in weights {
        let x = f64::from(w) * scale;
        if x.abs() > OUTLIER {
            counts[BARS] += 1;
        } else if x.abs() < REACH {
            counts[((x + REACH) * (BARS as f64 / (2.0 * REACH))) as usize] += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecq_quant::weights::Dense;

    #[test]
    fn two_values_have_a_kurtosis_of_one() {
        let weights: Vec<f32> = (0..4096).map(|i| if i % 2 == 0 { 3.0 } else { 1.0 }).collect();
        let s = Statistics::of(&Dense::new(&weights, 64).unwrap());
        assert_eq!((s.mean, s.max), (2.0, 3.0));
        assert!((s.kurtosis - 1.0).abs() < 1e-9 && (s.rms - 5f64.sqrt()).abs() < 1e-9);
        assert_eq!(s.outliers, 0.0);
        assert!((s.histogram.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn outliers_are_counted_and_nothing_divides_by_zero() {
        let mut weights = vec![0.1f32; 4096];
        weights[7] = 100.0;
        let s = Statistics::of(&Dense::new(&weights, 4096).unwrap());
        assert_eq!(s.outliers, 1.0 / 4096.0);
        assert!(s.max_over_rms > 60.0 && s.kurtosis > 4000.0, "{s:?}");
        let zeros = Statistics::of(&Dense::new(&[0.0; 1024], 32).unwrap());
        assert_eq!((zeros.kurtosis, zeros.max_over_rms), (0.0, 0.0));
        let same = Statistics::of(&Dense::new(&[0.3; 1024], 32).unwrap());
        assert_eq!(same.kurtosis, 0.0);
    }
}

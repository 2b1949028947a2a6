//! From the second moments of a layer's inputs to the order of feedback between its columns.
//!
//! Columns are quantized from the first to the last, and each one's error is made up for by those behind it (Frantar et al.,
//! GPTQ, 2022). With H = A Aᵀ, A upper triangular, what cannot be made up for of an error in column j is its square times
//! A[j,j]²: the variance of input j when all later inputs are known.

use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Mat, Par, Side};

use crate::statistics::Moments;

/// Second moments, factored.
pub struct Factor {
    /// A[j,j]: how much an error of a column counts, as a root.
    pub diagonal: Vec<f64>,
    /// Row j has, from column j on, what of an error of column j is taken off each column: 1 at j itself.
    pub feedback: Vec<f32>,
}

impl Factor {
    /// Of second moments of so many inputs; `damping` times the mean of the squares is added to these. Of squares alone the
    /// errors are not made up for. `None` if they are not positive definite even so: not finite, or all zero.
    pub fn new(moments: &Moments, size: usize, damping: f64) -> Option<Self> {
        let mean = moments.squares(size).map(f64::from).sum::<f64>() / size as f64;
        if !(mean.is_finite() && mean > 0.0) {
            return None;
        }
        let all = match moments {
            Moments::Triangle(all) => all,
            Moments::Diagonal(squares) => {
                let diagonal: Vec<f64> =
                    squares.iter().map(|&x| (f64::from(x) + damping * mean).sqrt()).collect();
                let sane = diagonal.iter().all(|d| d.is_finite() && *d > 0.0);
                return sane.then_some(Self { diagonal, feedback: Vec::new() });
            }
        };
        // backwards, so that the lower factor of what is here is the upper one of what is wanted
        let back = |i: usize, j: usize| {
            let (i, j) = (size - 1 - i, size - 1 - j);
            let added = if i == j { damping * mean } else { 0.0 };
            f64::from(all[Moments::place(size, i.min(j), i.max(j))]) + added
        };
        let whole = Mat::<f64>::from_fn(size, size, back);
        let lower = whole.llt(Side::Lower).ok()?;
        let lower = lower.L();
        let mut inverse = Mat::<f64>::zeros(size, size);
        invert_lower_triangular(inverse.as_mut(), lower, Par::Seq);
        let diagonal: Vec<f64> = (0..size).map(|j| lower[(size - 1 - j, size - 1 - j)]).collect();
        let mut feedback = vec![0.0; size * size];
        for (j, row) in feedback.chunks_exact_mut(size).enumerate() {
            for (k, to) in row.iter_mut().enumerate().skip(j) {
                *to = (inverse[(size - 1 - j, size - 1 - k)] * diagonal[j]) as f32;
            }
        }
        diagonal.iter().all(|d| d.is_finite() && *d > 0.0).then_some(Self { diagonal, feedback })
    }

    /// Of inputs that count the same and do not depend on each other: no feedback.
    pub fn independent(size: usize) -> Self {
        Self { diagonal: vec![1.0; size], feedback: Vec::new() }
    }

    /// Number of inputs.
    pub fn size(&self) -> usize {
        self.diagonal.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_of_its_matrix() {
        let matrix = [4.0f32, 1.0, 0.5, 1.0, 3.0, -0.7, 0.5, -0.7, 2.0];
        let Factor { diagonal, feedback } = Factor::new(&Moments::of(&matrix, 3), 3, 0.1).unwrap();
        // A is the inverse of the upper triangle U, whose row j is the feedback's divided by A[j,j]
        let u = |j: usize, k: usize| f64::from(feedback[j * 3 + k]) / diagonal[j];
        // H times Uᵀ U is 1
        for i in 0..3 {
            for k in 0..3 {
                let damped =
                    |i: usize, j: usize| f64::from(matrix[i * 3 + j]) + if i == j { 0.3 } else { 0.0 };
                let inverse = |j: usize, k: usize| (0..3).map(|l| u(l, j) * u(l, k)).sum::<f64>();
                let sum: f64 = (0..3).map(|j| damped(i, j) * inverse(j, k)).sum();
                assert!((sum - f64::from(u8::from(i == k))).abs() < 1e-5, "{i} {k} {sum}");
            }
        }
        assert!(
            (0..3).all(|j| (feedback[j * 3 + j] - 1.0).abs() < 1e-6
                && feedback[j * 3..][..j].iter().all(|&f| f == 0.0))
        );
    }

    #[test]
    fn what_has_no_factor_is_none() {
        assert!(Factor::new(&Moments::of(&[0.0; 4], 2), 2, 0.05).is_none());
        assert!(Factor::new(&Moments::of(&[f32::NAN, 0.0, 0.0, 1.0], 2), 2, 0.05).is_none());
        assert!(Factor::new(&Moments::of(&[1.0, 5.0, 5.0, 1.0], 2), 2, 0.0).is_none());
        // squares alone
        let squares = Factor::new(&Moments::Diagonal(vec![4.0, 8.0]), 2, 0.5).unwrap();
        assert_eq!((squares.diagonal, squares.feedback.len()), (vec![7.0f64.sqrt(), 11.0f64.sqrt()], 0));
        // of one vector, damped
        assert!(Factor::new(&Moments::of(&[1.0, 2.0, 2.0, 4.0], 2), 2, 0.05).is_some());
    }
}

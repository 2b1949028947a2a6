//! Logits as probabilities: how unexpected a token was, and how far two models are apart.

use crate::sampling::most_likely;

/// The logits behind a token, one for each token of the vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    all: &'a [f32],
    /// The logarithm of the sum of their exponentials.
    sum: f64,
}

impl<'a> Logits<'a> {
    /// Of any size: the largest is taken off first, so that no exponential is infinite.
    pub fn new(all: &'a [f32]) -> Self {
        let most = f64::from(all.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = all.iter().map(|&l| (f64::from(l) - most).exp()).sum();
        Self { all, sum: most + sum.ln() }
    }

    /// The token that is most likely; the first of several.
    pub fn most_likely(&self) -> u32 {
        most_likely(self.all)
    }

    /// Nats by which a token is unexpected: -ln of its probability. NaN for one that the vocabulary does not have.
    pub fn surprise(&self, token: u32) -> f64 {
        self.all.get(token as usize).map_or(f64::NAN, |&logit| self.sum - f64::from(logit))
    }

    /// KL divergence in nats: Σ p ln(p / q) with these probabilities p, and those of `other`, of the same vocabulary, q.
    pub fn divergence(&self, other: &Logits<'_>) -> f64 {
        let pairs = self.all.iter().zip(other.all);
        let terms = pairs.map(|(&a, &b)| {
            let (a, b) = (f64::from(a) - self.sum, f64::from(b) - other.sum);
            a.exp() * (a - b)
        });
        terms.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_of_probabilities() {
        let logits = |p: [f32; 3]| p.map(|p| p.ln() + 500.0);
        let (p, q) = (logits([0.5, 0.25, 0.25]), logits([0.25, 0.25, 0.5]));
        let (p, q) = (Logits::new(&p), Logits::new(&q));
        let expected = 0.5 * 2f64.ln() - 0.25 * 2f64.ln();
        assert!((p.divergence(&q) - expected).abs() < 1e-4);
        assert!(p.divergence(&p).abs() < 1e-12);
        assert!((p.surprise(0) - 2f64.ln()).abs() < 1e-4 && p.surprise(3).is_nan());
        assert_eq!((p.most_likely(), q.most_likely()), (0, 2));
    }
}

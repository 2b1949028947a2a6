//! How well a model foresees a text, and how far it is from another: means over tokens, with their standard errors.

use crate::Logits;

/// A mean and its standard error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mean {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Mean {
    /// Takes a value in.
    pub fn add(&mut self, value: f64) {
        // Welford's way, which does not cancel
        self.count += 1.0;
        let off = value - self.mean;
        self.mean += off / self.count;
        self.squares += off * (value - self.mean);
    }

    /// The mean; 0 of nothing.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The standard error of the mean, for values that do not depend on each other.
    pub fn error(&self) -> f64 {
        (self.squares / (self.count - 1.0).max(1.0) / self.count.max(1.0)).sqrt()
    }

    /// The perplexity of a mean surprise, and its standard error.
    pub fn perplexity(&self) -> (f64, f64) {
        (self.mean.exp(), self.mean.exp() * self.error())
    }
}

/// A model over a text, and beside another one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Comparison {
    /// Nats by which tokens are unexpected.
    pub surprise: Mean,
    /// Those of the other model.
    pub other_surprise: Mean,
    /// KL divergence from the other model, in nats.
    pub divergence: Mean,
    same: f64,
}

impl Comparison {
    /// Takes the logits behind a token in, of this model and of the other one if there is one, and the token that came `next`.
    pub fn add(&mut self, logits: &[f32], other: Option<&[f32]>, next: u32) {
        let own = Logits::new(logits);
        self.surprise.add(own.surprise(next));
        if let Some(other) = other {
            let other = Logits::new(other);
            self.other_surprise.add(other.surprise(next));
            self.divergence.add(other.divergence(&own));
            self.same += f64::from(u8::from(other.most_likely() == own.most_likely()));
        }
    }

    /// Tokens that were taken in.
    pub fn tokens(&self) -> usize {
        self.surprise.count as usize
    }

    /// Share of tokens behind which both models have the same most likely one.
    pub fn agreement(&self) -> f64 {
        self.same / self.divergence.count.max(1.0)
    }

    /// Whether all logits were numbers: a mean with one that is none is none.
    pub fn is_finite(&self) -> bool {
        self.surprise.mean.is_finite() && self.other_surprise.mean.is_finite()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_have_errors() {
        let mut mean = Mean::default();
        assert_eq!((mean.mean(), mean.error()), (0.0, 0.0));
        [1.0, 2.0, 3.0, 6.0].into_iter().for_each(|value| mean.add(value));
        // variance 14/3
        assert!((mean.mean - 3.0).abs() < 1e-12 && (mean.error() - (14.0f64 / 12.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn models_are_compared_token_by_token() {
        let mut found = Comparison::default();
        let (own, other) = ([0.0, 1.0f32.ln(), 0.0], [0.0, 2f32.ln(), 0.0]);
        found.add(&own, Some(&other), 1);
        found.add(&other, Some(&other), 0);
        assert_eq!(found.tokens(), 2);
        assert_eq!(found.agreement(), 0.5);
        let expected = 0.5 * (3.0f64 / 4.0).ln() + 0.5 * (3.0f64 / 2.0).ln();
        assert!((found.divergence.mean() - expected / 2.0).abs() < 1e-6);
        assert!((found.surprise.mean() - (3f64.ln() + 4f64.ln()) / 2.0).abs() < 1e-6);
        assert!(found.is_finite());
        found.add(&[f32::NAN; 3], None, 0);
        assert!(!found.is_finite());
    }
}

//! Which token comes next.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::math::softmax;

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the most likely token.
    pub temperature: f32,
    /// Only so many of the most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together have this probability; 1 for all.
    pub top_p: f32,
    /// Of the generator of random numbers: the same seed gives the same text.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 40, top_p: 0.95, seed: 0 }
    }
}

/// Chooses tokens.
pub struct Sampler {
    sampling: Sampling,
    random: SmallRng,
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    /// A sampler whose choices follow from the seed and the logits.
    pub fn new(sampling: Sampling) -> Self {
        Self { sampling, random: SmallRng::seed_from_u64(sampling.seed), candidates: Vec::new() }
    }

    /// A token; the smaller one of two that are equally likely. Logits that are no numbers are never chosen, unless all are.
    pub fn next(&mut self, logits: &[f32]) -> u32 {
        let Sampling { temperature, top_k, top_p, .. } = self.sampling;
        if temperature <= 0.0 {
            return most_likely(logits);
        }
        self.candidates.clear();
        let numbers = (0..).zip(logits.iter().copied()).filter(|(_, logit)| !logit.is_nan());
        self.candidates.extend(numbers);
        let descending = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let most = if top_k == 0 { self.candidates.len() } else { top_k };
        if most < self.candidates.len() {
            self.candidates.select_nth_unstable_by(most, descending);
            self.candidates.truncate(most);
        }
        self.candidates.sort_by(descending);
        let mut weights: Vec<f32> = self.candidates.iter().map(|(_, logit)| logit / temperature).collect();
        softmax(&mut weights);
        let mut sum = 0.0;
        let kept = weights.iter().position(|w| {
            sum += w;
            sum >= top_p
        });
        weights.truncate(kept.map_or(weights.len(), |last| last + 1));
        let mut left = self.random.random::<f32>() * weights.iter().sum::<f32>();
        let chosen = weights.iter().position(|w| {
            left -= w;
            left < 0.0
        });
        let index = chosen.unwrap_or(weights.len().saturating_sub(1));
        self.candidates.get(index).map_or(0, |(token, _)| *token)
    }
}

/// The token with the largest logit.
pub fn most_likely(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in (0..).zip(logits) {
        if logit > best.1 {
            best = (token, logit);
        }
    }
    best.0
}

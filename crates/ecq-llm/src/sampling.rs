//! Which token comes next.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::math::{softmax, sum};

/// Weights that are passed over at once.
const BLOCK: usize = 1024;

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
    weights: Vec<f32>,
}

impl Sampler {
    /// A sampler whose choices follow from the seed and the logits.
    pub fn new(sampling: Sampling) -> Self {
        let random = SmallRng::seed_from_u64(sampling.seed);
        Self { sampling, random, candidates: Vec::new(), weights: Vec::new() }
    }

    /// A token; the smaller one of two that are equally likely. Logits that are no numbers are never chosen, unless all are.
    pub fn next(&mut self, logits: &[f32]) -> u32 {
        let Sampling { temperature, top_k, top_p, .. } = self.sampling;
        if temperature <= 0.0 {
            return most_likely(logits);
        }
        if top_k == 0 && top_p >= 1.0 {
            return self.of_all(logits);
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
        let most = self.candidates.first().map_or(0.0, |(_, logit)| *logit);
        self.weights.clear();
        self.weights.extend(self.candidates.iter().map(|(_, logit)| cooled(*logit, most, temperature)));
        softmax(&mut self.weights);
        let mut sum = 0.0;
        let kept = self.weights.iter().position(|w| {
            sum += w;
            sum >= top_p
        });
        self.weights.truncate(kept.map_or(self.weights.len(), |last| last + 1));
        self.draw().and_then(|index| self.candidates.get(index)).map_or(0, |(token, _)| *token)
    }

    /// A token of all: those need not be sorted.
    fn of_all(&mut self, logits: &[f32]) -> u32 {
        let most = logits.get(most_likely(logits) as usize).filter(|logit| !logit.is_nan());
        let most = most.copied().unwrap_or(f32::NEG_INFINITY);
        let weight = |&logit: &f32| match logit.is_nan() {
            true => f32::NEG_INFINITY,
            false => cooled(logit, most, self.sampling.temperature),
        };
        self.weights.clear();
        self.weights.extend(logits.iter().map(weight));
        softmax(&mut self.weights);
        // of which each number has something
        let all = self.weights.iter_mut().zip(logits);
        all.for_each(|(weight, logit)| *weight = if logit.is_nan() { 0.0 } else { *weight });
        self.draw().map_or(0, |index| index as u32)
    }

    /// An index of `weights`, as likely as they say. None if none weighs anything.
    fn draw(&mut self) -> Option<usize> {
        let mut left = self.random.random::<f32>() * sum(&self.weights);
        let mut first = 0;
        for block in self.weights.chunks(BLOCK) {
            let sum = sum(block);
            if left >= sum {
                left -= sum;
            } else if let Some(index) = block.iter().position(|w| {
                left -= w;
                left < 0.0
            }) {
                return Some(first + index);
            }
            first += block.len();
        }
        // sums in another order are rounded in another way
        self.weights.iter().rposition(|w| *w > 0.0)
    }
}

/// What a logit becomes at a temperature, less what the largest one becomes: so it is finite or -∞ for any temperature.
fn cooled(logit: f32, most: f32, temperature: f32) -> f32 {
    // differences first: quotients may be infinite, and then have none
    if logit == most { 0.0 } else { (logit - most) / temperature }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_temperatures_take_the_most_likely_token() {
        let infinite = [1.0, f32::INFINITY, 3.0];
        for logits in [[1.0, 12.0, 11.0], [-9.0, -1.0, -2.0], infinite, [f32::NAN, 0.0, -1.0]] {
            for temperature in [1e-3, 1e-30, 1e-40, f32::from_bits(1)] {
                for seed in 0..20 {
                    let sampling = Sampling { temperature, top_p: 1.0, seed, ..Sampling::default() };
                    assert_eq!(Sampler::new(sampling).next(&logits), 1, "{logits:?} at {temperature:e}");
                }
            }
        }
    }

    #[test]
    fn tokens_are_drawn_as_likely_as_they_are() {
        let logits = [0.5f32, 0.25, 0.125, 0.125].map(f32::ln);
        let counts = |top_k, top_p| {
            let mut sampler = Sampler::new(Sampling { temperature: 1.0, top_k, top_p, seed: 7 });
            let mut counts = [0.0; 4];
            (0..4000).for_each(|_| counts[sampler.next(&logits) as usize] += 1.0 / 4000.0);
            counts
        };
        for (found, expected) in [
            (counts(0, 1.0), [0.5, 0.25, 0.125, 0.125]),
            (counts(2, 1.0), [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]),
            (counts(0, 0.7), [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]),
        ] {
            assert!(found.iter().zip(expected).all(|(f, e): (&f64, f64)| (f - e).abs() < 0.04), "{found:?}");
        }
    }

    #[test]
    fn of_many_tokens_each_is_drawn_and_no_other() {
        let sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 3 };
        // the first and the last have a quarter each, one in the middle a half; blocks between them have nothing
        let mut logits = vec![f32::NEG_INFINITY; 5 * BLOCK + 7];
        let (middle, last) = (2 * BLOCK + 5, logits.len() - 1);
        (logits[0], logits[middle], logits[last]) = (0.25f32.ln(), 0.5f32.ln(), 0.25f32.ln());
        logits[1] = f32::NAN;
        logits[last - 1] = f32::NAN;
        let mut sampler = Sampler::new(sampling);
        let mut counts = std::collections::BTreeMap::new();
        (0..4000).for_each(|_| *counts.entry(sampler.next(&logits) as usize).or_insert(0) += 1);
        let near = |n: &i32, expected: i32| (n - expected).abs() < 120;
        assert!(near(&counts[&0], 1000) && near(&counts[&middle], 2000), "{counts:?}");
        assert!(near(&counts[&last], 1000) && counts.len() == 3, "{counts:?}");
        for (logits, token) in [
            (vec![], 0),
            (vec![f32::NAN; 9], 0),
            (vec![f32::NAN, f32::NEG_INFINITY, f32::NAN], 1),
            (vec![0.0, f32::INFINITY, f32::NAN], 1),
            (vec![f32::MIN, f32::MAX, -0.0], 1),
        ] {
            (0..50).for_each(|_| assert_eq!(sampler.next(&logits), token, "{logits:?}"));
        }
    }
}

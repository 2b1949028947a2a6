//! The texts of a calibration as tokens: those that are learned from, and those that are kept for measuring.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Chunks of each calibration that are not learned from, but measured on.
pub const HELD_OUT: usize = 4;
/// Chunks that are passed backward, too: mean gradients need less of a text than second moments.
const BACKWARD: usize = 8;

/// The texts of a calibration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Texts {
    /// What is learned from.
    pub chunks: Vec<Vec<u32>>,
    /// What is not.
    pub held_out: Vec<Vec<u32>>,
    /// Where the random numbers begin.
    pub seed: u64,
}

impl Texts {
    /// Adds chunks of a text, of which so many are not learned from, evenly spread.
    pub fn add(&mut self, chunks: Vec<Vec<u32>>, held_out: usize) {
        let count = chunks.len();
        // the middle of each of as many parts
        let held: BTreeSet<usize> = (0..held_out).map(|i| (2 * i + 1) * count / (2 * held_out)).collect();
        for (i, chunk) in chunks.into_iter().enumerate() {
            if held.contains(&i) { self.held_out.push(chunk) } else { self.chunks.push(chunk) }
        }
    }

    /// Tokens that are learned from.
    pub fn tokens(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    /// Of the chunks that are learned from those whose gradients are, too: every so many-th.
    pub fn gradients_every(&self) -> usize {
        self.chunks.len().div_ceil(BACKWARD).max(1)
    }

    /// Tokens whose gradients are learned from.
    pub fn gradient_tokens(&self) -> usize {
        self.chunks.iter().step_by(self.gradients_every()).map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_out_is_spread_and_not_learned_from() {
        let mut texts = Texts::default();
        texts.add((0..10).map(|i| vec![i]).collect(), 2);
        assert_eq!(texts.held_out, [[2], [7]]);
        assert_eq!(texts.chunks.concat(), [0, 1, 3, 4, 5, 6, 8, 9]);
        texts.add(vec![vec![10]], 0);
        assert_eq!((texts.tokens(), texts.held_out.len()), (9, 2));
        assert_eq!((texts.gradients_every(), texts.gradient_tokens()), (2, 5));
    }
}

//! What it would cost to code weights as differences from their neighbours, as image formats do.
//!
//! 8-bit levels with a scale a row, in blocks of 256 x 256 that know nothing of each other: a neighbour outside the block
//! counts as 0. Residuals are taken mod 256. The figure is their order-0 entropy over the tensor, in bits a weight.

use ecq_format::encode::Levels;
use ecq_format::plan::entropy;
use ecq_format::predict::BLOCK;
use rayon::prelude::*;
use serde::Serialize;

const KINDS: usize = 4;

/// Order-0 entropies of 8-bit levels and of what predictors leave of them, in bits a weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Prediction {
    /// The levels themselves.
    pub none: f64,
    /// Less the level to the left.
    pub left: f64,
    /// Less the level above.
    pub up: f64,
    /// Less left + above - above left.
    pub planar: f64,
    /// In how many blocks each of these four is the cheapest, the first of equals.
    pub cheapest_in_blocks: [u64; KINDS],
}

/// Residuals by predictor and value.
type Counts = [[u32; 256]; KINDS];

impl Prediction {
    /// Of a matrix of levels from -127 to 127, in one pass.
    pub(super) fn of(levels: &dyn Levels, rows: usize, cols: usize) -> Self {
        let zero = || (vec![[0u64; 256]; KINDS], [0u64; KINDS]);
        let bands = (0..rows.div_ceil(BLOCK)).into_par_iter().fold(zero, |mut sum, band| {
            let range = band * BLOCK..rows.min((band + 1) * BLOCK);
            for block in count_band(levels, range, cols) {
                let bits = block.map(|counts| entropy(counts.iter().map(|&c| u64::from(c))));
                let best = (0..KINDS).min_by(|&a, &b| bits[a].total_cmp(&bits[b])).unwrap_or(0);
                sum.1[best] += 1;
                for (sum, block) in sum.0.iter_mut().zip(&block) {
                    sum.iter_mut().zip(block).for_each(|(a, &b)| *a += u64::from(b));
                }
            }
            sum
        });
        let (counts, cheapest_in_blocks) = bands.reduce(zero, |mut a, b| {
            a.0.iter_mut().flatten().zip(b.0.iter().flatten()).for_each(|(a, b)| *a += b);
            a.1.iter_mut().zip(b.1).for_each(|(a, b)| *a += b);
            a
        });
        let of = |kind: usize| entropy(counts[kind].iter().copied());
        Self { none: of(0), left: of(1), up: of(2), planar: of(3), cheapest_in_blocks }
    }

    /// Adds what another tensor has, weighted by `share` of all weights.
    pub(super) fn add(&mut self, other: &Self, share: f64) {
        self.none += share * other.none;
        self.left += share * other.left;
        self.up += share * other.up;
        self.planar += share * other.planar;
        self.cheapest_in_blocks.iter_mut().zip(other.cheapest_in_blocks).for_each(|(a, b)| *a += b);
    }
}

/// Counts the residuals of the blocks of a band of rows, which begins at a block's first row.
fn count_band(levels: &dyn Levels, range: std::ops::Range<usize>, cols: usize) -> Vec<Counts> {
    let mut blocks = vec![[[0u32; 256]; KINDS]; cols.div_ceil(BLOCK)];
    let (mut row, mut above, mut wide) = (vec![0u8; cols], vec![0u8; cols], vec![0i32; cols]);
    for r in range {
        levels.fill(r..r + 1, &mut wide);
        // to the low byte: residuals are mod 256
        row.iter_mut().zip(&wide).for_each(|(b, &q)| *b = q as u8);
        let parts = row.chunks(BLOCK).zip(above.chunks(BLOCK));
        for (counts, (row, above)) in blocks.iter_mut().zip(parts) {
            let (mut left, mut corner) = (0u8, 0u8);
            for (&x, &up) in row.iter().zip(above) {
                let planar = left.wrapping_add(up).wrapping_sub(corner);
                for (counts, predicted) in counts.iter_mut().zip([0, left, up, planar]) {
                    counts[usize::from(x.wrapping_sub(predicted))] += 1;
                }
                (left, corner) = (x, up);
            }
        }
        std::mem::swap(&mut row, &mut above);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pattern<F>(usize, F);

    impl<F: Fn(usize, usize) -> i32 + Sync> Levels for Pattern<F> {
        fn fill(&self, rows: std::ops::Range<usize>, out: &mut [i32]) {
            for (r, out) in rows.zip(out.chunks_exact_mut(self.0)) {
                out.iter_mut().enumerate().for_each(|(c, q)| *q = (self.1)(r, c));
            }
        }
    }

    #[test]
    fn each_predictor_takes_away_what_it_predicts() {
        // a value a row is known from the left but for the first column of each block, one a column from above
        let draw = |i: usize| {
            let x = (i as u32 + 1).wrapping_mul(2_654_435_761);
            ((x ^ x >> 15).wrapping_mul(2_246_822_519) >> 25) as i32 - 64
        };
        let of = |f: &(dyn Fn(usize, usize) -> i32 + Sync)| Prediction::of(&Pattern(512, f), 300, 512);
        let rows = of(&|r, _| draw(r));
        assert!(rows.none > 6.0 && rows.left < 0.2 && rows.up > 6.0 && rows.planar < 0.2, "{rows:?}");
        let columns = of(&|_, c| draw(c));
        assert!(columns.none > 6.0 && columns.up < 0.2 && columns.left > 6.0, "{columns:?}");
        let both = of(&|r, c| draw(r) / 2 + draw(c) / 2);
        assert!(both.planar < 0.2 && both.left > 4.0 && both.up > 4.0, "{both:?}");
        assert_eq!(both.cheapest_in_blocks, [0, 0, 0, 4]);
    }

    #[test]
    fn differences_of_independent_weights_cost_more_than_the_weights() {
        let mut state = 1u64;
        let noise: Vec<i32> = (0..256 * 256)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (0..4).map(|i| (state >> (24 + 8 * i)) as i32 & 31).sum::<i32>() - 62
            })
            .collect();
        let p = Prediction::of(&Pattern(256, |r, c| noise[256 * r + c]), 256, 256);
        // half a bit for the doubled variance, a whole one for the fourfold
        assert!((p.left - p.none - 0.5).abs() < 0.05 && (p.up - p.none - 0.5).abs() < 0.05, "{p:?}");
        assert!((p.planar - p.none - 1.0).abs() < 0.05, "{p:?}");
        assert_eq!(p.cheapest_in_blocks, [1, 0, 0, 0]);
    }
}

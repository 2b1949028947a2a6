//! Levels of 8 bits as differences from a prediction by their neighbours.
//!
//! A tile is cut into blocks of 256 columns, and of 256 rows counted from its first; neighbours outside a level's block
//! count as 0. Differences wrap around at 8 bits, so they are levels of 8 bits, too.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::encode::Levels;

/// Rows and columns of a block.
pub const BLOCK: usize = 256;

/// What is taken for a level before it is known.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Predictor {
    /// The level to the left.
    Left,
    /// The level above.
    Up,
    /// Left plus above, less the one above left.
    Planar,
}

impl Predictor {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Left, Self::Up, Self::Planar];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Up => "up",
            Self::Planar => "planar",
        }
    }

    fn of(self, left: i32, up: i32, corner: i32) -> i32 {
        match self {
            Self::Left => left,
            Self::Up => up,
            Self::Planar => left.wrapping_add(up).wrapping_sub(corner),
        }
    }

    /// Differences of a row of levels, each from its prediction. `above` is the row above; none in the first row of a
    /// block.
    pub fn differences(self, above: Option<&[i32]>, row: &[i32], out: &mut [i32]) {
        for (first, (row, out)) in (0..).step_by(BLOCK).zip(row.chunks(BLOCK).zip(out.chunks_mut(BLOCK))) {
            let above = above.map(|a| &a[first..first + row.len()]);
            let (mut left, mut corner) = (0, 0);
            for (i, (&level, out)) in row.iter().zip(out).enumerate() {
                let up = above.map_or(0, |a| a[i]);
                *out = wrap(level.wrapping_sub(self.of(left, up, corner)));
                (left, corner) = (level, up);
            }
        }
    }

    /// Differences of a tile of whole rows to levels, in place.
    pub fn restore(self, cols: usize, levels: &mut [i32]) {
        for row in 0..levels.len() / cols.max(1) {
            let (before, here) = levels.split_at_mut(row * cols);
            let above = (!row.is_multiple_of(BLOCK)).then(|| &before[(row - 1) * cols..]);
            for (first, here) in (0..).step_by(BLOCK).zip(here[..cols].chunks_mut(BLOCK)) {
                let above = above.map(|a| &a[first..first + here.len()]);
                let (mut left, mut corner) = (0, 0);
                for (i, level) in here.iter_mut().enumerate() {
                    let up = above.map_or(0, |a| a[i]);
                    *level = wrap(level.wrapping_add(self.of(left, up, corner)));
                    (left, corner) = (*level, up);
                }
            }
        }
    }
}

/// The level of 8 bits with these low bits.
fn wrap(level: i32) -> i32 {
    i32::from(level as i8)
}

/// Levels of 8 bits as their differences, for an encoder whose tiles have `tile_rows` rows.
pub struct Differences<'a> {
    /// The levels, -128..=127.
    pub levels: &'a dyn Levels,
    /// Rows of a tile.
    pub tile_rows: usize,
    /// Columns of the matrix.
    pub cols: usize,
    /// The prediction.
    pub predictor: Predictor,
}

impl Levels for Differences<'_> {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        let starts = |row: usize| (row % self.tile_rows).is_multiple_of(BLOCK);
        // the row above the first one, if it is in the same block
        let from = if rows.is_empty() || starts(rows.start) { rows.start } else { rows.start - 1 };
        let mut levels = vec![0; (rows.end - from) * self.cols];
        self.levels.fill(from..rows.end, &mut levels);
        for (row, out) in rows.zip(out.chunks_exact_mut(self.cols)) {
            let at = (row - from) * self.cols;
            let above = (!starts(row)).then(|| &levels[at - self.cols..at]);
            self.predictor.differences(above, &levels[at..at + self.cols], out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Given(Vec<i32>, usize);

    impl Levels for Given {
        fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
            out.copy_from_slice(&self.0[rows.start * self.1..rows.end * self.1]);
        }
    }

    #[test]
    fn differences_of_any_rows_restore_every_level() {
        let (rows, cols, tile_rows) = (700, 300, 520);
        let level = |i: usize| i32::from((i.wrapping_mul(2654435761) >> 7) as i8);
        let levels = Given((0..rows * cols).map(level).collect(), cols);
        for predictor in Predictor::ALL {
            let made = Differences { levels: &levels, tile_rows, cols, predictor };
            let mut all = vec![0; rows * cols];
            for (first, out) in (0..rows).step_by(37).zip(all.chunks_mut(37 * cols)) {
                made.fill(first..first + out.len() / cols, out);
            }
            assert!(all.iter().all(|d| (-128..=127).contains(d)));
            all.chunks_mut(tile_rows * cols).for_each(|tile| predictor.restore(cols, tile));
            assert_eq!(all, levels.0, "{predictor:?}");
        }
    }

    #[test]
    fn smooth_levels_have_small_differences() {
        let levels = Given((0..64 * 64).map(|i| (i / 64) + (i % 64)).collect(), 64);
        let made = Differences { levels: &levels, tile_rows: 64, cols: 64, predictor: Predictor::Planar };
        let mut out = vec![0; 64 * 64];
        made.fill(0..64, &mut out);
        assert!(out[65..128].iter().all(|&d| d == 0));
    }
}

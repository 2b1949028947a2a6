//! A matrix of weights, read a few rows at a time, so that no float copy of a large tensor is ever needed.

use std::ops::Range;

use rayon::prelude::*;

/// A matrix that gives its rows as f32.
pub trait Weights: Sync {
    /// Number of rows.
    fn rows(&self) -> usize;
    /// Number of columns.
    fn cols(&self) -> usize;
    /// Writes whole rows, row by row, into `out`.
    fn fill(&self, rows: Range<usize>, out: &mut [f32]);
}

/// A row-major matrix in memory.
pub struct Dense<'a> {
    cols: usize,
    data: &'a [f32],
}

impl<'a> Dense<'a> {
    /// Rows of `cols` weights each; `None` if the data are no whole number of rows.
    pub fn new(data: &'a [f32], cols: usize) -> Option<Self> {
        (cols > 0 && data.len().is_multiple_of(cols)).then_some(Self { cols, data })
    }
}

impl Weights for Dense<'_> {
    fn rows(&self) -> usize {
        self.data.len() / self.cols
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn fill(&self, rows: Range<usize>, out: &mut [f32]) {
        out.copy_from_slice(&self.data[rows.start * self.cols..rows.end * self.cols]);
    }
}

/// Runs `each(rows, weights)` over pieces of about 64 K weights, in parallel; results in row order. `weights` has the rows of the range
/// `rows`, one after another.
pub fn map_pieces<T: Send>(weights: &dyn Weights, each: impl Fn(Range<usize>, &[f32]) -> T + Sync) -> Vec<T> {
    let (rows, cols) = (weights.rows(), weights.cols());
    let height = (1usize << 16).div_ceil(cols.max(1));
    (0..rows.div_ceil(height))
        .into_par_iter()
        .map_init(Vec::new, |buffer, piece| {
            let range = piece * height..rows.min((piece + 1) * height);
            buffer.resize(range.len() * cols, 0.0);
            weights.fill(range.clone(), buffer);
            each(range, buffer)
        })
        .collect()
}

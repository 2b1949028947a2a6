//! Columns in order, each quantized and its error made up for by those behind it.

use ecq_format::plan::Histogram;
use ecq_quant::grid::Grid;
use ecq_quant::weights::Weights;
use multiversion::multiversion;
use rayon::prelude::*;

use crate::factor::Factor;
use crate::linear::{add_product, view};

/// Columns whose errors are carried on together.
const BLOCK: usize = 64;
/// Rows that a thread quantizes at a time: they do not depend on each other.
const ROWS: usize = 128;
/// Rows that a sample has at least.
const FEWEST: usize = 64;

/// Levels of some rows.
pub struct Rows {
    /// Row by row.
    pub levels: Vec<i16>,
    /// How often each occurs.
    pub histogram: Histogram,
    /// Sum of squared errors, each in steps: what is left of them behind the feedback.
    pub error: f64,
}

/// Quantizes all rows.
pub fn quantize(weights: &dyn Weights, factor: &Factor, grid: &Grid<'_>) -> Rows {
    some(weights, factor, grid, &(0..weights.rows()).collect::<Vec<_>>())
}

/// Quantizes one row in `every`, more of a small matrix.
pub fn sample(weights: &dyn Weights, factor: &Factor, grid: &Grid<'_>, every: usize) -> Rows {
    let every = every.min(weights.rows() / FEWEST).max(1);
    // without a period, as the rows of heads have one
    let drawn = |row: &usize| ((*row as u32).wrapping_mul(0x9e37_79b1) >> 8) as usize % every == 0;
    some(weights, factor, grid, &(0..weights.rows()).filter(drawn).collect::<Vec<_>>())
}

fn some(weights: &dyn Weights, factor: &Factor, grid: &Grid<'_>, rows: &[usize]) -> Rows {
    let done: Vec<Rows> = rows.par_chunks(ROWS).map(|rows| piece(weights, factor, grid, rows)).collect();
    let mut all = Rows { levels: Vec::new(), histogram: Histogram::new(0), error: 0.0 };
    for one in done {
        all.levels.extend(one.levels);
        all.histogram = all.histogram.merge(&one.histogram);
        all.error += one.error;
    }
    all
}

fn piece(weights: &dyn Weights, factor: &Factor, grid: &Grid<'_>, rows: &[usize]) -> Rows {
    let (height, cols) = (rows.len(), weights.cols());
    let factors = grid.rows(rows);
    let mut by_rows = vec![0.0; height * cols];
    for (&row, out) in rows.iter().zip(by_rows.chunks_exact_mut(cols)) {
        weights.fill(row..row + 1, out);
    }
    // column by column
    let mut columns = vec![0.0; height * cols];
    for (r, row) in by_rows.chunks_exact(cols).enumerate() {
        row.iter().enumerate().for_each(|(c, &w)| columns[c * height + r] = w);
    }
    let mut levels = vec![0i16; height * cols];
    let (mut found, mut error) = (vec![0i32; height], 0.0);
    let mut errors = vec![0.0; BLOCK * height];
    for first in (0..cols).step_by(BLOCK) {
        let end = cols.min(first + BLOCK);
        for column in first..end {
            let (before, behind) = columns.split_at_mut((column + 1) * height);
            let (own, off) = (&before[column * height..], &mut errors[(column - first) * height..][..height]);
            error += grid.column(&factors, column, own, &mut found, off);
            off.iter_mut().zip(own).for_each(|(off, w)| *off = w - *off);
            found.iter().enumerate().for_each(|(r, &q)| levels[r * cols + column] = q as i16);
            if !factor.feedback.is_empty() {
                let share = &factor.feedback[column * cols..][column + 1..end];
                for (later, &share) in behind.chunks_exact_mut(height).zip(share) {
                    carry(later, share, off);
                }
            }
        }
        if end < cols && !factor.feedback.is_empty() {
            let errors = &errors[..(end - first) * height];
            let share = view(&factor.feedback, cols).subrows(first, end - first).subcols(end, cols - end);
            // both are stored by columns: the transposes by rows
            let later = crate::linear::view_mut(&mut columns[end * height..], height);
            add_product(later, -1.0, share.transpose(), view(errors, height));
        }
    }
    let mut histogram = Histogram::new(0);
    levels.iter().for_each(|&q| histogram.add(q.into()));
    Rows { levels, histogram, error }
}

/// `later -= share * error`.
#[multiversion(targets = "simd")]
fn carry(later: &mut [f32], share: f32, error: &[f32]) {
    later.iter_mut().zip(error).for_each(|(w, e)| *w -= share * e);
}

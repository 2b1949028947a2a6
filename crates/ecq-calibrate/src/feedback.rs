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
    let drawn = |row: &usize| (((*row as u32).wrapping_mul(0x9e37_79b1) >> 8) as usize).is_multiple_of(every);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ecq_format::encode::{Levels, Profile};
    use ecq_quant::grid::Scaled;
    use ecq_quant::weights::Dense;

    use super::*;
    use crate::reference::random;
    use crate::statistics::Moments;

    /// Second moments of inputs that depend on each other, row by row.
    fn moments(size: usize) -> Vec<f32> {
        let x = random(4 * size * size, 3, false);
        let near = |t: usize, j: usize| f64::from(x[t * size + j]) + 0.7 * f64::from(x[t * size + j / 2]);
        let of = |i: usize, j: usize| (0..4 * size).map(|t| near(t, i) * near(t, j)).sum::<f64>();
        (0..size * size).map(|at| of(at / size, at % size) as f32).collect()
    }

    /// What errors of a matrix do to outputs: the sum of e H eᵀ over its rows.
    fn damage(weights: &[f32], made: &[f32], moments: &[f32], size: usize) -> f64 {
        let row = |(w, q): (&[f32], &[f32])| {
            let e: Vec<f64> = w.iter().zip(q).map(|(w, q)| f64::from(w - q)).collect();
            let along = |i: usize| (0..size).map(|j| f64::from(moments[i * size + j]) * e[j]).sum::<f64>();
            (0..size).map(|i| e[i] * along(i)).sum::<f64>()
        };
        weights.chunks(size).zip(made.chunks(size)).map(row).sum()
    }

    /// The damage that a factor's feedback leaves, and what it expects.
    fn quantized(factor: &Factor, weights: &[f32], moments: &[f32], size: usize) -> (f64, f64) {
        let matrix = Dense::new(weights, size).unwrap();
        let rows = weights.len() / size;
        let scaled = Scaled::new(&matrix, vec![128; rows], vec![128; size], Profile::Cpu).unwrap();
        let grid = scaled.grid(-5.0, true);
        let found = quantize(&matrix, factor, &grid);
        let expected = found.levels.len();
        assert_eq!((expected as u64, expected), (found.histogram.total(), weights.len()));
        let tensor = grid.quantized(&matrix, found.levels).unwrap();
        let (mut levels, mut made) = (vec![0; weights.len()], vec![0.0; weights.len()]);
        Levels::fill(&tensor, 0..rows, &mut levels);
        tensor.dequantizer().fill(0..rows, &levels, &mut made);
        (damage(weights, &made, moments, size), found.error)
    }

    #[test]
    fn errors_are_made_up_for_as_far_as_the_factor_says() {
        // more than a block of columns, and a part of one
        let size = 2 * BLOCK + 9;
        let (moments, weights) = (moments(size), random(40 * size, 5, false));
        let factor = Factor::new(&Moments::of(&moments, size), size, 0.0).unwrap();
        let alone = Factor::independent(size);
        let (with, _) = quantized(&factor, &weights, &moments, size);
        let (without, _) = quantized(&alone, &weights, &moments, size);
        assert!(with < 0.7 * without, "{with} {without}");
        // scaled by what counts, every error counts the same, and their sum is the damage
        let scales: Vec<u8> = {
            let mean = factor.diagonal.iter().map(|d| d.log2()).sum::<f64>() / size as f64;
            factor.diagonal.iter().map(|d| (128.0 - 8.0 * (d.log2() - mean)).round() as u8).collect()
        };
        let matrix = Dense::new(&weights, size).unwrap();
        let scaled = Scaled::new(&matrix, vec![128; 40], scales.clone(), Profile::Cpu).unwrap();
        let grid = scaled.grid(-5.0, true);
        let found = quantize(&matrix, &factor, &grid);
        let tensor = grid.quantized(&matrix, found.levels.clone()).unwrap();
        let mut levels = vec![0; weights.len()];
        let mut made = vec![0.0; weights.len()];
        Levels::fill(&tensor, 0..40, &mut levels);
        tensor.dequantizer().fill(0..40, &levels, &mut made);
        let counts: Vec<f64> = (0..size)
            .map(|j| (f64::from(ecq_quant::values::octaves(scales[j])) * factor.diagonal[j] / 32.0).powi(2))
            .collect();
        let mean = counts.iter().sum::<f64>() / size as f64;
        let damage = damage(&weights, &made, &moments, size);
        assert!((damage / (found.error * mean) - 1.0).abs() < 0.05, "{damage} {}", found.error * mean);
    }

    #[test]
    fn a_sample_is_some_rows_of_the_whole() {
        let size = 20;
        let (moments, weights) = (moments(size), random(1000 * size, 6, false));
        let factor = Factor::new(&Moments::of(&moments, size), size, 0.05).unwrap();
        let matrix = Dense::new(&weights, size).unwrap();
        let scaled = Scaled::new(&matrix, vec![128; 1000], vec![128; size], Profile::Cpu).unwrap();
        let grid = scaled.grid(-3.0, false);
        let (all, some) = (quantize(&matrix, &factor, &grid), sample(&matrix, &factor, &grid, 8));
        let rows = some.levels.len() / size;
        assert!((80..200).contains(&rows), "{rows}");
        let first: Vec<_> = all.levels.chunks(size).collect();
        assert!(some.levels.chunks(size).all(|row| first.contains(&row)));
        let [all, some] = [&all, &some].map(|rows| grid.rate(&rows.histogram));
        assert!((all - some).abs() < 0.05 * all, "{all} {some}");
    }
}

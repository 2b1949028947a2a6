//! Factors of the step for rows and columns, and whether they pay.
//!
//! A factor is the rms of its row or column to the power of one half, in eighths of an octave. Steps that follow the rms
//! itself give every row the same rate, and rows of small weights bits that buy little; steps that are all the same make
//! one table serve rows of different spread. For squared error the half power is better than either.

use ecq_format::directory::Scales;
use ecq_format::encode::Profile;
use ecq_format::side::Side;
use rayon::prelude::*;

use crate::rate::{Sample, Search};
use crate::rule::Factors;
use crate::values::octaves;
use crate::weights::{Dense, Weights, map_pieces};

/// Power of the rms.
const POWER: f64 = 0.5;
/// Bits a weight that factors must save, their own included, to be taken unasked: what the choice can be wrong by.
const WORTH: f64 = 0.003;

/// Factors as a file has them.
#[derive(Default)]
pub(crate) struct Scaling {
    pub factors: Factors,
    /// Planes of the side data.
    pub planes: Vec<Vec<u8>>,
}

impl Scaling {
    /// For rows, columns, or both.
    pub fn new(weights: &dyn Weights, row: bool, column: bool) -> Self {
        let mut made = Self::default();
        if !row && !column {
            return made;
        }
        let (rows, columns) = rms(weights);
        let parts = [(row, rows, &mut made.factors.row), (column, columns, &mut made.factors.column)];
        for (_, rms, factors) in parts.into_iter().filter(|p| p.0) {
            let bytes = octave_bytes(&rms);
            *factors = bytes.iter().map(|&b| octaves(b)).collect();
            made.planes.push(bytes);
        }
        made
    }

    /// How the format calls them.
    pub fn scales(&self) -> Scales {
        let (row, column) = (!self.factors.row.is_empty(), !self.factors.column.is_empty());
        if row || column { Scales::RowColumn { row, column } } else { Scales::None }
    }

    /// Bytes of side data.
    pub fn bytes(&self) -> usize {
        Side::new(&self.planes).bytes()
    }
}

/// Whether rows, columns, or both should have factors at a rate, for one family of levels: measured at equal rate, the
/// bytes of the factors included. Factors are from a sample of the matrix, rate and error from a part of that.
pub(crate) fn worthwhile(
    weights: &dyn Weights,
    sample: &Sample,
    (bits, between): (f64, bool),
    lambda: f64,
    profile: Profile,
) -> (bool, bool) {
    let Some(matrix) = Dense::new(&sample.weights, sample.cols) else { return (false, false) };
    let part = sample.part();
    let share = weights.rows() as f64 / sample.rows.len().max(1) as f64;
    let try_it = |&(row, column): &(bool, bool)| {
        let mut scaling = Scaling::new(&matrix, row, column);
        let side = scaling.planes.iter().enumerate().map(|(i, plane)| {
            let bytes = Side::new(std::slice::from_ref(plane)).bytes() as f64;
            if row && i == 0 { bytes * share } else { bytes }
        });
        let side = side.sum::<f64>() as usize;
        if row {
            // from the rows of the sample to where they are in the matrix
            let mut all = vec![1.0; weights.rows()];
            sample.rows.iter().zip(&scaling.factors.row).for_each(|(&r, &f)| all[r] = f);
            scaling.factors.row = all;
        }
        let sorted = part.sorted(&scaling.factors);
        Search::new(weights, sorted, side, profile, lambda, 0.0).meet(bits, &[between])
    };
    const KINDS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];
    let found: Vec<_> = KINDS.par_iter().map(try_it).collect();
    let mut best = (WORTH, KINDS[0]);
    for (scaled, kind) in found.iter().zip(KINDS).skip(1) {
        // a bit halves the error twice
        let saved = (found[0].error / scaled.error).log2() / 2.0 - (scaled.rate - found[0].rate);
        if found[0].error > 0.0 && saved > best.0 {
            best = (saved, kind);
        }
    }
    best.1
}

/// Root mean squares of rows and of columns.
fn rms(weights: &dyn Weights) -> (Vec<f64>, Vec<f64>) {
    let cols = weights.cols();
    let pieces = map_pieces(weights, |_, w| {
        let mut columns = vec![0f64; cols];
        let rows: Vec<f64> = w
            .chunks_exact(cols)
            .map(|row| {
                let square = |(c, &w): (&mut f64, &f32)| {
                    let s = f64::from(w) * f64::from(w);
                    *c += s;
                    s
                };
                columns.iter_mut().zip(row).map(square).sum()
            })
            .collect();
        (rows, columns)
    });
    let mut columns = vec![0f64; cols];
    pieces.iter().for_each(|(_, c)| columns.iter_mut().zip(c).for_each(|(a, b)| *a += b));
    let rows: Vec<f64> = pieces.into_iter().flat_map(|(r, _)| r).collect();
    let height = rows.len().max(1) as f64;
    (
        rows.iter().map(|s| (s / cols as f64).sqrt()).collect(),
        columns.iter().map(|s| (s / height).sqrt()).collect(),
    )
}

/// Eighths of an octave around the mean of what is not zero, where 128 is 1; zeros get 128.
fn octave_bytes(rms: &[f64]) -> Vec<u8> {
    let present = rms.iter().filter(|&&x| x > 0.0);
    let mean = present.clone().map(|x| x.log2()).sum::<f64>() / present.count().max(1) as f64;
    let byte = |&x: &f64| {
        let octaves = if x > 0.0 { POWER * (x.log2() - mean) } else { 0.0 };
        (128.0 + 8.0 * octaves).round().clamp(0.0, 255.0) as u8
    };
    rms.iter().map(byte).collect()
}

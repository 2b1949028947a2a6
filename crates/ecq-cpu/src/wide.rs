//! Products with many vectors: codes of 16 rows are put side by side, so that lanes are rows, and multiplied with all vectors.

use std::ops::Range;

use rans_core::Isa;

use crate::BLOCK;
use crate::activations::{Activations, SCALED};
use crate::arch::{self, Strip};
use crate::scaling::Scaling;
use crate::single::in_units;

/// Rows of a strip.
pub(crate) const ROWS: usize = 16;

/// Buffers of a thread.
#[derive(Default)]
pub(crate) struct Wide {
    row: Vec<u8>,
    codes: Vec<u32>,
    scale: Vec<f32>,
    base: Vec<f32>,
    own: [Vec<f32>; 2],
    sums: Vec<f32>,
}

/// Whether products of this kind go this way.
pub(crate) fn takes(isa: Isa, scaling: &Scaling, x: &Activations) -> bool {
    x.count() > 1 && in_units(isa, scaling, x)
}

/// Neighbouring rows of a matrix.
pub(crate) struct Rows<'a> {
    pub isa: Isa,
    pub scaling: &'a Scaling,
    /// The first of them.
    pub first: usize,
    /// Writes the codes of a row, counted from `first` on.
    pub fill: &'a dyn Fn(usize, &mut [u8]),
    /// What escapes change, for each vector of each row; or nothing.
    pub escapes: &'a [f32],
}

/// Multiplies rows: `y[m]` is their product with vector m.
pub(crate) fn multiply(all: &Rows<'_>, x: &Activations, wide: &mut Wide, y: &mut [&mut [f32]]) {
    let Rows { isa, scaling, first, escapes, .. } = *all;
    let rows = y.first().map_or(0, |y| y.len());
    let count = x.count();
    for row in (0..rows).step_by(ROWS) {
        let own = ROWS.min(rows - row);
        wide.strip(all, row..row + own, x);
        let Wide { codes, scale, base, sums, .. } = wide;
        sums.resize(count * ROWS, 0.0);
        arch::multiply_strip(isa, &Strip { codes, scale, base }, x, sums);
        for ((m, y), sums) in y.iter_mut().enumerate().zip(sums.as_chunks::<ROWS>().0) {
            for (r, (y, sum)) in y[row..row + own].iter_mut().zip(sums).enumerate() {
                let escapes = escapes.get((row + r) * count + m).copied().unwrap_or(0.0);
                *y = scaling.finish_sum(first + row + r, x, m, sum + escapes);
            }
        }
    }
}

impl Wide {
    /// Puts the codes and scales of up to 16 rows side by side.
    fn strip(&mut self, all: &Rows<'_>, rows: Range<usize>, x: &Activations) {
        let scaling = all.scaling;
        let units = x.padded() / SCALED;
        let Self { row, codes, scale, base, own, .. } = self;
        row.resize(x.padded().max(BLOCK), 0);
        codes.resize(x.padded() / 4 * ROWS, 0);
        let table = scaling.bytes();
        for (r, at) in rows.clone().enumerate() {
            (all.fill)(at, &mut row[..scaling.cols]);
            scaling.shift_codes(table.as_ref(), row);
            for (codes, dword) in codes.as_chunks_mut::<ROWS>().0.iter_mut().zip(row.as_chunks::<4>().0) {
                codes[r] = u32::from_le_bytes(*dword);
            }
        }
        let Some(groups) = &scaling.terms.groups else {
            scale.clear();
            base.clear();
            return;
        };
        let zero = scaling.terms.zero - scaling.shift();
        scale.resize(units * ROWS, 0.0);
        base.resize(units * ROWS, 0.0);
        let [s, m] = own;
        s.resize(units, 0.0);
        m.resize(units, 0.0);
        for (r, at) in rows.enumerate() {
            groups.units(all.first + at, s, m);
            for (unit, (s, m)) in s.iter().zip(&*m).enumerate() {
                (scale[unit * ROWS + r], base[unit * ROWS + r]) = (*s, s * zero + m);
            }
        }
    }
}

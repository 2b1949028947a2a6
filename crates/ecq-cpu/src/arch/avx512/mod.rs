//! AVX-512 as Ice Lake and Zen 4 have it: a block of 64 columns is a vector of codes, its 16 dwords are the lanes.
#![allow(unsafe_code)]

/// Calls `run::<KIND, SCALES, R, M>(job, row, vector, x)` for pieces of R rows and M vectors whose sums registers hold. A
/// macro, because `run` is another in each kernel's file.
macro_rules! cut {
    ($kind:ident, $scales:ident, $job:ident, $x:ident) => {
        for (m, vectors) in pieces($job.count, &[4, 2, 1]) {
            let most: &[_] = if vectors == 1 { &[8, 4, 1] } else { &[4, 1] };
            for (row, rows) in pieces($job.panel.rows, most) {
                match (rows, vectors) {
                    (8, _) => run::<$kind, $scales, 8, 1>($job, row, m, $x),
                    (4, 1) => run::<$kind, $scales, 4, 1>($job, row, m, $x),
                    (4, 2) => run::<$kind, $scales, 4, 2>($job, row, m, $x),
                    (4, _) => run::<$kind, $scales, 4, 4>($job, row, m, $x),
                    (_, 1) => run::<$kind, $scales, 1, 1>($job, row, m, $x),
                    (_, 2) => run::<$kind, $scales, 1, 2>($job, row, m, $x),
                    _ => run::<$kind, $scales, 1, 4>($job, row, m, $x),
                }
            }
        }
    };
}

mod float;
mod int8;
mod join;
mod single;
mod wide;

use core::arch::x86_64::*;

use ecq_format::planes::RawPlanes;
use rans_core::{InstructionSet, Isa};

use super::job::{BOOK, BOOK4, I5, I8, I16, INT4, Job, NIBBLE, dispatch, pieces};
use super::{Codes, Strip};
use crate::activations::{Activations, Data, SCALED};
use crate::scaling::Groups;
use crate::single::{Lines, UnitScales};
use crate::{BLOCK, LANE, LANES};

pub(super) fn accumulate(isa: Isa, job: &Job<'_>, x: &Data) {
    assert_eq!(isa.set(), InstructionSet::Avx512);
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe {
        match x {
            Data::F32(x) => float::accumulate(job, x),
            Data::Int8 { values, scales, .. } => int8::accumulate(job, values, scales),
        }
    }
}

/// Codes of whole blocks of weights with 1 to 4 raw bits, from a multiple of 8 on.
pub(super) fn join(
    isa: Isa,
    planes: &RawPlanes<'_>,
    first: usize,
    nibbles: &[u8],
    codes: &mut [i8],
    lift: i8,
) {
    assert!(isa.set() == InstructionSet::Avx512 && (1..=4).contains(&planes.raw_bits()));
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe { join::join(planes, first, nibbles, codes, lift) }
}

/// See [`super::multiply_lines`].
pub(super) fn multiply_lines(
    isa: Isa,
    lines: &Lines<'_>,
    scales: Option<&UnitScales<'_>>,
    x: &Activations,
    table: Option<[u8; 16]>,
    out: &mut [f32],
) {
    assert_eq!(isa.set(), InstructionSet::Avx512);
    let Data::Int8 { values, units, .. } = &x.data else { return };
    lines.check(out.len(), scales, x);
    let unit = lines.block * BLOCK / SCALED;
    let (values, factors, sums) =
        (&values[lines.block * BLOCK..], &units.scales[unit..units.pitch], &units.sums[unit..units.pitch]);
    let (values, factors, sums) = (values.as_ptr(), factors.as_ptr(), sums.as_ptr());
    let work = single::Work { lines, scales, table, values, factors, sums };
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe { single::multiply(&work, out) }
}

/// See [`super::multiply_strip`].
pub(super) fn multiply_strip(isa: Isa, strip: &Strip<'_>, x: &Activations, sums: &mut [f32]) {
    assert_eq!(isa.set(), InstructionSet::Avx512);
    let Data::Int8 { values, units, .. } = &x.data else { return };
    let (count, padded, pitch) = (x.count(), x.padded(), units.pitch);
    let (all, lanes) = (padded / SCALED, crate::wide::ROWS);
    assert!(padded.is_multiple_of(SCALED) && strip.codes.len() == padded / 4 * lanes && all <= pitch);
    assert!(values.len() == count * padded && sums.len() == count * lanes);
    assert!(units.scales.len() == count * pitch && units.sums.len() == count * pitch);
    assert!(
        strip.scale.len() == strip.base.len() && (strip.scale.is_empty() || strip.scale.len() == all * lanes)
    );
    let x = wide::Vectors { values, count, padded, scales: &units.scales, sums: &units.sums, pitch };
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe { wide::multiply(strip, &x, sums) }
}

/// The codes of a block: 64 bytes; or, of words, dwords 0, 2, 4, … and dwords 1, 3, 5, …, so that in either form the
/// dwords of a vector are lanes.
type Block = [__m512i; 2];

/// Shifts the halves of a byte of [`INT4`] into place: by 0 in even blocks, by 4 in odd ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn half(block: usize) -> __m512i {
    _mm512_set1_epi32(4 * (block & 1) as i32)
}

impl Job<'_> {
    /// The codes of a block of a row of the panel. What else is in the bytes of [`INT4`] and [`BOOK4`] stays.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn block<const KIND: u8>(&self, row: usize, block: usize) -> Block {
        let (zero, row) = (_mm512_setzero_si512(), row * self.pitch);
        // SAFETY: the panel has this row and block
        unsafe {
            let row = self.codes.add(row);
            match KIND {
                INT4 | BOOK4 => {
                    let pair = _mm512_loadu_si512(row.add(block / 2 * BLOCK).cast());
                    [_mm512_srlv_epi32(pair, half(block)), zero]
                }
                I16 => {
                    let words = row.add(2 * block * BLOCK);
                    let (a, b) = (_mm512_loadu_si512(words.cast()), _mm512_loadu_si512(words.add(64).cast()));
                    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
                    let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
                    [_mm512_permutex2var_epi32(a, even, b), _mm512_permutex2var_epi32(a, odd, b)]
                }
                _ => [_mm512_loadu_si512(row.add(block * BLOCK).cast()), zero],
            }
        }
    }

    /// Scales or minima of a block of a row of the panel.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn lanes(&self, groups: &Groups, all: &[f32], row: usize, block: usize) -> __m512 {
        let (at, lanes) = self.scales(groups, all, row, block);
        // SAFETY: 16 numbers are there, and 16 lanes
        unsafe { _mm512_permutexvar_ps(_mm512_loadu_si512(lanes.as_ptr().cast()), _mm512_loadu_ps(at)) }
    }
}

/// The sums of some rows and vectors.
#[inline]
#[target_feature(enable = "avx512f")]
fn load<const R: usize, const M: usize>(job: &Job<'_>, row: usize, vector: usize) -> [[__m512; M]; R] {
    let mut all = [[_mm512_setzero_ps(); M]; R];
    for (r, all) in all.iter_mut().enumerate() {
        for (m, sum) in all.iter_mut().enumerate() {
            // SAFETY: there are sums for these rows and vectors
            *sum = unsafe { _mm512_loadu_ps(job.sums(row + r, vector + m)) };
        }
    }
    all
}

/// The inverse of [`load`].
#[inline]
#[target_feature(enable = "avx512f")]
fn store<const R: usize, const M: usize>(job: &Job<'_>, row: usize, vector: usize, all: &[[__m512; M]; R]) {
    for (r, all) in all.iter().enumerate() {
        for (m, sum) in all.iter().enumerate() {
            // SAFETY: there are sums for these rows and vectors
            unsafe { _mm512_storeu_ps(job.sums(row + r, vector + m), *sum) };
        }
    }
}

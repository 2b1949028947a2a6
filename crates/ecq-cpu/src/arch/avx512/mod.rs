//! AVX-512 as Ice Lake and Zen 4 have it: a block of 64 columns is a vector of codes, its 16 dwords are the lanes.
#![allow(unsafe_code)]

mod float;
mod int8;

use core::arch::x86_64::*;

use rans_core::{InstructionSet, Isa};

use super::{Codes, Panel};
use crate::activations::{Activations, Data};
use crate::scaling::{Groups, Terms};
use crate::{BLOCK, LANES};

/// Kinds of codes, as parameters of kernels: see [`Codes`].
const NIBBLE: u8 = 0;
const I5: u8 = 1;
const I8: u8 = 2;
const I16: u8 = 3;
const INT4: u8 = 4;

/// What a kernel reads. All of it is there: [`Panel::check`] has run.
struct Job<'a> {
    kind: u8,
    codes: *const u8,
    /// Bytes from row to row.
    pitch: usize,
    panel: &'a Panel<'a>,
    terms: &'a Terms,
    /// Vectors, and columns from one to the next.
    count: usize,
    padded: usize,
}

pub(super) fn accumulate(isa: Isa, panel: &Panel<'_>, x: &Activations, terms: &Terms, sums: &mut [f32]) {
    assert_eq!(isa.set(), InstructionSet::Avx512);
    let (kind, codes, size) = match panel.codes {
        Codes::Nibble(codes) => (NIBBLE, codes.as_ptr(), 1),
        Codes::I5(codes) => (I5, codes.as_ptr().cast(), 1),
        Codes::I8(codes) => (I8, codes.as_ptr().cast(), 1),
        Codes::I16(codes) => (I16, codes.as_ptr().cast(), 2),
        Codes::Int4(codes) => (INT4, codes.as_ptr(), 1),
    };
    let (pitch, count, padded) = (panel.pitch * size, x.count(), x.padded());
    let job = Job { kind, codes, pitch, panel, terms, count, padded };
    let scales = terms.groups.as_ref().map_or(0, |groups| if groups.min.is_empty() { 1 } else { 2 });
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe {
        match &x.data {
            Data::F32(x) => float::accumulate(&job, scales, x, sums),
            Data::Int8 { values, scales: by } => int8::accumulate(&job, scales, values, by, sums),
        }
    }
}

/// Calls `$run::<KIND, SCALES, ROWS, VECTORS>(job, row, vector, …)` until all rows met all vectors.
macro_rules! cover {
    ($run:ident, $job:ident, $scales:ident, $($arg:expr),*) => {{
        macro_rules! rows {
            ($kind:ident, $s:literal, $m:ident, $vectors:literal, $most:literal) => {{
                let mut row = 0;
                while row < $job.panel.rows {
                    let left = $job.panel.rows - row;
                    if left >= $most {
                        $run::<$kind, $s, $most, $vectors>($job, row, $m, $($arg),*);
                        row += $most;
                    } else if left >= 4 {
                        $run::<$kind, $s, 4, $vectors>($job, row, $m, $($arg),*);
                        row += 4;
                    } else {
                        $run::<$kind, $s, 1, $vectors>($job, row, $m, $($arg),*);
                        row += 1;
                    }
                }
                $m += $vectors;
            }};
        }
        macro_rules! vectors {
            ($kind:ident, $s:literal) => {{
                let mut m = 0;
                while m < $job.count {
                    match $job.count - m {
                        1 => rows!($kind, $s, m, 1, 8),
                        2 | 3 => rows!($kind, $s, m, 2, 4),
                        _ => rows!($kind, $s, m, 4, 4),
                    }
                }
            }};
        }
        macro_rules! scales {
            ($kind:ident) => {
                match $scales {
                    0 => vectors!($kind, 0),
                    1 => vectors!($kind, 1),
                    _ => vectors!($kind, 2),
                }
            };
        }
        match $job.kind {
            NIBBLE => scales!(NIBBLE),
            I5 => scales!(I5),
            I8 => scales!(I8),
            I16 => scales!(I16),
            _ => scales!(INT4),
        }
    }};
}
use cover;

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
    /// The codes of a block of a row of the panel. What else is in the bytes of [`INT4`] stays.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn block<const KIND: u8>(&self, row: usize, block: usize) -> Block {
        let (zero, row) = (_mm512_setzero_si512(), row * self.pitch);
        // SAFETY: the panel has this row and block
        unsafe {
            let row = self.codes.add(row);
            match KIND {
                INT4 => {
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
    fn lanes(&self, groups: &Groups, all: &[u16], row: usize, block: usize) -> __m512 {
        // SAFETY: the matrix has this row and block, and `all` 16 numbers more than groups
        unsafe {
            let (first, lanes) = groups.lanes.get_unchecked(self.panel.block + block);
            let row = self.panel.row + row * self.panel.row_step;
            let at = all.as_ptr().add(row * groups.per_row + *first as usize);
            let halves = _mm512_cvtph_ps(_mm256_loadu_si256(at.cast()));
            _mm512_permutexvar_ps(_mm512_loadu_si512(lanes.as_ptr().cast()), halves)
        }
    }

    /// Where the sums of a row and vector lie.
    #[inline]
    fn sum(&self, sums: *mut f32, row: usize, vector: usize) -> *mut f32 {
        sums.wrapping_add((row * self.count + vector) * LANES)
    }
}

/// The sums of some rows and vectors.
#[inline]
#[target_feature(enable = "avx512f")]
fn load<const R: usize, const M: usize>(
    job: &Job<'_>,
    row: usize,
    vector: usize,
    sums: *mut f32,
) -> [[__m512; M]; R] {
    let mut all = [[_mm512_setzero_ps(); M]; R];
    for (r, all) in all.iter_mut().enumerate() {
        for (m, sum) in all.iter_mut().enumerate() {
            // SAFETY: there are sums for these rows and vectors
            *sum = unsafe { _mm512_loadu_ps(job.sum(sums, row + r, vector + m)) };
        }
    }
    all
}

/// The inverse of [`load`].
#[inline]
#[target_feature(enable = "avx512f")]
fn store<const R: usize, const M: usize>(
    job: &Job<'_>,
    row: usize,
    vector: usize,
    sums: *mut f32,
    all: &[[__m512; M]; R],
) {
    for (r, all) in all.iter().enumerate() {
        for (m, sum) in all.iter().enumerate() {
            // SAFETY: there are sums for these rows and vectors
            unsafe { _mm512_storeu_ps(job.sum(sums, row + r, vector + m), *sum) };
        }
    }
}

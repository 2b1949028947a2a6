//! AVX2 with FMA and F16C. Half a block, 32 columns, is a vector of codes, and its 8 dwords are lanes; so a kernel runs over
//! all first halves and then over all second ones.
#![allow(unsafe_code)]

mod float;
mod int8;

use core::arch::x86_64::*;

use rans_core::{InstructionSet, Isa};

use super::job::{BOOK, BOOK4, I5, I8, I16, INT4, Job, NIBBLE, dispatch, pieces};
use crate::activations::Data;
use crate::scaling::Groups;
use crate::{BLOCK, LANE, LANES};

/// Columns of a vector of codes.
const HALF: usize = BLOCK / 2;

pub(super) fn accumulate(isa: Isa, job: &Job<'_>, x: &Data) {
    assert_eq!(isa.set(), InstructionSet::Avx2);
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe {
        match x {
            Data::F32(x) => float::accumulate(job, x),
            Data::Int8 { values, scales, .. } => int8::accumulate(job, values, scales),
        }
    }
}

/// The codes of half a block: 32 bytes; or, of words, dwords 0, 2, 4, … and dwords 1, 3, 5, …, so that in either form the
/// dwords of a vector are lanes.
type Block = [__m256i; 2];

impl Job<'_> {
    /// The codes of a half (0 or 1) of a block of a row of the panel.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn half<const KIND: u8>(&self, row: usize, block: usize, half: usize) -> Block {
        let (zero, row) = (_mm256_setzero_si256(), row * self.pitch);
        // SAFETY: the panel has this row and block
        unsafe {
            let row = self.codes.add(row);
            match KIND {
                INT4 | BOOK4 => {
                    let pair = _mm256_loadu_si256(row.add(block / 2 * BLOCK + half * HALF).cast());
                    let shift = _mm256_set1_epi32(4 * (block & 1) as i32);
                    [_mm256_and_si256(_mm256_srlv_epi32(pair, shift), _mm256_set1_epi8(15)), zero]
                }
                I16 => {
                    let words = row.add(2 * (block * BLOCK + half * HALF));
                    let a = _mm256_loadu_si256(words.cast());
                    let b = _mm256_loadu_si256(words.add(32).cast());
                    [unzip::<0x88>(a, b), unzip::<0xdd>(a, b)]
                }
                _ => [_mm256_loadu_si256(row.add(block * BLOCK + half * HALF).cast()), zero],
            }
        }
    }

    /// Scales or minima of half a block of a row of the panel.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn half_lanes(&self, groups: &Groups, all: &[f32], row: usize, block: usize, half: usize) -> __m256 {
        let (at, lanes) = self.scales(groups, all, row, block);
        // SAFETY: 16 numbers are there, and 8 lanes in each half
        unsafe {
            let lanes = _mm256_loadu_si256(lanes.as_ptr().add(half * LANES / 2).cast());
            let below = _mm256_permutevar8x32_ps(_mm256_loadu_ps(at), lanes);
            let above = _mm256_permutevar8x32_ps(_mm256_loadu_ps(at.add(8)), lanes);
            _mm256_blendv_ps(below, above, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(lanes)))
        }
    }
}

/// Every second dword of two vectors, in order: the even ones (0x88) or the odd ones (0xdd).
#[inline]
#[target_feature(enable = "avx2")]
fn unzip<const WHICH: i32>(a: __m256i, b: __m256i) -> __m256i {
    let mixed = _mm256_shuffle_ps::<WHICH>(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
    _mm256_permute4x64_epi64::<0xd8>(_mm256_castps_si256(mixed))
}

/// What is added to `s * d * x` for each x: zero, or `s * zero`, or `s * zero + m`; and s.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn terms<const SCALES: u8>(job: &Job<'_>, row: usize, block: usize, half: usize) -> (__m256, __m256) {
    let zero = _mm256_set1_ps(job.terms.zero);
    let Some(groups) = &job.terms.groups else { return (zero, zero) };
    let scale = job.half_lanes(groups, &job.panel.scales.scale, row, block, half);
    let base = if SCALES == 2 {
        _mm256_fmadd_ps(scale, zero, job.half_lanes(groups, &job.panel.scales.min, row, block, half))
    } else {
        _mm256_mul_ps(scale, zero)
    };
    (base, scale)
}

/// Half of the sums of some rows and vectors.
#[inline]
#[target_feature(enable = "avx2")]
fn load<const R: usize, const M: usize>(
    job: &Job<'_>,
    row: usize,
    vector: usize,
    half: usize,
) -> [[__m256; M]; R] {
    let mut all = [[_mm256_setzero_ps(); M]; R];
    for (r, all) in all.iter_mut().enumerate() {
        for (m, sum) in all.iter_mut().enumerate() {
            // SAFETY: there are sums for these rows and vectors
            *sum = unsafe { _mm256_loadu_ps(job.sums(row + r, vector + m).add(half * LANES / 2)) };
        }
    }
    all
}

/// The inverse of [`load`].
#[inline]
#[target_feature(enable = "avx2")]
fn store<const R: usize, const M: usize>(
    job: &Job<'_>,
    row: usize,
    vector: usize,
    half: usize,
    all: &[[__m256; M]; R],
) {
    for (r, all) in all.iter().enumerate() {
        for (m, sum) in all.iter().enumerate() {
            // SAFETY: there are sums for these rows and vectors
            unsafe { _mm256_storeu_ps(job.sums(row + r, vector + m).add(half * LANES / 2), *sum) };
        }
    }
}

//! Advanced SIMD. A vector is 16 columns of codes, four lanes; so a kernel runs over all first quarters of blocks, then over
//! all second ones, and so on.
#![allow(unsafe_code)]

mod float;
mod int8;

use core::arch::aarch64::*;

use rans_core::{InstructionSet, Isa};

use super::job::{BOOK, BOOK4, I5, I8, I16, INT4, Job, NIBBLE, dispatch, pieces};
use crate::activations::Data;
use crate::scaling::Groups;
use crate::{BLOCK, LANE, LANES};

/// Columns of a vector of codes.
const QUARTER: usize = BLOCK / 4;

pub(super) fn accumulate(isa: Isa, job: &Job<'_>, x: &Data) {
    assert_eq!(isa.set(), InstructionSet::Neon);
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe {
        match x {
            Data::F32(x) => float::accumulate(job, x),
            Data::Int8 { values, scales, .. } => int8::accumulate(job, values, scales),
        }
    }
}

impl Job<'_> {
    /// The codes of a quarter (0..4) of a block of a row of the panel, where they are not words.
    #[inline]
    #[target_feature(enable = "neon")]
    fn bytes<const KIND: u8>(&self, row: usize, block: usize, quarter: usize) -> uint8x16_t {
        let row = row * self.pitch;
        // SAFETY: the panel has this row and block
        unsafe {
            let row = self.codes.add(row);
            if KIND != INT4 && KIND != BOOK4 {
                return vld1q_u8(row.add(block * BLOCK + quarter * QUARTER));
            }
            let pair = vld1q_u8(row.add(block / 2 * BLOCK + quarter * QUARTER));
            let shift = vdupq_n_s8(-4 * (block & 1) as i8);
            vandq_u8(vshlq_u8(pair, shift), vdupq_n_u8(15))
        }
    }

    /// What the codes of a quarter stand for as integers: words of columns 0..8 and 8..16.
    #[inline]
    #[target_feature(enable = "neon")]
    fn quarter<const KIND: u8>(&self, row: usize, block: usize, quarter: usize) -> [int16x8_t; 2] {
        if KIND == I16 {
            // SAFETY: the panel has this row and block
            return unsafe {
                let row = self.codes.add(row * self.pitch);
                let words = row.add(2 * (block * BLOCK + quarter * QUARTER)).cast();
                [vld1q_s16(words), vld1q_s16(words.add(8))]
            };
        }
        let codes = self.bytes::<KIND>(row, block, quarter);
        let bytes = match KIND {
            // SAFETY: there are 16 bytes
            BOOK | BOOK4 => vqtbl1q_s8(unsafe { vld1q_s8(self.bytes.as_ptr()) }, codes),
            _ => vreinterpretq_s8_u8(codes),
        };
        [vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)]
    }

    /// Scales or minima of a quarter of a block of a row of the panel.
    #[inline]
    #[target_feature(enable = "neon")]
    fn quarter_lanes(
        &self,
        groups: &Groups,
        all: &[f32],
        row: usize,
        block: usize,
        quarter: usize,
    ) -> float32x4_t {
        let (at, lanes) = self.scales(groups, all, row, block);
        let lanes = &lanes[quarter * 4..][..4];
        // SAFETY: 16 numbers are there, and lanes are below 16
        let number = |lane: usize| unsafe { *at.add(lanes[lane] as usize) };
        let numbers = [number(0), number(1), number(2), number(3)];
        // SAFETY: four numbers
        unsafe { vld1q_f32(numbers.as_ptr()) }
    }
}

/// What is added to `s * d * x` for each x: zero, or `s * zero`, or `s * zero + m`; and s.
#[inline]
#[target_feature(enable = "neon")]
fn terms<const SCALES: u8>(
    job: &Job<'_>,
    row: usize,
    block: usize,
    quarter: usize,
) -> (float32x4_t, float32x4_t) {
    let zero = vdupq_n_f32(job.terms.zero);
    let Some(groups) = &job.terms.groups else { return (zero, zero) };
    let scale = job.quarter_lanes(groups, &job.panel.scales.scale, row, block, quarter);
    let base = vmulq_f32(scale, zero);
    if SCALES < 2 {
        return (base, scale);
    }
    (vaddq_f32(base, job.quarter_lanes(groups, &job.panel.scales.min, row, block, quarter)), scale)
}

/// A quarter of the sums of some rows and vectors.
#[inline]
#[target_feature(enable = "neon")]
fn load<const R: usize, const M: usize>(
    job: &Job<'_>,
    row: usize,
    vector: usize,
    quarter: usize,
) -> [[float32x4_t; M]; R] {
    let mut all = [[vdupq_n_f32(0.0); M]; R];
    for (r, all) in all.iter_mut().enumerate() {
        for (m, sum) in all.iter_mut().enumerate() {
            // SAFETY: there are sums for these rows and vectors
            *sum = unsafe { vld1q_f32(job.sums(row + r, vector + m).add(quarter * LANES / 4)) };
        }
    }
    all
}

/// The inverse of [`load`].
#[inline]
#[target_feature(enable = "neon")]
fn store<const R: usize, const M: usize>(
    job: &Job<'_>,
    row: usize,
    vector: usize,
    quarter: usize,
    all: &[[float32x4_t; M]; R],
) {
    for (r, all) in all.iter().enumerate() {
        for (m, sum) in all.iter().enumerate() {
            // SAFETY: there are sums for these rows and vectors
            unsafe { vst1q_f32(job.sums(row + r, vector + m).add(quarter * LANES / 4), *sum) };
        }
    }
}

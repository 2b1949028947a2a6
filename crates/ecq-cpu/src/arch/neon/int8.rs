//! Vectors of integers: codes and values as words, products of neighbours summed to dwords.

use core::arch::aarch64::*;

use super::*;

/// A quarter of a block of a vector.
#[derive(Clone, Copy)]
struct Columns {
    /// Columns 0..8 and 8..16, as words.
    values: [int16x8_t; 2],
    scale: float32x4_t,
    /// The sum of each lane.
    sum: float32x4_t,
}

/// Sums of four products.
#[inline]
#[target_feature(enable = "neon")]
fn dot(a: [int16x8_t; 2], b: [int16x8_t; 2]) -> float32x4_t {
    let four = |a: int16x8_t, b: int16x8_t| {
        let (low, high) = (vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b));
        vpaddq_s32(low, high)
    };
    vcvtq_f32_s32(vpaddq_s32(four(a[0], b[0]), four(a[1], b[1])))
}

#[target_feature(enable = "neon")]
pub(super) fn accumulate(job: &Job<'_>, values: &[i8], scales: &[f32]) {
    dispatch!(all, job, (values, scales))
}

#[target_feature(enable = "neon")]
fn all<const KIND: u8, const SCALES: u8>(job: &Job<'_>, x: (&[i8], &[f32])) {
    for (m, vectors) in pieces(job.count, &[4, 1]) {
        for (row, rows) in pieces(job.panel.rows, &[4, 1]) {
            for quarter in 0..4 {
                match (rows, vectors) {
                    (4, 1) => run::<KIND, SCALES, 4, 1>(job, row, m, quarter, x),
                    (4, _) => run::<KIND, SCALES, 4, 4>(job, row, m, quarter, x),
                    (_, 1) => run::<KIND, SCALES, 1, 1>(job, row, m, quarter, x),
                    _ => run::<KIND, SCALES, 1, 4>(job, row, m, quarter, x),
                }
            }
        }
    }
}

#[target_feature(enable = "neon")]
fn run<const KIND: u8, const SCALES: u8, const R: usize, const M: usize>(
    job: &Job<'_>,
    row: usize,
    vector: usize,
    quarter: usize,
    (values, scales): (&[i8], &[f32]),
) {
    let mut all = load::<R, M>(job, row, vector, quarter);
    let ones = [vdupq_n_s16(1); 2];
    for b in 0..job.panel.blocks {
        let nothing = vdupq_n_f32(0.0);
        let mut x = [Columns { values: ones, scale: nothing, sum: nothing }; M];
        for (m, x) in x.iter_mut().enumerate() {
            let at = (vector + m) * job.padded + (job.panel.block + b) * BLOCK + quarter * QUARTER;
            // SAFETY: each vector has this block, and a scale for each lane
            let (bytes, scale) =
                unsafe { (vld1q_s8(values.as_ptr().add(at)), vld1q_f32(scales.as_ptr().add(at / LANE))) };
            let values = [vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)];
            *x = Columns { values, scale, sum: vmulq_f32(dot(ones, values), scale) };
        }
        for (r, all) in all.iter_mut().enumerate() {
            let codes = job.quarter::<KIND>(row + r, b, quarter);
            if SCALES == 0 {
                for (sum, x) in all.iter_mut().zip(&x) {
                    *sum = vfmaq_f32(*sum, dot(codes, x.values), x.scale);
                }
                continue;
            }
            let (base, scale) = terms::<SCALES>(job, row + r, b, quarter);
            for (sum, x) in all.iter_mut().zip(&x) {
                let dot = vmulq_f32(dot(codes, x.values), x.scale);
                *sum = vfmaq_f32(vfmaq_f32(*sum, base, x.sum), dot, scale);
            }
        }
    }
    store(job, row, vector, quarter, &all);
}

//! Vectors in f32.

use core::arch::aarch64::*;

use super::*;

/// Columns 0, 1, 2 and 3 of each lane.
#[inline]
#[target_feature(enable = "neon")]
fn columns([a, b]: [int16x8_t; 2]) -> [float32x4_t; 4] {
    // columns 0 and 1 of each lane as a dword, then columns 2 and 3
    let (a, b) = (vreinterpretq_s32_s16(a), vreinterpretq_s32_s16(b));
    let (even, odd) = (vuzp1q_s32(a, b), vuzp2q_s32(a, b));
    [
        vcvtq_f32_s32(vshrq_n_s32::<16>(vshlq_n_s32::<16>(even))),
        vcvtq_f32_s32(vshrq_n_s32::<16>(even)),
        vcvtq_f32_s32(vshrq_n_s32::<16>(vshlq_n_s32::<16>(odd))),
        vcvtq_f32_s32(vshrq_n_s32::<16>(odd)),
    ]
}

/// Columns 0, 1, 2 and 3 of each lane, looked up: `numbers` has the bytes of 16 numbers.
#[inline]
#[target_feature(enable = "neon")]
fn looked_up(codes: uint8x16_t, numbers: uint8x16x4_t) -> [float32x4_t; 4] {
    let codes = vreinterpretq_u32_u8(codes);
    let number = |code: uint32x4_t| {
        // bytes 4 code, 4 code + 1, 4 code + 2 and 4 code + 3
        let places = vmlaq_u32(vdupq_n_u32(0x0302_0100), code, vdupq_n_u32(0x0404_0404));
        vreinterpretq_f32_u8(vqtbl4q_u8(numbers, vreinterpretq_u8_u32(places)))
    };
    let low = |codes| vandq_u32(codes, vdupq_n_u32(255));
    [
        number(low(codes)),
        number(low(vshrq_n_u32::<8>(codes))),
        number(low(vshrq_n_u32::<16>(codes))),
        number(vshrq_n_u32::<24>(codes)),
    ]
}

#[target_feature(enable = "neon")]
pub(super) fn accumulate(job: &Job<'_>, x: &[f32]) {
    dispatch!(all, job, x)
}

#[target_feature(enable = "neon")]
fn all<const KIND: u8, const SCALES: u8>(job: &Job<'_>, x: &[f32]) {
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
    x: &[f32],
) {
    let numbers = job.numbers.as_ptr().cast::<u8>();
    // SAFETY: there are 16 numbers
    let number = |i: usize| unsafe { vld1q_u8(numbers.add(16 * i)) };
    let numbers = uint8x16x4_t(number(0), number(1), number(2), number(3));
    let mut all = load::<R, M>(job, row, vector, quarter);
    for b in 0..job.panel.blocks {
        let at = vector * job.padded + (job.panel.block + b) * BLOCK + quarter * LANES / 4;
        let mut now = [[vdupq_n_f32(0.0); LANE]; M];
        let mut sum_x = [vdupq_n_f32(0.0); M];
        for m in 0..M {
            for (k, now) in now[m].iter_mut().enumerate() {
                // SAFETY: each vector has this block
                *now = unsafe { vld1q_f32(x.as_ptr().add(at + m * job.padded + k * LANES)) };
                sum_x[m] = vaddq_f32(sum_x[m], *now);
            }
        }
        for (r, all) in all.iter_mut().enumerate() {
            let (base, scale) = terms::<SCALES>(job, row + r, b, quarter);
            for (sum, x) in all.iter_mut().zip(sum_x) {
                *sum = vfmaq_f32(*sum, base, x);
            }
            let codes = match KIND {
                BOOK | BOOK4 => looked_up(job.bytes::<KIND>(row + r, b, quarter), numbers),
                _ => columns(job.quarter::<KIND>(row + r, b, quarter)),
            };
            for (k, code) in codes.into_iter().enumerate() {
                let weight = if SCALES > 0 { vmulq_f32(code, scale) } else { code };
                for (sum, now) in all.iter_mut().zip(&now) {
                    *sum = vfmaq_f32(*sum, weight, now[k]);
                }
            }
        }
    }
    store(job, row, vector, quarter, &all);
}

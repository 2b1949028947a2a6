//! Vectors in f32.

use core::arch::x86_64::*;

use super::*;

/// Column `k` of each lane; leaves the next column in place. `numbers` is the codebook of [`BOOK`] and [`BOOK4`].
#[inline]
#[target_feature(enable = "avx2")]
fn next<const KIND: u8>(codes: &mut Block, k: usize, numbers: &[__m256; 2]) -> __m256 {
    let codes = &mut codes[if KIND == I16 { k / 2 } else { 0 }];
    let now = *codes;
    *codes = if KIND == I16 { _mm256_srli_epi32::<16>(now) } else { _mm256_srli_epi32::<8>(now) };
    if KIND == BOOK || KIND == BOOK4 {
        // the lowest three bits select in each half, the fourth the half
        let below = _mm256_permutevar8x32_ps(numbers[0], now);
        let above = _mm256_permutevar8x32_ps(numbers[1], now);
        return _mm256_blendv_ps(below, above, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(now)));
    }
    _mm256_cvtepi32_ps(match KIND {
        NIBBLE | INT4 => _mm256_and_si256(now, _mm256_set1_epi32(255)),
        I16 => _mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(now)),
        _ => _mm256_srai_epi32::<24>(_mm256_slli_epi32::<24>(now)),
    })
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn accumulate(job: &Job<'_>, x: &[f32]) {
    dispatch!(all, job, x)
}

#[target_feature(enable = "avx2,fma")]
fn all<const KIND: u8, const SCALES: u8>(job: &Job<'_>, x: &[f32]) {
    for (m, vectors) in pieces(job.count, &[4, 1]) {
        for (row, rows) in pieces(job.panel.rows, if vectors == 1 { &[4, 1] } else { &[2, 1] }) {
            for half in 0..2 {
                match (rows, vectors) {
                    (4, _) => run::<KIND, SCALES, 4, 1>(job, row, m, half, x),
                    (2, _) => run::<KIND, SCALES, 2, 4>(job, row, m, half, x),
                    (_, 1) => run::<KIND, SCALES, 1, 1>(job, row, m, half, x),
                    _ => run::<KIND, SCALES, 1, 4>(job, row, m, half, x),
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn run<const KIND: u8, const SCALES: u8, const R: usize, const M: usize>(
    job: &Job<'_>,
    row: usize,
    vector: usize,
    half: usize,
    x: &[f32],
) {
    // SAFETY: there are 16 numbers
    let numbers = unsafe {
        let numbers = job.numbers.as_ptr();
        [_mm256_loadu_ps(numbers), _mm256_loadu_ps(numbers.add(8))]
    };
    let mut all = load::<R, M>(job, row, vector, half);
    for b in 0..job.panel.blocks {
        let at = vector * job.padded + (job.panel.block + b) * BLOCK + half * LANES / 2;
        // SAFETY: each vector has this block
        let x =
            |m: usize, k: usize| unsafe { _mm256_loadu_ps(x.as_ptr().add(at + m * job.padded + k * LANES)) };
        let mut lane_x = [_mm256_setzero_ps(); M];
        for (m, lane) in lane_x.iter_mut().enumerate() {
            *lane = _mm256_add_ps(_mm256_add_ps(x(m, 0), x(m, 1)), _mm256_add_ps(x(m, 2), x(m, 3)));
        }
        for (r, all) in all.iter_mut().enumerate() {
            let mut codes = job.half::<KIND>(row + r, b, half);
            let (base, scale) = terms::<SCALES>(job, row + r, b, half);
            for (m, sum) in all.iter_mut().enumerate() {
                *sum = _mm256_fmadd_ps(base, lane_x[m], *sum);
            }
            for k in 0..LANE {
                let code = next::<KIND>(&mut codes, k, &numbers);
                let weight = if SCALES > 0 { _mm256_mul_ps(code, scale) } else { code };
                for (m, sum) in all.iter_mut().enumerate() {
                    *sum = _mm256_fmadd_ps(weight, x(m, k), *sum);
                }
            }
        }
    }
    store(job, row, vector, half, &all);
}

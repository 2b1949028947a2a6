//! Vectors in f32. Codes of up to five bits are looked up: `vpermps` ignores the bits above its index, so a dword of four
//! codes is shifted down by one code for each of its columns, and nothing is masked, widened or converted.

use core::arch::x86_64::*;

use super::*;

/// What codes stand for.
struct Table {
    below: __m512,
    above: __m512,
    zero: __m512,
}

impl Table {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(job: &Job<'_>) -> Self {
        let first = _mm512_setr_ps(0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.);
        let zero = _mm512_set1_ps(job.terms.zero);
        let above = _mm512_add_ps(first, _mm512_set1_ps(16.0));
        // SAFETY: there are 16 numbers
        let below = unsafe { _mm512_loadu_ps(job.numbers.as_ptr()) };
        Self { below, above: _mm512_add_ps(above, zero), zero }
    }

    /// Column `k` of each lane, plus zero or from the codebook; leaves the next column in place.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn next<const KIND: u8>(&self, codes: &mut Block, k: usize) -> __m512 {
        let codes = &mut codes[if KIND == I16 { k / 2 } else { 0 }];
        let now = *codes;
        *codes = if KIND == I16 { _mm512_srli_epi32::<16>(now) } else { _mm512_srli_epi32::<8>(now) };
        match KIND {
            NIBBLE | INT4 | BOOK | BOOK4 => _mm512_permutexvar_ps(now, self.below),
            I5 => _mm512_permutex2var_ps(self.below, now, self.above),
            I8 => self.convert(_mm512_srai_epi32::<24>(_mm512_slli_epi32::<24>(now))),
            _ => self.convert(_mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(now))),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn convert(&self, codes: __m512i) -> __m512 {
        _mm512_add_ps(_mm512_cvtepi32_ps(codes), self.zero)
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn accumulate(job: &Job<'_>, x: &[f32]) {
    dispatch!(all, job, x)
}

#[target_feature(enable = "avx512f,avx512bw")]
fn all<const KIND: u8, const SCALES: u8>(job: &Job<'_>, x: &[f32]) {
    cut!(KIND, SCALES, job, x)
}

#[target_feature(enable = "avx512f,avx512bw")]
fn run<const KIND: u8, const SCALES: u8, const R: usize, const M: usize>(
    job: &Job<'_>,
    row: usize,
    vector: usize,
    x: &[f32],
) {
    let table = Table::new(job);
    let mut all = load::<R, M>(job, row, vector);
    for b in 0..job.panel.blocks {
        // SAFETY: each vector has this block
        let x = unsafe { x.as_ptr().add(vector * job.padded + (job.panel.block + b) * BLOCK) };
        let mut codes: [Block; R] = std::array::from_fn(|_| [_mm512_setzero_si512(); 2]);
        let mut scale = [_mm512_setzero_ps(); R];
        for r in 0..R {
            codes[r] = job.block::<KIND>(row + r, b);
            if let (true, Some(groups)) = (SCALES > 0, &job.terms.groups) {
                scale[r] = job.lanes(groups, &job.panel.scales.scale, row + r, b);
            }
        }
        // one vector: scale its sum of four products; more: scale the weights, once for all of them
        let mut lane = [_mm512_setzero_ps(); R];
        let mut lane_x = [_mm512_setzero_ps(); M];
        for k in 0..4 {
            let mut now = [_mm512_setzero_ps(); M];
            for (m, now) in now.iter_mut().enumerate() {
                // SAFETY: as above
                *now = unsafe { _mm512_loadu_ps(x.add(m * job.padded + k * LANES)) };
                if SCALES == 2 {
                    lane_x[m] = _mm512_add_ps(lane_x[m], *now);
                }
            }
            for r in 0..R {
                let weight = table.next::<KIND>(&mut codes[r], k);
                if SCALES > 0 && M == 1 {
                    lane[r] = _mm512_fmadd_ps(weight, now[0], lane[r]);
                } else {
                    let weight = if SCALES > 0 { _mm512_mul_ps(weight, scale[r]) } else { weight };
                    for m in 0..M {
                        all[r][m] = _mm512_fmadd_ps(weight, now[m], all[r][m]);
                    }
                }
            }
        }
        for r in 0..R {
            if SCALES > 0 && M == 1 {
                all[r][0] = _mm512_fmadd_ps(lane[r], scale[r], all[r][0]);
            }
            if let (true, Some(groups)) = (SCALES == 2, &job.terms.groups) {
                let min = job.lanes(groups, &job.panel.scales.min, row + r, b);
                for m in 0..M {
                    all[r][m] = _mm512_fmadd_ps(min, lane_x[m], all[r][m]);
                }
            }
        }
    }
    store(job, row, vector, &all);
}

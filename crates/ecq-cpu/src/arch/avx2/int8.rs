//! Vectors of integers. `vpmaddubsw` sums two products to words: 2 * 128 * 127 just fits.

use core::arch::x86_64::*;

use super::*;

/// Half a block of a vector.
#[derive(Clone, Copy)]
struct Columns {
    /// Its bytes; or, as words, columns 0 and 1 of each lane and columns 2 and 3.
    values: Block,
    scale: __m256,
    /// The sum of each lane.
    sum: __m256,
}

/// Sums of four products of unsigned and signed bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn products(positive: __m256i, signed: __m256i) -> __m256 {
    let pairs = _mm256_maddubs_epi16(positive, signed);
    _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

impl Columns {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new<const KIND: u8>(values: __m256i, scale: __m256) -> Self {
        let sum = _mm256_mul_ps(products(_mm256_set1_epi8(1), values), scale);
        let mut all = [values, values];
        if KIND == I16 {
            // bytes 0 and 1 of each dword to the upper halves of its words, then bytes 2 and 3
            let base = _mm256_setr_epi32(
                0,
                0x0400_0400,
                0x0800_0800,
                0x0c00_0c00,
                0,
                0x0400_0400,
                0x0800_0800,
                0x0c00_0c00,
            );
            for (pair, all) in all.iter_mut().enumerate() {
                let place = _mm256_set1_epi32(0x0180_0080 + pair as i32 * 0x0200_0200);
                *all = _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(values, _mm256_add_epi32(place, base)));
            }
        }
        Self { values: all, scale, sum }
    }

    /// Sums of four products.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn dot<const KIND: u8>(&self, codes: &Block) -> __m256 {
        let x = self.values[0];
        match KIND {
            NIBBLE | I5 | INT4 => products(codes[0], x),
            I8 | BOOK | BOOK4 => products(_mm256_abs_epi8(codes[0]), _mm256_sign_epi8(x, codes[0])),
            _ => {
                let (a, b) = (_mm256_madd_epi16(codes[0], x), _mm256_madd_epi16(codes[1], self.values[1]));
                _mm256_cvtepi32_ps(_mm256_add_epi32(a, b))
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn accumulate(job: &Job<'_>, values: &[i8], scales: &[f32]) {
    dispatch!(all, job, (values, scales))
}

#[target_feature(enable = "avx2,fma")]
fn all<const KIND: u8, const SCALES: u8>(job: &Job<'_>, x: (&[i8], &[f32])) {
    for (m, vectors) in pieces(job.count, &[2, 1]) {
        for (row, rows) in pieces(job.panel.rows, &[4, 1]) {
            for half in 0..2 {
                match (rows, vectors) {
                    (4, 1) => run::<KIND, SCALES, 4, 1>(job, row, m, half, x),
                    (4, _) => run::<KIND, SCALES, 4, 2>(job, row, m, half, x),
                    (_, 1) => run::<KIND, SCALES, 1, 1>(job, row, m, half, x),
                    _ => run::<KIND, SCALES, 1, 2>(job, row, m, half, x),
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
    (values, scales): (&[i8], &[f32]),
) {
    // SAFETY: there are 16 bytes
    let table = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(job.bytes.as_ptr().cast()) });
    let mut all = load::<R, M>(job, row, vector, half);
    for b in 0..job.panel.blocks {
        let zero = (_mm256_setzero_si256(), _mm256_setzero_ps());
        let mut x = [Columns { values: [zero.0; 2], scale: zero.1, sum: zero.1 }; M];
        for (m, x) in x.iter_mut().enumerate() {
            let at = (vector + m) * job.padded + (job.panel.block + b) * BLOCK + half * HALF;
            // SAFETY: each vector has this block, and a scale for each lane
            *x = unsafe {
                let values = _mm256_loadu_si256(values.as_ptr().add(at).cast());
                Columns::new::<KIND>(values, _mm256_loadu_ps(scales.as_ptr().add(at / LANE)))
            };
        }
        for (r, all) in all.iter_mut().enumerate() {
            let mut codes = job.half::<KIND>(row + r, b, half);
            if KIND == BOOK || KIND == BOOK4 {
                codes[0] = _mm256_shuffle_epi8(table, codes[0]);
            }
            let scaled = (SCALES > 0).then(|| terms::<SCALES>(job, row + r, b, half));
            for (x, sum) in x.iter().zip(all) {
                let dot = x.dot::<KIND>(&codes);
                *sum = match scaled {
                    Some((base, scale)) => {
                        let sum = _mm256_fmadd_ps(base, x.sum, *sum);
                        _mm256_fmadd_ps(_mm256_mul_ps(dot, x.scale), scale, sum)
                    }
                    None => _mm256_fmadd_ps(dot, x.scale, *sum),
                };
            }
        }
    }
    store(job, row, vector, half, &all);
}

//! Vectors of integers: `vpdpbusd` sums the four products of a lane.

use core::arch::x86_64::*;

use super::*;

/// A block of a vector.
#[derive(Clone, Copy)]
struct Columns {
    /// Its bytes; or, as words, columns 0 and 1 of each lane and columns 2 and 3.
    values: Block,
    /// What takes back that signed codes are made positive by adding 128.
    bias: __m512i,
    scale: __m512,
    /// The sum of each lane.
    sum: __m512,
}

impl Columns {
    /// `SUM`: whether the sum is needed.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn new<const KIND: u8, const SUM: bool>(values: __m512i, scale: __m512) -> Self {
        let zero = _mm512_setzero_si512();
        let mut all = Self { values: [values, zero], bias: zero, scale, sum: _mm512_setzero_ps() };
        if SUM {
            let sum = _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(1), values);
            all.sum = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
        }
        match KIND {
            I8 | BOOK | BOOK4 => {
                let more = _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(-128), values);
                all.bias = _mm512_sub_epi32(zero, more);
            }
            I16 => {
                // bytes 0 and 1 of each dword to the upper halves of its words, then bytes 2 and 3
                let place = |pair: i32| _mm512_set1_epi32(0x0180_0080 + pair * 0x0200_0200);
                let signed = |words| _mm512_srai_epi16::<8>(words);
                let base = _mm512_set4_epi32(0x0c00_0c00, 0x0800_0800, 0x0400_0400, 0);
                let spread = |pair| _mm512_shuffle_epi8(values, _mm512_add_epi32(place(pair), base));
                all.values = [signed(spread(0)), signed(spread(1))];
            }
            _ => {}
        }
        all
    }

    /// Sums of four products.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn dot<const KIND: u8>(&self, codes: &Block) -> __m512 {
        let dot = match KIND {
            I16 => {
                let below = _mm512_dpwssd_epi32(self.bias, codes[0], self.values[0]);
                _mm512_dpwssd_epi32(below, codes[1], self.values[1])
            }
            _ => _mm512_dpbusd_epi32(self.bias, codes[0], self.values[0]),
        };
        _mm512_cvtepi32_ps(dot)
    }
}

/// What codes stand for as the unsigned factor, if that is not themselves: plus 128.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn table(job: &Job<'_>) -> __m512i {
    // SAFETY: there are 16 bytes
    let bytes = unsafe { _mm_loadu_si128(job.bytes.as_ptr().cast()) };
    _mm512_xor_si512(_mm512_broadcast_i32x4(bytes), _mm512_set1_epi8(-128))
}

/// Codes as the unsigned factor.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn positive<const KIND: u8>(codes: Block, table: __m512i) -> Block {
    let low = |codes| _mm512_and_si512(codes, _mm512_set1_epi8(15));
    match KIND {
        INT4 => [low(codes[0]), codes[1]],
        I8 => [_mm512_xor_si512(codes[0], _mm512_set1_epi8(-128)), codes[1]],
        BOOK => [_mm512_shuffle_epi8(table, codes[0]), codes[1]],
        BOOK4 => [_mm512_shuffle_epi8(table, low(codes[0])), codes[1]],
        _ => codes,
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn accumulate(job: &Job<'_>, values: &[i8], scales: &[f32]) {
    dispatch!(all, job, (values, scales))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn all<const KIND: u8, const SCALES: u8>(job: &Job<'_>, x: (&[i8], &[f32])) {
    cut!(KIND, SCALES, job, x)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn run<const KIND: u8, const SCALES: u8, const R: usize, const M: usize>(
    job: &Job<'_>,
    row: usize,
    vector: usize,
    (values, scales): (&[i8], &[f32]),
) {
    let (zero, table) = (_mm512_set1_ps(job.terms.zero), table(job));
    let mut all = load::<R, M>(job, row, vector);
    for b in 0..job.panel.blocks {
        let x: [Columns; M] = std::array::from_fn(|m| {
            let at = (vector + m) * job.padded + (job.panel.block + b) * BLOCK;
            // SAFETY: each vector has this block, and a scale for each lane
            unsafe {
                let values = _mm512_loadu_si512(values.as_ptr().add(at).cast());
                let scale = _mm512_loadu_ps(scales.as_ptr().add(at / LANE));
                if SCALES > 0 {
                    Columns::new::<KIND, true>(values, scale)
                } else {
                    Columns::new::<KIND, false>(values, scale)
                }
            }
        });
        for (r, all) in all.iter_mut().enumerate() {
            let codes = positive::<KIND>(job.block::<KIND>(row + r, b), table);
            let mut scaled = None;
            if let (true, Some(groups)) = (SCALES > 0, &job.terms.groups) {
                let scale = job.lanes(groups, &job.panel.scales.scale, row + r, b);
                // s * (d + zero) + m = s * d + (s * zero + m)
                let base = if SCALES == 2 {
                    _mm512_fmadd_ps(scale, zero, job.lanes(groups, &job.panel.scales.min, row + r, b))
                } else {
                    _mm512_mul_ps(scale, zero)
                };
                scaled = Some((scale, base));
            }
            for (x, sum) in x.iter().zip(all) {
                let dot = x.dot::<KIND>(&codes);
                *sum = match scaled {
                    Some((scale, base)) => {
                        let sum = _mm512_fmadd_ps(base, x.sum, *sum);
                        _mm512_fmadd_ps(_mm512_mul_ps(dot, x.scale), scale, sum)
                    }
                    None => _mm512_fmadd_ps(dot, x.scale, *sum),
                };
            }
        }
    }
    store(job, row, vector, &all);
}

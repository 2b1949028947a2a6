//! What products are compared with: 4-bit weights in the block layout of ggml, Q4_0, times vectors in its Q8_0.
//!
//! A block of 32 weights is a binary16 scale and 16 bytes: weight i in the low half of byte i, weight i + 16 in the
//! high half, both plus 8. Vectors are prepared for the kernel once, as products of many rows can.
#![allow(unsafe_code)]

use half::f16;

/// Weights of a block.
const WEIGHTS: usize = 32;
/// Bytes of a block.
const BYTES: usize = 18;
/// Blocks that the kernel takes at once.
const AT_ONCE: usize = 8;

/// A matrix in Q4_0.
pub struct Q4 {
    cols: usize,
    bytes: Vec<u8>,
}

impl Q4 {
    /// Of codes -8..8 and one scale.
    ///
    /// # Panics
    /// If `cols` is no multiple of 256, or `codes` are no whole rows.
    pub fn new(cols: usize, scale: f32, codes: &[i32]) -> Self {
        assert!(cols.is_multiple_of(AT_ONCE * WEIGHTS) && codes.len().is_multiple_of(cols));
        let mut bytes = Vec::with_capacity(codes.len() / WEIGHTS * BYTES);
        for block in codes.chunks_exact(WEIGHTS) {
            bytes.extend(f16::from_f32(scale).to_le_bytes());
            let (low, high) = block.split_at(WEIGHTS / 2);
            bytes.extend(low.iter().zip(high).map(|(l, h)| (l + 8) as u8 | ((h + 8) as u8) << 4));
        }
        Self { cols, bytes }
    }

    /// `y = W x`, one number a row. Uses AVX-512 where it is, and is slow elsewhere.
    pub fn multiply(&self, x: &Q8, y: &mut [f32]) {
        let row = self.cols / WEIGHTS * BYTES;
        assert!(y.len() == self.bytes.len() / row && x.scales.len() == self.cols / WEIGHTS);
        for (y, row) in y.iter_mut().zip(self.bytes.chunks_exact(row)) {
            #[cfg(target_arch = "x86_64")]
            if ecq_cpu::Isa::new(ecq_cpu::InstructionSet::Avx512).is_some() {
                // SAFETY: the instructions are there
                *y = unsafe { dot(row, x) };
                continue;
            }
            *y = dot_plainly(row, x);
        }
    }
}

/// A vector in Q8_0: blocks of 32 with a scale.
pub struct Q8 {
    /// Pairs of blocks: columns 0..16 of both, then columns 16..32 of both.
    values: Vec<[i8; 64]>,
    /// -8 times the sums of four values.
    bias: Vec<[i32; 16]>,
    scales: Vec<f32>,
}

impl Q8 {
    /// Quantizes a vector.
    pub fn new(x: &[f32]) -> Self {
        let mut all = Self { values: Vec::new(), bias: Vec::new(), scales: Vec::new() };
        for pair in x.as_chunks::<64>().0 {
            let mut values = [0; 64];
            for (i, block) in pair.chunks_exact(WEIGHTS).enumerate() {
                let most = block.iter().fold(0f32, |a, x| a.max(x.abs()));
                let scale = f16::from_f32(most / 127.0).to_f32();
                all.scales.push(scale);
                for (j, x) in block.iter().enumerate() {
                    let value = if scale > 0.0 { (x / scale).round() } else { 0.0 };
                    values[j / 16 * 32 + i * 16 + j % 16] = value as i8;
                }
            }
            all.values.push(values);
            let four = |i: usize| values[4 * i..4 * i + 4].iter().map(|&v| -8 * i32::from(v)).sum();
            all.bias.push(std::array::from_fn(four));
        }
        all
    }
}

/// A row times a vector, to be read.
fn dot_plainly(row: &[u8], x: &Q8) -> f32 {
    let mut sum = 0.0;
    for (i, (block, scale)) in row.chunks_exact(BYTES).zip(&x.scales).enumerate() {
        let values = &x.values[i / 2];
        let product = |j: usize| {
            let code = i32::from(block[2 + j % 16] >> (j / 16 * 4) & 15) - 8;
            code * i32::from(values[j / 16 * 32 + i % 2 * 16 + j % 16])
        };
        let dot: i32 = (0..WEIGHTS).map(product).sum();
        sum += f16::from_le_bytes([block[0], block[1]]).to_f32() * scale * dot as f32;
    }
    sum
}

/// A row times a vector: eight blocks share the conversion of their scales, two share a vector of codes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn dot(row: &[u8], x: &Q8) -> f32 {
    use core::arch::x86_64::*;
    let mut sums = [_mm512_setzero_ps(); AT_ONCE / 2];
    let step = BYTES as i32;
    let places = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(step));
    // scales of a pair to its lanes: four of the first block, four of the second, twice
    let lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1);
    let low = _mm256_set1_epi8(15);
    for (i, blocks) in row.chunks_exact(AT_ONCE * BYTES).enumerate() {
        let blocks = blocks.as_ptr();
        // SAFETY: eight blocks are there, of 18 bytes each, and the scales, values and sums of as many blocks of x
        unsafe {
            let halves = _mm256_i32gather_epi32::<1>(blocks.cast(), places);
            let halves = _mm256_cvtepi32_epi16(halves);
            let scales =
                _mm256_mul_ps(_mm256_cvtph_ps(halves), _mm256_loadu_ps(x.scales.as_ptr().add(i * AT_ONCE)));
            let scales = _mm512_castps256_ps512(scales);
            for (j, sum) in sums.iter_mut().enumerate() {
                let pair = blocks.add(2 * j * BYTES);
                let codes = _mm256_inserti128_si256::<1>(
                    _mm256_castsi128_si256(_mm_loadu_si128(pair.add(2).cast())),
                    _mm_loadu_si128(pair.add(BYTES + 2).cast()),
                );
                let above = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low);
                let codes = _mm512_castsi256_si512(_mm256_and_si256(codes, low));
                let codes = _mm512_inserti64x4::<1>(codes, above);
                let at = i * AT_ONCE / 2 + j;
                let bias = _mm512_loadu_si512(x.bias.as_ptr().add(at).cast());
                let dot =
                    _mm512_dpbusd_epi32(bias, codes, _mm512_loadu_si512(x.values.as_ptr().add(at).cast()));
                let place = _mm512_add_epi32(lanes, _mm512_set1_epi32(2 * j as i32));
                let scale = _mm512_permutexvar_ps(place, scales);
                *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, *sum);
            }
        }
    }
    let [a, b, c, d] = sums;
    _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_equals_the_plain_loop() {
        let codes: Vec<i32> = (0..3 * 512).map(|i| (i * i * 31 % 16) - 8).collect();
        let x: Vec<f32> = (0..512).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
        let (q4, q8) = (Q4::new(512, 0.125, &codes), Q8::new(&x));
        let mut y = [0.0; 3];
        q4.multiply(&q8, &mut y);
        for (row, y) in y.iter().enumerate() {
            let plain = dot_plainly(&q4.bytes[row * 16 * BYTES..][..16 * BYTES], &q8);
            assert!((y - plain).abs() < 1e-4, "{y} {plain}");
            let exact: f32 = codes[row * 512..][..512].iter().zip(&x).map(|(&c, x)| c as f32 * x / 8.0).sum();
            assert!((y - exact).abs() < 0.5, "{y} {exact}");
        }
    }
}

//! Scales and minima of rows and of a vector, put together before the first panel.

use core::arch::x86_64::*;

use crate::LANES;
use crate::activations::Units;

/// Where numbers of rows lie, and in which form.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Half(*const u16),
    Single(*const f32),
}

/// How far ahead numbers are fetched: some rows.
const AHEAD: usize = 256;

impl Source {
    /// Fetches what the next rows need; any address is harmless.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn fetch(self, at: usize) {
        let at = match self {
            Self::Half(all) => all.wrapping_add(at).cast::<i8>(),
            Self::Single(all) => all.wrapping_add(at).cast(),
        };
        _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD));
    }

    /// Numbers from `at` on, as many as the mask has bits.
    ///
    /// # Safety
    /// They are there.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load(self, at: usize, mask: u16) -> __m512 {
        // SAFETY: what the mask hides is not read
        unsafe {
            match self {
                Self::Half(all) => _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, all.add(at).cast())),
                Self::Single(all) => _mm512_maskz_loadu_ps(mask, all.add(at)),
            }
        }
    }
}

/// For each number of a row: its product with the vector's scale to `factors`; and to the row's sums `(s * zero + m)` times the
/// vector's sum.
///
/// # Safety
/// `scale` and `min` have `len` numbers of this row, and `factors` has room for them. Units have as many for the vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn row(
    (scale, min, at, len): (Source, Option<Source>, usize, usize),
    zero: f32,
    units: &Units,
    factors: &mut [f32],
    sums: &mut [f32; LANES],
) {
    let zero = _mm512_set1_ps(zero);
    // SAFETY: sums are 16 numbers, the rest is the caller's promise; what the mask hides is not touched
    unsafe {
        let mut all = _mm512_loadu_ps(sums.as_ptr());
        for i in (0..len).step_by(LANES) {
            let mask = if len - i >= LANES { 0xffff } else { (1 << (len - i)) - 1 };
            scale.fetch(at + i);
            if let Some(min) = min {
                min.fetch(at + i);
            }
            let s = scale.load(at + i, mask);
            let base = match min {
                Some(min) => _mm512_fmadd_ps(s, zero, min.load(at + i, mask)),
                None => _mm512_mul_ps(s, zero),
            };
            let (x, sum) = (units.scales.as_ptr().add(i), units.sums.as_ptr().add(i));
            let factor = _mm512_mul_ps(s, _mm512_maskz_loadu_ps(mask, x));
            _mm512_mask_storeu_ps(factors.as_mut_ptr().add(i), mask, factor);
            all = _mm512_fmadd_ps(base, _mm512_maskz_loadu_ps(mask, sum), all);
        }
        _mm512_storeu_ps(sums.as_mut_ptr(), all);
    }
}

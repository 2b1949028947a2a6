//! AVX-512 as Ice Lake and Zen 4 have it.

pub(crate) mod byte;
pub(crate) mod nibble;

use core::arch::x86_64::*;

/// 64 bytes, aligned for a vector.
#[repr(align(64))]
pub(crate) struct Bytes64(pub [u8; 64]);

/// The bytes of a plane.
#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
pub(crate) fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes are there; the load need not be aligned
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

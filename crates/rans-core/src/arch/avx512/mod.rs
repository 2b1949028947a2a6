//! AVX-512 as Ice Lake and Zen 4 have it.

pub(crate) mod byte;
pub(crate) mod nibble_decode;
pub(crate) mod nibble_encode;

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

/// `mask ? a : b`, bit by bit.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn blend(mask: __m512i, a: __m512i, b: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xca>(mask, a, b)
}

/// Looks 64 indices up in a table of 256 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(crate) fn look_up(table: &[__m512i; 4], index: __m512i) -> __m512i {
    let [a, b, c, d] = *table;
    let below = _mm512_permutex2var_epi8(a, index, b);
    _mm512_mask_mov_epi8(below, _mm512_movepi8_mask(index), _mm512_permutex2var_epi8(c, index, d))
}

/// A table of 256 bytes in registers.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn quarters(table: &[u8; 256]) -> [__m512i; 4] {
    let (chunks, _) = table.as_chunks::<64>();
    [load(&chunks[0]), load(&chunks[1]), load(&chunks[2]), load(&chunks[3])]
}

/// 64 states as two planes: of their low bytes (the slots), and of their high bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn planes(state: &[u16; 64]) -> (__m512i, __m512i) {
    // SAFETY: 64 words are there; the loads need not be aligned
    #[allow(unsafe_code)]
    let words = unsafe { [0, 32].map(|i| _mm512_loadu_si512(state.as_ptr().add(i).cast())) };
    let both = |[a, b]: [__m512i; 2]| {
        let (a, b) = (_mm512_cvtepi16_epi8(a), _mm512_cvtepi16_epi8(b));
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b)
    };
    (both(words), both(words.map(|w| _mm512_srli_epi16::<8>(w))))
}

/// The way back from [`planes`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn states(lo: __m512i, hi: __m512i) -> [u16; 64] {
    let halves = |v: __m512i| {
        [_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v)].map(|h| _mm512_cvtepu8_epi16(h))
    };
    let ([a, b], [c, d]) = (halves(lo), halves(hi));
    let words = [(a, c), (b, d)].map(|(lo, hi)| _mm512_or_si512(lo, _mm512_slli_epi16::<8>(hi)));
    // SAFETY: both are 128 bytes of plain integers
    #[allow(unsafe_code)]
    unsafe {
        core::mem::transmute(words)
    }
}

//! Nibbles and raw bits to codes, 64 at a time.

use core::arch::x86_64::*;

use ecq_format::planes::RawPlanes;

use crate::BLOCK;

/// The low byte of each field of `WIDTH` bits of a qword.
const fn windows(width: u8) -> i64 {
    let mut all = [0; 8];
    let mut i = 0;
    while i < 8 {
        all[i] = i as u8 * width;
        i += 1;
    }
    i64::from_le_bytes(all)
}

/// Fields of 2 or 4 bits of 64 weights, a byte each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn fields<const WIDTH: usize>(plane: &[u8], block: usize) -> __m512i {
    let bytes = &plane[block * 8 * WIDTH..][..8 * WIDTH];
    // SAFETY: 8 * WIDTH bytes are there
    let qwords = unsafe {
        match WIDTH {
            2 => _mm512_cvtepu16_epi64(_mm_loadu_si128(bytes.as_ptr().cast())),
            _ => _mm512_cvtepu32_epi64(_mm256_loadu_si256(bytes.as_ptr().cast())),
        }
    };
    let all = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(windows(WIDTH as u8)), qwords);
    _mm512_and_si512(all, _mm512_set1_epi8((1 << WIDTH) - 1))
}

/// How far ahead raw bits are fetched: some rows.
const AHEAD: usize = 512;

/// Codes of whole blocks of weights with 1 to 4 raw bits, from a multiple of 8 on.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn join(planes: &RawPlanes<'_>, first: usize, nibbles: &[u8], codes: &mut [i8], lift: i8) {
    match planes.raw_bits() {
        1 => blocks::<1>(planes, first, nibbles, codes, lift),
        2 => blocks::<2>(planes, first, nibbles, codes, lift),
        3 => blocks::<3>(planes, first, nibbles, codes, lift),
        _ => blocks::<4>(planes, first, nibbles, codes, lift),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn blocks<const RAW_BITS: u32>(
    planes: &RawPlanes<'_>,
    first: usize,
    nibbles: &[u8],
    codes: &mut [i8],
    lift: i8,
) {
    let from = |width: usize| planes.plane(width as u32).get(first / 8 * width..).unwrap_or(&[]);
    let (four, two, one) = (from(4), from(2), from(1).as_chunks::<8>().0);
    let both = nibbles.as_chunks::<BLOCK>().0.iter().zip(codes.as_chunks_mut::<BLOCK>().0);
    for (block, (nibbles, codes)) in both.enumerate() {
        // strips are so many streams at once that the processor does not see ahead; a prefetch of any address is harmless
        match RAW_BITS {
            1 => {
                _mm_prefetch::<_MM_HINT_T0>(one.as_ptr().wrapping_add(block).cast::<i8>().wrapping_add(AHEAD))
            }
            2 | 3 => _mm_prefetch::<_MM_HINT_T0>(two.as_ptr().wrapping_add(16 * block + AHEAD).cast()),
            _ => _mm_prefetch::<_MM_HINT_T0>(four.as_ptr().wrapping_add(32 * block + AHEAD).cast()),
        }
        // SAFETY: 64 bytes are there
        let nibbles = unsafe { _mm512_loadu_si512(nibbles.as_ptr().cast()) };
        let sign = |raw, bit| _mm512_test_epi8_mask(raw, _mm512_set1_epi8(bit));
        let low = |raw, bits| _mm512_and_si512(raw, _mm512_set1_epi8(bits));
        let (k, sign) = match RAW_BITS {
            1 => (nibbles, u64::from_le_bytes(one[block])),
            2 => {
                let raw = fields::<2>(two, block);
                (_mm512_or_si512(_mm512_slli_epi16::<1>(nibbles), low(raw, 1)), sign(raw, 2))
            }
            3 => {
                let raw = fields::<2>(two, block);
                (_mm512_or_si512(_mm512_slli_epi16::<2>(nibbles), raw), u64::from_le_bytes(one[block]))
            }
            _ => {
                let raw = fields::<4>(four, block);
                (_mm512_or_si512(_mm512_slli_epi16::<3>(nibbles), low(raw, 7)), sign(raw, 8))
            }
        };
        // k + lift, and !k + lift where the sign is set
        let lifted = _mm512_add_epi8(k, _mm512_set1_epi8(lift));
        let twice = _mm512_set1_epi8(2 * lift - 1);
        let all = _mm512_mask_sub_epi8(lifted, sign, twice, lifted);
        // SAFETY: room for 64 bytes is there
        unsafe { _mm512_storeu_si512(codes.as_mut_ptr().cast(), all) };
    }
}

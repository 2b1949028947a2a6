//! Nibbles and raw bits to codes, 64 at a time.

use core::arch::x86_64::*;

use ecq_format::planes::RawPlanes;

use crate::BLOCK;
use crate::arch::holds;

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

/// Where the raw planes of some weights begin; a block of 64 weights is 8 bytes for each bit of a field.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    four: *const u8,
    two: *const u8,
    one: *const u8,
}

/// How far ahead raw bits are fetched: some rows. Strips are so many streams at once that the processor does not see ahead.
const AHEAD: usize = 512;

impl Planes {
    /// No raw bits.
    pub const NONE: Self = Self { four: std::ptr::null(), two: std::ptr::null(), one: std::ptr::null() };

    /// From a weight on, of which there must be a multiple of 8 before it.
    pub fn new(planes: &RawPlanes<'_>, first: usize) -> Self {
        let from = |width: usize| planes.plane(width as u32).as_ptr().wrapping_add(first / 8 * width);
        Self { four: from(4), two: from(2), one: from(1) }
    }

    /// So many blocks further.
    #[inline]
    pub fn skip(self, blocks: usize) -> Self {
        let [four, two, one] = [(self.four, 4), (self.two, 2), (self.one, 1)]
            .map(|(plane, width)| plane.wrapping_add(blocks * 8 * width));
        Self { four, two, one }
    }

    /// Fetches what follows some rows later; any address is harmless.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn fetch<const RAW_BITS: u32>(self, blocks: usize) {
        for (plane, width) in [(self.four, 4), (self.two, 2), (self.one, 1)] {
            if RAW_BITS & width as u32 != 0 {
                for at in (0..blocks * 8 * width).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T0>(plane.wrapping_add(at + AHEAD).cast());
                }
            }
        }
    }
}

/// Fields of 2 or 4 bits of 64 weights, a byte each.
///
/// # Safety
/// The plane has `8 * WIDTH` bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn fields<const WIDTH: usize>(plane: *const u8) -> __m512i {
    // SAFETY: 8 * WIDTH bytes are there
    let qwords = unsafe {
        match WIDTH {
            2 => _mm512_cvtepu16_epi64(_mm_loadu_si128(plane.cast())),
            _ => _mm512_cvtepu32_epi64(_mm256_loadu_si256(plane.cast())),
        }
    };
    let all = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(windows(WIDTH as u8)), qwords);
    _mm512_and_si512(all, _mm512_set1_epi8((1 << WIDTH) - 1))
}

/// Codes of a block of nibbles plus the first lift, which is one more than the second.
///
/// # Safety
/// The planes of `RAW_BITS` have a block there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) unsafe fn joined<const RAW_BITS: u32>(
    nibbles: __m512i,
    planes: Planes,
    [lift, below]: [__m512i; 2],
) -> __m512i {
    let Planes { four, two, one } = planes;
    let bit = |raw, bit| _mm512_test_epi8_mask(raw, _mm512_set1_epi8(bit));
    let low = |raw, bits| _mm512_and_si512(raw, _mm512_set1_epi8(bits));
    // SAFETY: the caller's promise
    let (k, sign) = unsafe {
        let signs = || one.cast::<u64>().read_unaligned();
        match RAW_BITS {
            1 => (nibbles, signs()),
            2 => {
                let raw = fields::<2>(two);
                (_mm512_or_si512(_mm512_slli_epi16::<1>(nibbles), low(raw, 1)), bit(raw, 2))
            }
            3 => (_mm512_or_si512(_mm512_slli_epi16::<2>(nibbles), fields::<2>(two)), signs()),
            _ => {
                let raw = fields::<4>(four);
                (_mm512_or_si512(_mm512_slli_epi16::<3>(nibbles), low(raw, 7)), bit(raw, 8))
            }
        }
    };
    // k + lift, and !k + lift = lift - 1 - k where the sign is set
    _mm512_mask_sub_epi8(_mm512_add_epi8(k, lift), sign, below, k)
}

/// Codes of whole blocks of weights with 1 to 4 raw bits, from a multiple of 8 on.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn join(planes: &RawPlanes<'_>, first: usize, nibbles: &[u8], codes: &mut [i8], lift: i8) {
    assert!(holds(planes, first + nibbles.len()));
    let from = Planes::new(planes, first);
    match planes.raw_bits() {
        1 => blocks::<1>(from, nibbles, codes, lift),
        2 => blocks::<2>(from, nibbles, codes, lift),
        3 => blocks::<3>(from, nibbles, codes, lift),
        _ => blocks::<4>(from, nibbles, codes, lift),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn blocks<const RAW_BITS: u32>(planes: Planes, nibbles: &[u8], codes: &mut [i8], lift: i8) {
    let lift = [lift, lift.wrapping_sub(1)].map(|lift| _mm512_set1_epi8(lift));
    let both = nibbles.as_chunks::<BLOCK>().0.iter().zip(codes.as_chunks_mut::<BLOCK>().0);
    for (block, (nibbles, codes)) in both.enumerate() {
        let planes = planes.skip(block);
        planes.fetch::<RAW_BITS>(1);
        // SAFETY: 64 bytes are there, and the planes have this block
        unsafe {
            let nibbles = _mm512_loadu_si512(nibbles.as_ptr().cast());
            let all = joined::<RAW_BITS>(nibbles, planes, lift);
            _mm512_storeu_si512(codes.as_mut_ptr().cast(), all);
        }
    }
}

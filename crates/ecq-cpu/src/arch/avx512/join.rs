//! Nibbles and raw bits to codes, 64 at a time. `vpmultishiftqb` takes any eight fields of eight bits from 64 bits, so with
//! the bytes of eight weights in each quadword it unpacks a plane of any width.

use core::arch::x86_64::*;

use rans_core::{InstructionSet, Isa};

use crate::BLOCK;
use crate::join::RawPlanes;

/// Joins whole blocks; returns for how many weights, 0 if these are no whole blocks.
pub(crate) fn join_i8(
    isa: Isa,
    planes: &RawPlanes<'_>,
    first: usize,
    nibbles: &[u8],
    out: &mut [i8],
) -> usize {
    assert_eq!(isa.set(), InstructionSet::Avx512);
    if !first.is_multiple_of(BLOCK) {
        return 0;
    }
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe {
        match planes.raw_bits {
            1 => bytes::<1>(planes, first, nibbles, out),
            2 => bytes::<2>(planes, first, nibbles, out),
            3 => bytes::<3>(planes, first, nibbles, out),
            4 => bytes::<4>(planes, first, nibbles, out),
            _ => 0,
        }
    }
}

/// The same for codes of 16 bits.
pub(crate) fn join_i16(
    isa: Isa,
    planes: &RawPlanes<'_>,
    first: usize,
    nibbles: &[u8],
    out: &mut [i16],
) -> usize {
    assert_eq!(isa.set(), InstructionSet::Avx512);
    if !first.is_multiple_of(BLOCK) {
        return 0;
    }
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe {
        match planes.raw_bits {
            5 => words::<5>(planes, first, nibbles, out),
            6 => words::<6>(planes, first, nibbles, out),
            7 => words::<7>(planes, first, nibbles, out),
            8 => words::<8>(planes, first, nibbles, out),
            _ => 0,
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn bytes<const RAW: u32>(planes: &RawPlanes<'_>, first: usize, nibbles: &[u8], out: &mut [i8]) -> usize {
    let low = RAW.saturating_sub(1);
    let (shift, keep) = (_mm_cvtsi32_si128(low as i32), _mm512_set1_epi8(((1u32 << low) - 1) as i8));
    let sign = _mm512_set1_epi8(((1u32 << RAW) >> 1) as i8);
    let blocks = nibbles.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0);
    let mut done = 0;
    for (nibbles, out) in blocks {
        let raw = if RAW > 1 { raw::<RAW>(planes, first + done) } else { _mm512_setzero_si512() };
        // SAFETY: 64 bytes
        let nibbles = unsafe { _mm512_loadu_si512(nibbles.as_ptr().cast()) };
        let negative =
            if RAW % 2 == 1 { signs(planes, first + done) } else { _mm512_test_epi8_mask(raw, sign) };
        // nibbles have four bits, so none crosses into the next byte
        let k = _mm512_or_si512(_mm512_sll_epi16(nibbles, shift), _mm512_and_si512(raw, keep));
        let codes = _mm512_mask_sub_epi8(k, negative, _mm512_set1_epi8(-1), k);
        // SAFETY: 64 bytes
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), codes) };
        done += BLOCK;
    }
    done
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn words<const RAW: u32>(planes: &RawPlanes<'_>, first: usize, nibbles: &[u8], out: &mut [i16]) -> usize {
    let low = RAW.saturating_sub(1);
    let (shift, keep) = (_mm_cvtsi32_si128(low as i32), _mm512_set1_epi16(((1u32 << low) - 1) as i16));
    let sign = _mm512_set1_epi16(((1u32 << RAW) >> 1) as i16);
    let blocks = nibbles.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0);
    let mut done = 0;
    for (nibbles, out) in blocks {
        let raw = raw::<RAW>(planes, first + done);
        // SAFETY: 64 bytes
        let nibbles = unsafe { _mm512_loadu_si512(nibbles.as_ptr().cast()) };
        for half in 0..2 {
            let (raw, nibbles) = if half == 0 {
                (_mm512_castsi512_si256(raw), _mm512_castsi512_si256(nibbles))
            } else {
                (_mm512_extracti64x4_epi64::<1>(raw), _mm512_extracti64x4_epi64::<1>(nibbles))
            };
            let (raw, nibbles) = (_mm512_cvtepu8_epi16(raw), _mm512_cvtepu8_epi16(nibbles));
            let k = _mm512_or_si512(_mm512_sll_epi16(nibbles, shift), _mm512_and_si512(raw, keep));
            let negative = _mm512_test_epi16_mask(raw, sign);
            let codes = _mm512_mask_sub_epi16(k, negative, _mm512_set1_epi16(-1), k);
            // SAFETY: twice 32 words
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(half * 32).cast(), codes) };
        }
        done += BLOCK;
    }
    done
}

/// The signs of 64 weights, where they have a plane of their own.
#[inline]
fn signs(planes: &RawPlanes<'_>, first: usize) -> u64 {
    planes.planes[3].2[first / 8..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The raw bits of 64 weights.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn raw<const RAW: u32>(planes: &RawPlanes<'_>, first: usize) -> __m512i {
    let mut all = _mm512_setzero_si512();
    let mut place = 0;
    for (i, width) in [8, 4, 2, 1].into_iter().enumerate().filter(|(_, width)| RAW as usize & width != 0) {
        let bytes = &planes.planes[i].2[first / 8 * width..][..BLOCK / 8 * width];
        // SAFETY: no byte beyond these is read
        let bytes = unsafe {
            _mm512_maskz_loadu_epi8(u64::MAX >> (BLOCK - BLOCK / 8 * width), bytes.as_ptr().cast())
        };
        let (quads, fields) = &UNPACK[width.ilog2() as usize];
        let quads = _mm512_permutexvar_epi8(quads.get(), bytes);
        let fields = _mm512_multishift_epi64_epi8(fields.get(), quads);
        let fields = _mm512_and_si512(fields, _mm512_set1_epi8(((1u32 << width) - 1) as i8));
        all = _mm512_or_si512(all, _mm512_sll_epi16(fields, _mm_cvtsi32_si128(place)));
        place += width as i32;
    }
    all
}

/// 64 bytes, aligned for a vector.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Index([u8; 64]);

impl Index {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn get(&self) -> __m512i {
        // SAFETY: 64 bytes
        unsafe { _mm512_loadu_si512(self.0.as_ptr().cast()) }
    }
}

/// For fields of 1, 2, 4 and 8 bits: the bytes of eight of them to each quadword, and where each of the eight begins.
static UNPACK: [(Index, Index); 4] = {
    let mut all = [(Index([0; 64]), Index([0; 64])); 4];
    let mut i = 0;
    while i < 4 * 64 {
        let (width, at) = (1 << (i / 64), i % 64);
        all[i / 64].0.0[at] = (at / 8 * width + at % 8 % width) as u8;
        all[i / 64].1.0[at] = (at % 8 * width) as u8;
        i += 1;
    }
    all
};

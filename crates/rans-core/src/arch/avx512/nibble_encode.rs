//! The `nibble` codec's encoder, 64 lanes a vector, last lane of the last step first.
//!
//! States lie in two byte planes as in the decoder. Lanes that must shift out a byte hand it over by `vpcompressb`. The
//! division by the frequency is a multiplication by its reciprocal, which is at most one too small.
#![allow(unsafe_code)]

use core::arch::x86_64::*;

use super::{Bytes64, blend, load, look_up, planes, quarters, states};
use crate::nibble::{EncodeTable, GROUP};
use crate::{InstructionSet, Isa};

/// See `Encoder::full` in `nibble::encoder`: codes steps from the last one on while `refill` has room for the worst
/// case, a byte a lane; returns how many are left.
#[allow(clippy::too_many_arguments)]
pub(crate) fn encode(
    isa: Isa,
    table: &EncodeTable,
    state: &mut [u16],
    symbols: &[u8],
    pitch: usize,
    steps: usize,
    refill: &mut [u8],
    at: &mut usize,
) -> usize {
    assert_eq!(isa.set(), InstructionSet::Avx512);
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe { run(table, state, symbols, pitch, steps, refill, at) }
}

/// Whether every symbol has a frequency.
pub(crate) fn known(isa: Isa, table: &EncodeTable, symbols: &[u8]) -> bool {
    assert_eq!(isa.set(), InstructionSet::Avx512);
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe { all_known(table, symbols) }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn all_known(table: &EncodeTable, symbols: &[u8]) -> bool {
    let absent = load(&Bytes64(core::array::from_fn(|i| u8::from(table.absent[i % 16]))).0);
    let (vectors, rest) = symbols.as_chunks::<64>();
    let mut bad = _mm512_setzero_si512();
    for symbols in vectors {
        // the look-up takes the low four bits, so what lies above them is kept as well
        let symbols = load(symbols);
        let high = _mm512_and_si512(symbols, _mm512_set1_epi8(-16));
        bad = _mm512_or_si512(bad, _mm512_or_si512(high, _mm512_shuffle_epi8(absent, symbols)));
    }
    _mm512_test_epi8_mask(bad, bad) == 0 && !rest.iter().any(|&s| table.absent[usize::from(s)])
}

/// The tables in registers.
struct Tables {
    slot: [__m512i; 4],
    freq: __m512i,
    first: __m512i,
    /// `floor(2^16 / freq)`, a word for each symbol; 2^16 - 1 for 1.
    reciprocal: __m512i,
}

impl Tables {
    #[target_feature(enable = "avx512f,avx512bw")]
    fn new(table: &EncodeTable) -> Self {
        let bytes = |of: &[u16; 16]| load(&Bytes64(core::array::from_fn(|i| of[i % 16] as u8)).0);
        let reciprocal =
            |i: usize| (0x1_0000 / u32::from(table.freq[i % 16]).max(1)).min(0xffff).to_le_bytes();
        let words = Bytes64(core::array::from_fn(|i| reciprocal(i / 2)[i % 2]));
        Self {
            slot: quarters(&table.slot),
            freq: bytes(&table.freq),
            first: bytes(&table.first),
            reciprocal: load(&words.0),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt,bmi2")]
fn run(
    table: &EncodeTable,
    state: &mut [u16],
    symbols: &[u8],
    pitch: usize,
    steps: usize,
    refill: &mut [u8],
    at: &mut usize,
) -> usize {
    let (groups, _) = state.as_chunks_mut::<GROUP>();
    let tables = Tables::new(table);
    let mut lanes = [(_mm512_setzero_si512(), _mm512_setzero_si512()); 16];
    let lanes = &mut lanes[..groups.len()];
    for (lanes, state) in lanes.iter_mut().zip(groups.iter()) {
        *lanes = planes(state);
    }
    let mut left = steps;
    while left > 0 && *at >= lanes.len() * GROUP {
        left -= 1;
        for (group, (lo, hi)) in lanes.iter_mut().enumerate().rev() {
            let symbols = symbols[group * pitch + left * GROUP..].first_chunk().expect("64 symbols a group");
            let (bytes, count) = step(&tables, load(symbols), lo, hi);
            *at -= count;
            // SAFETY: there was room for 64 bytes a group below `at`, and this group stores `count` <= 64 at `at`
            unsafe {
                let to = refill.as_mut_ptr().add(*at);
                _mm512_mask_storeu_epi8(to.cast(), _bzhi_u64(!0, count as u32), bytes);
            }
        }
    }
    for (lanes, state) in lanes.iter().zip(groups) {
        *state = states(lanes.0, lanes.1);
    }
    left
}

/// Codes a symbol in each of 64 lanes. Returns the bytes that leave the states, in lane order, and how many.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt,bmi2")]
fn step(t: &Tables, symbol: __m512i, lo: &mut __m512i, hi: &mut __m512i) -> (__m512i, usize) {
    let mask = _mm512_set1_epi16(0xff);
    let freq = _mm512_shuffle_epi8(t.freq, symbol);
    // x >= freq << 8 loses its low byte
    let full = _mm512_cmpge_epu8_mask(*hi, freq);
    let bytes = _mm512_maskz_compress_epi8(full, *lo);
    let lower = _mm512_mask_mov_epi8(*lo, full, *hi);
    let upper = _mm512_maskz_mov_epi8(!full, *hi);
    // quotient and remainder in words, of the even lanes and of the odd ones
    let half = |x: __m512i, f: __m512i, symbol: __m512i| {
        let q = _mm512_mulhi_epu16(x, _mm512_permutexvar_epi16(symbol, t.reciprocal));
        let r = _mm512_sub_epi16(x, _mm512_mullo_epi16(q, f));
        let small = _mm512_cmpge_epu16_mask(r, f);
        (_mm512_mask_add_epi16(q, small, q, _mm512_set1_epi16(1)), _mm512_mask_sub_epi16(r, small, r, f))
    };
    let (x_even, x_odd) = (
        blend(mask, lower, _mm512_slli_epi16::<8>(upper)),
        blend(mask, _mm512_srli_epi16::<8>(lower), upper),
    );
    let (q_even, r_even) = half(x_even, _mm512_and_si512(mask, freq), symbol);
    let (q_odd, r_odd) = half(x_odd, _mm512_srli_epi16::<8>(freq), _mm512_srli_epi16::<8>(symbol));
    let remainder = blend(mask, r_even, _mm512_slli_epi16::<8>(r_odd));
    *hi = blend(mask, q_even, _mm512_slli_epi16::<8>(q_odd));
    *lo = look_up(&t.slot, _mm512_add_epi8(_mm512_shuffle_epi8(t.first, symbol), remainder));
    (bytes, full.count_ones() as usize)
}

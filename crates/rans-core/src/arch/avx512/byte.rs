//! The `byte` codec, 16 lanes a vector, two vectors a stream, several streams side by side.
#![allow(unsafe_code)]

use core::arch::x86_64::*;

use super::Bytes64;
use crate::byte::{Cursor, DecodeTable, LANES, Run};
use crate::{InstructionSet, Isa};

/// The highest byte of each word of two vectors.
static HIGHEST: Bytes64 = {
    let mut all = Bytes64([0; 64]);
    let mut i = 0;
    while i < LANES {
        all.0[i] = 4 * i as u8 + 3;
        i += 1;
    }
    all
};

/// See the contract in `byte::decoder`.
pub(crate) fn decode(isa: Isa, table: &DecodeTable, runs: &mut [Option<Run<'_, '_>>], steps: usize) -> usize {
    assert_eq!(isa.set(), InstructionSet::Avx512);
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe {
        match runs.len() {
            1 => side_by_side::<1>(table, runs, steps),
            2 => side_by_side::<2>(table, runs, steps),
            3 => side_by_side::<3>(table, runs, steps),
            4 => side_by_side::<4>(table, runs, steps),
            _ => 0,
        }
    }
}

#[target_feature(enable = "avx512f,avx512vbmi,popcnt,bmi2")]
fn side_by_side<const N: usize>(
    table: &DecodeTable,
    runs: &mut [Option<Run<'_, '_>>],
    steps: usize,
) -> usize {
    let mut state = [[_mm512_setzero_si512(); 2]; N];
    let mut at = [Cursor::NONE; N];
    for (i, run) in runs.iter_mut().flatten().take(N).enumerate() {
        let words = run.decoder.state.as_ptr();
        // SAFETY: 32 states are there
        state[i] = unsafe { [_mm512_loadu_si512(words.cast()), _mm512_loadu_si512(words.add(16).cast())] };
        at[i] = run.cursor(steps);
    }
    // SAFETY: 64 bytes are there
    let highest = unsafe { _mm512_loadu_si512(HIGHEST.0.as_ptr().cast()) };
    let mut done = 0;
    while done < steps && at.iter().all(Cursor::enough) {
        for (state, at) in state.iter_mut().zip(&mut at) {
            let [below, above] = state;
            // SAFETY: 64 bytes are left of each stream, and a vector takes at most 32
            let (first, second) = unsafe {
                let (first, taken) = step(table, below, at.next);
                at.next = at.next.add(taken);
                let (second, taken) = step(table, above, at.next);
                at.next = at.next.add(taken);
                (first, second)
            };
            let symbols = _mm512_castsi512_si256(_mm512_permutex2var_epi8(first, highest, second));
            // SAFETY: there is room for 32 symbols a step
            unsafe { _mm256_storeu_si256(at.to.cast(), symbols) };
            at.to = at.to.wrapping_add(LANES);
        }
        done += 1;
    }
    for (i, run) in runs.iter_mut().flatten().take(N).enumerate() {
        let words = run.decoder.state.as_mut_ptr();
        // SAFETY: 32 states are there
        unsafe {
            _mm512_storeu_si512(words.cast(), state[i][0]);
            _mm512_storeu_si512(words.add(16).cast(), state[i][1]);
        }
        run.advance(at[i], done);
    }
    done
}

/// Decodes a symbol of each of 16 lanes; returns their entries of the table, and how many bytes of `next` were taken.
///
/// # Safety
/// 32 bytes may be read at `next`.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi,popcnt,bmi2")]
unsafe fn step(table: &DecodeTable, state: &mut __m512i, next: *const u8) -> (__m512i, usize) {
    let low = _mm512_set1_epi32(0xfff);
    let slot = _mm512_and_si512(*state, low);
    // SAFETY: the table has 4,096 entries
    let entry = unsafe { _mm512_i32gather_epi32::<4>(slot, table.0.as_ptr().cast()) };
    let hi = _mm512_srli_epi32::<12>(*state);
    // (freq - 1) * hi + (hi + rank)
    let less = _mm512_and_si512(_mm512_srli_epi32::<12>(entry), low);
    let rest = _mm512_add_epi32(hi, _mm512_and_si512(entry, low));
    let x = _mm512_add_epi32(_mm512_mullo_epi32(less, hi), rest);
    // lanes below 2^16 take the next words of the stream, in lane order
    let need = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(1 << 16));
    // SAFETY: as this function demands
    let words = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(next.cast()) });
    let words = _mm512_maskz_expand_epi32(need, words);
    *state = _mm512_mask_or_epi32(x, need, _mm512_slli_epi32::<16>(x), words);
    (entry, 2 * need.count_ones() as usize)
}

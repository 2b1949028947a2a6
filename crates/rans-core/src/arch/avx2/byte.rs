//! The `byte` codec, 8 lanes a vector, four vectors a stream, several streams side by side.
#![allow(unsafe_code)]

use core::arch::x86_64::*;

use crate::arch::refill;
use crate::byte::{Cursor, DecodeTable, LANES, Run};
use crate::{InstructionSet, Isa};

/// Lanes of a vector.
const WIDE: usize = 8;
/// Vectors of a stream.
const PARTS: usize = LANES / WIDE;

/// See the contract in `byte::decoder`.
pub(crate) fn decode(isa: Isa, table: &DecodeTable, runs: &mut [Option<Run<'_, '_>>], steps: usize) -> usize {
    assert_eq!(isa.set(), InstructionSet::Avx2);
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe {
        match runs.len() {
            1 => side_by_side::<1>(table, runs, steps),
            2 => side_by_side::<2>(table, runs, steps),
            _ => 0,
        }
    }
}

#[target_feature(enable = "avx2,popcnt,bmi2")]
fn side_by_side<const N: usize>(
    table: &DecodeTable,
    runs: &mut [Option<Run<'_, '_>>],
    steps: usize,
) -> usize {
    let mut state = [[_mm256_setzero_si256(); PARTS]; N];
    let mut at = [Cursor::NONE; N];
    for (i, run) in runs.iter_mut().flatten().take(N).enumerate() {
        for (x, lanes) in state[i].iter_mut().zip(run.decoder.state.as_chunks::<WIDE>().0) {
            // SAFETY: 8 states are there
            *x = unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) };
        }
        at[i] = run.cursor(steps);
    }
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let mut done = 0;
    while done < steps && at.iter().all(Cursor::enough) {
        for (state, at) in state.iter_mut().zip(&mut at) {
            let mut entries = [_mm256_setzero_si256(); PARTS];
            for (x, entry) in state.iter_mut().zip(&mut entries) {
                // SAFETY: 64 bytes are left of each stream, and a vector takes at most 16
                unsafe {
                    let taken;
                    (*entry, taken) = step(table, x, at.next);
                    at.next = at.next.add(taken);
                }
            }
            let [a, b, c, d] = entries.map(|entry| _mm256_srli_epi32::<24>(entry));
            let symbols = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
            let symbols = _mm256_permutevar8x32_epi32(symbols, order);
            // SAFETY: there is room for 32 symbols a step
            unsafe { _mm256_storeu_si256(at.to.cast(), symbols) };
            at.to = at.to.wrapping_add(LANES);
        }
        done += 1;
    }
    for (i, run) in runs.iter_mut().flatten().take(N).enumerate() {
        for (x, lanes) in state[i].iter().zip(run.decoder.state.as_chunks_mut::<WIDE>().0) {
            // SAFETY: 8 states are there
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), *x) };
        }
        run.advance(at[i], done);
    }
    done
}

/// Decodes a symbol of each of 8 lanes; returns their entries of the table, and how many bytes of `next` were taken.
///
/// # Safety
/// 16 bytes may be read at `next`.
#[inline]
#[target_feature(enable = "avx2,popcnt,bmi2")]
unsafe fn step(table: &DecodeTable, state: &mut __m256i, next: *const u8) -> (__m256i, usize) {
    let low = _mm256_set1_epi32(0xfff);
    let slot = _mm256_and_si256(*state, low);
    // SAFETY: the table has 4,096 entries
    let entry = unsafe { _mm256_i32gather_epi32::<4>(table.0.as_ptr().cast(), slot) };
    let hi = _mm256_srli_epi32::<12>(*state);
    // (freq - 1) * hi + (hi + rank)
    let less = _mm256_and_si256(_mm256_srli_epi32::<12>(entry), low);
    let rest = _mm256_add_epi32(hi, _mm256_and_si256(entry, low));
    let x = _mm256_add_epi32(_mm256_mullo_epi32(less, hi), rest);
    // lanes below 2^16 take the next words of the stream, in lane order
    let need = _mm256_cmpeq_epi32(_mm256_srli_epi32::<16>(x), _mm256_setzero_si256());
    let mask = _mm256_movemask_ps(_mm256_castsi256_ps(need)) as usize & 0xff;
    // SAFETY: as this function demands
    let (words, control) =
        unsafe { (_mm_loadu_si128(next.cast()), _mm_load_si128(refill::WORDS[mask].0.as_ptr().cast())) };
    let words = _mm256_cvtepu16_epi32(_mm_shuffle_epi8(words, control));
    let shifted = _mm256_sllv_epi32(x, _mm256_and_si256(need, _mm256_set1_epi32(16)));
    *state = _mm256_or_si256(shifted, words);
    (entry, 2 * mask.count_ones() as usize)
}

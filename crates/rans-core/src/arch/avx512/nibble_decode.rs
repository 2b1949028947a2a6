//! The `nibble` codec, 64 lanes a vector.
//!
//! A lane's state lies in two byte planes, `lo` (the slot) and `hi`. All tables are in registers: a slot's entry (its
//! symbol and a correction, see `nibble::DecodeTable`) is looked up by `vpermi2b`, a symbol's frequency by `vpshufb`.
//! Intel has one port for shuffles, so products are formed in even and odd lanes by logic instead of unpacking; what then
//! limits the loop is the number of operations (counted in `docs/measurements.md`).
#![allow(unsafe_code)]

use core::arch::x86_64::*;

use super::{Bytes64, blend, load, look_up, planes, quarters, states};
use crate::nibble::{GROUP, Steps};
use crate::{InstructionSet, Isa};

/// Groups whose states stay in registers.
const MOST: usize = 8;
/// How far ahead the stream is fetched: load addresses depend on decoded data, which stops the hardware's prefetch.
const AHEAD: usize = 2048;

/// See the contract in `nibble::decoder`.
pub(crate) fn decode(isa: Isa, steps: &mut Steps<'_>) -> usize {
    assert_eq!(isa.set(), InstructionSet::Avx512);
    let groups = steps.state.len() / GROUP;
    if groups <= MOST {
        // SAFETY: an `Isa` is the proof that this CPU has the instructions
        return unsafe { dispatch(steps) };
    }
    // more than registers hold: a step of the first ones, a step of the rest, and again
    for done in 0..steps.count {
        if steps.bytes.len() - steps.at < groups * GROUP {
            return done;
        }
        for (i, state) in steps.state.chunks_mut(MOST * GROUP).enumerate() {
            let out = &mut steps.out[i * MOST * steps.pitch + done * GROUP..];
            let mut part = Steps { state, out, count: 1, ..*steps };
            // SAFETY: as above
            unsafe { dispatch(&mut part) };
            steps.at = part.at;
        }
    }
    steps.count
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt,bmi2")]
fn dispatch(steps: &mut Steps<'_>) -> usize {
    macro_rules! run {
        ($($v:literal)*) => {
            match (steps.state.len() / GROUP, steps.table.even) {
                $(($v, false) => run::<$v, false>(steps),
                ($v, true) => run::<$v, true>(steps),)*
                _ => 0,
            }
        };
    }
    run!(1 2 3 4 5 6 7 8)
}

/// The tables in registers.
#[derive(Clone, Copy)]
struct Tables {
    slot: [__m512i; 4],
    freq: __m512i,
}

/// `V` groups of lanes. `EVEN`: all frequencies are even.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt,bmi2")]
fn run<const V: usize, const EVEN: bool>(steps: &mut Steps<'_>) -> usize {
    let Steps { table, ref mut state, bytes, ref mut at, count, ref mut out, pitch } = *steps;
    assert!(state.len() == V * GROUP && *at <= bytes.len());
    let last = (V - 1).checked_mul(pitch);
    let needed = count.checked_mul(GROUP).zip(last).and_then(|(n, last)| last.checked_add(n));
    assert!(needed.is_some_and(|n| n <= out.len()));
    let freq = Bytes64(core::array::from_fn(|i| table.freq[i % 16] as u8));
    let tables = Tables { slot: quarters(&table.slot), freq: load(&freq.0) };
    let (mut lo, mut hi) = ([_mm512_setzero_si512(); V], [_mm512_setzero_si512(); V]);
    let (groups, _) = state.as_chunks_mut::<GROUP>();
    for v in 0..V {
        (lo[v], hi[v]) = planes(&groups[v]);
    }
    let mut done = 0;
    let mut to = out.as_mut_ptr();
    let mut next = bytes.as_ptr();
    // SAFETY: `at` is at most the length
    next = unsafe { next.add(*at) };
    let end = bytes.as_ptr_range().end;
    while done < count && end.addr() - next.addr() >= V * GROUP {
        for v in 0..V {
            if v % 2 == 0 {
                // one line for every two vectors is more than they take; a prefetch of any address is harmless
                _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(AHEAD).cast());
            }
            // SAFETY: the vectors before this one took at most 64 bytes each, so 64 are left of the `V * 64`
            let refill = unsafe { _mm512_loadu_si512(next.cast()) };
            let (symbols, taken) = step::<EVEN>(&tables, &mut lo[v], &mut hi[v], refill);
            // SAFETY: at most as many as were loaded
            next = unsafe { next.add(taken) };
            // SAFETY: v * pitch + 64 * done + 64 is within `out`, as asserted above
            unsafe { _mm512_storeu_si512(to.add(v * pitch).cast(), symbols) };
        }
        to = to.wrapping_add(GROUP);
        done += 1;
    }
    *at = next.addr() - bytes.as_ptr().addr();
    for v in 0..V {
        groups[v] = states(lo[v], hi[v]);
    }
    done
}

/// Decodes a symbol of each of 64 lanes; returns them and how many bytes of `refill` were taken.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt,bmi2")]
fn step<const EVEN: bool>(
    t: &Tables,
    lo: &mut __m512i,
    hi: &mut __m512i,
    refill: __m512i,
) -> (__m512i, usize) {
    let entry =
        if EVEN { _mm512_permutex2var_epi8(t.slot[0], *lo, t.slot[1]) } else { look_up(&t.slot, *lo) };
    let symbol = _mm512_and_si512(entry, _mm512_set1_epi8(15));
    let freq = _mm512_shuffle_epi8(t.freq, symbol);
    // x = (freq * x >> 8) - correction in words, of the even lanes and of the odd ones
    let mask = _mm512_set1_epi16(0xff);
    let even = blend(mask, *lo, _mm512_slli_epi16::<8>(*hi));
    let odd = blend(mask, _mm512_srli_epi16::<8>(*lo), *hi);
    let even = _mm512_mulhi_epu16(even, _mm512_slli_epi16::<8>(freq));
    let odd = _mm512_mulhi_epu16(odd, _mm512_andnot_si512(mask, freq));
    let even = _mm512_sub_epi16(even, _mm512_srai_epi16::<12>(_mm512_slli_epi16::<8>(entry)));
    let odd = _mm512_sub_epi16(odd, _mm512_srai_epi16::<12>(entry));
    let x_lo = blend(mask, even, _mm512_slli_epi16::<8>(odd));
    let x_hi = blend(mask, _mm512_srli_epi16::<8>(even), odd);
    // lanes below 256 take the next bytes of the stream, in lane order
    let need = _mm512_testn_epi8_mask(x_hi, x_hi);
    *hi = _mm512_mask_mov_epi8(x_hi, need, x_lo);
    *lo = _mm512_mask_expand_epi8(x_lo, need, refill);
    (symbol, need.count_ones() as usize)
}

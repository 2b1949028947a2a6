//! The `nibble` codec, 64 lanes a vector.
//!
//! A lane's state lies in two byte planes, `lo` (the slot) and `hi`. All tables are in registers: a slot's symbol and
//! rank are looked up by `vpermi2b`, a symbol's frequency by `vpshufb`. What limits the loop is the port for shuffles
//! (one on Intel, two on AMD), so products are formed in even and odd lanes by logic instead of unpacking: ten shuffles
//! and twenty-one instructions for 64 symbols.
#![allow(unsafe_code)]

use core::arch::x86_64::*;

use super::{Bytes64, load};
use crate::nibble::{DecodeTable, GROUP};
use crate::{InstructionSet, Isa};

/// Groups whose states stay in registers.
const MOST: usize = 8;
/// How far ahead the stream is fetched: load addresses depend on decoded data, which stops the hardware's prefetch.
const AHEAD: usize = 2048;

/// Index vectors for two vectors of words: their low bytes, their high bytes (in lane order); and back.
static INDEX: [Bytes64; 6] = {
    let mut all = [const { Bytes64([0; 64]) }; 6];
    let mut i = 0;
    while i < 64 {
        let (pair, odd) = (i as u8 & !1, i as u8 & 1);
        all[LOW].0[i] = pair + 64 * odd;
        all[HIGH].0[i] = pair + 64 * odd + 1;
        all[FIRST].0[i] = 2 * i as u8;
        all[SECOND].0[i] = 2 * i as u8 + 1;
        all[WORDS_BELOW].0[i] = i as u8 / 2 + 64 * odd;
        all[WORDS_ABOVE].0[i] = i as u8 / 2 + 32 + 64 * odd;
        i += 1;
    }
    all
};
/// Low bytes of even and odd words, interleaved.
const LOW: usize = 0;
/// High bytes of even and odd words, interleaved.
const HIGH: usize = 1;
/// First bytes of all words of two vectors.
const FIRST: usize = 2;
/// Second bytes of all words of two vectors.
const SECOND: usize = 3;
/// Words of lanes 0..32 from two planes.
const WORDS_BELOW: usize = 4;
/// Words of lanes 32..64 from two planes.
const WORDS_ABOVE: usize = 5;

/// See the contract in `nibble::decoder`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn decode(
    isa: Isa,
    table: &DecodeTable,
    state: &mut [u16],
    bytes: &[u8],
    at: &mut usize,
    steps: usize,
    out: &mut [u8],
    pitch: usize,
) -> usize {
    assert_eq!(isa.set(), InstructionSet::Avx512);
    let groups = state.len() / GROUP;
    // more groups than registers hold: a step of the first ones, a step of the rest, and again
    let most = if groups > MOST { 1 } else { steps };
    let mut done = 0;
    while done < steps {
        let mut now = most;
        for first in (0..groups).step_by(MOST) {
            if bytes.len() - *at < (groups - first) * GROUP {
                return done;
            }
            let count = MOST.min(groups - first);
            let state = &mut state[first * GROUP..][..count * GROUP];
            let out = &mut out[first * pitch + done * GROUP..];
            // SAFETY: an `Isa` is the proof that this CPU has the instructions
            now = unsafe { dispatch(table, state, bytes, at, most, out, pitch) };
        }
        done += now;
        if now < most {
            break;
        }
    }
    done
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt,bmi2")]
fn dispatch(
    table: &DecodeTable,
    state: &mut [u16],
    bytes: &[u8],
    at: &mut usize,
    steps: usize,
    out: &mut [u8],
    pitch: usize,
) -> usize {
    let wide = table.freq.iter().any(|&f| f > 127);
    macro_rules! run {
        ($($v:literal)*) => {
            match (state.len() / GROUP, wide) {
                $(($v, false) => run::<$v, false>(table, state, bytes, at, steps, out, pitch),
                ($v, true) => run::<$v, true>(table, state, bytes, at, steps, out, pitch),)*
                _ => 0,
            }
        };
    }
    run!(1 2 3 4 5 6 7 8)
}

/// The tables in registers.
#[derive(Clone, Copy)]
struct Tables {
    symbol: [__m512i; 4],
    rank: [__m512i; 4],
    freq: __m512i,
    low: __m512i,
    high: __m512i,
}

impl Tables {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn new(table: &DecodeTable) -> Self {
        let quarters = |all: &[u8; 256]| {
            let (chunks, _) = all.as_chunks::<64>();
            [load(&chunks[0]), load(&chunks[1]), load(&chunks[2]), load(&chunks[3])]
        };
        let mut freq = Bytes64([0; 64]);
        for (i, f) in freq.0.iter_mut().enumerate() {
            *f = table.freq[i % 16] as u8;
        }
        Self {
            symbol: quarters(&table.symbol),
            rank: quarters(&table.rank),
            freq: load(&freq.0),
            low: load(&INDEX[LOW].0),
            high: load(&INDEX[HIGH].0),
        }
    }

    /// Looks 64 slots up in a table of 256 bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vbmi")]
    fn look_up(table: &[__m512i; 4], slots: __m512i, above: __mmask64) -> __m512i {
        let half = _mm512_mask2_permutex2var_epi8(table[2], slots, above, table[3]);
        _mm512_mask2_permutex2var_epi8(table[0], half, !above, table[1])
    }
}

/// `mask ? a : b`, bit by bit.
#[inline]
#[target_feature(enable = "avx512f")]
fn blend(mask: __m512i, a: __m512i, b: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xca>(mask, a, b)
}

/// `V` groups of lanes. `WIDE`: a frequency is above 127, the most that the signed factor of `vpmaddubsw` can be.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt,bmi2")]
fn run<const V: usize, const WIDE: bool>(
    table: &DecodeTable,
    state: &mut [u16],
    bytes: &[u8],
    at: &mut usize,
    steps: usize,
    out: &mut [u8],
    pitch: usize,
) -> usize {
    assert!(state.len() == V * GROUP && *at <= bytes.len());
    assert!(steps.checked_mul(GROUP).is_some_and(|n| (V - 1) * pitch + n <= out.len()));
    let tables = Tables::new(table);
    let (mut lo, mut hi) = ([_mm512_setzero_si512(); V], [_mm512_setzero_si512(); V]);
    for v in 0..V {
        // SAFETY: `state` has 64 words for each v
        let (a, b) = unsafe {
            let words = state.as_ptr().add(v * GROUP);
            (_mm512_loadu_si512(words.cast()), _mm512_loadu_si512(words.add(32).cast()))
        };
        lo[v] = _mm512_permutex2var_epi8(a, load(&INDEX[FIRST].0), b);
        hi[v] = _mm512_permutex2var_epi8(a, load(&INDEX[SECOND].0), b);
    }
    let mut done = 0;
    let mut to = out.as_mut_ptr();
    let mut next = bytes.as_ptr();
    // SAFETY: `at` is at most the length
    next = unsafe { next.add(*at) };
    let end = bytes.as_ptr_range().end;
    while done < steps && end.addr() - next.addr() >= V * GROUP {
        for v in 0..V {
            if v % 2 == 0 {
                // one line for every two vectors is more than they take; a prefetch of any address is harmless
                _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(AHEAD).cast());
            }
            // SAFETY: the vectors before this one took at most 64 bytes each, so 64 are left of the `V * 64`
            let refill = unsafe { _mm512_loadu_si512(next.cast()) };
            let (symbols, taken) = step::<WIDE>(&tables, &mut lo[v], &mut hi[v], refill);
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
        // SAFETY: `state` has 64 words for each v
        unsafe {
            let words = state.as_mut_ptr().add(v * GROUP);
            let below = _mm512_permutex2var_epi8(lo[v], load(&INDEX[WORDS_BELOW].0), hi[v]);
            let above = _mm512_permutex2var_epi8(lo[v], load(&INDEX[WORDS_ABOVE].0), hi[v]);
            _mm512_storeu_si512(words.cast(), below);
            _mm512_storeu_si512(words.add(32).cast(), above);
        }
    }
    done
}

/// Decodes a symbol of each of 64 lanes; returns them and how many bytes of `refill` were taken.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,popcnt,bmi2")]
fn step<const WIDE: bool>(
    t: &Tables,
    lo: &mut __m512i,
    hi: &mut __m512i,
    refill: __m512i,
) -> (__m512i, usize) {
    let above = _mm512_movepi8_mask(*lo); // slots 128..256
    let symbol = Tables::look_up(&t.symbol, *lo, above);
    let rank = Tables::look_up(&t.rank, *lo, above);
    let freq = _mm512_shuffle_epi8(t.freq, symbol);
    // x = freq * hi + rank in words, of the even lanes and of the odd ones: each word of the one factor holds hi and
    // rank of its lane, of the other freq and 1
    let (ones, mask) = (_mm512_set1_epi8(1), _mm512_set1_epi16(0xff));
    let swapped = _mm512_shldi_epi16::<8>(rank, rank);
    let even = _mm512_maddubs_epi16(blend(mask, *hi, swapped), blend(mask, freq, ones));
    let odd = _mm512_maddubs_epi16(blend(mask, swapped, *hi), blend(mask, ones, freq));
    let x_lo = _mm512_permutex2var_epi8(even, t.low, odd);
    let mut x_hi = _mm512_permutex2var_epi8(even, t.high, odd);
    if WIDE {
        // the signed factor was freq - 256, so the product lacks hi << 8
        x_hi = _mm512_mask_add_epi8(x_hi, _mm512_movepi8_mask(freq), x_hi, *hi);
    }
    // lanes below 256 take the next bytes of the stream, in lane order
    let need = _mm512_testn_epi8_mask(x_hi, x_hi);
    *hi = _mm512_mask_mov_epi8(x_hi, need, x_lo);
    *lo = _mm512_mask_expand_epi8(x_lo, need, refill);
    (symbol, need.count_ones() as usize)
}

//! 16 lanes a vector, two vectors a stream.
#![allow(unsafe_code)]

use core::arch::x86_64::*;

use super::{InstructionSet, Isa};
use crate::decoder::Run;
use crate::{DecodeTable, LANES};

/// The byte of each entry of two vectors that is the symbol.
static SYMBOLS: Bytes = {
    let mut all = Bytes([0; 64]);
    let mut i = 0;
    while i < LANES {
        all.0[i] = 4 * i as u8 + 1;
        i += 1;
    }
    all
};

#[repr(align(64))]
struct Bytes([u8; 64]);

/// See the contract of `Run::steps`.
pub(crate) fn steps(isa: Isa, table: &DecodeTable, run: &mut Run<'_>) {
    assert_eq!(isa.set(), InstructionSet::Avx512);
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe { turns(table, run) }
}

/// 16 lanes.
#[derive(Clone, Copy)]
struct Lanes {
    lo: __m512i,
    hi: __m512i,
    used: __m512i,
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,popcnt")]
fn turns(table: &DecodeTable, run: &mut Run<'_>) {
    // SAFETY: there are 32 of each
    let load =
        |v: &[u32; LANES], half: usize| unsafe { _mm512_loadu_si512(v.as_ptr().add(16 * half).cast()) };
    let mut lanes = [0, 1].map(|half| Lanes {
        lo: load(&run.lo, half),
        hi: load(&run.hi, half),
        used: load(&run.used, half),
    });
    while run.enough()
        && let Some((turn, out)) = run.next()
    {
        let active = u32::MAX >> (LANES - turn.width);
        let windows = lanes.map(|lanes| _mm512_shrdv_epi32(lanes.lo, lanes.hi, lanes.used));
        let entries = [look_up(table, windows[0], active), look_up(table, windows[1], active >> 16)];
        store(out, active, entries);
        let mut bits = entries.map(|entry| length(entry));
        if turn.two {
            let windows = [0, 1].map(|half| _mm512_srlv_epi32(windows[half], bits[half]));
            let entries = [look_up(table, windows[0], active), look_up(table, windows[1], active >> 16)];
            store(&mut out[turn.width..], active, entries);
            bits = [0, 1].map(|half| _mm512_add_epi32(bits[half], length(entries[half])));
        }
        let mut words: &[[u8; 4]] = &run.words[run.taken..][..LANES];
        for (lanes, bits) in lanes.iter_mut().zip(bits) {
            let taken = refill(lanes, bits, words);
            run.taken += taken;
            words = &words[taken..];
        }
    }
    // SAFETY: there are 32 of each
    let save = |v: &mut [u32; LANES], half: usize, x| unsafe {
        _mm512_storeu_si512(v.as_mut_ptr().add(16 * half).cast(), x)
    };
    for (half, lanes) in lanes.into_iter().enumerate() {
        save(&mut run.lo, half, lanes.lo);
        save(&mut run.hi, half, lanes.hi);
        save(&mut run.used, half, lanes.used);
    }
}

/// The entries of the windows of active lanes; 0 for others.
#[inline]
#[target_feature(enable = "avx512f")]
fn look_up(table: &DecodeTable, window: __m512i, active: u32) -> __m512i {
    let index = _mm512_and_si512(window, _mm512_set1_epi32(0xfff));
    // SAFETY: 4 bytes may be read at the place of each of the 4,096 entries of 2 bytes: there is one more behind them
    unsafe {
        _mm512_mask_i32gather_epi32::<2>(
            _mm512_setzero_si512(),
            active as u16,
            index,
            table.0.as_ptr().cast(),
        )
    }
}

/// The lengths of codes.
#[inline]
#[target_feature(enable = "avx512f")]
fn length(entry: __m512i) -> __m512i {
    _mm512_and_si512(entry, _mm512_set1_epi32(0xff))
}

/// Writes the symbols of active lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn store(out: &mut [u8], active: u32, entries: [__m512i; 2]) {
    // SAFETY: 64 bytes are there
    let places = unsafe { _mm512_load_si512(SYMBOLS.0.as_ptr().cast()) };
    let symbols = _mm512_castsi512_si256(_mm512_permutex2var_epi8(entries[0], places, entries[1]));
    let out = &mut out[..active.count_ones() as usize];
    // SAFETY: active lanes are the first ones, and there is a byte for each
    unsafe { _mm256_mask_storeu_epi8(out.as_mut_ptr().cast(), active, symbols) }
}

/// Uses bits of each lane; those that then need a word take one, in lane order. Returns how many were taken.
#[inline]
#[target_feature(enable = "avx512f,popcnt")]
fn refill(lanes: &mut Lanes, bits: __m512i, words: &[[u8; 4]]) -> usize {
    let words = &words[..16];
    // SAFETY: 16 words are there
    let words = unsafe { _mm512_loadu_si512(words.as_ptr().cast()) };
    let used = _mm512_add_epi32(lanes.used, bits);
    let need = _mm512_cmpge_epu32_mask(used, _mm512_set1_epi32(32));
    lanes.lo = _mm512_mask_mov_epi32(lanes.lo, need, lanes.hi);
    lanes.hi = _mm512_mask_expand_epi32(lanes.hi, need, words);
    lanes.used = _mm512_and_si512(used, _mm512_set1_epi32(31));
    need.count_ones() as usize
}

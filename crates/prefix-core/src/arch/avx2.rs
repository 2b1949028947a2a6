//! 8 lanes a vector, four vectors a stream.
#![allow(unsafe_code)]

use core::arch::x86_64::*;

use super::{InstructionSet, Isa};
use crate::decoder::Run;
use crate::{DecodeTable, LANES};

/// Lanes of a vector.
const WIDE: usize = 8;
/// Vectors of a stream.
const PARTS: usize = LANES / WIDE;

/// The word that each of 8 lanes takes, if the set bits of the index are the lanes that take one.
static TAKEN: [[u8; WIDE]; 256] = {
    let mut all = [[0; WIDE]; 256];
    let mut need = 0;
    while need < 256 {
        let (mut lane, mut next) = (0, 0);
        while lane < WIDE {
            all[need][lane] = next;
            next += (need >> lane & 1) as u8;
            lane += 1;
        }
        need += 1;
    }
    all
};

/// See the contract of `Run::steps`.
pub(crate) fn steps(isa: Isa, table: &DecodeTable, run: &mut Run<'_>) {
    assert_eq!(isa.set(), InstructionSet::Avx2);
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe { turns(table, run) }
}

/// 8 lanes.
#[derive(Clone, Copy)]
struct Lanes {
    lo: __m256i,
    hi: __m256i,
    used: __m256i,
}

#[target_feature(enable = "avx2,popcnt")]
fn turns(table: &DecodeTable, run: &mut Run<'_>) {
    // SAFETY: there are 32 of each
    let load =
        |v: &[u32; LANES], part: usize| unsafe { _mm256_loadu_si256(v.as_ptr().add(WIDE * part).cast()) };
    let mut lanes = [0, 1, 2, 3].map(|part| Lanes {
        lo: load(&run.lo, part),
        hi: load(&run.hi, part),
        used: load(&run.used, part),
    });
    while run.enough()
        && let Some((turn, out)) = run.next()
    {
        let width = turn.width;
        let mut words: &[[u8; 4]] = &run.words[run.taken..][..LANES];
        let zero = _mm256_setzero_si256();
        let (mut first, mut second) = ([zero; PARTS], [zero; PARTS]);
        for (part, lanes) in lanes.iter_mut().enumerate() {
            let active = active(width, part);
            let window = window(lanes);
            first[part] = look_up(table, window, active);
            let mut bits = length(first[part]);
            if turn.two {
                second[part] = look_up(table, _mm256_srlv_epi32(window, bits), active);
                bits = _mm256_add_epi32(bits, length(second[part]));
            }
            let taken = refill(lanes, bits, words);
            run.taken += taken;
            words = &words[taken..];
        }
        store(&mut out[..width], first);
        if turn.two {
            store(&mut out[width..], second);
        }
    }
    // SAFETY: there are 32 of each
    let save = |v: &mut [u32; LANES], part: usize, x| unsafe {
        _mm256_storeu_si256(v.as_mut_ptr().add(WIDE * part).cast(), x)
    };
    for (part, lanes) in lanes.into_iter().enumerate() {
        save(&mut run.lo, part, lanes.lo);
        save(&mut run.hi, part, lanes.hi);
        save(&mut run.used, part, lanes.used);
    }
}

/// All ones in the lanes of a part that code symbols.
#[inline]
#[target_feature(enable = "avx2")]
fn active(width: usize, part: usize) -> __m256i {
    let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(width as i32 - (WIDE * part) as i32), lane)
}

/// The next 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn window(lanes: &Lanes) -> __m256i {
    // a shift by 32 gives 0
    let left = _mm256_sub_epi32(_mm256_set1_epi32(32), lanes.used);
    _mm256_or_si256(_mm256_srlv_epi32(lanes.lo, lanes.used), _mm256_sllv_epi32(lanes.hi, left))
}

/// The entries of the windows of active lanes; 0 for others.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up(table: &DecodeTable, window: __m256i, active: __m256i) -> __m256i {
    let index = _mm256_and_si256(window, _mm256_set1_epi32(0xfff));
    // SAFETY: 4 bytes may be read at the place of each of the 4,096 entries of 2 bytes: there is one more behind them
    unsafe {
        _mm256_mask_i32gather_epi32::<2>(_mm256_setzero_si256(), table.0.as_ptr().cast(), index, active)
    }
}

/// The lengths of codes.
#[inline]
#[target_feature(enable = "avx2")]
fn length(entry: __m256i) -> __m256i {
    _mm256_and_si256(entry, _mm256_set1_epi32(0xff))
}

/// Writes the symbols of the first lanes, as many as there is room for.
#[inline]
#[target_feature(enable = "avx2")]
fn store(out: &mut [u8], entries: [__m256i; PARTS]) {
    let symbol = |entry| _mm256_and_si256(_mm256_srli_epi32::<8>(entry), _mm256_set1_epi32(0xff));
    let [a, b, c, d] = entries.map(symbol);
    let symbols = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
    let symbols = _mm256_permutevar8x32_epi32(symbols, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    let mut bytes = [0; LANES];
    // SAFETY: there are 32 bytes
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), symbols) };
    match out.first_chunk_mut() {
        Some(out) => *out = bytes,
        None => out.copy_from_slice(&bytes[..out.len()]),
    }
}

/// Uses bits of each lane; those that then need a word take one, in lane order. Returns how many were taken.
#[inline]
#[target_feature(enable = "avx2,popcnt")]
fn refill(lanes: &mut Lanes, bits: __m256i, words: &[[u8; 4]]) -> usize {
    let words = &words[..WIDE];
    // SAFETY: 8 words are there
    let words = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
    let used = _mm256_add_epi32(lanes.used, bits);
    let need = _mm256_cmpgt_epi32(used, _mm256_set1_epi32(31));
    let mask = _mm256_movemask_ps(_mm256_castsi256_ps(need)) as usize & 0xff;
    // SAFETY: 8 bytes are there
    let taken = unsafe { _mm_loadl_epi64(TAKEN[mask].as_ptr().cast()) };
    let words = _mm256_permutevar8x32_epi32(words, _mm256_cvtepu8_epi32(taken));
    lanes.lo = _mm256_blendv_epi8(lanes.lo, lanes.hi, need);
    lanes.hi = _mm256_blendv_epi8(lanes.hi, words, need);
    lanes.used = _mm256_and_si256(used, _mm256_set1_epi32(31));
    mask.count_ones() as usize
}

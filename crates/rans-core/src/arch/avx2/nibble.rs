//! The `nibble` codec, 32 lanes a vector.
//!
//! A slot's entry (its symbol and a correction, see `nibble::DecodeTable`) is looked up by 16 `vpshufb`, or by 8 where
//! frequencies are even. They leave a byte 0 where the index is negative, so four tables of 16, each given as its
//! difference to the one before, are joined by exclusive or: the index of table k is the slot less 16 k. Blends choose
//! among the results.
#![allow(unsafe_code)]

use core::arch::x86_64::*;

use crate::arch::planes::{self, Plane};
use crate::arch::refill;
use crate::nibble::{DecodeTable, GROUP, Steps};
use crate::{InstructionSet, Isa};

/// How far ahead the stream is fetched: load addresses depend on decoded data, which stops the hardware's prefetch.
const AHEAD: usize = 2048;

/// See the contract in `nibble::decoder`.
pub(crate) fn decode(isa: Isa, steps: &mut Steps<'_>) -> usize {
    assert_eq!(isa.set(), InstructionSet::Avx2);
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe { if steps.table.even { run::<true>(steps) } else { run::<false>(steps) } }
}

/// `EVEN`: all frequencies are even.
#[target_feature(enable = "avx2,popcnt,bmi2")]
fn run<const EVEN: bool>(steps: &mut Steps<'_>) -> usize {
    let tables = Tables::new(steps.table);
    planes::decode(steps, |lo, hi, stream, out| step::<EVEN>(&tables, lo, hi, stream, out))
}

/// What is looked up.
struct Tables {
    /// The entries, 16 slots each, in both halves; all but every fourth as the difference to the one before.
    slot: [__m256i; 16],
    /// Frequencies by symbol, in both halves.
    freq: __m256i,
}

impl Tables {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(table: &DecodeTable) -> Self {
        let twice = |bytes: &[u8; 16]| {
            // SAFETY: 16 bytes are there; the load need not be aligned
            unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast())) }
        };
        let mut slot = [_mm256_setzero_si256(); 16];
        let mut before = _mm256_setzero_si256();
        for (k, bytes) in table.slot.as_chunks::<16>().0.iter().enumerate() {
            let own = twice(bytes);
            slot[k] = if k % 4 == 0 { own } else { _mm256_xor_si256(own, before) };
            before = own;
        }
        Self { slot, freq: twice(&table.freq.map(|f| f as u8)) }
    }

    /// Looks 32 slots up in the table.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn look_up<const EVEN: bool>(&self, slots: __m256i) -> __m256i {
        let first = _mm256_and_si256(slots, _mm256_set1_epi8(0x3f));
        let second = _mm256_sub_epi8(first, _mm256_set1_epi8(16));
        let third = _mm256_sub_epi8(first, _mm256_set1_epi8(32));
        let fourth = _mm256_sub_epi8(first, _mm256_set1_epi8(48));
        let quarter = |q: usize| {
            let a = _mm256_shuffle_epi8(self.slot[4 * q], first);
            let b = _mm256_shuffle_epi8(self.slot[4 * q + 1], second);
            let c = _mm256_shuffle_epi8(self.slot[4 * q + 2], third);
            let d = _mm256_shuffle_epi8(self.slot[4 * q + 3], fourth);
            _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d))
        };
        let sixth_bit = _mm256_add_epi8(slots, slots); // where a blend looks for it
        let below = _mm256_blendv_epi8(quarter(0), quarter(1), sixth_bit);
        if EVEN {
            return below;
        }
        let above = _mm256_blendv_epi8(quarter(2), quarter(3), sixth_bit);
        _mm256_blendv_epi8(below, above, slots)
    }
}

/// Decodes a symbol of each of the 64 lanes of a group; returns how many bytes of the stream were taken.
#[inline]
#[target_feature(enable = "avx2,popcnt,bmi2")]
fn step<const EVEN: bool>(
    t: &Tables,
    lo: &mut Plane,
    hi: &mut Plane,
    stream: &[u8; GROUP],
    out: &mut [u8; GROUP],
) -> usize {
    // a line for every group is as much as it can take; a prefetch of any address is harmless
    _mm_prefetch::<_MM_HINT_T0>(stream.as_ptr().wrapping_add(AHEAD).cast());
    let mut taken = 0;
    for half in [0, 32] {
        // SAFETY: the planes are aligned and have 64 bytes, as have stream and out; the lanes before these 32, and then
        // the 16 before the other 16, took at most a byte each
        unsafe {
            let (lo, hi) = (lo.0.as_mut_ptr().add(half).cast(), hi.0.as_mut_ptr().add(half).cast());
            let (x_lo, x_hi, symbols) = product::<EVEN>(t, _mm256_load_si256(lo), _mm256_load_si256(hi));
            _mm256_storeu_si256(out.as_mut_ptr().add(half).cast(), symbols);
            // lanes below 256 take the next bytes of the stream, in lane order
            let need = _mm256_cmpeq_epi8(x_hi, _mm256_setzero_si256());
            let mask = _mm256_movemask_epi8(need) as u32;
            let byte = |k: u32| (mask >> (8 * k) & 0xff) as usize;
            let controls = |of: &[refill::Control; 256], k| {
                let at = |k| _mm_load_si128(of[byte(k)].0.as_ptr().cast());
                _mm256_set_m128i(at(k + 2), at(k))
            };
            let control = _mm256_add_epi8(controls(&refill::LOW, 0), controls(&refill::HIGH, 1));
            let load = |at| _mm_loadu_si128(stream.as_ptr().add(at).cast());
            let middle = taken + (mask & 0xffff).count_ones() as usize;
            let refill = _mm256_shuffle_epi8(_mm256_set_m128i(load(middle), load(taken)), control);
            taken += mask.count_ones() as usize;
            _mm256_store_si256(hi, _mm256_or_si256(x_hi, _mm256_and_si256(x_lo, need)));
            _mm256_store_si256(lo, _mm256_or_si256(refill, _mm256_andnot_si256(need, x_lo)));
        }
    }
    taken
}

/// `freq * hi + rank` of 32 lanes, in byte planes, and their symbols.
#[inline]
#[target_feature(enable = "avx2")]
fn product<const EVEN: bool>(t: &Tables, lo: __m256i, hi: __m256i) -> (__m256i, __m256i, __m256i) {
    let zero = _mm256_setzero_si256();
    let entry = t.look_up::<EVEN>(lo);
    let symbols = _mm256_and_si256(entry, _mm256_set1_epi8(15));
    let freq = _mm256_shuffle_epi8(t.freq, symbols);
    // in words: (freq << 8) * x >> 16 is freq * hi + (freq * slot >> 8), from which the correction leads to the rank
    let below = _mm256_sub_epi16(
        _mm256_mulhi_epu16(_mm256_unpacklo_epi8(lo, hi), _mm256_unpacklo_epi8(zero, freq)),
        _mm256_srai_epi16::<12>(_mm256_unpacklo_epi8(zero, entry)),
    );
    let above = _mm256_sub_epi16(
        _mm256_mulhi_epu16(_mm256_unpackhi_epi8(lo, hi), _mm256_unpackhi_epi8(zero, freq)),
        _mm256_srai_epi16::<12>(_mm256_unpackhi_epi8(zero, entry)),
    );
    let low = _mm256_set1_epi16(0xff);
    let x_lo = _mm256_packus_epi16(_mm256_and_si256(below, low), _mm256_and_si256(above, low));
    let x_hi = _mm256_packus_epi16(_mm256_srli_epi16::<8>(below), _mm256_srli_epi16::<8>(above));
    (x_lo, x_hi, symbols)
}

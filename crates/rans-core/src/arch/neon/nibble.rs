//! The `nibble` codec, 16 lanes a vector, the four vectors of a group at once.
//!
//! A slot's entry (its symbol and a correction, see `nibble::DecodeTable`) is looked up by four `tbl` of 64 bytes each,
//! which give 0 for an index beyond them, or by two where frequencies are even. The 64 lanes that may need a byte of the
//! stream become 64 bits in one register, where a multiplication adds up how many come before each 8 lanes.
#![allow(unsafe_code)]

use core::arch::aarch64::*;

use crate::arch::planes::{self, Plane};
use crate::arch::refill;
use crate::nibble::{DecodeTable, GROUP, Steps};
use crate::{InstructionSet, Isa};

/// Lanes of a vector.
const WIDE: usize = 16;
/// Vectors of a group.
const PARTS: usize = GROUP / WIDE;

/// See the contract in `nibble::decoder`.
pub(crate) fn decode(isa: Isa, steps: &mut Steps<'_>) -> usize {
    assert_eq!(isa.set(), InstructionSet::Neon);
    // SAFETY: an `Isa` is the proof that this CPU has the instructions
    unsafe { if steps.table.even { run::<true>(steps) } else { run::<false>(steps) } }
}

/// `EVEN`: all frequencies are even.
#[target_feature(enable = "neon")]
fn run<const EVEN: bool>(steps: &mut Steps<'_>) -> usize {
    let tables = Tables::new(steps.table);
    planes::decode(steps, |lo, hi, stream, out| step::<EVEN>(&tables, lo, hi, stream, out))
}

/// What is looked up.
struct Tables {
    /// The entries, 64 slots each.
    slot: [uint8x16x4_t; 4],
    /// Frequencies by symbol.
    freq: uint8x16_t,
}

impl Tables {
    #[inline]
    #[target_feature(enable = "neon")]
    fn new(table: &DecodeTable) -> Self {
        let freq = table.freq.map(|f| f as u8);
        // SAFETY: 64 and 16 bytes are there
        unsafe {
            Self {
                slot: [0, 64, 128, 192].map(|slot| vld1q_u8_x4(table.slot[slot..].as_ptr())),
                freq: vld1q_u8(freq.as_ptr()),
            }
        }
    }

    /// Looks 16 slots up in the table.
    #[inline]
    #[target_feature(enable = "neon")]
    fn look_up<const EVEN: bool>(&self, slots: uint8x16_t) -> uint8x16_t {
        let slots = if EVEN { vandq_u8(slots, vdupq_n_u8(0x7f)) } else { slots };
        let quarter = |q: u8| vqtbl4q_u8(self.slot[usize::from(q)], vsubq_u8(slots, vdupq_n_u8(64 * q)));
        let below = vorrq_u8(quarter(0), quarter(1));
        if EVEN { below } else { vorrq_u8(below, vorrq_u8(quarter(2), quarter(3))) }
    }
}

/// Decodes a symbol of each of the 64 lanes of a group; returns how many bytes of the stream were taken.
#[inline]
#[target_feature(enable = "neon")]
fn step<const EVEN: bool>(
    t: &Tables,
    lo: &mut Plane,
    hi: &mut Plane,
    stream: &[u8; GROUP],
    out: &mut [u8; GROUP],
) -> usize {
    let zero = vdupq_n_u8(0);
    let (mut x_lo, mut x_hi, mut need) = ([zero; PARTS], [zero; PARTS], [zero; PARTS]);
    for part in 0..PARTS {
        let symbols;
        // SAFETY: all have 64 bytes, and 16 * part + 16 of them are at most as many
        unsafe {
            let (lo, hi) =
                (vld1q_u8(lo.0.as_ptr().add(WIDE * part)), vld1q_u8(hi.0.as_ptr().add(WIDE * part)));
            (x_lo[part], x_hi[part], symbols) = product::<EVEN>(t, lo, hi);
            vst1q_u8(out.as_mut_ptr().add(WIDE * part), symbols);
        }
        // lanes below 256 take the next bytes of the stream, in lane order
        need[part] = vceqzq_u8(x_hi[part]);
    }
    let bits = vcombine_u8(vcreate_u8(LANE_BITS), vcreate_u8(LANE_BITS));
    let [a, b, c, d] = need.map(|need| vandq_u8(need, bits));
    let masks = vpaddq_u8(vpaddq_u8(a, b), vpaddq_u8(c, d));
    let masks = vget_low_u8(vpaddq_u8(masks, masks));
    let counts = vget_lane_u64::<0>(vreinterpret_u64_u8(vcnt_u8(masks)));
    let masks = vget_lane_u64::<0>(vreinterpret_u64_u8(masks));
    // byte k: bytes taken up to the k-th 8 lanes, these included
    let taken = counts.wrapping_mul(0x0101_0101_0101_0101);
    for part in 0..PARTS {
        let mask = (masks >> (WIDE * part)) as u16;
        let first = ((taken << 8) >> (WIDE * part) & 0xff) as usize;
        // SAFETY: the lanes before these 16 took at most a byte each; all have 64 bytes
        unsafe {
            let low = vld1q_u8(refill::LOW[usize::from(mask & 0xff)].0.as_ptr());
            let high = vld1q_u8(refill::HIGH[usize::from(mask >> 8)].0.as_ptr());
            let refill = vqtbl1q_u8(vld1q_u8(stream.as_ptr().add(first)), vaddq_u8(low, high));
            vst1q_u8(hi.0.as_mut_ptr().add(WIDE * part), vbslq_u8(need[part], x_lo[part], x_hi[part]));
            vst1q_u8(lo.0.as_mut_ptr().add(WIDE * part), vbslq_u8(need[part], refill, x_lo[part]));
        }
    }
    (taken >> 56) as usize
}

/// Bit k in byte k.
const LANE_BITS: u64 = 0x8040_2010_0804_0201;

/// `freq * hi + rank` of 16 lanes, in byte planes, and their symbols.
#[inline]
#[target_feature(enable = "neon")]
fn product<const EVEN: bool>(
    t: &Tables,
    lo: uint8x16_t,
    hi: uint8x16_t,
) -> (uint8x16_t, uint8x16_t, uint8x16_t) {
    let entry = t.look_up::<EVEN>(lo);
    let symbols = vandq_u8(entry, vdupq_n_u8(15));
    let freq = vqtbl1q_u8(t.freq, symbols);
    let correction = vreinterpretq_u8_s8(vshrq_n_s8::<4>(vreinterpretq_s8_u8(entry)));
    let bytes = |words| vreinterpretq_u8_u16(words);
    // the rank is freq * slot >> 8, less the correction
    let (below, above) = (vmull_u8(vget_low_u8(freq), vget_low_u8(lo)), vmull_high_u8(freq, lo));
    let rank = vsubq_u8(vuzp2q_u8(bytes(below), bytes(above)), correction);
    let below = vmlal_u8(vmovl_u8(vget_low_u8(rank)), vget_low_u8(freq), vget_low_u8(hi));
    let above = vmlal_high_u8(vmovl_high_u8(rank), freq, hi);
    (vuzp1q_u8(bytes(below), bytes(above)), vuzp2q_u8(bytes(below), bytes(above)), symbols)
}

//! Nibbles and raw planes to codes.

use ecq_format::tile::raw_bytes;
use rans_core::Isa;

use crate::arch;

/// The raw planes of a tile.
#[derive(Clone, Copy)]
pub(crate) struct RawPlanes<'a> {
    pub raw_bits: u32,
    /// Width, place of its lowest bit in the raw bits, and bytes of the planes of 8, 4, 2 and 1 bits; width 0 where there is none.
    pub planes: [(u32, u32, &'a [u8]); 4],
}

impl<'a> RawPlanes<'a> {
    /// Cuts the bytes of the raw planes of `weights` weights. The error says what is wrong.
    pub fn new(raw_bits: u32, weights: usize, mut bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.len() as u64 != raw_bytes(raw_bits, weights as u64) {
            return Err(format!("{} bytes for {raw_bits} raw bits of {weights} weights", bytes.len()));
        }
        let mut planes = [(0, 0, &[][..]); 4];
        let mut shift = 0;
        for (plane, width) in planes.iter_mut().zip([8, 4, 2, 1]).filter(|(_, w)| raw_bits & w != 0) {
            let (filled, rest) = bytes.split_at(raw_bytes(width, weights as u64) as usize);
            let bits = weights * width as usize;
            let over = filled.get(bits / 8).is_some_and(|&b| b >> (bits % 8) != 0);
            if over || filled.iter().skip(bits / 8 + 1).any(|&b| b != 0) {
                return Err("filling other than zero after raw bits".into());
            }
            *plane = (width, shift, filled);
            (shift, bytes) = (shift + width, rest);
        }
        Ok(Self { raw_bits, planes })
    }

    /// The raw bits of a weight.
    fn at(&self, position: usize) -> u32 {
        let field = |&(width, shift, bytes): &(u32, u32, &[u8])| {
            let bit = position * width as usize;
            let byte = bytes.get(bit / 8).copied().unwrap_or(0); // no such plane
            (u32::from(byte) >> (bit % 8) & ((1 << width) - 1)) << shift
        };
        self.planes.iter().map(field).sum()
    }

    fn code(&self, position: usize, nibble: u8) -> i32 {
        let low = self.raw_bits.saturating_sub(1);
        let raw = self.at(position);
        let k = u32::from(nibble) << low | raw & ((1 << low) - 1);
        k as i32 ^ -((raw >> low & 1) as i32)
    }
}

/// Codes (levels less the centre) of the weights of a tile from `first` on; with at most 4 raw bits.
pub(crate) fn join_i8(isa: Isa, planes: &RawPlanes<'_>, first: usize, nibbles: &[u8], out: &mut [i8]) {
    let done = arch::join_i8(isa, planes, first, nibbles, out);
    for (i, (out, &nibble)) in out[done..].iter_mut().zip(&nibbles[done..]).enumerate() {
        *out = planes.code(first + done + i, nibble) as i8;
    }
}

/// The same with at most 11 raw bits.
pub(crate) fn join_i16(isa: Isa, planes: &RawPlanes<'_>, first: usize, nibbles: &[u8], out: &mut [i16]) {
    let done = arch::join_i16(isa, planes, first, nibbles, out);
    for (i, (out, &nibble)) in out[done..].iter_mut().zip(&nibbles[done..]).enumerate() {
        *out = planes.code(first + done + i, nibble) as i16;
    }
}

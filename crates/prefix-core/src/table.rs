//! What coders look up.

use crate::{Lengths, MAX_BITS};

/// In place of a length: the symbol has no code.
const NONE: u8 = u8::MAX;

/// What the encoder looks up: code and length of each symbol.
#[derive(Clone, Debug)]
pub struct EncodeTable {
    code: [u16; 256],
    bits: [u8; 256],
}

impl EncodeTable {
    /// The table of this code.
    pub fn new(lengths: &Lengths) -> Self {
        let mut table = Self { code: [0; 256], bits: [NONE; 256] };
        for (symbol, code, bits) in lengths.codes() {
            table.code[usize::from(symbol)] = code;
            table.bits[usize::from(symbol)] = bits as u8;
        }
        table
    }

    /// A symbol's code, its first bit lowest, and its length.
    #[inline]
    pub(crate) fn get(&self, symbol: u8) -> Option<(u64, u32)> {
        let bits = self.bits[usize::from(symbol)];
        (bits != NONE).then(|| (u64::from(self.code[usize::from(symbol)]), u32::from(bits)))
    }
}

/// Windows of a table.
const WINDOWS: usize = 1 << MAX_BITS;

/// What the decoder looks up, 8 KiB: for each window of 12 bits (the first bit lowest) the symbol whose code it begins
/// with, and the length of that code.
#[derive(Clone, Debug)]
pub struct DecodeTable(
    /// `symbol << 8 | length`, and one that is not used: vectors read 4 bytes at the place of each entry.
    pub(crate) [u16; WINDOWS + 1],
);

impl DecodeTable {
    /// A table to be filled by [`Self::rebuild`]: for a `static`, where 8 KiB are too much for the stack.
    pub const EMPTY: Self = Self([0; WINDOWS + 1]);

    /// The table of this code.
    pub fn new(lengths: &Lengths) -> Self {
        let mut table = Self::EMPTY;
        table.rebuild(lengths);
        table
    }

    /// Fills the table for this code.
    pub fn rebuild(&mut self, lengths: &Lengths) {
        for (symbol, code, bits) in lengths.codes() {
            for entry in self.0[..WINDOWS].iter_mut().skip(usize::from(code)).step_by(1 << bits) {
                *entry = u16::from(symbol) << 8 | bits as u16;
            }
        }
    }

    /// Symbol and length of all 4,096 windows of 12 bits (the first bit lowest), ascending.
    pub fn entries(&self) -> impl Iterator<Item = (u8, u32)> {
        self.0[..WINDOWS].iter().map(|&entry| ((entry >> 8) as u8, u32::from(entry & 0xff)))
    }

    /// Decodes the code that a window begins with: the symbol and the length of its code.
    #[inline(always)]
    pub(crate) fn get(&self, window: u64) -> (u8, u32) {
        let entry = self.0[window as usize % WINDOWS];
        ((entry >> 8) as u8, u32::from(entry & 0xff))
    }
}

//! GGUF's simple block formats, and plain floats.
//!
//! A block is 32 weights of one row: one or two half-precision parameters, then the codes.
//!
//! | type | bytes | parameters | codes | weight |
//! |---|---|---|---|---|
//! | Q4_0 | 18 | d | 16 bytes: weight j in the low half of byte j, weight j + 16 in the high half | d (q - 8) |
//! | Q4_1 | 20 | d, m | as Q4_0 | d q + m |
//! | Q8_0 | 34 | d | 32 signed bytes | d q |
//!
//! *Levels* are the codes as integers, unshifted: 0 to 15 for Q4_0 and Q4_1, -128 to 127 for Q8_0.
//! Levels and parameters together are the whole block, so [`BlockType::pack`] restores it to the bit.

use ecq_quant::values::from_bits;
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::source::SourceType;

/// Weights in a block, of every type here.
const WEIGHTS: usize = 32;

/// Slices whose lengths or values do not belong together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// A slice is not as long as the others call for.
    #[error("{what}: {found} given, expected {expected}")]
    Length {
        /// Which slice, in which unit.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length that would fit.
        expected: usize,
    },
    /// The bytes are no whole number of blocks.
    #[error("{bytes} bytes are no whole number of {block}-byte blocks")]
    PartialBlock {
        /// Bytes given.
        bytes: usize,
        /// Bytes of a block.
        block: usize,
    },
    /// A level that the code cannot hold.
    #[error("level {level} is outside {min} to {max}")]
    Level {
        /// The level.
        level: i32,
        /// Least level of the type.
        min: i32,
        /// Greatest level of the type.
        max: i32,
    },
    /// A parameter the type does not have.
    #[error("parameter {index} of a block with {count}")]
    Parameter {
        /// The parameter asked for.
        index: usize,
        /// Parameters the block has.
        count: usize,
    },
    /// Not a float type.
    #[error("{0} is not a float type that can be read")]
    NotFloat(String),
}

fn check_len(what: &'static str, found: usize, expected: usize) -> Result<(), BlockError> {
    if found == expected { Ok(()) } else { Err(BlockError::Length { what, found, expected }) }
}

/// A block format whose levels and parameters are taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockType {
    /// Scale and 32 four-bit codes around 8.
    Q4_0,
    /// Scale, minimum and 32 four-bit codes.
    Q4_1,
    /// Scale and 32 signed bytes.
    Q8_0,
}

impl BlockType {
    /// The block format of a tensor type, if it is one.
    pub fn from_source(dtype: &SourceType) -> Option<Self> {
        match dtype {
            SourceType::Q4_0 => Some(Self::Q4_0),
            SourceType::Q4_1 => Some(Self::Q4_1),
            SourceType::Q8_0 => Some(Self::Q8_0),
            _ => None,
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q8_0 => 34,
        }
    }

    /// Weights in a block.
    pub const fn weights(self) -> usize {
        WEIGHTS
    }

    /// Half-precision parameters of a block: the scale, then the minimum where there is one.
    pub const fn params(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q8_0 => 1,
            Self::Q4_1 => 2,
        }
    }

    /// Least and greatest level.
    pub const fn level_range(self) -> (i32, i32) {
        match self {
            Self::Q4_0 | Self::Q4_1 => (0, 15),
            Self::Q8_0 => (-128, 127),
        }
    }

    fn block_count(self, blocks: &[u8]) -> Result<usize, BlockError> {
        let block = self.bytes();
        if !blocks.len().is_multiple_of(block) {
            return Err(BlockError::PartialBlock { bytes: blocks.len(), block });
        }
        Ok(blocks.len() / block)
    }

    /// The parameters and the codes of one block.
    fn split(self, block: &[u8]) -> ([u16; 2], &[u8]) {
        let (head, codes) = block.split_at(2 * self.params());
        let mut params = [0; 2];
        for (param, bytes) in params.iter_mut().zip(head.chunks_exact(2)) {
            *param = u16::from_le_bytes([bytes[0], bytes[1]]);
        }
        (params, codes)
    }

    /// Writes the levels of `blocks` to `out`, 32 for each block.
    ///
    /// # Errors
    /// When `blocks` is no whole number of blocks or `out` is not 32 times as many.
    pub fn levels(self, blocks: &[u8], out: &mut [i32]) -> Result<(), BlockError> {
        check_len("levels", out.len(), self.block_count(blocks)? * WEIGHTS)?;
        for (block, out) in blocks.chunks_exact(self.bytes()).zip(out.chunks_exact_mut(WEIGHTS)) {
            self.block_levels(&block[2 * self.params()..], out);
        }
        Ok(())
    }

    fn block_levels(self, codes: &[u8], out: &mut [i32]) {
        match self {
            Self::Q4_0 | Self::Q4_1 => {
                let (low, high) = out.split_at_mut(WEIGHTS / 2);
                for ((&code, low), high) in codes.iter().zip(low).zip(high) {
                    *low = i32::from(code & 15);
                    *high = i32::from(code >> 4);
                }
            }
            Self::Q8_0 => {
                for (&code, out) in codes.iter().zip(out) {
                    *out = i32::from(code as i8);
                }
            }
        }
    }

    /// Appends the bits of each block's parameter `index` (0 the scale, 1 the minimum) to `out`, in order.
    ///
    /// # Errors
    /// When `blocks` is no whole number of blocks or the type has no such parameter.
    pub fn params_of(self, blocks: &[u8], index: usize, out: &mut Vec<u16>) -> Result<(), BlockError> {
        self.block_count(blocks)?;
        if index >= self.params() {
            return Err(BlockError::Parameter { index, count: self.params() });
        }
        out.extend(blocks.chunks_exact(self.bytes()).map(|block| self.split(block).0[index]));
        Ok(())
    }

    /// Rebuilds blocks from levels (32 for each block) and parameters (one slice for each, one value a block).
    ///
    /// # Errors
    /// When a length does not fit `out`, or a level does not fit the code; `out` is then unspecified.
    pub fn pack(self, levels: &[i32], params: &[&[u16]], out: &mut [u8]) -> Result<(), BlockError> {
        let count = self.block_count(out)?;
        check_len("levels", levels.len(), count * WEIGHTS)?;
        check_len("parameter slices", params.len(), self.params())?;
        for values in params {
            check_len("values of a parameter", values.len(), count)?;
        }
        let (min, max) = self.level_range();
        if let Some(&level) = levels.iter().find(|level| !(min..=max).contains(level)) {
            return Err(BlockError::Level { level, min, max });
        }
        let blocks = out.chunks_exact_mut(self.bytes()).zip(levels.chunks_exact(WEIGHTS));
        for (i, (block, levels)) in blocks.enumerate() {
            let (head, codes) = block.split_at_mut(2 * params.len());
            for (bytes, values) in head.chunks_exact_mut(2).zip(params) {
                bytes.copy_from_slice(&values[i].to_le_bytes());
            }
            self.pack_codes(levels, codes);
        }
        Ok(())
    }

    fn pack_codes(self, levels: &[i32], codes: &mut [u8]) {
        match self {
            Self::Q4_0 | Self::Q4_1 => {
                let (low, high) = levels.split_at(WEIGHTS / 2);
                for ((code, &low), &high) in codes.iter_mut().zip(low).zip(high) {
                    *code = low as u8 | (high as u8) << 4;
                }
            }
            Self::Q8_0 => {
                for (code, &level) in codes.iter_mut().zip(levels) {
                    *code = level as u8;
                }
            }
        }
    }

    /// The weights of `blocks`, by ggml's arithmetic in single precision: product and sum rounded apart.
    ///
    /// # Errors
    /// When `blocks` is no whole number of blocks or `out` is not 32 times as many.
    pub fn dequantize(self, blocks: &[u8], out: &mut [f32]) -> Result<(), BlockError> {
        check_len("weights", out.len(), self.block_count(blocks)? * WEIGHTS)?;
        let mut levels = [0; WEIGHTS];
        for (block, out) in blocks.chunks_exact(self.bytes()).zip(out.chunks_exact_mut(WEIGHTS)) {
            let (params, codes) = self.split(block);
            let [d, m] = params.map(|bits| f16::from_bits(bits).to_f32());
            self.block_levels(codes, &mut levels);
            for (out, &level) in out.iter_mut().zip(&levels) {
                *out = match self {
                    Self::Q4_0 => (level - 8) as f32 * d,
                    Self::Q4_1 => level as f32 * d + m,
                    Self::Q8_0 => level as f32 * d,
                };
            }
        }
        Ok(())
    }
}

/// Reads little-endian F32, F16, BF16 or 8-bit float values, exactly.
///
/// # Errors
/// When the type is another, or `bytes` does not hold `out.len()` values.
pub fn to_f32(dtype: &SourceType, bytes: &[u8], out: &mut [f32]) -> Result<(), BlockError> {
    let size = dtype.float_bytes().ok_or_else(|| BlockError::NotFloat(dtype.name().to_owned()))?;
    check_len("bytes of values", bytes.len(), out.len().saturating_mul(size))?;
    match dtype {
        SourceType::F32 => {
            for (bytes, out) in bytes.chunks_exact(4).zip(out) {
                *out = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
        SourceType::BF16 => {
            for (bytes, out) in bytes.chunks_exact(2).zip(out) {
                *out = f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16);
            }
        }
        SourceType::F16 => f16_to_f32(bytes, out),
        other => {
            let format =
                other.pattern_format().ok_or_else(|| BlockError::NotFloat(other.name().to_owned()))?;
            out.iter_mut().zip(bytes).for_each(|(out, &b)| *out = from_bits(format, b.into()));
        }
    }
    Ok(())
}

/// Half precision through an aligned buffer, for which the processor's own conversion can be used.
fn f16_to_f32(bytes: &[u8], out: &mut [f32]) {
    const RUN: usize = 1024;
    let mut bits = [0u16; RUN];
    for (bytes, out) in bytes.chunks(2 * RUN).zip(out.chunks_mut(RUN)) {
        let bits = &mut bits[..out.len()];
        for (bits, bytes) in bits.iter_mut().zip(bytes.chunks_exact(2)) {
            *bits = u16::from_le_bytes([bytes[0], bytes[1]]);
        }
        bits.reinterpret_cast::<f16>().convert_to_f32_slice(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [BlockType; 3] = [BlockType::Q4_0, BlockType::Q4_1, BlockType::Q8_0];

    /// Bytes that take every value in every place sooner or later.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect()
    }

    #[test]
    fn any_bytes_survive_taking_apart_and_packing() {
        for kind in ALL {
            let blocks = noise(kind.bytes() * 500);
            let mut levels = vec![0; 500 * kind.weights()];
            kind.levels(&blocks, &mut levels).unwrap();
            let (min, max) = kind.level_range();
            assert_eq!(levels.iter().copied().min(), Some(min));
            assert_eq!(levels.iter().copied().max(), Some(max));
            let params: Vec<Vec<u16>> = (0..kind.params())
                .map(|index| {
                    let mut values = Vec::new();
                    kind.params_of(&blocks, index, &mut values).unwrap();
                    values
                })
                .collect();
            let params: Vec<&[u16]> = params.iter().map(Vec::as_slice).collect();
            let mut packed = vec![0; blocks.len()];
            kind.pack(&levels, &params, &mut packed).unwrap();
            assert_eq!(packed, blocks, "{kind:?}");
        }
    }

    #[test]
    fn blocks_written_by_hand_have_the_weights_of_the_format() {
        let d = f16::from_f32(0.5).to_bits().to_le_bytes();
        let m = f16::from_f32(-2.0).to_bits().to_le_bytes();
        let mut out = [0.0; 32];

        let mut block = [&d[..], &[0x88; 16]].concat();
        block[2] = 0xf1; // weight 0 is 1, weight 16 is 15
        BlockType::Q4_0.dequantize(&block, &mut out).unwrap();
        assert_eq!((out[0], out[1], out[16], out[31]), (-3.5, 0.0, 3.5, 0.0));

        let mut block = [&d[..], &m[..], &[0x00; 16]].concat();
        block[4 + 3] = 0x4f; // weight 3 is 15, weight 19 is 4
        BlockType::Q4_1.dequantize(&block, &mut out).unwrap();
        assert_eq!((out[0], out[3], out[19]), (-2.0, 5.5, 0.0));

        let mut block = [&d[..], &[0x00; 32]].concat();
        block[2..5].copy_from_slice(&[0x80, 0x7f, 0xff]);
        BlockType::Q8_0.dequantize(&block, &mut out).unwrap();
        assert_eq!(out[..4], [-64.0, 63.5, -0.5, 0.0]);
    }

    #[test]
    fn lengths_and_values_that_do_not_fit_are_errors() {
        for kind in ALL {
            let bytes = kind.bytes();
            let short = vec![0; bytes - 1];
            let partial = BlockError::PartialBlock { bytes: bytes - 1, block: bytes };
            assert_eq!(kind.levels(&short, &mut [0; 32]), Err(partial.clone()));
            assert_eq!(kind.dequantize(&short, &mut [0.0; 32]), Err(partial.clone()));
            assert_eq!(kind.params_of(&short, 0, &mut Vec::new()), Err(partial));
            let mut block = vec![0; bytes];
            assert!(matches!(kind.levels(&block, &mut [0; 31]), Err(BlockError::Length { .. })));
            assert!(matches!(kind.dequantize(&block, &mut [0.0; 64]), Err(BlockError::Length { .. })));
            assert!(kind.params_of(&block, kind.params(), &mut Vec::new()).is_err());
            let params = vec![&[0u16][..]; kind.params()];
            assert!(kind.pack(&[0; 32], &params[1..], &mut block).is_err());
            assert!(kind.pack(&[0; 33], &params, &mut block).is_err());
            let (min, max) = kind.level_range();
            for level in [min - 1, max + 1, i32::MIN, i32::MAX] {
                let mut levels = [0; 32];
                levels[31] = level;
                let error = Err(BlockError::Level { level, min, max });
                assert_eq!(kind.pack(&levels, &params, &mut block), error);
            }
        }
    }

    #[test]
    fn every_half_and_bfloat_reads_as_its_own_value() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        // From an odd address, as a file may have it.
        let shifted = [&[0], &bytes[..]].concat();
        let mut out = vec![0.0; 1 << 16];
        to_f32(&SourceType::F16, &shifted[1..], &mut out).unwrap();
        for (bits, &value) in (0..=u16::MAX).zip(&out) {
            let expected = f16::from_bits(bits).to_f32();
            assert!(value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan());
        }
        to_f32(&SourceType::BF16, &shifted[1..], &mut out).unwrap();
        assert!((0..=u16::MAX).zip(&out).all(|(bits, value)| value.to_bits() == u32::from(bits) << 16));
    }

    #[test]
    fn floats_are_checked_for_type_and_length() {
        let mut out = [0.0; 2];
        to_f32(&SourceType::F32, &[0, 0, 128, 63, 0, 0, 0, 192], &mut out).unwrap();
        assert_eq!(out, [1.0, -2.0]);
        assert!(matches!(to_f32(&SourceType::F32, &[0; 7], &mut out), Err(BlockError::Length { .. })));
        assert!(matches!(to_f32(&SourceType::Q8_0, &[0; 8], &mut out), Err(BlockError::NotFloat(_))));
    }
}

//! GGUF's linear block formats, and plain floats.
//!
//! A block is some weights of one row: their codes, and what turns codes into weights.
//!
//! | type | weights | bytes | codes | weight | groups |
//! |---|---|---|---|---|---|
//! | Q4_0 | 32 | 18 | 4 bits | d (q - 8) | |
//! | Q4_1 | 32 | 20 | 4 bits | d q + m | |
//! | Q5_0 | 32 | 22 | 5 bits | d (q - 16) | |
//! | Q5_1 | 32 | 24 | 5 bits | d q + m | |
//! | Q8_0 | 32 | 34 | 8 bits, signed | d q | |
//! | Q2_K | 256 | 84 | 2 bits | d c q - dmin e | 16 weights with c and e of 4 bits |
//! | Q3_K | 256 | 110 | 3 bits | d (c - 32) (q - 4) | 16 weights with c of 6 bits |
//! | Q4_K | 256 | 144 | 4 bits | d c q - dmin e | 32 weights with c and e of 6 bits |
//! | Q5_K | 256 | 176 | 5 bits | d c q - dmin e | 32 weights with c and e of 6 bits |
//! | Q6_K | 256 | 210 | 6 bits | d (c - 128) (q - 32) | 16 weights with c - 128 of 8 bits, signed |
//!
//! d, m and dmin are half-precision numbers of the block, c and e integers of a group. *Levels* are the codes as integers,
//! unshifted; *planes* are all c, all e, and the bytes of the halves, the high ones of all d first. Levels and planes
//! together are all bits of the blocks, so [`BlockType::pack`] restores any bytes.

mod floats;
mod layout;
#[cfg(test)]
mod tests;

use ecq_format::directory::{Scales, Values};

pub use floats::to_f32;
use layout::{Layout, MOST_WEIGHTS};

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
    /// An integer scale or minimum that a block cannot hold.
    #[error("the integer scale or minimum {value} of a group is above {max}")]
    Integer {
        /// The scale or minimum.
        value: u8,
        /// The greatest of the type.
        max: u8,
    },
    /// A scheme that packs no blocks.
    #[error("scheme '{0}' has no exact source bytes")]
    Scheme(String),
    /// Values or columns are not those of the scheme's blocks.
    #[error(
        "values or {cols} columns are not those of scheme '{scheme}', whose blocks have {weights} weights"
    )]
    Values {
        /// The scheme.
        scheme: &'static str,
        /// Columns of the matrix.
        cols: u64,
        /// Weights in a block.
        weights: usize,
    },
    /// Values or shape are not those of a scheme of packed levels.
    #[error("values, or the {rows} x {cols} weights, are not those of scheme '{scheme}'")]
    Packed {
        /// The scheme.
        scheme: &'static str,
        /// Rows of the matrix.
        rows: u64,
        /// Columns.
        cols: u64,
    },
    /// Not a float type.
    #[error("{0} is not a float type that can be read")]
    NotFloat(String),
}

fn check_len(what: &'static str, found: usize, expected: usize) -> Result<(), BlockError> {
    if found == expected { Ok(()) } else { Err(BlockError::Length { what, found, expected }) }
}

/// A block format whose levels and scales are taken apart.
#[allow(non_camel_case_types, reason = "the names that the formats have")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockType {
    /// Scale and 32 codes of four bits around 8.
    Q4_0,
    /// Scale, minimum and 32 codes of four bits.
    Q4_1,
    /// Scale and 32 codes of five bits around 16.
    Q5_0,
    /// Scale, minimum and 32 codes of five bits.
    Q5_1,
    /// Scale and 32 signed bytes.
    Q8_0,
    /// Scales and minima of 16 weights each, and 256 codes of two bits.
    Q2_K,
    /// Scales of 16 weights each, and 256 codes of three bits around 4.
    Q3_K,
    /// Scales and minima of 32 weights each, and 256 codes of four bits.
    Q4_K,
    /// Scales and minima of 32 weights each, and 256 codes of five bits.
    Q5_K,
    /// Scales of 16 weights each, and 256 codes of six bits around 32.
    Q6_K,
}

impl BlockType {
    /// All block formats.
    pub const ALL: [Self; 10] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    fn layout(self) -> &'static Layout {
        match self {
            Self::Q4_0 => &layout::Q4_0,
            Self::Q4_1 => &layout::Q4_1,
            Self::Q5_0 => &layout::Q5_0,
            Self::Q5_1 => &layout::Q5_1,
            Self::Q8_0 => &layout::Q8_0,
            Self::Q2_K => &layout::Q2_K,
            Self::Q3_K => &layout::Q3_K,
            Self::Q4_K => &layout::Q4_K,
            Self::Q5_K => &layout::Q5_K,
            Self::Q6_K => &layout::Q6_K,
        }
    }

    /// The format's name in GGUF, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        self.layout().name
    }

    /// The name of the scheme in `.ecq` files, such as `gguf-q4_k`.
    pub fn scheme(self) -> &'static str {
        self.layout().scheme
    }

    /// The format that GGUF gives this name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The format whose blocks a scheme of this name packs, if there is one.
    pub fn of_scheme(scheme: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.scheme() == scheme)
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        self.layout().bytes
    }

    /// Weights in a block.
    pub fn weights(self) -> usize {
        self.layout().weights
    }

    /// Least and greatest level.
    pub fn level_range(self) -> (i32, i32) {
        let least = self.layout().least();
        (least, least + i32::from(self.layout().codes.greatest()))
    }

    /// The level in the middle: the first that is not below it. Codes lie about evenly on both sides.
    pub fn center(self) -> i32 {
        let (least, greatest) = self.level_range();
        (least + greatest + 1) / 2
    }

    /// From level to weight.
    pub fn values(self) -> Values {
        let layout = self.layout();
        let (size, min) = (layout.group() as u64, layout.min());
        let scales = match &layout.nested {
            None => Scales::Group { size, min },
            Some(nested) => Scales::Nested { size, supers: layout.groups() as u64, bias: nested.bias, min },
        };
        Values { bias: f64::from(layout.bias), scales, ..Values::ONE }
    }

    /// Bytes that a block has in each of its planes.
    pub fn plane_bytes(self) -> Vec<usize> {
        let layout = self.layout();
        let mut bytes = vec![layout.groups(); layout.integers() / layout.groups()];
        bytes.extend(vec![1; 2 * layout.halves.len()]);
        bytes
    }

    fn block_count(self, blocks: &[u8]) -> Result<usize, BlockError> {
        let block = self.bytes();
        if !blocks.len().is_multiple_of(block) {
            return Err(BlockError::PartialBlock { bytes: blocks.len(), block });
        }
        Ok(blocks.len() / block)
    }

    /// Writes the levels of `blocks` to `out`, [`Self::weights`] for each block.
    ///
    /// # Errors
    /// When `blocks` is no whole number of blocks or `out` does not have the length of their levels.
    pub fn levels(self, blocks: &[u8], out: &mut [i32]) -> Result<(), BlockError> {
        let layout = self.layout();
        check_len("levels", out.len(), self.block_count(blocks)? * layout.weights)?;
        let mut codes = [0; MOST_WEIGHTS];
        let codes = &mut codes[..layout.weights];
        for (block, out) in blocks.chunks_exact(layout.bytes).zip(out.chunks_exact_mut(layout.weights)) {
            layout.codes.read(block, codes);
            out.iter_mut().zip(&*codes).for_each(|(level, &code)| *level = i32::from(code) + layout.least());
        }
        Ok(())
    }

    /// The planes of `blocks`: integer scales and minima, a byte each; then the high bytes of all d, their low bytes, and
    /// both of all m or dmin. Each has [`Self::plane_bytes`] for a block.
    ///
    /// # Errors
    /// When `blocks` is no whole number of blocks.
    pub fn planes(self, blocks: &[u8]) -> Result<Vec<Vec<u8>>, BlockError> {
        let (layout, count) = (self.layout(), self.block_count(blocks)?);
        let mut planes: Vec<Vec<u8>> =
            self.plane_bytes().iter().map(|bytes| Vec::with_capacity(bytes * count)).collect();
        let (of_integers, of_halves) = planes.split_at_mut(layout.integers() / layout.groups());
        let mut integers = vec![0; layout.integers()];
        for block in blocks.chunks_exact(layout.bytes) {
            if let Some(nested) = &layout.nested {
                nested.integers.read(block, &mut integers);
            }
            for (plane, integers) in of_integers.iter_mut().zip(integers.chunks_exact(layout.groups())) {
                plane.extend_from_slice(integers);
            }
            for (index, planes) in of_halves.chunks_exact_mut(2).enumerate() {
                let bytes = layout.half(block, index).to_be_bytes();
                planes.iter_mut().zip(bytes).for_each(|(plane, byte)| plane.push(byte));
            }
        }
        Ok(planes)
    }

    /// Rebuilds blocks from levels and planes, as [`Self::levels`] and [`Self::planes`] give them.
    ///
    /// # Errors
    /// When a length does not fit `out`, or a level or an integer scale does not fit the block; `out` is then unspecified.
    pub fn pack(self, levels: &[i32], planes: &[&[u8]], out: &mut [u8]) -> Result<(), BlockError> {
        let (layout, count) = (self.layout(), self.block_count(out)?);
        check_len("levels", levels.len(), count * layout.weights)?;
        self.check_planes(count, planes.iter().map(|plane| plane.len()))?;
        self.check_levels(levels)?;
        let (of_integers, of_halves) = planes.split_at(layout.integers() / layout.groups());
        let mut integers = vec![0; layout.integers()];
        let mut codes = [0; MOST_WEIGHTS];
        let codes = &mut codes[..layout.weights];
        let blocks = out.chunks_exact_mut(layout.bytes).zip(levels.chunks_exact(layout.weights));
        for (i, (block, levels)) in blocks.enumerate() {
            block.fill(0);
            codes.iter_mut().zip(levels).for_each(|(code, level)| *code = (level - layout.least()) as u8);
            layout.codes.write(codes, block);
            if let Some(nested) = &layout.nested {
                for (integers, plane) in integers.chunks_exact_mut(layout.groups()).zip(of_integers) {
                    integers.copy_from_slice(&plane[i * layout.groups()..(i + 1) * layout.groups()]);
                }
                check_integers(&integers, nested.integers.greatest())?;
                nested.integers.write(&mut integers, block);
            }
            for (&at, halves) in layout.halves.iter().zip(of_halves.chunks_exact(2)) {
                (block[at], block[at + 1]) = (halves[1][i], halves[0][i]);
            }
        }
        Ok(())
    }

    /// Checks that there are all planes of `count` blocks, with these lengths.
    pub(crate) fn check_planes(
        self,
        count: usize,
        lengths: impl ExactSizeIterator<Item = usize>,
    ) -> Result<(), BlockError> {
        let bytes = self.plane_bytes();
        check_len("planes", lengths.len(), bytes.len())?;
        let mut each = lengths.zip(bytes);
        each.try_for_each(|(len, bytes)| check_len("bytes of a plane", len, count.saturating_mul(bytes)))
    }

    fn check_levels(self, levels: &[i32]) -> Result<(), BlockError> {
        let (min, max) = self.level_range();
        // codes have all values of their bits, so what all bits together are within, each is
        let bits = levels.iter().fold(0, |bits, level| bits | level.wrapping_sub(min) as u32);
        if bits <= (max - min) as u32 {
            return Ok(());
        }
        let level = levels.iter().copied().find(|level| !(min..=max).contains(level)).unwrap_or(min);
        Err(BlockError::Level { level, min, max })
    }

    /// The weights of `blocks`, by ggml's arithmetic in single precision: each product and sum is rounded.
    ///
    /// # Errors
    /// When `blocks` is no whole number of blocks or `out` does not have the length of their weights.
    pub fn dequantize(self, blocks: &[u8], out: &mut [f32]) -> Result<(), BlockError> {
        let layout = self.layout();
        check_len("weights", out.len(), self.block_count(blocks)? * layout.weights)?;
        let (group, least) = (layout.group(), layout.least() + layout.bias);
        let value = |code: u8| (i32::from(code) + least) as f32;
        let mut codes = [0; MOST_WEIGHTS];
        let codes = &mut codes[..layout.weights];
        for (block, out) in blocks.chunks_exact(layout.bytes).zip(out.chunks_exact_mut(layout.weights)) {
            layout.codes.read(block, codes);
            layout.scales(block, |g, s, m| {
                let group = g * group..(g + 1) * group;
                let weights = out[group.clone()].iter_mut().zip(&codes[group]);
                // without a minimum nothing is added: negative zero stays what it is
                if layout.min() {
                    weights.for_each(|(w, &code)| *w = s * value(code) + m);
                } else {
                    weights.for_each(|(w, &code)| *w = s * value(code));
                }
            });
        }
        Ok(())
    }
}

fn check_integers(integers: &[u8], max: u8) -> Result<(), BlockError> {
    match integers.iter().find(|&&value| value > max) {
        Some(&value) => Err(BlockError::Integer { value, max }),
        None => Ok(()),
    }
}

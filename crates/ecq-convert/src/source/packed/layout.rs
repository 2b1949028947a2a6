//! Where the levels of packed tensors are: from bytes to levels, and back.
//!
//! | layout | main tensor | order |
//! |---|---|---|
//! | MLX | U32 \[out, in·bits/32\] | levels along a row, lowest bits of a word first |
//! | GPTQ | I32 \[in/8, out\] | eight neighbouring inputs of an output, lowest bits first |
//! | AWQ | I32 \[in, out/8\] | eight neighbouring outputs of an input, in the order 0, 2, 4, 6, 1, 3, 5, 7 |
//! | NF4 | U8 \[n/2, 1\] | levels along the flattened matrix, high half of a byte first |
//!
//! Levels are of the matrix \[out, in\] in all of them.

use std::ops::Range;

use crate::blocks::BlockError;

/// Output, of the eight in a word of AWQ, that the nibble at this place belongs to.
pub(super) const AWQ_ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Nibbles in a word.
pub(super) const NIBBLES: usize = 8;

/// Most bytes of a tensor that is put together in memory as a whole: more than any has.
const MOST_WHOLE: u64 = 1 << 32;

/// How a tool packs levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// MLX, 4 bits.
    Mlx4,
    /// MLX, 8 bits.
    Mlx8,
    /// GPTQ, 4 bits.
    Gptq4,
    /// AWQ, 4 bits, version "gemm".
    Awq4,
    /// bitsandbytes' NF4.
    Nf4,
}

const ALL: [(Layout, &str); 5] = [
    (Layout::Mlx4, "mlx-4"),
    (Layout::Mlx8, "mlx-8"),
    (Layout::Gptq4, "gptq-4"),
    (Layout::Awq4, "awq-4"),
    (Layout::Nf4, "nf4"),
];

/// The words of some rows of a transposed tensor: `count` runs of `words` neighbouring words, `stride` words apart.
struct Band {
    count: usize,
    first: usize,
    words: usize,
    stride: usize,
}

impl Band {
    /// Ranges of bytes of its runs in the whole tensor.
    fn runs(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        (0..self.count).map(|k| {
            let at = 4 * (k * self.stride + self.first);
            at..at + 4 * self.words
        })
    }
}

impl Layout {
    /// The scheme's name in files.
    pub fn scheme(self) -> &'static str {
        ALL.iter().find(|l| l.0 == self).map_or("", |l| l.1)
    }

    /// The layout that a scheme of this name restores.
    pub fn of_scheme(name: &str) -> Option<Self> {
        ALL.iter().find(|l| l.1 == name).map(|l| l.0)
    }

    /// Bits of a level.
    pub const fn bits(self) -> usize {
        if matches!(self, Self::Mlx8) { 8 } else { 4 }
    }

    /// The highest level; 0 is the lowest.
    pub const fn highest(self) -> i32 {
        (1 << self.bits()) - 1
    }

    /// Whether rows of the matrix are columns of the main tensor, so that bytes can only be written when all are known.
    pub const fn transposed(self) -> bool {
        matches!(self, Self::Gptq4 | Self::Awq4)
    }

    /// Whether rows begin and end at whole words, and memory holds what must be held as a whole.
    pub fn fits(self, rows: u64, cols: u64) -> bool {
        let most = if self.transposed() { MOST_WHOLE } else { u64::MAX };
        let words = match self {
            Self::Mlx4 => cols.is_multiple_of(8),
            Self::Mlx8 => cols.is_multiple_of(4),
            // zero points are packed along the outputs
            Self::Gptq4 => cols.is_multiple_of(8) && rows.is_multiple_of(8),
            Self::Awq4 => rows.is_multiple_of(8),
            Self::Nf4 => cols.is_multiple_of(2),
        };
        words && self.bytes(rows, cols).is_some_and(|bytes| bytes <= most)
    }

    /// Bytes of the main tensor; `None` on overflow.
    pub fn bytes(self, rows: u64, cols: u64) -> Option<u64> {
        Some(rows.checked_mul(cols)?.checked_mul(self.bits() as u64)? / 8)
    }

    fn band(self, (all, cols): (usize, usize), rows: &Range<usize>) -> Band {
        if self == Self::Gptq4 {
            return Band { count: cols / NIBBLES, first: rows.start, words: rows.len(), stride: all };
        }
        let first = rows.start / NIBBLES;
        Band { count: cols, first, words: rows.end.div_ceil(NIBBLES) - first, stride: all / NIBBLES }
    }

    /// Levels of some rows of a matrix of this shape, row by row.
    ///
    /// # Panics
    /// When `bytes` are not all bytes of a matrix that [`Self::fits`], or `out` is not as long as the rows.
    pub fn levels(self, bytes: &[u8], shape: (usize, usize), rows: Range<usize>, out: &mut [i32]) {
        let cols = shape.1;
        if !self.transposed() {
            let row = cols * self.bits() / 8;
            let bytes = &bytes[rows.start * row..rows.end * row];
            if self == Self::Mlx8 {
                return out.iter_mut().zip(bytes).for_each(|(q, &b)| *q = b.into());
            }
            let high_first = self == Self::Nf4;
            for (pair, &b) in out.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
                let (low, high) = (i32::from(b & 15), i32::from(b >> 4));
                *pair = if high_first { [high, low] } else { [low, high] };
            }
            return;
        }
        let band = self.band(shape, &rows);
        for (k, run) in band.runs().enumerate() {
            for (j, word) in bytes[run].as_chunks().0.iter().enumerate() {
                let word = u32::from_le_bytes(*word);
                let level = |place: usize| (word >> (4 * place) & 15) as i32;
                if self == Self::Gptq4 {
                    let out = &mut out[j * cols + NIBBLES * k..][..NIBBLES];
                    out.iter_mut().enumerate().for_each(|(place, q)| *q = level(place));
                } else {
                    for (place, of_word) in AWQ_ORDER.iter().enumerate() {
                        let row = NIBBLES * (band.first + j) + of_word;
                        if rows.contains(&row) {
                            out[(row - rows.start) * cols + k] = level(place);
                        }
                    }
                }
            }
        }
    }

    /// Packs levels of whole rows over `out`: the bytes of the rows; of a transposed tensor what [`Self::place`] takes.
    ///
    /// # Errors
    /// [`BlockError::Level`].
    pub fn pack(
        self,
        shape: (usize, usize),
        rows: Range<usize>,
        levels: &[i32],
        out: &mut Vec<u8>,
    ) -> Result<(), BlockError> {
        let highest = self.highest();
        if let Some(&level) = levels.iter().find(|&&q| !(0..=highest).contains(&q)) {
            return Err(BlockError::Level { level, min: 0, max: highest });
        }
        out.clear();
        match self {
            Self::Mlx8 => out.extend(levels.iter().map(|&q| q as u8)),
            Self::Mlx4 => out.extend(levels.as_chunks().0.iter().map(|&[a, b]| (a | b << 4) as u8)),
            Self::Nf4 => out.extend(levels.as_chunks().0.iter().map(|&[a, b]| (a << 4 | b) as u8)),
            Self::Gptq4 | Self::Awq4 => self.pack_band(shape, &rows, levels, out),
        }
        Ok(())
    }

    fn pack_band(self, shape: (usize, usize), rows: &Range<usize>, levels: &[i32], out: &mut Vec<u8>) {
        let (cols, band) = (shape.1, self.band(shape, rows));
        out.reserve(4 * band.count * band.words);
        for k in 0..band.count {
            for j in 0..band.words {
                let level = |place: usize| match self {
                    Self::Gptq4 => levels[j * cols + NIBBLES * k + place],
                    _ => {
                        let row = NIBBLES * (band.first + j) + AWQ_ORDER[place];
                        if rows.contains(&row) { levels[(row - rows.start) * cols + k] } else { 0 }
                    }
                };
                let word = (0..NIBBLES).fold(0, |word, place| word | (level(place) as u32) << (4 * place));
                out.extend(word.to_le_bytes());
            }
        }
    }

    /// Puts packed rows of a transposed tensor where they belong in all of its bytes, which are zero at first.
    pub fn place(self, shape: (usize, usize), rows: &Range<usize>, packed: &[u8], whole: &mut [u8]) {
        let band = self.band(shape, rows);
        for (run, packed) in band.runs().zip(packed.chunks_exact((4 * band.words).max(1))) {
            // rows of two tiles can share a word
            whole[run].iter_mut().zip(packed).for_each(|(w, p)| *w |= p);
        }
    }
}

/// The eight nibbles of a word, lowest first.
pub(super) fn nibbles(word: [u8; 4]) -> [u8; NIBBLES] {
    let word = u32::from_le_bytes(word);
    std::array::from_fn(|place| (word >> (4 * place) & 15) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: (usize, usize) = (24, 16);

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u32;
        let step = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(step).collect()
    }

    #[test]
    fn any_bytes_come_back_from_tiles_of_any_height() {
        for (layout, name) in ALL {
            assert_eq!((Layout::of_scheme(name), layout.scheme()), (Some(layout), name));
            let bytes = noise(layout.bytes(24, 16).unwrap() as usize);
            for height in [1, 5, 8, 24] {
                let mut back = vec![0; if layout.transposed() { bytes.len() } else { 0 }];
                let mut packed = Vec::new();
                for start in (0..24).step_by(height) {
                    let rows = start..24.min(start + height);
                    let mut levels = vec![-1; rows.len() * 16];
                    layout.levels(&bytes, SHAPE, rows.clone(), &mut levels);
                    layout.pack(SHAPE, rows.clone(), &levels, &mut packed).unwrap();
                    match layout.transposed() {
                        true => layout.place(SHAPE, &rows, &packed, &mut back),
                        false => back.extend(&packed),
                    }
                }
                assert_eq!(back, bytes, "{name}, {height} rows");
            }
        }
    }

    #[test]
    fn levels_are_where_the_tools_have_them() {
        let at = |layout: Layout, words: &[u32], row: usize, col: usize| {
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            let mut levels = vec![0; 8 * 16];
            layout.levels(&bytes, (8, 16), 0..8, &mut levels);
            levels[row * 16 + col]
        };
        let mut words = [0; 16];
        words[3] = 0x0000_0500; // of row 1 of MLX, of columns 0 to 7 of GPTQ's output 3, of AWQ's input 3
        assert_eq!(at(Layout::Mlx4, &words, 1, 10), 5);
        assert_eq!(at(Layout::Gptq4, &words, 3, 2), 5);
        assert_eq!(at(Layout::Awq4, &words, 4, 3), 5);
        assert_eq!(at(Layout::Nf4, &words, 1, 11), 5);
        words[3] = 0x00ab_0000;
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut levels = [0; 16];
        Layout::Mlx8.levels(&bytes, (4, 16), 0..1, &mut levels);
        assert_eq!(levels[14], 0xab);
    }

    #[test]
    fn what_must_be_put_together_in_memory_is_bounded() {
        for (layout, _) in ALL {
            assert!(layout.fits(1 << 18, 1 << 14));
            assert_eq!(layout.fits(1 << 20, 1 << 14), !layout.transposed());
            assert!(!layout.fits(!7, 1 << 14));
        }
    }

    #[test]
    fn levels_beyond_their_bits_are_refused() {
        for (layout, _) in ALL {
            for level in [-1, layout.highest() + 1, i32::MIN, i32::MAX] {
                let mut levels = vec![0; 8 * 16];
                levels[77] = level;
                let refused = layout.pack((8, 16), 0..8, &levels, &mut Vec::new());
                assert_eq!(refused, Err(BlockError::Level { level, min: 0, max: layout.highest() }));
            }
        }
    }
}

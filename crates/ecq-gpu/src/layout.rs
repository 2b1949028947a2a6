//! How a tensor lies in GPU memory, as plain words that kernels and their twins read.
//!
//! Rows are in bands of eight. A tile is some whole bands; its columns are in strips, of which each is a stream. For each
//! band of a tile there are its raw bits: for each [`Field`](crate::variant::Field) and column the bits of the band's eight
//! rows, side by side.
//!
//! With the `nibble` codec a tile is some rows in one strip, and what there is of it is as in the file: planes of raw bits
//! by position, and the stream.
//!
//! Scales ([`side`](crate::side)) and escapes ([`escapes`](crate::escapes)) are apart from tiles, in bands of eight rows with
//! every codec.

use std::ops::Range;

use crate::plan::TileSize;
use crate::side::Side;
use crate::variant::{Code, Form, Value};

/// Rows that share each load of x.
pub const BAND: usize = 8;
/// Words that a kernel may read, but not use, after the last stream: all lanes take two words at the start, and one ahead.
pub const PADDING: u64 = 128;

/// Shape of a tensor and how it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Rows of a tile, but for the last; a multiple of eight but with the `nibble` codec.
    pub tile_rows: usize,
    /// Columns of a strip, a multiple of 32, but for the last.
    pub strip: usize,
}

impl Shape {
    /// Number of strips.
    pub fn strips(&self) -> usize {
        self.cols.div_ceil(self.strip)
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.rows.div_ceil(self.tile_rows)
    }

    /// Number of bands.
    pub fn bands(&self) -> usize {
        self.rows.div_ceil(BAND)
    }

    /// Rows of a tile.
    pub fn tile(&self, tile: usize) -> Range<usize> {
        tile * self.tile_rows..self.rows.min((tile + 1) * self.tile_rows)
    }

    /// Columns of a strip.
    pub fn columns(&self, strip: usize) -> Range<usize> {
        strip * self.strip..self.cols.min((strip + 1) * self.strip)
    }
}

/// A weight that its stream does not have, before scales.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Escape {
    /// Row of the matrix.
    pub row: usize,
    /// Column.
    pub col: usize,
    /// Its value.
    pub value: f64,
    /// What the stream has in its place, which is finite.
    pub filler: f64,
}

/// A tile as words.
#[derive(Clone, Debug, Default)]
pub struct Tile {
    /// Raw bits, then streams.
    pub words: Vec<u32>,
    /// Where each stream begins in `words`.
    pub starts: Vec<u32>,
    /// Escapes, by rows, then by columns.
    pub escapes: Vec<Escape>,
}

impl Tile {
    /// Its size.
    pub fn size(&self) -> TileSize {
        TileSize { words: self.words.len() as u64, escapes: self.escapes.len() as u64 }
    }
}

/// What a tensor has beside its tiles.
#[derive(Clone, Debug)]
pub struct Resident {
    /// What kernels it needs.
    pub form: Form,
    /// Its shape.
    pub shape: Shape,
    /// The table: for each symbol its length, or first slot and frequency, then the symbols of the slots; with the `nibble`
    /// codec symbol, rank and frequency of each slot. Then the codebook, if there is one.
    pub codes: Vec<u32>,
    /// Scales.
    pub side: Side,
    /// Factor of everything.
    pub step: f32,
    /// What the value of each level lacks in the table of `prefix` codes.
    pub constant: f32,
    /// Added to each weight.
    pub offset: f32,
}

impl Resident {
    /// What the values that a kernel adds up lack: those of packed weights (`plain`, which
    /// [`Kernel::as_packed`](crate::variant::Kernel::as_packed) tells), or those of streams.
    pub fn constant(&self, plain: bool) -> f32 {
        let sixteens = plain || self.form.code == Code::Rans;
        match self.form.value {
            // nibbles as the mantissas of numbers from 16 on, instead of nibbles less 7.5
            Value::Integer { raw_bits: 0 } if sixteens => self.constant - 23.5,
            _ => self.constant,
        }
    }
}

/// Words of bytes, the last one filled up with zeros.
pub(crate) fn words_of(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.chunks(4).map(|some| some.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte)))
}

//! A tensor held decoded, in plain integers of 4, 8 or 16 bits: more memory, less work a product.

use ecq_format::Result;
use ecq_format::reader::CodedTensor;
use rans_core::Isa;
use rayon::prelude::*;

use crate::activations::{Activations, Precision};
use crate::arch::{Codes, Panel, accumulate};
use crate::scaling::Scaling;
use crate::spread::{Threads, spread};
use crate::{BLOCK, LANES};

/// Rows that one thread takes at a time.
const PIECE: usize = 64;
/// Rows that share each load of x.
const ROWS: usize = 8;
/// Blocks of columns that are multiplied at once, where there is more than one vector.
const BLOCKS: usize = 16;

/// Levels of a tensor less their centre, in rows that are filled up to a multiple of 128 columns.
enum Store {
    /// See [`Codes::Int4`].
    Int4(Vec<u8>),
    Int8 {
        codes: Vec<i8>,
        /// Whether all codes are in -16..16.
        five: bool,
    },
    Int16(Vec<i16>),
}

/// A coded tensor, decoded to plain integers. Products are those of [`Matrix`](crate::Matrix), but for rounding.
pub struct Packed {
    isa: Isa,
    rows: usize,
    scaling: Scaling,
    store: Store,
    /// Row, column and level of what does not fit, in order.
    escapes: Vec<(u32, u32, i32)>,
}

impl Packed {
    /// Decodes a tensor: without raw bits to 4 bits a weight, with up to four of them to 8, with more to 16. Levels that
    /// do not fit are kept aside. Errors: [`Corrupt`](ecq_format::Error::Corrupt);
    /// [`Unsupported`](ecq_format::Error::Unsupported) if the tensor holds floats without loss, if its levels are predicted
    /// or the groups of its columns scattered.
    pub fn new(tensor: &CodedTensor<'_>) -> Result<Self> {
        Self::with_isa(Isa::best(), tensor)
    }

    /// [`Self::new`] for a given instruction set.
    pub fn with_isa(isa: Isa, tensor: &CodedTensor<'_>) -> Result<Self> {
        let (coded, scaling) = (tensor.coded(), Scaling::new(tensor)?);
        if let Some(pattern) = coded.pattern {
            let why = format!("floats ({:?}) have no packed integers", pattern.format);
            return Err(
                tensor.unsupported(format!("{why}; multiply from the coded form, or decode the tensor"))
            );
        }
        if scaling.by_weight() {
            let why = "predicted levels, scattered groups and codebooks far from 1 have no packed integers";
            return Err(
                tensor.unsupported(format!("{why}; multiply from the coded form, or decode the tensor"))
            );
        }
        let (rows, cols) = (coded.rows as usize, coded.cols as usize);
        let pitch = cols.next_multiple_of(2 * BLOCK);
        let mut escapes = Vec::new();
        let store = match coded.raw_bits {
            0 => Store::Int4(fill(tensor, pitch / 2, &mut escapes, 0..16, |row, col, code| {
                let at = col / (2 * BLOCK) * BLOCK + col % BLOCK;
                row[at] |= (code as u8) << (4 * (col / BLOCK % 2));
            })?),
            1..=4 => {
                let range = if coded.raw_bits == 1 { -16..16 } else { -128..128 };
                let codes = fill(tensor, pitch, &mut escapes, range, |row, col, code| row[col] = code as i8)?;
                Store::Int8 { codes, five: coded.raw_bits == 1 }
            }
            _ => {
                let range = -(1 << 15)..1 << 15;
                Store::Int16(fill(tensor, pitch, &mut escapes, range, |row, col, code| {
                    row[col] = code as i16
                })?)
            }
        };
        Ok(Self { isa, rows, scaling, store, escapes })
    }

    /// Number of rows: the length of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns: the length of a vector.
    pub fn cols(&self) -> usize {
        self.scaling.cols
    }

    /// Bits that hold a weight: 4, 8 or 16.
    pub fn bits(&self) -> u32 {
        match self.store {
            Store::Int4(_) => 4,
            Store::Int8 { .. } => 8,
            Store::Int16(_) => 16,
        }
    }

    /// Bytes that it takes but for levels that do not fit; [`memory::packed`](crate::memory::packed) foretells them.
    pub fn memory(&self) -> u64 {
        let codes = match &self.store {
            Store::Int4(codes) => codes.len(),
            Store::Int8 { codes, .. } => codes.len(),
            Store::Int16(codes) => 2 * codes.len(),
        };
        codes as u64 + self.scaling.memory()
    }

    /// See [`Matrix::activations`](crate::Matrix::activations).
    pub fn activations(&self, precision: Precision, x: &[f32]) -> Activations {
        Activations::with_columns(precision, self.scaling.cols, x, &self.scaling.columns)
    }

    /// See [`Matrix::multiply`](crate::Matrix::multiply).
    pub fn multiply(&self, x: &Activations, y: &mut [f32]) {
        self.run(Threads::Pool, x, y);
    }

    /// [`Self::multiply`] on the caller's thread.
    pub fn multiply_serial(&self, x: &Activations, y: &mut [f32]) {
        self.run(Threads::One, x, y);
    }

    fn run(&self, threads: Threads, x: &Activations, y: &mut [f32]) {
        self.scaling.check(x, y);
        let done: std::result::Result<(), std::convert::Infallible> =
            spread(threads, PIECE, x.count(), y, |piece, out| {
                let mut sums = vec![0.0; ROWS * x.count() * LANES];
                for (i, out) in out.chunks_mut(ROWS * x.count()).enumerate() {
                    self.rows_of(piece * PIECE + i * ROWS, x, &mut sums, out);
                }
                Ok(())
            });
        match done {
            Ok(()) => {}
        }
    }

    /// A few rows of a product, from `first` on.
    fn rows_of(&self, first: usize, x: &Activations, sums: &mut [f32], out: &mut [f32]) {
        let count = x.count();
        let rows = out.len() / count;
        let sums = &mut sums[..rows * count * LANES];
        sums.fill(0.0);
        let all = x.padded() / BLOCK;
        let most = if count == 1 { all } else { BLOCKS };
        for block in (0..all).step_by(most) {
            let blocks = most.min(all - block);
            let (codes, pitch) = self.codes(first, block);
            let panel = Panel { codes, pitch, rows, block, blocks, row: first, row_step: 1 };
            accumulate(self.isa, &panel, x, &self.scaling.terms, sums);
        }
        let mut corrections = Vec::new();
        let mut escapes = &self.escapes[self.escapes.partition_point(|e| (e.0 as usize) < first)..];
        for (i, out) in out.chunks_exact_mut(count).enumerate() {
            let row = first + i;
            corrections.clear();
            while let Some((&(_, col, level), rest)) =
                escapes.split_first().filter(|(e, _)| e.0 as usize == row)
            {
                corrections.resize(count, 0.0);
                self.scaling.add_escape(row, col as usize, level, x, &mut corrections);
                escapes = rest;
            }
            self.scaling.finish(row, x, &sums[i * count * LANES..][..count * LANES], &corrections, out);
        }
    }

    /// Codes from a row and block on, and elements from row to row.
    fn codes(&self, row: usize, block: usize) -> (Codes<'_>, usize) {
        let pitch = self.scaling.cols.next_multiple_of(2 * BLOCK);
        let at = row * pitch + block * BLOCK;
        match &self.store {
            Store::Int4(codes) => (Codes::Int4(&codes[at / 2..]), pitch / 2),
            Store::Int8 { codes, five: true } => (Codes::I5(&codes[at..]), pitch),
            Store::Int8 { codes, five: false } => (Codes::I8(&codes[at..]), pitch),
            Store::Int16(codes) => (Codes::I16(&codes[at..]), pitch),
        }
    }
}

/// Decodes all tiles, in parallel, to rows of `pitch` elements: `put(row, column, code)` for codes in `range`; others are
/// listed with their level, and code 0 stands for them.
fn fill<T: Default + Clone + Send>(
    tensor: &CodedTensor<'_>,
    pitch: usize,
    escapes: &mut Vec<(u32, u32, i32)>,
    range: std::ops::Range<i64>,
    put: impl Fn(&mut [T], usize, i64) + Sync,
) -> Result<Vec<T>> {
    let coded = tensor.coded();
    let (rows, cols) = (coded.rows as usize, coded.cols as usize);
    let mut all = vec![T::default(); rows * pitch];
    let tile = |levels: &mut Vec<i32>, (tile, out): (usize, &mut [T])| {
        let mut escapes = Vec::new();
        tensor.levels(tile, levels)?;
        let first = tensor.rows(tile).start;
        for (i, (out, levels)) in out.chunks_exact_mut(pitch).zip(levels.chunks_exact(cols)).enumerate() {
            for (col, &level) in levels.iter().enumerate() {
                let code = i64::from(level) - i64::from(coded.center);
                if range.contains(&code) {
                    put(out, col, code);
                } else {
                    escapes.push(((first + i) as u32, col as u32, level));
                }
            }
        }
        Ok(escapes)
    };
    let tiles = all.par_chunks_mut(pitch * coded.tile_rows as usize).enumerate();
    let lists: Vec<_> = tiles.map_init(Vec::new, tile).collect::<Result<_>>()?;
    escapes.extend(lists.into_iter().flatten());
    Ok(all)
}

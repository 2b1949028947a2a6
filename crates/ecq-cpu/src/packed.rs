//! A tensor held decoded, in plain integers of 4, 8 or 16 bits: more memory, less work a product.

use ecq_format::escapes;
use ecq_format::reader::CodedTensor;
use ecq_format::tile::TileParts;
use ecq_format::{Error, Result};
use ecq_quant::values::Dequantizer;
use multiversion::multiversion;
use rans_core::Isa;
use rayon::prelude::*;
use std::cell::RefCell;

use crate::activations::{Activations, Precision};
use crate::arch::{Codes, Panel, accumulate};
use crate::scaling::{RowScales, Scaling};
use crate::single::{self, Lines, Spread};
use crate::spread::{Threads, Work, spread};
use crate::wide::{self, Wide};
use crate::{BLOCK, LANES};

/// Rows that one thread takes at a time.
const PIECE: usize = 64;
/// Rows that share each load of x.
const ROWS: usize = 8;
/// Blocks of columns that are multiplied at once, where there is more than one vector.
const BLOCKS: usize = 16;

/// In about so many pieces a large matrix is cut.
const PIECES: usize = 64;

/// Buffers of a thread.
#[derive(Default)]
struct Scratch {
    scales: RowScales,
    spread: Spread,
    sums: Vec<f32>,
    corrections: Vec<f32>,
    by_row: Vec<f32>,
    wide: Wide,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Levels of a tensor less their centre, in rows that are filled up to a multiple of 128 columns.
enum Store {
    /// See [`Codes::Int4`].
    Int4(Vec<u8>),
    Int8 {
        codes: Vec<i8>,
        /// Whether all codes are in 0..32.
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
    /// Decodes a tensor: codes of 16 values to 4 bits a weight, with up to four of them to 8, with more to 16. Levels that
    /// do not fit are kept aside. Errors: [`Corrupt`](ecq_format::Error::Corrupt);
    /// [`Unsupported`](ecq_format::Error::Unsupported) if the tensor holds floats without loss, if its levels are predicted
    /// or the groups of its columns scattered.
    pub fn new(tensor: &CodedTensor<'_>) -> Result<Self> {
        Self::with_isa(Isa::best(), tensor)
    }

    /// [`Self::new`] for a given instruction set.
    pub fn with_isa(isa: Isa, tensor: &CodedTensor<'_>) -> Result<Self> {
        Self::load(isa, tensor, &Dequantizer::of(tensor)?)
    }

    /// [`Self::new`] for a tensor whose scales are decoded already: groups of them are shared.
    pub fn with_values(tensor: &CodedTensor<'_>, values: &Dequantizer) -> Result<Self> {
        Self::load(Isa::best(), tensor, values)
    }

    fn load(isa: Isa, tensor: &CodedTensor<'_>, values: &Dequantizer) -> Result<Self> {
        let (coded, scaling) = (tensor.coded(), Scaling::new(tensor, values));
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
            0 | 1 if scaling.lift < 16 => {
                Store::Int4(fill(tensor, scaling.center, pitch / 2, &mut escapes, nibbles)?)
            }
            0..=4 => {
                let five = coded.raw_bits == 1;
                Store::Int8 { codes: fill(tensor, scaling.center, pitch, &mut escapes, bytes)?, five }
            }
            _ => Store::Int16(fill(tensor, scaling.center, pitch, &mut escapes, words)?),
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
        // no piece has an error
        let _ = spread(threads, vec![self.work(x, y)]);
    }

    /// Whether vectors were prepared for a matrix with the same column scales.
    pub(crate) fn fits(&self, x: &Activations) -> bool {
        x.has_columns(&self.scaling.columns)
    }

    /// The product, to be computed in pieces.
    pub(crate) fn work<'b>(&'b self, x: &'b Activations, y: &'b mut [f32]) -> Work<'b, Error> {
        self.scaling.check(x, y);
        // large matrices in larger pieces: taking one takes time, too
        let height = (self.rows / PIECES).next_multiple_of(PIECE).max(PIECE);
        let task = move |piece: usize, y: &mut [&mut [f32]]| {
            SCRATCH.with_borrow_mut(|scratch| self.piece(piece * height, x, scratch, y));
            Ok(())
        };
        Work { height, vectors: x.count(), y, task: Box::new(task) }
    }

    /// The product of some rows, from `first` on.
    fn piece(&self, first: usize, x: &Activations, scratch: &mut Scratch, y: &mut [&mut [f32]]) {
        let count = x.count();
        if let [y] = y
            && single::takes(self.isa, &self.scaling, x)
        {
            return self.lines(first, x, scratch, y);
        }
        if let [y] = y {
            for (i, out) in y.chunks_mut(ROWS).enumerate() {
                self.rows_of(first + i * ROWS, x, scratch, out);
            }
            return;
        }
        let rows = y.first().map_or(0, |y| y.len());
        if wide::takes(self.isa, &self.scaling, x) {
            let mut escapes = Vec::new();
            for &(row, col, level) in self.escapes(first, rows) {
                escapes.resize(rows * count, 0.0);
                let out = &mut escapes[(row as usize - first) * count..][..count];
                self.scaling.add_escape(row as usize, col as usize, level, x, out);
            }
            let fill = &|row: usize, codes: &mut [u8]| self.row(first + row, codes);
            let rows = wide::Rows { isa: self.isa, scaling: &self.scaling, first, fill, escapes: &escapes };
            wide::multiply(&rows, x, &mut scratch.wide, y);
            return;
        }
        let mut by_row = std::mem::take(&mut scratch.by_row);
        by_row.resize(ROWS * count, 0.0);
        for row in (0..rows).step_by(ROWS) {
            let own = ROWS.min(rows - row);
            self.rows_of(first + row, x, scratch, &mut by_row[..own * count]);
            for (m, y) in y.iter_mut().enumerate() {
                let sums = by_row[m..].iter().step_by(count);
                y[row..row + own].iter_mut().zip(sums).for_each(|(y, &sum)| *y = sum);
            }
        }
        scratch.by_row = by_row;
    }

    /// The product of some rows with one vector of integers.
    fn lines(&self, first: usize, x: &Activations, scratch: &mut Scratch, y: &mut [f32]) {
        let Scratch { spread, corrections, .. } = scratch;
        let (codes, pitch) = self.codes(first, 0);
        let lines = Lines::new(codes, pitch, first, self.scaling.cols);
        y.fill(0.0); // lines are added up
        single::multiply(self.isa, &self.scaling, &lines, x, spread, y);
        corrections.clear();
        for &(row, col, level) in self.escapes(first, y.len()) {
            corrections.resize(y.len(), 0.0);
            let row = row as usize;
            let out = &mut corrections[row - first..][..1];
            self.scaling.add_escape(row, col as usize, level, x, out);
        }
        self.scaling.finish_lines(first, x, corrections, y);
    }

    /// The escapes of some rows.
    fn escapes(&self, first: usize, rows: usize) -> &[(u32, u32, i32)] {
        let at = |row: usize| self.escapes.partition_point(|e| (e.0 as usize) < row);
        &self.escapes[at(first)..at(first + rows)]
    }

    /// Copies the codes of a row.
    fn row(&self, row: usize, out: &mut [u8]) {
        let pitch = self.scaling.cols.next_multiple_of(2 * BLOCK);
        match &self.store {
            Store::Int4(codes) => {
                let codes = codes[row * pitch / 2..][..pitch / 2].as_chunks::<BLOCK>().0;
                for (codes, out) in codes.iter().zip(out.chunks_mut(2 * BLOCK)) {
                    let (below, above) = out.split_at_mut(BLOCK.min(out.len()));
                    below.iter_mut().zip(codes).for_each(|(out, code)| *out = code & 15);
                    above.iter_mut().zip(codes).for_each(|(out, code)| *out = code >> 4);
                }
            }
            Store::Int8 { codes, .. } => {
                out.iter_mut().zip(&codes[row * pitch..]).for_each(|(out, &code)| *out = code as u8);
            }
            Store::Int16(_) => unreachable!("words do not go this way"),
        }
    }

    /// A few rows of a product, from `first` on.
    fn rows_of(&self, first: usize, x: &Activations, scratch: &mut Scratch, out: &mut [f32]) {
        let count = x.count();
        let rows = out.len() / count;
        let Scratch { scales, sums, corrections, .. } = scratch;
        sums.clear();
        sums.resize(rows * count * LANES, 0.0);
        self.scaling.begin(first..first + rows, scales);
        let all = x.padded() / BLOCK;
        let most = if count == 1 { all } else { BLOCKS };
        for block in (0..all).step_by(most) {
            let blocks = most.min(all - block);
            let (codes, pitch) = self.codes(first, block);
            let panel = Panel { codes, pitch, rows, block, blocks, scales };
            accumulate(self.isa, &panel, x, &self.scaling.terms, sums);
        }
        let mut escapes = self.escapes(first, rows);
        for (i, out) in out.chunks_exact_mut(count).enumerate() {
            let row = first + i;
            corrections.clear();
            while let Some((&(_, col, level), rest)) =
                escapes.split_first().filter(|(e, _)| e.0 as usize == row)
            {
                corrections.resize(count, 0.0);
                self.scaling.add_escape(row, col as usize, level, x, corrections);
                escapes = rest;
            }
            self.scaling.finish(row, x, &sums[i * count * LANES..][..count * LANES], corrections, out);
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

/// Decodes all tiles, in parallel, to rows of `pitch` elements: `put(row, levels, center)`. Escapes are listed with their level,
/// and code 0 stands for them, as it does in products from the coded form: so both are the same to the bit.
fn fill<T: Default + Clone + Send>(
    tensor: &CodedTensor<'_>,
    center: i32,
    pitch: usize,
    escapes: &mut Vec<(u32, u32, i32)>,
    put: impl Fn(&mut [T], &[i32], i32) + Sync,
) -> Result<Vec<T>> {
    let coded = tensor.coded();
    let (rows, cols) = (coded.rows as usize, coded.cols as usize);
    let mut all = vec![T::default(); rows * pitch];
    let tile = |levels: &mut Vec<i32>, (tile, out): (usize, &mut [T])| {
        tensor.levels(tile, levels)?;
        let (bytes, entry) = tensor.tile(tile)?;
        let (mut escapes, first) = (Vec::new(), tensor.rows(tile).start);
        let parts = TileParts::new(bytes, entry, coded.split(), levels.len());
        let list = parts.and_then(|parts| {
            escapes::read(parts.escapes, levels.len(), |at, level| {
                escapes.push(((first + at / cols) as u32, (at % cols) as u32, level));
                levels[at] = center;
            })
        });
        list.map_err(|why| tensor.corrupt(tile, why))?;
        let rows = out.chunks_exact_mut(pitch).zip(levels.chunks_exact(cols));
        rows.for_each(|(out, levels)| put(out, levels, center));
        Ok(escapes)
    };
    let tiles = all.par_chunks_mut(pitch * coded.tile_rows as usize).enumerate();
    let lists: Vec<Vec<_>> = tiles.map_init(Vec::new, tile).collect::<Result<_>>()?;
    escapes.extend(lists.into_iter().flatten());
    Ok(all)
}

/// Codes of a row, as [`Codes::Int4`] has them.
#[multiversion(targets = "simd")]
fn nibbles(out: &mut [u8], levels: &[i32], center: i32) {
    for (out, levels) in out.chunks_exact_mut(BLOCK).zip(levels.chunks(2 * BLOCK)) {
        let (below, above) = levels.split_at(BLOCK.min(levels.len()));
        out.iter_mut().zip(below).for_each(|(out, level)| *out = level.wrapping_sub(center) as u8);
        out.iter_mut().zip(above).for_each(|(out, level)| *out |= (level.wrapping_sub(center) as u8) << 4);
    }
}

/// Codes of a row.
#[multiversion(targets = "simd")]
fn bytes(out: &mut [i8], levels: &[i32], center: i32) {
    out.iter_mut().zip(levels).for_each(|(out, level)| *out = level.wrapping_sub(center) as i8);
}

/// Codes of a row.
#[multiversion(targets = "simd")]
fn words(out: &mut [i16], levels: &[i32], center: i32) {
    out.iter_mut().zip(levels).for_each(|(out, level)| *out = level.wrapping_sub(center) as i16);
}

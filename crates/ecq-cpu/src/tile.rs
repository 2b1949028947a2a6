//! From the bytes of a tile to its rows of a product: panels are decoded, joined with raw bits and multiplied while they
//! are in the first cache.

use std::cell::RefCell;
use std::ops::Range;

use ecq_format::Result;
use ecq_format::directory::Codec;
use ecq_format::escapes;
use ecq_format::planes::{RawPlanes, join_i16, join_patterns};
use ecq_format::reader::CodedTensor;
use ecq_format::tile::{TileEntry, TileParts};
use ecq_quant::values::from_bytes;
use rans_core::{Isa, nibble};

use crate::activations::Activations;
use crate::arch::{Codes, Panel, accumulate, join};
use crate::scaling::{RowScales, Scaling};
use crate::single::{self, Lines, Raw, Spread};
use crate::wide::{self, Wide};
use crate::{BLOCK, LANES};

/// Most blocks of a panel: eight rows of so many take 16 KiB.
const PANEL: usize = 32;
/// Most weights of a panel, if they are more than those of [`PANEL`] blocks of each row.
const MOST: usize = 1 << 14;
/// Room for a panel's row. No power of two, so that rows do not share the places of the cache.
const PITCH: usize = 2 * PANEL * BLOCK + BLOCK;
/// Rows that are multiplied at once where a whole tile was decoded.
const ROWS: usize = 8;

/// Buffers of a thread.
#[derive(Default)]
struct Scratch {
    nibbles: Vec<u8>,
    levels: Vec<i32>,
    bytes: Vec<i8>,
    words: Vec<i16>,
    /// Bit patterns of a row of a panel, and the weights of a panel.
    patterns: Vec<u8>,
    weights: Vec<f32>,
    scales: RowScales,
    spread: Spread,
    sums: Vec<f32>,
    /// What a tile makes of y, row by row, where there is more than one vector.
    by_row: Vec<f32>,
    wide: Wide,
    /// Position and level, ascending.
    escapes: Vec<(u32, i32)>,
    /// What escapes add to each row and vector; empty without escapes.
    corrections: Vec<f32>,
    /// For each row of a panel, or for each strip, the next escape.
    cursors: Vec<usize>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A tile at work.
struct Tile<'a> {
    isa: Isa,
    scaling: &'a Scaling,
    x: &'a Activations,
    raw_bits: u32,
    planes: RawPlanes<'a>,
    /// Whether rows are [`Lines`].
    lines: bool,
    /// The first row in the matrix, and their number.
    first: usize,
    rows: usize,
}

/// A panel of a tile.
struct Place {
    /// The first row in the tile, how far it is to the next, and how many there are.
    row: usize,
    row_step: usize,
    rows: usize,
    /// Blocks of columns.
    block: usize,
    blocks: usize,
    /// Where its nibbles begin in the buffer, and how far it is from row to row.
    at: usize,
    pitch: usize,
}

/// A tile as it is stored.
pub(crate) struct Stored<'a> {
    pub index: usize,
    pub bytes: &'a [u8],
    pub entry: TileEntry,
}

impl<'a> Stored<'a> {
    /// A tile of a tensor. Error: [`Corrupt`](ecq_format::Error::Corrupt).
    pub fn new(tensor: &CodedTensor<'a>, index: usize) -> Result<Self> {
        let (bytes, entry) = tensor.tile(index)?;
        Ok(Self { index, bytes, entry })
    }
}

/// Multiplies a tile: `y[m]` is the product of its rows and vector m.
pub(crate) fn multiply(
    isa: Isa,
    tensor: &CodedTensor<'_>,
    scaling: &Scaling,
    stored: &Stored<'_>,
    x: &Activations,
    y: &mut [&mut [f32]],
) -> Result<()> {
    if let [y] = y {
        return by_row(isa, tensor, scaling, stored, x, (y, &mut []));
    }
    let mut out = SCRATCH.with_borrow_mut(|scratch| std::mem::take(&mut scratch.by_row));
    let wide = wide::takes(isa, scaling, x);
    out.resize(if wide { 0 } else { y.len() * tensor.rows(stored.index).len() }, 0.0);
    let done = by_row(isa, tensor, scaling, stored, x, (&mut out, y));
    if !wide {
        let count = y.len();
        for (m, y) in y.iter_mut().enumerate() {
            y.iter_mut().zip(out[m..].iter().step_by(count)).for_each(|(y, &v)| *y = v);
        }
    }
    SCRATCH.with_borrow_mut(|scratch| scratch.by_row = out);
    done
}

/// Multiplies a tile: `out` is its rows, a number for each vector in each; or, where [`wide`] takes it, `y`.
fn by_row(
    isa: Isa,
    tensor: &CodedTensor<'_>,
    scaling: &Scaling,
    &Stored { index, bytes, entry }: &Stored<'_>,
    x: &Activations,
    (out, y): (&mut [f32], &mut [&mut [f32]]),
) -> Result<()> {
    let (coded, rows) = (tensor.coded(), tensor.rows(index));
    let weights = rows.len() * scaling.cols;
    let run = |scratch: &mut Scratch| -> std::result::Result<(), String> {
        if scaling.by_weight() {
            scratch.levels.resize(weights, 0);
            tensor.decoder().decode(bytes, entry, &mut scratch.levels)?;
            by_weight(isa, scaling, rows.clone(), x, scratch, out);
            return Ok(());
        }
        let parts = TileParts::new(bytes, entry, coded.split(), weights)?;
        let planes = RawPlanes::new(coded.raw_bits, weights, parts.raw)?;
        let (raw_bits, first, rows) = (coded.raw_bits, rows.start, rows.len());
        let lines = single::takes(isa, scaling, x);
        let tile = Tile { isa, scaling, x, raw_bits, planes, lines, first, rows };
        tile.read_escapes(parts.escapes, scratch)?;
        if lines {
            out.fill(0.0); // lines are added up
        }
        if wide::takes(isa, scaling, x) {
            scratch.nibbles.resize(weights, 0);
            tensor.decoder().nibbles(parts.stream, &mut scratch.nibbles).map_err(|e| e.to_string())?;
            tile.wide(scratch, y);
            return Ok(());
        }
        match (coded.codec, tensor.decoder().nibble_steps(isa, parts.stream, rows)) {
            (Codec::Nibble(lanes), Some(steps)) => {
                let strips = (lanes as usize / nibble::GROUP).max(1);
                steps.and_then(|steps| tile.by_steps(steps, strips, scratch, out)).map_err(|e| e.to_string())
            }
            _ => {
                scratch.nibbles.resize(weights + BLOCK, 0);
                let nibbles = &mut scratch.nibbles[..weights];
                tensor.decoder().nibbles(parts.stream, nibbles).map_err(|e| e.to_string())?;
                tile.whole(scratch, out);
                Ok(())
            }
        }
    };
    SCRATCH.with_borrow_mut(run).map_err(|why| tensor.corrupt(index, why))
}

/// Multiplies some rows whose levels are decoded, weight by weight. For the kinds of tensors that no kernel knows.
fn by_weight(
    isa: Isa,
    scaling: &Scaling,
    rows: Range<usize>,
    x: &Activations,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let Scratch { levels, weights, sums, .. } = scratch;
    let (cols, count) = (scaling.cols, x.count());
    let all = cols.div_ceil(BLOCK);
    weights.clear();
    weights.resize(all * BLOCK, 0.0); // columns that are filling stay zero
    for ((row, levels), out) in rows.zip(levels.chunks_exact(cols)).zip(out.chunks_exact_mut(count)) {
        scaling.weights(row, 0, levels, weights);
        sums.clear();
        sums.resize(count * LANES, 0.0);
        let codes = Codes::F32(weights);
        let scales = &RowScales::default();
        let panel = Panel { codes, pitch: all * BLOCK, rows: 1, block: 0, blocks: all, scales };
        accumulate(isa, &panel, x, &scaling.terms, sums);
        scaling.finish(row, x, sums, &[], out);
    }
}

impl Tile<'_> {
    /// Blocks of a panel. The longer, the less often a decoder starts and stops; but x shall stay in the first cache, too.
    fn panel(&self, rows: usize) -> usize {
        match self.x.count() {
            1 if MOST / BLOCK / rows >= 2 * PANEL => 2 * PANEL,
            1 => PANEL,
            _ => PANEL / 2,
        }
    }

    /// Lists the escapes and adds up what they change.
    fn read_escapes(&self, bytes: &[u8], scratch: &mut Scratch) -> std::result::Result<(), String> {
        let (cols, count) = (self.scaling.cols, self.x.count());
        let Scratch { escapes, corrections, .. } = scratch;
        escapes.clear();
        escapes::read(bytes, self.rows * cols, |at, level| escapes.push((at as u32, level)))?;
        if let Some(pattern) = self.scaling.pattern
            && let Some((_, level)) = escapes.iter().find(|e| pattern.bits(e.1).is_none())
        {
            return Err(format!("level {level} has no bit pattern"));
        }
        corrections.clear();
        if !escapes.is_empty() {
            corrections.resize(self.rows * count, 0.0);
        }
        for &(at, level) in &*escapes {
            let (row, col) = (at as usize / cols, at as usize % cols);
            let out = &mut corrections[row * count..][..count];
            self.scaling.add_escape(self.first + row, col, level, self.x, out);
        }
        Ok(())
    }

    /// Multiplies a tile of the nibble codec, of `strips` strips.
    fn by_steps(
        &self,
        mut decoder: nibble::Decoder<'_>,
        strips: usize,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> std::result::Result<(), rans_core::Error> {
        let cols = self.scaling.cols;
        let height = self.rows.div_ceil(strips);
        let strip = height * cols;
        if !cols.is_multiple_of(BLOCK) {
            // rows of a step do not share their columns
            scratch.nibbles.resize(self.rows * cols + BLOCK, 0);
            let steps = strip.div_ceil(nibble::GROUP);
            decoder.advance(steps, &mut scratch.nibbles[..self.rows * cols], strip)?;
            decoder.finish()?;
            self.whole(scratch, out);
            return Ok(());
        }
        scratch.nibbles.resize(strips * PITCH, 0);
        if self.lines && !scratch.escapes.is_empty() {
            let Scratch { escapes, cursors, .. } = &mut *scratch;
            let first = |i: usize| escapes.partition_point(|e| (e.0 as usize) < i * strip);
            cursors.clear();
            cursors.extend((0..strips).map(first));
        }
        let all = cols / BLOCK;
        // short rows are decoded a few at a time: starting and stopping takes as long as some steps
        let panel = self.panel(strips);
        let together = (panel / all).max(1);
        for first in (0..height).step_by(together) {
            let together = together.min(height - first);
            for block in (0..all).step_by(panel) {
                let blocks = panel.min(all - block);
                decoder.advance(together * blocks, &mut scratch.nibbles, PITCH)?;
                if self.lines {
                    self.lines(first..first + together, height, block..block + blocks, scratch, out);
                    continue;
                }
                for (i, row) in (first..first + together).enumerate() {
                    let rows = (self.rows - row).div_ceil(height);
                    if block == 0 {
                        self.begin(rows, row, height, scratch);
                    }
                    let at = i * blocks * BLOCK;
                    let place = Place { row, row_step: height, rows, block, blocks, at, pitch: PITCH };
                    self.multiply(&place, scratch);
                    if block + blocks == all {
                        self.finish(rows, row, height, scratch, out);
                    }
                }
            }
        }
        if self.lines {
            self.scaling.finish_lines(self.first, self.x, &scratch.corrections, out);
        }
        decoder.finish()
    }

    /// Adds the products of some rows of each strip and some of their blocks to `out`.
    fn lines(
        &self,
        own: Range<usize>,
        height: usize,
        part: Range<usize>,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let Scratch { nibbles, bytes, escapes, cursors, spread, .. } = scratch;
        let (cols, blocks) = (self.scaling.cols, part.len());
        let lift = if self.raw_bits > 1 { 128 } else { self.scaling.lift as u8 };
        let out = &mut out[own.start..];
        let at = own.start * cols + part.start * BLOCK;
        let mut escaped = false;
        for (strip, row) in (own.start..self.rows).step_by(height).enumerate() {
            let Some(cursor) = cursors.get(strip).filter(|_| !escapes.is_empty()) else { break };
            let end = (row + own.len() - 1) * cols + part.end * BLOCK;
            escaped |= escapes.get(*cursor).is_some_and(|e| (e.0 as usize) < end);
        }
        let joined = self.raw_bits > 1 && escaped;
        if escaped {
            bytes.resize(nibbles.len(), 0);
            for (strip, row) in (own.start..self.rows).step_by(height).enumerate() {
                let (rows, pitch) = (own.len().min(self.rows - row), blocks * BLOCK);
                let place = Place { row, row_step: 1, rows, block: part.start, blocks, at: 0, pitch };
                let (nibbles, cursors) = (&mut nibbles[strip * PITCH..], &mut cursors[strip..=strip]);
                if joined {
                    let (first, len) = (self.positions(&place, 0).start, rows * pitch);
                    let bytes = &mut bytes[strip * PITCH..][..len];
                    join(self.isa, &self.planes, first, &nibbles[..len], bytes, 0);
                    self.clear_escapes(&place, bytes, pitch, escapes, cursors, |_| 0);
                } else {
                    self.clear_escapes(&place, nibbles, pitch, escapes, cursors, |at| self.nothing(at));
                }
            }
        }
        let codes = if joined { Codes::I8(bytes) } else { Codes::Nibble(nibbles) };
        let raw =
            (self.raw_bits > 0 && !joined).then_some(Raw { planes: &self.planes, at, pitch: cols, lift });
        let (near, far, together, step) = (blocks * BLOCK, PITCH, own.len(), height);
        let (first, block) = (self.first + own.start, part.start);
        let lines = Lines { codes, near, far, together, step, raw, first, block, blocks };
        single::multiply(self.isa, self.scaling, &lines, self.x, spread, out);
    }

    /// What stands for code 0 where a nibble is expected that is joined with no raw bit or with one.
    fn nothing(&self, at: usize) -> u8 {
        let lift = self.scaling.lift as u8;
        // codes are nibble + lift, and lift - 1 - nibble where the sign is set
        match self.planes.plane(1).get(at / 8) {
            Some(signs) if signs >> (at % 8) & 1 == 1 => lift.wrapping_sub(1),
            _ => lift.wrapping_neg(),
        }
    }

    /// Joins all nibbles of a tile with their raw bits; escapes become code 0.
    fn join_all(&self, scratch: &mut Scratch) {
        let Scratch { nibbles, bytes, escapes, .. } = scratch;
        let nibbles = &mut nibbles[..self.rows * self.scaling.cols];
        if self.raw_bits > 0 {
            bytes.resize(nibbles.len(), 0);
            join(self.isa, &self.planes, 0, nibbles, bytes, self.scaling.lift as i8);
            nibbles.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte as u8);
        }
        escapes.iter().for_each(|&(at, _)| nibbles[at as usize] = 0);
    }

    /// Multiplies a tile all of whose nibbles are decoded.
    fn whole(&self, scratch: &mut Scratch, out: &mut [f32]) {
        let cols = self.scaling.cols;
        if self.lines {
            self.join_all(scratch);
            let Scratch { nibbles, spread, .. } = &mut *scratch;
            if self.raw_bits > 0 {
                self.scaling.shift_codes(None, nibbles);
            }
            let lines = Lines::new(Codes::Nibble(nibbles), cols, self.first, cols);
            single::multiply(self.isa, self.scaling, &lines, self.x, spread, out);
            return self.scaling.finish_lines(self.first, self.x, &scratch.corrections, out);
        }
        for row in (0..self.rows).step_by(ROWS) {
            let rows = ROWS.min(self.rows - row);
            self.begin(rows, row, 1, scratch);
            let all = cols.div_ceil(BLOCK);
            for block in (0..all).step_by(PANEL / 2) {
                let blocks = (PANEL / 2).min(all - block);
                let at = row * cols + block * BLOCK;
                let place = Place { row, row_step: 1, rows, block, blocks, at, pitch: cols };
                self.multiply(&place, scratch);
            }
            self.finish(rows, row, 1, scratch, out);
        }
    }

    /// Multiplies a tile all of whose nibbles are decoded with many vectors.
    fn wide(&self, scratch: &mut Scratch, y: &mut [&mut [f32]]) {
        let cols = self.scaling.cols;
        self.join_all(scratch);
        let Scratch { nibbles, corrections, wide, .. } = scratch;
        let fill = &|row: usize, codes: &mut [u8]| codes.copy_from_slice(&nibbles[row * cols..][..cols]);
        let (isa, scaling, first) = (self.isa, self.scaling, self.first);
        wide::multiply(&wide::Rows { isa, scaling, first, fill, escapes: corrections }, self.x, wide, y);
    }

    /// Before the first panel of some rows.
    fn begin(&self, rows: usize, row: usize, row_step: usize, scratch: &mut Scratch) {
        let Scratch { scales, sums, escapes, cursors, .. } = scratch;
        sums.clear();
        sums.resize(rows * self.x.count() * LANES, 0.0);
        self.scaling.begin((0..rows).map(|i| self.first + row + i * row_step), scales);
        cursors.clear();
        if !escapes.is_empty() {
            let first = |i: usize| (row + i * row_step) * self.scaling.cols;
            cursors.extend((0..rows).map(|i| escapes.partition_point(|e| (e.0 as usize) < first(i))));
        }
    }

    /// Joins a panel of nibbles with their raw bits and multiplies it.
    fn multiply(&self, place: &Place, scratch: &mut Scratch) {
        let Scratch { nibbles, bytes, words, patterns, weights, scales, sums, escapes, cursors, .. } =
            scratch;
        let nibbles = &mut nibbles[place.at..];
        let (codes, pitch) = match (self.raw_bits, self.scaling.pattern) {
            (_, Some(pattern)) => {
                self.join(place, nibbles, weights, |planes, first, nibbles, weights| {
                    patterns.resize(pattern.format.bytes() * nibbles.len(), 0);
                    join_patterns(planes, pattern, first, nibbles, patterns);
                    from_bytes(pattern.format, patterns, weights);
                });
                self.clear_escapes(place, weights, PITCH, escapes, cursors, |_| 0.0);
                (Codes::F32(weights), PITCH)
            }
            (0, _) => {
                self.clear_escapes(place, nibbles, place.pitch, escapes, cursors, |_| 0);
                (Codes::Nibble(nibbles), place.pitch)
            }
            (1..=4, _) => {
                self.join(place, nibbles, bytes, |planes, first, n, codes| {
                    join(self.isa, planes, first, n, codes, self.scaling.lift as i8)
                });
                self.clear_escapes(place, bytes, PITCH, escapes, cursors, |_| 0);
                (if self.raw_bits == 1 { Codes::I5(bytes) } else { Codes::I8(bytes) }, PITCH)
            }
            _ => {
                self.join(place, nibbles, words, join_i16);
                self.clear_escapes(place, words, PITCH, escapes, cursors, |_| 0);
                (Codes::I16(words), PITCH)
            }
        };
        let Place { rows, block, blocks, .. } = *place;
        let panel = Panel { codes, pitch, rows, block, blocks, scales };
        accumulate(self.isa, &panel, self.x, &self.scaling.terms, sums);
    }

    /// Positions in the tile of the weights of a panel's row.
    fn positions(&self, place: &Place, row: usize) -> Range<usize> {
        let (cols, col) = (self.scaling.cols, place.block * BLOCK);
        let first = (place.row + row * place.row_step) * cols + col;
        first..first + (place.blocks * BLOCK).min(cols - col)
    }

    fn join<T: Default + Clone>(
        &self,
        place: &Place,
        nibbles: &[u8],
        codes: &mut Vec<T>,
        mut join: impl FnMut(&RawPlanes<'_>, usize, &[u8], &mut [T]),
    ) {
        codes.resize(place.rows * PITCH, T::default());
        for (row, codes) in codes.chunks_exact_mut(PITCH).enumerate() {
            let positions = self.positions(place, row);
            let nibbles = &nibbles[row * place.pitch..][..positions.len()];
            let (codes, filling) = codes[..place.blocks * BLOCK].split_at_mut(positions.len());
            join(&self.planes, positions.start, nibbles, codes);
            filling.fill(T::default()); // what was there may be no number, and that times zero is none
        }
    }

    /// Writes code 0 where escapes are, as `zero` says for a position: what they are instead is in the corrections. There is a
    /// cursor for each row, or one for all.
    fn clear_escapes<T>(
        &self,
        place: &Place,
        codes: &mut [T],
        pitch: usize,
        escapes: &[(u32, i32)],
        cursors: &mut [usize],
        zero: impl Fn(usize) -> T,
    ) {
        let Some(last) = cursors.len().checked_sub(1) else { return };
        for row in 0..place.rows {
            let cursor = &mut cursors[row.min(last)];
            let positions = self.positions(place, row);
            while let Some(&(at, _)) = escapes.get(*cursor).filter(|e| positions.contains(&(e.0 as usize))) {
                codes[row * pitch + at as usize - positions.start] = zero(at as usize);
                *cursor += 1;
            }
        }
    }

    /// After the last panel of some rows.
    fn finish(&self, rows: usize, row: usize, row_step: usize, scratch: &mut Scratch, out: &mut [f32]) {
        let count = self.x.count();
        for (i, sums) in scratch.sums.chunks_exact(count * LANES).enumerate().take(rows) {
            let row = row + i * row_step;
            let escapes = scratch.corrections.get(row * count..(row + 1) * count).unwrap_or(&[]);
            self.scaling.finish(self.first + row, self.x, sums, escapes, &mut out[row * count..][..count]);
        }
    }
}

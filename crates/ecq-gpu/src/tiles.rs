//! From a coded tensor to tiles as kernels read them. Every tile is decoded once on the way: that validates it, and says
//! what its streams have in the places of escapes.

use std::ops::Range;

use ecq_format::directory::{Codec, Coded, PairCode};
use ecq_format::levels::Split;
use ecq_format::pairs::strips;
use ecq_format::pattern::Pattern;
use ecq_format::planes::{RawPlanes, raw_bytes};
use ecq_format::reader::CodedTensor;
use ecq_format::tile::{Frequencies, TileParts};
use ecq_format::{Result, escapes};
use ecq_quant::values::from_bits;
use prefix_core::{Blocks, EncodeTable, Lengths};

use crate::layout::{BAND, Escape, Shape, Tile, words_of};
use crate::plan::TileSize;
use crate::variant::{Code, Field};
use crate::{nibble, side};

/// Weights of a stream of tensors that are coded anew.
const STREAM: usize = 1 << 15;
/// Most columns of a strip of these.
const STRIP: usize = 4096;

/// What a level is before scales.
struct Meaning {
    split: Split,
    pattern: Option<Pattern>,
    codebook: Option<[f32; 16]>,
    bias: f64,
}

impl Meaning {
    /// Of a tensor's levels.
    fn of(coded: &Coded) -> Self {
        let codebook = coded.values.codebook.map(|book| book.0);
        Self { split: coded.split(), pattern: coded.pattern, codebook, bias: coded.values.bias }
    }

    /// Whether a nibble without raw bits stands for a number.
    fn is_finite(&self, nibble: u8) -> bool {
        self.value(self.split.join(nibble, 0)).is_finite()
    }

    /// The number that a level stands for.
    fn value(&self, level: i32) -> f64 {
        if let Some(pattern) = self.pattern {
            // levels without a bit pattern were refused when they were read
            return from_bits(pattern.format, pattern.bits(level).unwrap_or(0)).into();
        }
        let code = usize::try_from(i64::from(level) - i64::from(self.split.center)).ok();
        match code.and_then(|code| self.codebook.as_ref()?.get(code).copied()) {
            Some(number) => number.into(),
            None => f64::from(level) + self.bias,
        }
    }
}

/// Where the tiles of a tensor come from.
pub enum Tiles<'a> {
    /// The streams are those of the file.
    Own(Own<'a>),
    /// Kernels read no streams like its own, and it is coded anew.
    Recoded(Box<Recoded<'a>>),
}

impl<'a> Tiles<'a> {
    /// Of a tensor. Error: [`Corrupt`](ecq_format::Error::Corrupt).
    pub fn of(tensor: &'a CodedTensor<'a>) -> Result<Self> {
        Ok(match Own::new(tensor) {
            Some(own) => Self::Own(own),
            None => Self::Recoded(Box::new(Recoded::new(tensor)?)),
        })
    }

    /// How the tensor is cut.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Own(own) => own.shape,
            Self::Recoded(recoded) => recoded.shape,
        }
    }

    /// The code and its table.
    pub fn code(&self) -> (Code, Vec<u32>) {
        match self {
            Self::Own(own) => (own.code, own.codes.clone()),
            Self::Recoded(recoded) => (Code::Prefix, side::prefix_codes(&recoded.lengths)),
        }
    }

    /// Units that are decoded together: whole tiles.
    pub fn units(&self) -> usize {
        match self {
            Self::Own(own) => own.tensor.tiles(),
            Self::Recoded(recoded) => units(recoded.tensor.coded()).1,
        }
    }

    /// The tiles of a unit. Error: [`Corrupt`](ecq_format::Error::Corrupt).
    pub fn unit(&self, unit: usize) -> Result<Vec<Tile>> {
        match self {
            Self::Own(own) => Ok(vec![own.tile(unit)?]),
            Self::Recoded(recoded) => recoded.unit(unit),
        }
    }

    /// Sizes of the tiles of a unit, if they are known before they are decoded.
    pub fn size(&self, unit: usize) -> Option<TileSize> {
        match self {
            Self::Own(own) => Some(own.size(unit)),
            Self::Recoded(_) => None,
        }
    }
}

/// A tensor whose streams kernels read as they are.
pub struct Own<'a> {
    tensor: &'a CodedTensor<'a>,
    shape: Shape,
    meaning: Meaning,
    code: Code,
    codes: Vec<u32>,
}

impl<'a> Own<'a> {
    /// `None` if kernels read no such streams.
    fn new(tensor: &'a CodedTensor<'a>) -> Option<Self> {
        let coded = tensor.coded();
        let (rows, cols) = (coded.rows as usize, coded.cols as usize);
        let height = coded.tile_rows as usize;
        if coded.predictor.is_some() {
            return None;
        }
        let meaning = Meaning::of(coded);
        // what stands for an escape is taken off again, which must be a number
        let escapes = (0..tensor.tiles()).any(|tile| tensor.entry(tile).escapes > 0);
        if escapes && !(0..16).all(|nibble| meaning.is_finite(nibble)) {
            return None;
        }
        let pairs = match coded.codec {
            Codec::Pairs(pairs) => pairs,
            Codec::Nibble(lanes) => {
                let shape = Shape { rows, cols, tile_rows: height, strip: cols };
                let (code, codes) = (Code::Nibble { lanes }, nibble::codes(tensor)?);
                return Some(Self { tensor, shape, meaning, code, codes });
            }
        };
        let banded = pairs.band as usize == BAND || (pairs.band as usize >= height && height <= BAND);
        if !banded || !(height.is_multiple_of(BAND) || height == rows) {
            return None;
        }
        let (code, codes) = match (pairs.code, tensor.frequencies()) {
            (PairCode::Prefix, Frequencies::Prefix(lengths)) => (Code::Prefix, side::prefix_codes(lengths)),
            (PairCode::Rans, Frequencies::Pairs(freqs)) => (Code::Rans, side::rans_codes(freqs)?),
            _ => return None,
        };
        let strip = usize::try_from(pairs.strip).unwrap_or(cols).min(cols);
        let shape = Shape { rows, cols, tile_rows: height.next_multiple_of(BAND), strip };
        Some(Self { tensor, shape, meaning, code, codes })
    }

    fn size(&self, tile: usize) -> TileSize {
        let stream = u64::from(self.tensor.entry(tile).stream).next_multiple_of(4);
        let head = if self.shape.strips() > 1 { 4 * self.shape.strips() as u64 } else { 0 };
        // what is cut short is found when it is decoded
        let (rows, cols) = (self.tensor.rows(tile).len() as u64, self.shape.cols as u64);
        let raw_bits = self.meaning.split.raw_bits;
        let raw = match self.code {
            Code::Nibble { .. } => raw_bytes(raw_bits, rows * cols) / 4,
            _ => rows.div_ceil(BAND as u64) * Field::of(raw_bits).map(|f| f.band_words(cols)).sum::<u64>(),
        };
        let words = raw + stream.saturating_sub(head) / 4;
        // an escape is two numbers of at least a byte
        TileSize { words, escapes: u64::from(self.tensor.entry(tile).escapes) / 2 }
    }

    fn tile(&self, index: usize) -> Result<Tile> {
        let fail = |why: String| self.tensor.corrupt(index, why);
        let (bytes, entry) = self.tensor.tile(index)?;
        let (coded, rows, cols) = (self.tensor.coded(), self.tensor.rows(index), self.shape.cols);
        let weights = rows.len() * cols;
        let parts = TileParts::new(bytes, entry, coded.split(), weights).map_err(fail)?;
        // decoding them is what makes streams fit for shaders that check nothing
        let mut nibbles = vec![0; weights];
        self.tensor.decoder().nibbles(parts.stream, &mut nibbles).map_err(fail)?;
        let (mut tile, mut raw, mut known) = (Tile::default(), parts.raw.to_vec(), true);
        escapes::read(parts.escapes, weights, |position, level| {
            let filler = self.meaning.value(self.meaning.split.join(nibbles[position], 0));
            let (row, col) = (rows.start + position / cols, position % cols);
            clear_raw(coded.raw_bits, weights, position, &mut raw);
            tile.escapes.push(Escape { row, col, value: self.meaning.value(level), filler });
            known &= coded.pattern.is_none_or(|pattern| pattern.bits(level).is_some());
        })
        .map_err(fail)?;
        let planes = RawPlanes::new(coded.raw_bits, weights, &raw).map_err(fail)?;
        let field = |position: usize, Field { width, low: _ }: Field| {
            let bit = position * width as usize;
            u32::from(planes.plane(width)[bit / 8]) >> (bit % 8) & ((1 << width) - 1)
        };
        match self.code {
            // lanes are side by side in the order of positions, which is that of planes
            Code::Nibble { .. } => tile.words.extend(words_of(&raw)),
            _ => raw_words(coded.raw_bits, cols, &rows, field, &mut tile.words),
        }
        for stream in strips(parts.stream, coded).map_err(fail)? {
            tile.starts.push(tile.words.len() as u32);
            tile.words.extend(words_of(stream));
        }
        if !known {
            return Err(fail("an escape has no bit pattern".into()));
        }
        Ok(tile)
    }
}

/// A tensor that is coded anew: all its tiles are in pairs of nibbles by the prefix code.
pub struct Recoded<'a> {
    tensor: &'a CodedTensor<'a>,
    shape: Shape,
    meaning: Meaning,
    /// Stands for escapes.
    filler: u8,
    lengths: Lengths,
    table: EncodeTable,
}

impl<'a> Recoded<'a> {
    /// Decodes the tensor once to count pairs. Error: [`Corrupt`](ecq_format::Error::Corrupt).
    fn new(tensor: &'a CodedTensor<'a>) -> Result<Self> {
        let coded = tensor.coded();
        let shape = cut(coded);
        let meaning = Meaning::of(coded);
        let filler = filler(tensor, &meaning)?;
        let mut counts = [0u64; 256];
        for unit in 0..units(coded).1 {
            let (rows, levels) = unit_levels(tensor, unit)?;
            let nibbles =
                levels.iter().map(|&level| split(meaning.split, level, filler).0).collect::<Vec<_>>();
            for range in tiles_of(&shape, &rows) {
                for strip in 0..shape.strips() {
                    let mut add = |pair: u8| counts[usize::from(pair)] += 1;
                    pairs(&shape, range.clone(), strip, rows.start, &nibbles, filler, &mut add);
                }
            }
        }
        let fail = |e: prefix_core::Error| tensor.unsupported(e.to_string());
        let lengths = Lengths::from_counts(&counts).map_err(fail)?;
        let table = EncodeTable::new(&lengths);
        Ok(Self { tensor, shape, meaning, filler, lengths, table })
    }

    /// The tiles of a unit. Error: [`Corrupt`](ecq_format::Error::Corrupt).
    fn unit(&self, unit: usize) -> Result<Vec<Tile>> {
        let (rows, levels) = unit_levels(self.tensor, unit)?;
        let (mut nibbles, mut raw, mut escapes) = (vec![0; levels.len()], vec![0; levels.len()], Vec::new());
        let cols = self.shape.cols;
        let filler = self.meaning.value(self.meaning.split.join(self.filler, 0));
        for (i, &level) in levels.iter().enumerate() {
            let escaped;
            (nibbles[i], raw[i], escaped) = split(self.meaning.split, level, self.filler);
            if escaped {
                let (row, col) = (rows.start + i / cols, i % cols);
                escapes.push(Escape { row, col, value: self.meaning.value(level), filler });
            }
        }
        let mut tiles = Vec::new();
        for range in tiles_of(&self.shape, &rows) {
            let mut tile = Tile::default();
            let first = (range.start - rows.start) * cols;
            let part = |position: usize, Field { width, low }: Field| {
                u32::from(raw[first + position] >> low) & ((1 << width) - 1)
            };
            raw_words(self.meaning.split.raw_bits, cols, &range, part, &mut tile.words);
            for strip in 0..self.shape.strips() {
                self.stream(&range, strip, rows.start, &nibbles, &mut tile)?;
            }
            tile.escapes = escapes.iter().filter(|e| range.contains(&e.row)).copied().collect();
            tiles.push(tile);
        }
        Ok(tiles)
    }

    fn stream(
        &self,
        range: &Range<usize>,
        strip: usize,
        first: usize,
        nibbles: &[u8],
        tile: &mut Tile,
    ) -> Result<()> {
        let fail = |e: prefix_core::Error| self.tensor.unsupported(e.to_string());
        let mut symbols = Vec::new();
        pairs(&self.shape, range.clone(), strip, first, nibbles, self.filler, &mut |pair| symbols.push(pair));
        let last = (range.len() % BAND).div_ceil(2);
        let blocks = Blocks::new(self.shape.columns(strip).len(), range.len() / BAND, BAND / 2, last);
        let blocks = blocks.map_err(fail)?;
        let mut bytes = vec![0; prefix_core::max_len(&blocks)];
        let len = prefix_core::encode(&self.table, &blocks, &symbols, &mut bytes).map_err(fail)?;
        tile.starts.push(tile.words.len() as u32);
        tile.words.extend(words_of(&bytes[..len]));
        Ok(())
    }
}

/// Nibble and raw bits of a level; of an escape those of the filler, and true.
fn split(split: Split, level: i32, filler: u8) -> (u8, u16, bool) {
    match split.split(level) {
        Some((nibble, raw)) => (nibble, raw, false),
        None => (filler, 0, true),
    }
}

/// The most frequent nibble of the first tile that stands for a number: it will have a short code.
fn filler(tensor: &CodedTensor<'_>, meaning: &Meaning) -> Result<u8> {
    let (mut levels, mut counts) = (Vec::new(), [0u64; 16]);
    tensor.levels(0, &mut levels)?;
    levels
        .iter()
        .filter_map(|&level| meaning.split.split(level))
        .for_each(|(n, _)| counts[usize::from(n)] += 1);
    Ok((0..16u8).max_by_key(|&n| (meaning.is_finite(n), counts[usize::from(n)])).unwrap_or(0))
}

/// Tiles of the file in a unit, and number of units: a unit's rows are a multiple of eight, or all.
fn units(coded: &Coded) -> (usize, usize) {
    let height = coded.tile_rows as usize;
    let tiles = [1, 2, 4, 8].into_iter().find(|n| (n * height).is_multiple_of(BAND)).unwrap_or(BAND);
    (tiles, (coded.tiles() as usize).div_ceil(tiles))
}

/// Rows and levels of a unit.
fn unit_levels(tensor: &CodedTensor<'_>, unit: usize) -> Result<(Range<usize>, Vec<i32>)> {
    let (n, _) = units(tensor.coded());
    let tiles = unit * n..tensor.tiles().min((unit + 1) * n);
    let rows = tensor.rows(tiles.start).start..tensor.rows(tiles.end - 1).end;
    let (mut all, mut levels) = (Vec::new(), Vec::new());
    for tile in tiles {
        tensor.levels(tile, &mut levels)?;
        all.extend_from_slice(&levels);
    }
    Ok((rows, all))
}

/// How a tensor is cut that comes in other tiles: streams of about [`STREAM`] weights, whole tiles in each unit.
fn cut(coded: &Coded) -> Shape {
    let (rows, cols) = (coded.rows as usize, coded.cols as usize);
    let strip = cols.div_ceil(cols.div_ceil(STRIP)).next_multiple_of(32);
    let (tiles, units) = units(coded);
    let unit = if units == 1 { rows.next_multiple_of(BAND) } else { tiles * coded.tile_rows as usize };
    let bands = unit / BAND;
    let most = (STREAM / (BAND * strip.min(cols))).clamp(1, bands);
    let height = (1..=most).rev().find(|h| units == 1 || bands.is_multiple_of(*h)).unwrap_or(1);
    Shape { rows, cols, tile_rows: height * BAND, strip: if strip >= cols { cols } else { strip } }
}

/// Rows of the tiles of a unit.
fn tiles_of(shape: &Shape, rows: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let (height, end) = (shape.tile_rows, rows.end);
    rows.clone().step_by(height).map(move |row| row..end.min(row + height))
}

/// Calls `each` for the pairs of a strip of a tile in coded order. `nibbles` begin at row `first`.
fn pairs(
    shape: &Shape,
    rows: Range<usize>,
    strip: usize,
    first: usize,
    nibbles: &[u8],
    filler: u8,
    each: &mut impl FnMut(u8),
) {
    let columns = shape.columns(strip);
    for band in rows.clone().step_by(BAND) {
        let end = rows.end.min(band + BAND);
        for block in columns.clone().step_by(32) {
            for row in (band..end).step_by(2) {
                for col in block..columns.end.min(block + 32) {
                    let at = (row - first) * shape.cols + col;
                    let lower = if row + 1 < end { nibbles[at + shape.cols] } else { filler };
                    each(nibbles[at] | lower << 4);
                }
            }
        }
    }
}

/// Makes the raw bits of a weight 0 in the planes of a tile.
fn clear_raw(raw_bits: u32, weights: usize, position: usize, planes: &mut [u8]) {
    let mut plane = 0;
    for width in Field::of(raw_bits).map(|field| field.width as usize) {
        let bit = position * width;
        planes[plane + bit / 8] &= !(((1u32 << width) - 1) << (bit % 8)) as u8;
        plane += 4 * (weights * width).div_ceil(32);
    }
}

/// Appends the raw bits of a tile's rows, band by band. `raw` gives a field at a position in the tile.
fn raw_words(
    raw_bits: u32,
    cols: usize,
    rows: &Range<usize>,
    raw: impl Fn(usize, Field) -> u32,
    words: &mut Vec<u32>,
) {
    for band in (0..rows.len()).step_by(BAND) {
        for field in Field::of(raw_bits) {
            let at = words.len();
            words.resize(at + field.band_words(cols as u64) as usize, 0);
            for row in band..rows.len().min(band + BAND) {
                for col in 0..cols {
                    let (word, bit) = field.position(row - band, col);
                    words[at + word] |= raw(row * cols + col, field) << bit;
                }
            }
        }
    }
}

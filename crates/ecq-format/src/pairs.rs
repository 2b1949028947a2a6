//! Nibbles of two neighbouring rows as one symbol: from the nibbles of a tile to its streams, and back.
//!
//! A tile is cut into strips of columns, each a stream of its own, and bands of rows, which a stream codes one after
//! another. In a band, all pairs of rows of a block of 32 columns come before the next block: lane j codes column j.

use std::ops::Range;

use prefix_core::Blocks;
use rans_core::{Isa, byte};

use crate::directory::{Coded, Pairs};
use crate::planes::fill4;
use crate::tile::Frequencies;

/// Most strips that are decoded together.
const JOBS: usize = 64;

/// Rows and columns of a tile, and how they are cut.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    rows: usize,
    cols: usize,
    pairs: Pairs,
}

impl Shape {
    pub fn new(pairs: Pairs, rows: usize, cols: usize) -> Self {
        Self { rows, cols, pairs }
    }

    /// The columns of each strip.
    fn strips(self) -> impl Iterator<Item = Range<usize>> {
        let width = self.pairs.strip.clamp(1, self.cols.max(1) as u64) as usize;
        (0..self.cols).step_by(width).map(move |first| first..self.cols.min(first + width))
    }

    /// The streams of the strips. The error says what does not fit.
    pub fn cut(self, stream: &[u8]) -> Result<Vec<&[u8]>, String> {
        cut(stream, self.strips().count() as u64)
    }

    /// Rows of a band, but for the last one.
    fn band(self) -> usize {
        (self.pairs.band as usize).clamp(2, self.rows.next_multiple_of(2).max(2))
    }

    /// Symbols of a strip of this width.
    fn symbols(self, width: usize) -> usize {
        self.rows.div_ceil(2) * width
    }

    /// (bands of equal height, pairs of rows in each, pairs of rows in the band after them).
    fn bands(self) -> (usize, usize, usize) {
        let band = self.band();
        (self.rows / band, band / 2, (self.rows % band).div_ceil(2))
    }

    /// What the `byte` codec calls the shape of a strip.
    fn steps(self, width: usize) -> Result<byte::Steps, String> {
        let (bands, pairs, last) = self.bands();
        byte::Steps::banded(width, bands, pairs, last).map_err(|e| e.to_string())
    }

    /// What the prefix code calls the shape of a strip.
    fn blocks(self, width: usize) -> Result<Blocks, String> {
        let (bands, pairs, last) = self.bands();
        Blocks::new(width, bands, pairs, last).map_err(|e| e.to_string())
    }

    /// Calls `each(upper, lower)` for all pairs of a strip in coded order, with positions in the tile; no lower one in an
    /// odd last row.
    fn walk(self, strip: Range<usize>, mut each: impl FnMut(usize, Option<usize>)) {
        let Self { rows, cols, .. } = self;
        for top in (0..rows).step_by(self.band()) {
            for block in strip.clone().step_by(byte::LANES) {
                for row in (top..rows.min(top + self.band())).step_by(2) {
                    for col in block..strip.end.min(block + byte::LANES) {
                        let upper = row * cols + col;
                        each(upper, (row + 1 < rows).then_some(upper + cols));
                    }
                }
            }
        }
    }

    /// Calls `each` for all symbols of a strip in coded order; `filler` stands where there is no lower nibble.
    pub fn symbols_of(self, strip: Range<usize>, nibbles: &[u8], filler: u8, mut each: impl FnMut(u8)) {
        self.walk(strip, |a, b| each(nibbles[a] | b.map_or(filler, |b| nibbles[b]) << 4));
    }

    /// Counts the symbols of a tile.
    pub fn count(self, nibbles: &[u8], filler: u8, counts: &mut [u64; 256]) {
        for strip in self.strips() {
            self.symbols_of(strip, nibbles, filler, |pair| counts[usize::from(pair)] += 1);
        }
    }
}

/// Cuts the stream of a tile into the streams of its strips, from left to right. The error says what does not fit.
///
/// For readers that do without [`TileDecoder`](crate::tile::TileDecoder). With the `nibble` codec there is one strip.
pub fn strips<'a>(stream: &'a [u8], coded: &Coded) -> Result<Vec<&'a [u8]>, String> {
    cut(stream, coded.strips())
}

fn cut(stream: &[u8], count: u64) -> Result<Vec<&[u8]>, String> {
    if count == 1 {
        return Ok(vec![stream]);
    }
    let head = usize::try_from(count).ok().and_then(|n| n.checked_mul(4));
    let (lengths, mut rest) = head
        .and_then(|n| stream.split_at_checked(n))
        .ok_or_else(|| format!("{} bytes for {count} strips", stream.len()))?;
    let mut strips = Vec::with_capacity(lengths.len() / 4);
    for length in lengths.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)) {
        let filled = usize::try_from(fill4(length.into())).ok();
        let (strip, after) = filled
            .and_then(|n| rest.split_at_checked(n))
            .ok_or_else(|| format!("a strip of {length} bytes, {} are left", rest.len()))?;
        let (strip, filling) = strip.split_at(length as usize);
        if filling.iter().any(|&b| b != 0) {
            return Err("filling other than zero after a strip".into());
        }
        strips.push(strip);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes are left after the last strip", rest.len()));
    }
    Ok(strips)
}

/// Codes pairs.
pub(crate) enum EncodeTable {
    Rans(Box<byte::EncodeTable>),
    Prefix(Box<prefix_core::EncodeTable>),
}

impl EncodeTable {
    /// The table of frequencies of pairs.
    pub fn new(freqs: &Frequencies) -> Self {
        match freqs {
            Frequencies::Pairs(f) => Self::Rans(Box::new(byte::EncodeTable::new(f))),
            Frequencies::Prefix(f) => Self::Prefix(Box::new(prefix_core::EncodeTable::new(f))),
            Frequencies::Nibble(_) => unreachable!("the encoder makes frequencies for its codec"),
        }
    }

    fn max_len(&self, shape: Shape, width: usize) -> Result<usize, String> {
        Ok(match self {
            Self::Rans(_) => byte::max_len(shape.symbols(width)),
            Self::Prefix(_) => prefix_core::max_len(&shape.blocks(width)?),
        })
    }

    fn encode(&self, shape: Shape, width: usize, symbols: &[u8], out: &mut [u8]) -> Result<usize, String> {
        match self {
            Self::Rans(table) => {
                byte::encode(table, &shape.steps(width)?, symbols, out).map_err(|e| e.to_string())
            }
            Self::Prefix(table) => {
                prefix_core::encode(table, &shape.blocks(width)?, symbols, out).map_err(|e| e.to_string())
            }
        }
    }

    /// Codes the nibbles of a tile to `out[start..]`, which only grows; returns the length of the stream. `symbols` is
    /// scratch.
    pub fn stream(
        &self,
        shape: Shape,
        nibbles: &[u8],
        filler: u8,
        symbols: &mut Vec<u8>,
        (start, out): (usize, &mut Vec<u8>),
    ) -> Result<usize, String> {
        let strips: Vec<_> = shape.strips().collect();
        let mut at = start + if strips.len() > 1 { 4 * strips.len() } else { 0 };
        for (i, strip) in strips.iter().enumerate() {
            symbols.clear();
            shape.symbols_of(strip.clone(), nibbles, filler, |pair| symbols.push(pair));
            let most = self.max_len(shape, strip.len())?;
            grow(out, at + most.next_multiple_of(4));
            let len = self.encode(shape, strip.len(), symbols, &mut out[at..at + most])?;
            if strips.len() > 1 {
                let filled = len.next_multiple_of(4);
                out[at + len..at + filled].fill(0);
                out[start + 4 * i..][..4].copy_from_slice(&(len as u32).to_le_bytes());
                at += filled;
            } else {
                at += len;
            }
        }
        Ok(at - start)
    }
}

/// Makes a buffer at least this long. What is there stays: clearing it would cost as much as coding it.
pub(crate) fn grow(buffer: &mut Vec<u8>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
}

/// Decodes pairs.
pub(crate) enum DecodeTable {
    Rans(Box<byte::DecodeTable>),
    Prefix(Box<prefix_core::DecodeTable>),
}

impl DecodeTable {
    /// The table of frequencies of pairs.
    pub fn new(freqs: &Frequencies) -> Self {
        match freqs {
            Frequencies::Pairs(f) => Self::Rans(Box::new(byte::DecodeTable::new(f))),
            Frequencies::Prefix(f) => Self::Prefix(Box::new(prefix_core::DecodeTable::new(f))),
            Frequencies::Nibble(_) => unreachable!("frequencies are read for their codec"),
        }
    }

    /// Decodes the strips of a tile into its nibbles. The error says what is corrupt.
    pub fn nibbles(&self, shape: Shape, streams: &[&[u8]], nibbles: &mut [u8]) -> Result<(), String> {
        let mut symbols = vec![0; shape.symbols(shape.cols)];
        self.symbols(shape, streams, &mut symbols)?;
        let mut next = symbols.iter();
        for strip in shape.strips() {
            shape.walk(strip, |a, b| {
                let pair = next.next().copied().unwrap_or(0); // shapes and walks count alike
                nibbles[a] = pair & 15;
                if let Some(b) = b {
                    nibbles[b] = pair >> 4;
                }
            });
        }
        Ok(())
    }

    /// Decodes the symbols of all strips, one strip after another.
    fn symbols(&self, shape: Shape, streams: &[&[u8]], mut symbols: &mut [u8]) -> Result<(), String> {
        let mut strips = shape.strips().zip(streams);
        loop {
            // a few at a time: there can be half a million
            let mut jobs = Vec::with_capacity(JOBS.min(streams.len()));
            for (strip, bytes) in strips.by_ref().take(JOBS) {
                let (out, rest) = symbols.split_at_mut(shape.symbols(strip.len()));
                symbols = rest;
                jobs.push((strip.len(), *bytes, out));
            }
            if jobs.is_empty() {
                return Ok(());
            }
            self.decode(shape, jobs)?;
        }
    }

    /// Decodes strips: of each the width, the stream, the symbols.
    fn decode(&self, shape: Shape, strips: Vec<(usize, &[u8], &mut [u8])>) -> Result<(), String> {
        match self {
            Self::Rans(table) => {
                let mut jobs = Vec::with_capacity(strips.len());
                for (width, bytes, out) in strips {
                    jobs.push(byte::Job::new(shape.steps(width)?, bytes, out));
                }
                byte::decode_many(Isa::best(), table, &mut jobs);
                jobs.iter().try_for_each(|job| job.result().map_err(|e| e.to_string()))
            }
            Self::Prefix(table) => strips.into_iter().try_for_each(|(width, bytes, out)| {
                prefix_core::decode(table, &shape.blocks(width)?, bytes, out).map_err(|e| e.to_string())
            }),
        }
    }
}

//! A tile: a few rows, all columns, on their own. Levels to bytes and back.
//!
//! The bytes of a tile: the raw planes, the coded stream, the escapes, each filled up with zeros to 4 bytes.
//! The raw bits of a level are cut into fields of 8, 4, 2 and 1 bits, by the binary digits of their number, the lowest
//! bits in the widest field, so the sign is in the last; each field is a plane, weights in row order, low bits first.

use rans_core::{Isa, byte, nibble};

use crate::directory::{Codec, Coded};
use crate::escapes;
use crate::levels::Split;

/// What the index says of a tile. 12 bytes in the file: three little-endian u32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileEntry {
    /// Bytes of the coded stream.
    pub stream: u32,
    /// Bytes of the escapes.
    pub escapes: u32,
    /// CRC-32 of all bytes of the tile, filling included.
    pub crc: u32,
}

/// Size of a [`TileEntry`] in the file.
pub const ENTRY_BYTES: usize = 12;

impl TileEntry {
    /// The entry as it is in the file.
    pub fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        for (to, v) in bytes.chunks_exact_mut(4).zip([self.stream, self.escapes, self.crc]) {
            to.copy_from_slice(&v.to_le_bytes());
        }
        bytes
    }

    /// Reads an entry.
    pub fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let at = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        Self { stream: at(0), escapes: at(4), crc: at(8) }
    }

    /// Bytes of a tile with this entry and this many weights.
    pub fn bytes(&self, split: Split, weights: u64) -> u64 {
        raw_bytes(split.raw_bits, weights) + fill4(self.stream.into()) + fill4(self.escapes.into())
    }
}

/// The parts of a tile: where a reader that does without [`TileDecoder::decode`] begins.
#[derive(Clone, Copy, Debug)]
pub struct TileParts<'a> {
    /// Raw planes, one after the other, each filled up to 4 bytes.
    pub raw: &'a [u8],
    /// Coded stream of the nibble plane.
    pub stream: &'a [u8],
    /// Escapes, for [`escapes::read`].
    pub escapes: &'a [u8],
}

impl<'a> TileParts<'a> {
    /// Cuts the bytes of a tile of `weights` weights. The error says what is wrong: their number, or filling that is
    /// not zero.
    pub fn new(bytes: &'a [u8], entry: TileEntry, split: Split, weights: usize) -> Result<Self, String> {
        if bytes.len() as u64 != entry.bytes(split, weights as u64) {
            return Err(format!("{} bytes for a tile of {weights} weights", bytes.len()));
        }
        let (raw, rest) = bytes.split_at(raw_bytes(split.raw_bits, weights as u64) as usize);
        let (stream, escapes) = rest.split_at(fill4(entry.stream.into()) as usize);
        let (stream, fill) = stream.split_at(entry.stream as usize);
        let (escapes, more) = escapes.split_at(entry.escapes as usize);
        if fill.iter().chain(more).any(|&b| b != 0) {
            return Err("filling other than zero".into());
        }
        Ok(Self { raw, stream, escapes })
    }
}

fn fill4(len: u64) -> u64 {
    len.next_multiple_of(4)
}

/// Widths of the raw fields, and how far up in the raw bits they begin.
fn fields(raw_bits: u32) -> impl Iterator<Item = (u32, u32)> {
    let mut shift = 0;
    [8, 4, 2, 1].into_iter().filter(move |w| raw_bits & w != 0).map(move |w| {
        shift += w;
        (w, shift - w)
    })
}

/// Bytes of all raw planes of a tile.
pub fn raw_bytes(raw_bits: u32, weights: u64) -> u64 {
    fields(raw_bits).map(|(w, _)| fill4((weights * u64::from(w)).div_ceil(8))).sum()
}

/// Frequencies of the coded symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frequencies {
    /// Of nibbles.
    Nibble(nibble::Frequencies),
    /// Of pairs, the upper row's nibble in the low half.
    Pairs(Box<byte::Frequencies>),
}

impl Frequencies {
    /// Serialised, as `rans-core` does it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![0; byte::Frequencies::MAX_BYTES];
        let len = match self {
            Self::Nibble(f) => f.write(&mut out),
            Self::Pairs(f) => f.write(&mut out),
        };
        out.truncate(len.unwrap_or(0)); // MAX_BYTES are enough
        out
    }

    /// Reads the frequencies for a codec; zeros may follow them, nothing else.
    pub fn from_bytes(codec: Codec, bytes: &[u8]) -> Result<Self, String> {
        let (freqs, len) = match codec {
            Codec::Nibble(_) => nibble::Frequencies::read(bytes).map(|(f, n)| (Self::Nibble(f), n)),
            Codec::BytePairs => byte::Frequencies::read(bytes).map(|(f, n)| (Self::Pairs(Box::new(f)), n)),
        }
        .map_err(|e| e.to_string())?;
        if bytes[len..].iter().any(|&b| b != 0) {
            return Err("bytes other than zero after the frequencies".into());
        }
        Ok(freqs)
    }
}

/// Lane groups of the nibble codec: a strip is a whole number of rows, so that rows of a step share their columns.
fn strips(lanes: u32, rows: usize, cols: usize) -> Result<nibble::Strips, rans_core::Error> {
    let groups = (lanes as usize / nibble::GROUP).max(1);
    nibble::Strips::new(lanes as usize, rows.div_ceil(groups) * cols, rows * cols)
}

/// Steps of the pair codec: columns on lanes, in blocks of 32 columns all pairs of rows from top to bottom.
fn steps(rows: usize, cols: usize) -> Result<byte::Steps, rans_core::Error> {
    let pairs = rows.div_ceil(2);
    byte::Steps::new(cols / byte::LANES * pairs, pairs, cols % byte::LANES)
}

/// Calls `each(upper, lower)` for all pairs in coded order, with positions in the tile; no lower one in an odd last row.
fn pairs(rows: usize, cols: usize, mut each: impl FnMut(usize, Option<usize>)) {
    for block in (0..cols).step_by(byte::LANES) {
        for row in (0..rows).step_by(2) {
            for col in block..cols.min(block + byte::LANES) {
                let upper = row * cols + col;
                each(upper, (row + 1 < rows).then_some(upper + cols));
            }
        }
    }
}

/// Splits levels and lists escapes. `freqs` says which nibbles may be coded; `filler` stands at escapes.
pub(crate) struct Splitter<'a> {
    pub split: Split,
    pub freqs: &'a nibble::Frequencies,
    pub filler: u8,
}

impl Splitter<'_> {
    /// Appends a nibble and raw bits for each level; calls `escape(position)` for those that do not fit.
    fn run(&self, levels: &[i32], nibbles: &mut Vec<u8>, raw: &mut Vec<u8>, mut escape: impl FnMut(usize)) {
        for (position, &level) in levels.iter().enumerate() {
            let fits = |&(n, _): &(u8, u8)| self.freqs.as_array()[usize::from(n)] > 0;
            let (n, r) = self.split.split(level).filter(fits).unwrap_or_else(|| {
                escape(position);
                (self.filler, 0)
            });
            nibbles.push(n);
            raw.push(r);
        }
    }

    /// Counts the pairs of a tile.
    pub fn count_pairs(&self, levels: &[i32], cols: usize, counts: &mut [u64; 256]) {
        let (mut nibbles, mut raw) = (Vec::with_capacity(levels.len()), Vec::new());
        self.run(levels, &mut nibbles, &mut raw, |_| {});
        pairs(levels.len() / cols, cols, |a, b| {
            counts[usize::from(nibbles[a] | b.map_or(self.filler, |b| nibbles[b]) << 4)] += 1;
        });
    }
}

enum EncodeTable {
    Nibble(u32, Box<nibble::EncodeTable>),
    Pairs(Box<byte::EncodeTable>),
}

/// Codes the tiles of a tensor.
pub(crate) struct TileEncoder<'a> {
    splitter: Splitter<'a>,
    cols: usize,
    table: EncodeTable,
}

impl<'a> TileEncoder<'a> {
    pub fn new(coded: &Coded, freqs: &Frequencies, splitter: Splitter<'a>) -> Self {
        let table = match (coded.codec, freqs) {
            (Codec::Nibble(lanes), Frequencies::Nibble(f)) => {
                EncodeTable::Nibble(lanes, Box::new(nibble::EncodeTable::new(f)))
            }
            (_, Frequencies::Pairs(f)) => EncodeTable::Pairs(Box::new(byte::EncodeTable::new(f))),
            (Codec::BytePairs, Frequencies::Nibble(_)) => {
                unreachable!("the encoder makes frequencies for its codec")
            }
        };
        Self { splitter, cols: coded.cols as usize, table }
    }

    /// Codes whole rows of levels.
    pub fn encode(&self, levels: &[i32]) -> Result<(Vec<u8>, TileEntry), rans_core::Error> {
        let n = levels.len();
        let (mut nibbles, mut raw, mut list) = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::new());
        self.splitter.run(levels, &mut nibbles, &mut raw, |p| list.push((p as u32, levels[p])));
        let mut out = Vec::with_capacity(n);
        write_raw(self.splitter.split.raw_bits, &raw, &mut out);
        let stream = self.stream(&nibbles)?;
        let mut append = |bytes: &[u8]| {
            out.extend(bytes);
            out.resize(out.len().next_multiple_of(4), 0);
            bytes.len() as u32
        };
        let stream = append(&stream);
        let mut bytes = Vec::new();
        escapes::write(&list, &mut bytes);
        let escapes = append(&bytes);
        let crc = crc32fast::hash(&out);
        Ok((out, TileEntry { stream, escapes, crc }))
    }

    fn stream(&self, nibbles: &[u8]) -> Result<Vec<u8>, rans_core::Error> {
        let rows = nibbles.len() / self.cols;
        let mut out;
        let len = match &self.table {
            EncodeTable::Nibble(lanes, table) => {
                let strips = strips(*lanes, rows, self.cols)?;
                out = vec![0; nibble::max_len(&strips)];
                nibble::encode(table, &strips, nibbles, &mut out)?
            }
            EncodeTable::Pairs(table) => {
                let mut symbols = Vec::with_capacity(nibbles.len().div_ceil(2));
                let filler = self.splitter.filler;
                pairs(rows, self.cols, |a, b| {
                    symbols.push(nibbles[a] | b.map_or(filler, |b| nibbles[b]) << 4)
                });
                out = vec![0; byte::max_len(symbols.len())];
                byte::encode(table, &steps(rows, self.cols)?, &symbols, &mut out)?
            }
        };
        out.truncate(len);
        Ok(out)
    }
}

fn write_raw(raw_bits: u32, raw: &[u8], out: &mut Vec<u8>) {
    for (width, shift) in fields(raw_bits) {
        let mask = ((1u32 << width) - 1) as u8;
        for group in raw.chunks((8 / width) as usize) {
            let at = |(i, &r): (usize, &u8)| ((r >> shift) & mask) << (width * i as u32);
            out.push(group.iter().enumerate().map(at).fold(0, |a, b| a | b));
        }
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

enum DecodeTable {
    Nibble(u32, Box<nibble::DecodeTable>),
    Pairs(Box<byte::DecodeTable>),
}

/// Decodes the tiles of a tensor.
pub struct TileDecoder {
    split: Split,
    cols: usize,
    table: DecodeTable,
}

impl TileDecoder {
    /// A decoder for tiles of this tensor. The frequencies must be those of its codec.
    pub fn new(coded: &Coded, freqs: &Frequencies) -> Self {
        let table = match (coded.codec, freqs) {
            (Codec::Nibble(lanes), Frequencies::Nibble(f)) => {
                DecodeTable::Nibble(lanes, Box::new(nibble::DecodeTable::new(f)))
            }
            (_, Frequencies::Pairs(f)) => DecodeTable::Pairs(Box::new(byte::DecodeTable::new(f))),
            (Codec::BytePairs, Frequencies::Nibble(_)) => {
                unreachable!("frequencies are read for their codec")
            }
        };
        Self { split: coded.split(), cols: coded.cols as usize, table }
    }

    /// Decodes the levels of a tile, row by row, into `levels` (whole rows). The error says what is corrupt.
    ///
    /// `bytes` must be [`TileEntry::bytes`] long. The checksum is the reader's business.
    pub fn decode(&self, bytes: &[u8], entry: TileEntry, levels: &mut [i32]) -> Result<(), String> {
        let n = levels.len();
        let parts = TileParts::new(bytes, entry, self.split, n)?;
        let mut nibbles = vec![0; n];
        self.nibbles(parts.stream, &mut nibbles).map_err(|e| e.to_string())?;
        let raw = read_raw(self.split.raw_bits, parts.raw, n)?;
        for ((level, &nibble), &raw) in levels.iter_mut().zip(&nibbles).zip(&raw) {
            *level = self.split.join(nibble, raw);
        }
        escapes::read(parts.escapes, n, |p, level| levels[p] = level)
    }

    /// Decodes the nibbles of a tile of `rows` rows step by step: group g of 64 lanes works on rows
    /// `g * height..(g + 1) * height` with `height = rows.div_ceil(groups)`. `None` if the codec is not `nibble`.
    pub fn nibble_steps<'a>(
        &'a self,
        isa: Isa,
        stream: &'a [u8],
        rows: usize,
    ) -> Option<Result<nibble::Decoder<'a>, rans_core::Error>> {
        let DecodeTable::Nibble(lanes, table) = &self.table else { return None };
        let strips = strips(*lanes, rows, self.cols);
        Some(strips.and_then(|strips| nibble::Decoder::new(isa, table, strips, stream)))
    }

    /// Decodes the nibbles of whole rows from the stream of a tile.
    pub fn nibbles(&self, stream: &[u8], nibbles: &mut [u8]) -> Result<(), rans_core::Error> {
        let rows = nibbles.len() / self.cols;
        match &self.table {
            DecodeTable::Nibble(lanes, table) => {
                nibble::decode(table, &strips(*lanes, rows, self.cols)?, stream, nibbles)
            }
            DecodeTable::Pairs(table) => {
                let steps = steps(rows, self.cols)?;
                let mut symbols = vec![0; steps.symbols()];
                byte::decode(table, &steps, stream, &mut symbols)?;
                let mut next = symbols.iter();
                pairs(rows, self.cols, |a, b| {
                    let pair = next.next().copied().unwrap_or(0); // steps and pairs count alike
                    nibbles[a] = pair & 15;
                    if let Some(b) = b {
                        nibbles[b] = pair >> 4;
                    }
                });
                Ok(())
            }
        }
    }
}

fn read_raw(raw_bits: u32, mut bytes: &[u8], n: usize) -> Result<Vec<u8>, String> {
    let mut raw = vec![0; n];
    for (width, shift) in fields(raw_bits) {
        let (plane, rest) = bytes.split_at(raw_bytes(width, n as u64) as usize);
        bytes = rest;
        let mask = ((1u32 << width) - 1) as u8;
        for (group, &byte) in raw.chunks_mut((8 / width) as usize).zip(plane) {
            for (i, r) in group.iter_mut().enumerate() {
                *r |= ((byte >> (width * i as u32)) & mask) << shift;
            }
        }
        let (whole, over) = (n * width as usize / 8, n * width as usize % 8);
        if plane.get(whole).is_some_and(|&b| b >> over != 0) || plane.iter().skip(whole + 1).any(|&b| b != 0)
        {
            return Err("filling other than zero after raw bits".into());
        }
    }
    Ok(raw)
}

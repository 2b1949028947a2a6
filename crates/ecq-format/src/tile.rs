//! A tile: a few rows, all columns, on their own. Levels, or bit patterns of floats, to bytes and back.
//!
//! The bytes of a tile: the [raw planes](crate::planes), the coded stream, the escapes, each filled up with zeros to 4
//! bytes.

use std::cell::RefCell;

use prefix_core::Lengths;
use rans_core::{Isa, byte, nibble};

use crate::directory::{Codec, Coded, PairCode, Pairs};
use crate::escapes;
use crate::levels::Split;
use crate::pairs::{self, Shape, grow};
use crate::pattern::Pattern;
use crate::plan::Plan;
use crate::planes::{
    Cut, RawPlanes, fill4, join_i32, join_patterns, raw_bytes, split_levels, split_patterns,
};
use crate::predict::Predictor;

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
    /// Coded stream of the nibble plane; for pairs, [`strips`](crate::pairs::strips) cuts it.
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

/// Frequencies of the coded symbols, or what a code makes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frequencies {
    /// Of nibbles.
    Nibble(nibble::Frequencies),
    /// Of pairs, the upper row's nibble in the low half.
    Pairs(Box<byte::Frequencies>),
    /// Of pairs, as lengths of their codes.
    Prefix(Box<Lengths>),
}

impl Frequencies {
    /// Serialised, as `rans-core` and `prefix-core` do it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![0; byte::Frequencies::MAX_BYTES.max(Lengths::BYTES)];
        let len = match self {
            Self::Nibble(f) => f.write(&mut out).ok(),
            Self::Pairs(f) => f.write(&mut out).ok(),
            Self::Prefix(lengths) => lengths.write(&mut out).ok(),
        };
        out.truncate(len.unwrap_or(0)); // the room is enough
        out
    }

    /// Reads the frequencies for a codec; zeros may follow them, nothing else.
    pub fn from_bytes(codec: Codec, bytes: &[u8]) -> Result<Self, String> {
        let (freqs, len) = match codec {
            Codec::Nibble(_) => {
                let (f, len) = nibble::Frequencies::read(bytes).map_err(|e| e.to_string())?;
                (Self::Nibble(f), len)
            }
            Codec::Pairs(Pairs { code: PairCode::Rans, .. }) => {
                let (f, len) = byte::Frequencies::read(bytes).map_err(|e| e.to_string())?;
                (Self::Pairs(Box::new(f)), len)
            }
            Codec::Pairs(Pairs { code: PairCode::Prefix, .. }) => {
                let (lengths, len) = Lengths::read(bytes).map_err(|e| e.to_string())?;
                (Self::Prefix(Box::new(lengths)), len)
            }
        };
        if bytes[len..].iter().any(|&b| b != 0) {
            return Err("bytes other than zero after the frequencies".into());
        }
        Ok(freqs)
    }
}

/// Lane groups of the nibble codec: a strip is a whole number of rows, so that rows of a step share their columns.
fn groups(lanes: u32, rows: usize, cols: usize) -> Result<nibble::Strips, rans_core::Error> {
    let groups = (lanes as usize / nibble::GROUP).max(1);
    nibble::Strips::new(lanes as usize, rows.div_ceil(groups) * cols, rows * cols)
}

/// The weights of a tile.
#[derive(Clone, Copy)]
pub(crate) enum TileInput<'a> {
    /// Their levels.
    Levels(&'a [i32]),
    /// Their bit patterns, little-endian.
    Floats(Pattern, &'a [u8]),
}

impl TileInput<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Levels(levels) => levels.len(),
            Self::Floats(pattern, bytes) => bytes.len() / pattern.format.bytes(),
        }
    }
}

/// What coding a tile needs besides its output; kept by each thread from tile to tile.
#[derive(Default)]
struct Scratch {
    nibbles: Vec<u8>,
    raw: Vec<u8>,
    pairs: Vec<u8>,
    list: Vec<(u32, i32)>,
    escapes: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Splits weights: nibbles into `nibbles`, which is resized, raw planes into `raw`, escapes into `list`.
fn split(
    plan: &Plan,
    weights: TileInput<'_>,
    nibbles: &mut Vec<u8>,
    raw: &mut [u8],
    list: &mut Vec<(u32, i32)>,
) {
    let allowed = plan.freqs.as_array().iter().rev().fold(0, |bits, &f| bits << 1 | u16::from(f > 0));
    let Split { raw_bits, center } = plan.split;
    let cut = Cut { raw_bits, center, allowed, filler: plan.filler };
    nibbles.resize(weights.len(), 0);
    list.clear();
    match weights {
        TileInput::Levels(levels) => split_levels(cut, levels, nibbles, raw, list),
        TileInput::Floats(pattern, bytes) => split_patterns(cut, pattern, bytes, nibbles, raw, list),
    }
}

/// Counts the pairs of a tile.
pub(crate) fn count_pairs(
    plan: &Plan,
    weights: TileInput<'_>,
    (pairs, cols): (Pairs, usize),
    counts: &mut [u64; 256],
) {
    let mut scratch = SCRATCH.take();
    let Scratch { nibbles, raw, list, .. } = &mut scratch;
    raw.resize(raw_bytes(plan.split.raw_bits, weights.len() as u64) as usize, 0);
    split(plan, weights, nibbles, raw, list);
    Shape::new(pairs, nibbles.len() / cols, cols).count(nibbles, plan.filler, counts);
    SCRATCH.set(scratch);
}

enum EncodeTable {
    Nibble(u32, Box<nibble::EncodeTable>),
    Pairs(Pairs, pairs::EncodeTable),
}

/// Codes the tiles of a tensor.
pub(crate) struct TileEncoder<'a> {
    plan: &'a Plan,
    cols: usize,
    table: EncodeTable,
}

impl<'a> TileEncoder<'a> {
    pub fn new(coded: &Coded, freqs: &Frequencies, plan: &'a Plan) -> Self {
        let table = match (coded.codec, freqs) {
            (Codec::Nibble(lanes), Frequencies::Nibble(f)) => {
                EncodeTable::Nibble(lanes, Box::new(nibble::EncodeTable::new(f)))
            }
            (Codec::Pairs(pairs), freqs) => EncodeTable::Pairs(pairs, pairs::EncodeTable::new(freqs)),
            (Codec::Nibble(_), _) => unreachable!("the encoder makes frequencies for its codec"),
        };
        Self { plan, cols: coded.cols as usize, table }
    }

    /// Codes whole rows into the start of `out`, which only grows; the entry tells how many bytes they are.
    pub fn encode(&self, weights: TileInput<'_>, out: &mut Vec<u8>) -> Result<TileEntry, String> {
        let mut scratch = SCRATCH.take();
        let Scratch { nibbles, pairs, list, escapes, .. } = &mut scratch;
        let raw = raw_bytes(self.plan.split.raw_bits, weights.len() as u64) as usize;
        grow(out, raw);
        split(self.plan, weights, nibbles, &mut out[..raw], list);
        let stream = self.stream(nibbles, pairs, raw, out)?;
        escapes.clear();
        escapes::write(list, escapes);
        let list_at = raw + stream.next_multiple_of(4);
        let end = list_at + escapes.len().next_multiple_of(4);
        grow(out, end);
        out[raw + stream..list_at].fill(0);
        out[list_at..list_at + escapes.len()].copy_from_slice(escapes);
        out[list_at + escapes.len()..end].fill(0);
        let (stream, escapes) = (stream as u32, escapes.len() as u32);
        SCRATCH.set(scratch);
        Ok(TileEntry { stream, escapes, crc: crc32fast::hash(&out[..end]) })
    }

    /// Codes nibbles to `out[start..]` and returns the length of the stream.
    fn stream(
        &self,
        nibbles: &[u8],
        symbols: &mut Vec<u8>,
        start: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, String> {
        let rows = nibbles.len() / self.cols;
        match &self.table {
            EncodeTable::Nibble(lanes, table) => {
                let coded = groups(*lanes, rows, self.cols).and_then(|strips| {
                    let end = start + nibble::max_len(&strips);
                    grow(out, end);
                    nibble::encode(table, &strips, nibbles, &mut out[start..end])
                });
                coded.map_err(|e| e.to_string())
            }
            EncodeTable::Pairs(pairs, table) => {
                let shape = Shape::new(*pairs, rows, self.cols);
                table.stream(shape, nibbles, self.plan.filler, symbols, (start, out))
            }
        }
    }
}

enum DecodeTable {
    Nibble(u32, Box<nibble::DecodeTable>),
    Pairs(Pairs, pairs::DecodeTable),
}

/// Decodes the tiles of a tensor.
pub struct TileDecoder {
    split: Split,
    pattern: Option<Pattern>,
    predictor: Option<Predictor>,
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
            (Codec::Pairs(pairs), freqs) => DecodeTable::Pairs(pairs, pairs::DecodeTable::new(freqs)),
            (Codec::Nibble(_), _) => unreachable!("frequencies are read for their codec"),
        };
        let (pattern, predictor, cols) = (coded.pattern, coded.predictor, coded.cols as usize);
        Self { split: coded.split(), pattern, predictor, cols, table }
    }

    /// Decodes the levels of a tile, row by row, into `levels` (whole rows). The error says what is corrupt.
    ///
    /// `bytes` must be [`TileEntry::bytes`] long. The checksum is the reader's business.
    pub fn decode(&self, bytes: &[u8], entry: TileEntry, levels: &mut [i32]) -> Result<(), String> {
        let n = levels.len();
        let escapes = self.parts(bytes, entry, n, |planes, nibbles| {
            join_i32(planes, 0, nibbles, levels);
            if self.split.center != 0 {
                levels.iter_mut().for_each(|level| *level += self.split.center);
            }
        })?;
        let mut all = Ok(());
        escapes::read(escapes, n, |p, level| {
            levels[p] = level;
            if self.pattern.is_some_and(|pattern| pattern.bits(level).is_none()) {
                all = Err(format!("level {level} has no bit pattern"));
            }
        })?;
        if let Some(predictor) = self.predictor {
            predictor.restore(self.cols, levels);
        }
        all
    }

    /// Decodes the weights of a tile of floats, row by row, little-endian, into `out` (whole rows). The error says what is
    /// corrupt, or that the tensor has no [`Pattern`].
    ///
    /// `bytes` must be [`TileEntry::bytes`] long. The checksum is the reader's business.
    pub fn decode_floats(&self, bytes: &[u8], entry: TileEntry, out: &mut [u8]) -> Result<(), String> {
        let pattern = self.pattern.ok_or("the tensor is not one of floats")?;
        let width = pattern.format.bytes();
        let n = out.len() / width;
        let escapes = self.parts(bytes, entry, n, |planes, nibbles| {
            join_patterns(planes, pattern, 0, nibbles, out);
        })?;
        let mut all = Ok(());
        escapes::read(escapes, n, |p, level| match pattern.bits(level) {
            Some(bits) => out[p * width..(p + 1) * width].copy_from_slice(&bits.to_le_bytes()[..width]),
            None => all = Err(format!("level {level} has no bit pattern")),
        })?;
        all
    }

    /// Takes a tile of `n` weights apart, calls `join` with its raw planes and its nibbles, returns its escapes.
    fn parts<'a>(
        &self,
        bytes: &'a [u8],
        entry: TileEntry,
        n: usize,
        join: impl FnOnce(&RawPlanes<'_>, &[u8]),
    ) -> Result<&'a [u8], String> {
        let parts = TileParts::new(bytes, entry, self.split, n)?;
        let planes = RawPlanes::new(self.split.raw_bits, n, parts.raw)?;
        let mut scratch = SCRATCH.take();
        let nibbles = &mut scratch.nibbles;
        nibbles.resize(n, 0);
        let decoded = self.nibbles(parts.stream, nibbles);
        if decoded.is_ok() {
            join(&planes, nibbles);
        }
        SCRATCH.set(scratch);
        decoded.map(|()| parts.escapes)
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
        let strips = groups(*lanes, rows, self.cols);
        Some(strips.and_then(|strips| nibble::Decoder::new(isa, table, strips, stream)))
    }

    /// Decodes the nibbles of whole rows from the stream of a tile. The error says what is corrupt.
    pub fn nibbles(&self, stream: &[u8], nibbles: &mut [u8]) -> Result<(), String> {
        let rows = nibbles.len() / self.cols;
        match &self.table {
            DecodeTable::Nibble(lanes, table) => groups(*lanes, rows, self.cols)
                .and_then(|strips| nibble::decode(table, &strips, stream, nibbles))
                .map_err(|e| e.to_string()),
            DecodeTable::Pairs(pairs, table) => {
                let shape = Shape::new(*pairs, rows, self.cols);
                table.nibbles(shape, &shape.cut(stream)?, nibbles)
            }
        }
    }
}

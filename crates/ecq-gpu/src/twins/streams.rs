//! The way through the streams: which rows and columns a stream has, and its lanes (`kernels/walk.wgsl`, `streams.wgsl`).

use super::prefix::PrefixLanes;
use super::rans::RansLanes;
use super::{Buffers, Error, LANES, Result, get};
use crate::layout::BAND;
use crate::variant::{Code, Field, Form};

/// Where a stream's weights are in the matrix, and its bits in `words`.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Its strip in the tile.
    pub strip: u32,
    /// First row of its tile.
    pub row: u32,
    /// Row behind the last one of its tile.
    pub end_row: u32,
    /// First column of its strip.
    pub col: u32,
    /// Column behind the last one of its strip.
    pub end_col: u32,
    /// Its first word.
    pub words: u64,
    /// First word of the raw bits of its tile.
    pub raw: u64,
}

/// Eight rows of a tile, or the rest of its rows.
#[derive(Clone, Copy, Debug)]
pub struct Band {
    /// Its first row.
    pub row: u32,
    /// Number of its rows: 1 to 8.
    pub rows: u32,
    /// First word of its raw bits.
    pub raw: u64,
}

impl Band {
    /// Pairs of rows: a symbol each for every column. Of an odd number of rows the last one has an idle one beside it.
    pub fn pairs(&self) -> usize {
        self.rows.div_ceil(2) as usize
    }
}

impl Stream {
    /// The stream of this number: those of a tile are its strips from left to right, tiles go from top to bottom.
    pub(super) fn find(b: &Buffers<'_>, stream: u32) -> Result<Self> {
        let p = b.params;
        let (tile, strip) = (stream / p.strips, stream % p.strips);
        // in `first` a tile has a word for its raw bits, and one for each stream
        let entry = u64::from(tile) * (u64::from(p.strips) + 1);
        let row = u64::from(p.first_row) + u64::from(tile) * u64::from(p.tile_rows);
        let end_row = (row + u64::from(p.tile_rows)).min(p.end_row.into());
        let col = u64::from(strip) * u64::from(p.strip);
        Ok(Self {
            strip,
            row: row as u32, // of the streams that there are, none begins behind the last row or column
            end_row: end_row as u32,
            col: col as u32,
            end_col: (col + u64::from(p.strip)).min(p.cols.into()) as u32,
            words: get("first", b.first, entry + 1 + u64::from(strip))?.into(),
            raw: get("first", b.first, entry)?.into(),
        })
    }

    /// Its bands, from top to bottom. The raw bits of a band follow those of the band before it.
    pub(super) fn bands(&self, form: &Form, cols: u32) -> impl Iterator<Item = Band> + use<> {
        let Self { row: first, end_row, raw, .. } = *self;
        let words: u64 = Field::of(form.value.raw_bits()).map(|field| field.band_words(cols.into())).sum();
        (first..end_row).step_by(BAND).enumerate().map(move |(i, row)| Band {
            row,
            rows: (end_row - row).min(BAND as u32),
            raw: raw + i as u64 * words,
        })
    }

    /// Its blocks, from left to right: the columns of each, which are 32 or, in the last one, fewer.
    pub(super) fn blocks(&self) -> impl Iterator<Item = std::ops::Range<u32>> + use<> {
        let Self { col: first, end_col, .. } = *self;
        (first..end_col).step_by(LANES).map(move |col| col..end_col.min(col.saturating_add(LANES as u32)))
    }
}

/// Nibbles of the eight rows of a band in each lane's column; 0 where rows or columns are missing.
pub type Nibbles = [[u8; BAND]; LANES];

/// The lanes of a stream.
pub trait Lanes {
    /// Decodes the symbols of a block of so many columns in a band of so many pairs of rows, at most 32 and 4; lanes beyond
    /// them are idle.
    fn block(&mut self, columns: usize, pairs: usize) -> Result<[[u8; 4]; LANES]>;

    /// The nibbles of these. A symbol has those of two rows, of the upper one in its low bits.
    fn nibbles(&mut self, columns: usize, pairs: usize) -> Result<Nibbles> {
        let symbols = self.block(columns, pairs)?;
        Ok(symbols.map(|symbols| std::array::from_fn(|row| symbols[row / 2] >> (row % 2 * 4) & 15)))
    }
}

/// The lanes at the begin of a stream.
pub(super) fn start<'a>(code: Code, b: &Buffers<'a>, stream: &Stream) -> Result<Box<dyn Lanes + 'a>> {
    Ok(match code {
        Code::Prefix => Box::new(PrefixLanes::start(b, stream)?),
        Code::Rans => Box::new(RansLanes::start(b, stream)?),
        Code::Nibble { .. } => {
            let (expected, got) = ("one of pairs".into(), format!("{code:?}"));
            return Err(Error::Parameters { what: "code", expected, got });
        }
    })
}

/// The symbol of a slot of the table, and what is known of it: `codes` has 256 words for the symbols, then the symbols of
/// 4,096 slots, four in a word.
pub(super) fn look(codes: &[u32], slot: u32) -> Result<(u8, u32)> {
    let four = get("codes", codes, u64::from(256 + slot / 4))?;
    let symbol = (four >> (slot % 4 * 8)) as u8;
    Ok((symbol, get("codes", codes, symbol.into())?))
}

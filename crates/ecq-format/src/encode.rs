//! All tiles of a tensor: in parallel, handed over in order, a bounded number in memory at a time.

use std::cell::RefCell;
use std::ops::Range;

use prefix_core::Lengths;
use rans_core::{byte, nibble};
use rayon::prelude::*;

use crate::directory::{Codec, Coded, MAX_TILE_WEIGHTS, PairCode, Pairs, Values, matrix};
use crate::ordered::ordered;
use crate::pattern::Pattern;
use crate::plan::{Histogram, Plan};
use crate::predict::Predictor;
use crate::tile::{ENTRY_BYTES, Frequencies, TileEncoder, TileEntry, TileInput, count_pairs};

/// Where levels come from.
///
/// Called more than once for the same rows, from several threads, and should give the same levels each time: with others,
/// a tensor may turn out not to be codable, which is an error when it is written.
pub trait Levels: Sync {
    /// Writes the levels of whole rows, row by row, into `out`.
    fn fill(&self, rows: Range<usize>, out: &mut [i32]);
}

/// What the coded symbols shall be decoded on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// SIMD units: the `nibble` codec.
    #[default]
    Cpu,
    /// GPUs: pairs of nibbles in strips and bands; a prefix code, unless it takes much more than rANS would.
    Gpu,
}

/// Codec and tile height for a matrix. For GPUs, the code is the one that is tried first.
pub fn layout(rows: u64, cols: u64, profile: Profile) -> (Codec, u64) {
    let (codec, height) = match profile {
        Profile::Cpu => nibble_layout(rows, cols),
        Profile::Gpu => pair_layout(rows, cols),
    };
    let most = (MAX_TILE_WEIGHTS / cols.max(1)).max(1);
    let height = height.min(rows).max(1);
    // a multiple of the rows that are coded side by side, where one fits
    let whole = if most < u64::from(BAND) { most } else { most - most % u64::from(BAND) };
    (codec, if height <= most { height } else { whole })
}

/// A stream costs a start state a lane, of which about 5 bits carry nothing. With 512 symbols a lane, 1,024 for large
/// tensors, that is 0.1-0.2 % at 3.5 bits. Fewer lanes serve small tensors.
fn nibble_layout(rows: u64, cols: u64) -> (Codec, u64) {
    let (groups, target) = match rows * cols {
        0..0x8000 => (1, 64 * 512),
        0x8000..0x10_0000 => (4, 256 * 1024),
        _ => (8, 512 * 1024),
    };
    let groups = u64::min(groups, rows.max(1));
    (Codec::Nibble(groups as u32 * nibble::GROUP as u32), equal(rows, (rows * cols).div_ceil(target), groups))
}

/// Rows of a band: one lane decodes them for its column into the eight rows that a kernel multiplies at once.
const BAND: u32 = 8;
/// Most columns of a strip: vectors that long fit the shared memory of a work group.
const MOST_COLUMNS: u64 = 4096;

/// A stream costs about 92 bytes: 0.6 % at 3.5 bits and 2^15 weights. Small tensors get shorter ones, so that there are
/// enough of them for all units of a GPU.
fn pair_layout(rows: u64, cols: u64) -> (Codec, u64) {
    let width = |strips: u64| cols.div_ceil(strips).next_multiple_of(32);
    let mut strips = 1;
    while width(strips) > MOST_COLUMNS {
        strips *= 2;
    }
    let strip = width(strips);
    let target = if rows * cols < 1 << 22 { 1 << 14 } else { 1 << 15 };
    let band = u64::from(BAND);
    let bands = ((target + band * strip / 2) / (band * strip)).max(1);
    let pairs = Pairs { code: PairCode::Prefix, band: BAND, strip };
    (Codec::Pairs(pairs), equal(rows, rows.div_ceil(band * bands), band))
}

/// Height of about so many tiles of equal height, a multiple of `unit`.
fn equal(rows: u64, tiles: u64, unit: u64) -> u64 {
    rows.div_ceil(tiles.max(1)).next_multiple_of(unit)
}

/// Counts all levels of a matrix. `center` is the level at which signs fold.
pub fn histogram(levels: &dyn Levels, rows: usize, cols: usize, center: i32) -> Histogram {
    let chunk = (1usize << 16).div_ceil(cols.max(1));
    (0..rows.div_ceil(chunk))
        .into_par_iter()
        .fold(
            || (Histogram::new(center), Vec::new()),
            |(mut h, mut buffer), i| {
                let range = i * chunk..rows.min((i + 1) * chunk);
                buffer.resize(range.len() * cols, 0);
                levels.fill(range, &mut buffer);
                h.add_all(&buffer);
                (h, buffer)
            },
        )
        .map(|(h, _)| h)
        .reduce(|| Histogram::new(center), |a, b| a.merge(&b))
}

/// Where the weights of a tensor come from.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// Levels, a few rows at a time.
    Levels(&'a dyn Levels),
    /// All bytes of a matrix of floats, little-endian, row by row.
    Floats(Pattern, &'a [u8]),
}

/// What the directory will say of a tensor, but for its split.
fn record(
    scheme: &str,
    shape: &[u64],
    values: Values,
    (codec, tile_rows): (Codec, u64),
    input: Input<'_>,
) -> Result<Coded, String> {
    let (rows, cols) = matrix(shape).ok_or("the shape's product overflows")?;
    let pattern = match input {
        Input::Levels(_) => None,
        Input::Floats(pattern, bytes) => {
            if (rows * cols).checked_mul(pattern.format.bytes() as u64) != Some(bytes.len() as u64) {
                return Err(format!("{} bytes of weights for {rows} x {cols}", bytes.len()));
            }
            Some(pattern)
        }
    };
    let (scheme, raw_bits, center, predictor) = (scheme.into(), 0, 0, None);
    Ok(Coded { scheme, rows, cols, tile_rows, codec, raw_bits, center, values, pattern, predictor })
}

/// A tensor about to be coded.
pub struct Encoder<'a> {
    coded: Coded,
    plan: &'a Plan,
    input: Input<'a>,
    freqs: Frequencies,
}

impl<'a> Encoder<'a> {
    /// Prepares a tensor of this shape. The error says why it cannot be coded; it can still be stored as it is.
    pub fn new(
        scheme: &str,
        shape: &[u64],
        values: Values,
        profile: Profile,
        plan: &'a Plan,
        levels: &'a dyn Levels,
    ) -> Result<Self, String> {
        Self::of(scheme, shape, values, profile, plan, Input::Levels(levels))
    }

    /// Prepares a tensor of floats that is coded without loss. `bytes` are all its bytes, `plan` and `pattern` are from
    /// [`pattern::plan`](crate::pattern::plan). Error as for [`Self::new`].
    pub fn floats(
        scheme: &str,
        shape: &[u64],
        profile: Profile,
        plan: &'a Plan,
        pattern: Pattern,
        bytes: &'a [u8],
    ) -> Result<Self, String> {
        Self::of(scheme, shape, Values::ONE, profile, plan, Input::Floats(pattern, bytes))
    }

    fn of(
        scheme: &str,
        shape: &[u64],
        values: Values,
        profile: Profile,
        plan: &'a Plan,
        input: Input<'a>,
    ) -> Result<Self, String> {
        let (rows, cols) = matrix(shape).ok_or("the shape's product overflows")?;
        let coded = record(scheme, shape, values, layout(rows, cols, profile), input)?;
        Self::prepare(coded, shape, plan, input, true)
    }

    /// Prepares a tensor for this codec and tiles of so many rows. Error as for [`Self::new`], and what
    /// [`Coded::check`] says of them.
    pub fn with_layout(
        scheme: &str,
        shape: &[u64],
        values: Values,
        layout: (Codec, u64),
        plan: &'a Plan,
        input: Input<'a>,
    ) -> Result<Self, String> {
        Self::prepare(record(scheme, shape, values, layout, input)?, shape, plan, input, false)
    }

    /// Prepares a tensor that is coded already for a profile: all but codec, tiles and split stays. `levels` are what was
    /// coded: those of floats for a tensor with a pattern; differences, in tiles of the new height, for one with a
    /// predictor. Error as for [`Self::new`].
    pub fn again(
        coded: &Coded,
        shape: &[u64],
        profile: Profile,
        plan: &'a Plan,
        levels: &'a dyn Levels,
    ) -> Result<Self, String> {
        let (codec, tile_rows) = layout(coded.rows, coded.cols, profile);
        Self::prepare(Coded { codec, tile_rows, ..coded.clone() }, shape, plan, Input::Levels(levels), true)
    }

    /// `choose`: whether another code of pairs is taken if it is worth it.
    fn prepare(
        mut coded: Coded,
        shape: &[u64],
        plan: &'a Plan,
        input: Input<'a>,
        choose: bool,
    ) -> Result<Self, String> {
        (coded.raw_bits, coded.center) = (plan.split.raw_bits, plan.split.center);
        coded.check(shape)?;
        let freqs = match coded.codec {
            Codec::Nibble(_) => Frequencies::Nibble(plan.freqs),
            Codec::Pairs(pairs) => {
                let counts = count(&coded, pairs, plan, input);
                let wanted = if choose { None } else { Some(pairs.code) };
                let (code, freqs) = pair_table(&counts, wanted, coded.raw_bits)?;
                coded.codec = Codec::Pairs(Pairs { code, ..pairs }.oldest(coded.tile_rows, coded.cols));
                freqs
            }
        };
        Ok(Self { coded, plan, input, freqs })
    }

    /// Declares the levels to be [`Differences`](crate::predict::Differences) in tiles of this encoder's height.
    #[must_use]
    pub fn predicted(mut self, predictor: Option<Predictor>) -> Self {
        self.coded.predictor = predictor;
        self
    }

    /// How the tensor is coded.
    pub fn coded(&self) -> &Coded {
        &self.coded
    }

    /// The frequencies of its symbols.
    pub fn frequencies(&self) -> &Frequencies {
        &self.freqs
    }

    /// Codes all tiles on rayon's threads and hands them to `sink` in order: the rows, the bytes, the index entry; or why
    /// they cannot be coded, which is so only if their weights are not the ones that were there before.
    pub fn run<E>(
        &self,
        mut sink: impl FnMut(Range<usize>, Result<(&[u8], TileEntry), &str>) -> Result<(), E>,
    ) -> Result<(), E> {
        let encoder = TileEncoder::new(&self.coded, &self.freqs, self.plan);
        let mut tiles = 0..self.coded.tiles() as usize;
        let make = |tile: usize, made: &mut (Vec<u8>, Option<Result<TileEntry, String>>)| {
            // the plan holds every level, the table every pair, the buffers the worst case
            let code = |weights: TileInput<'_>| encoder.encode(weights, &mut made.0);
            made.1 = Some(with_tile(&self.coded, self.input, tile, code));
        };
        ordered(tiles.len(), make, |(bytes, entry)| match (tiles.next(), entry) {
            (Some(tile), Some(entry)) => {
                let rows = self.coded.tile_range(tile);
                let weights = rows.len() as u64 * self.coded.cols;
                let len = |entry: &TileEntry| entry.bytes(self.coded.split(), weights) as usize;
                let made = entry.as_ref().map(|entry| (&bytes[..len(entry)], *entry));
                sink(rows, made.map_err(|why| why.as_str()))
            }
            _ => Ok(()), // there are as many tiles as there are tiles
        })
    }

    /// Bytes that tiles, their index and the tables take in a file, all filled up to 8; found by coding all tiles.
    pub fn count_bytes(&self) -> u64 {
        let mut tiles = 0;
        let counted: Result<(), std::convert::Infallible> = self.run(|_, tile| {
            // what cannot be coded is found by whoever writes it
            tiles += tile.map_or(0, |(bytes, _)| bytes.len());
            Ok(())
        });
        let Ok(()) = counted;
        let index = ENTRY_BYTES * self.coded.tiles() as usize;
        let parts = [tiles, index, self.freqs.to_bytes().len()];
        parts.iter().map(|n| n.next_multiple_of(8) as u64).sum()
    }
}

thread_local! {
    /// Levels of a tile, kept from tile to tile.
    static LEVELS: RefCell<Vec<i32>> = const { RefCell::new(Vec::new()) };
}

/// Calls `each` with the weights of a tile.
fn with_tile<T>(coded: &Coded, input: Input<'_>, tile: usize, each: impl FnOnce(TileInput<'_>) -> T) -> T {
    let (rows, cols) = (coded.tile_range(tile), coded.cols as usize);
    match input {
        Input::Floats(pattern, bytes) => {
            let row = cols * pattern.format.bytes();
            each(TileInput::Floats(pattern, &bytes[rows.start * row..rows.end * row]))
        }
        Input::Levels(levels) => {
            let mut buffer = LEVELS.take();
            buffer.resize(rows.len() * cols, 0);
            levels.fill(rows, &mut buffer);
            let made = each(TileInput::Levels(&buffer));
            LEVELS.set(buffer);
            made
        }
    }
}

/// Most that a prefix code may cost beyond rANS, of all bits of the levels. It decodes in half the instructions, and where
/// weights are read from memory 2.5 % more bytes are 2.5 % more time; but for planes of hardly any entropy it costs much
/// more: a code has at least a bit, two weights.
pub const MOST_LOSS: f64 = 0.025;

/// The table of pairs that occur so often, for this code or for the one that is worth its bytes.
fn pair_table(
    counts: &[u64; 256],
    code: Option<PairCode>,
    raw_bits: u32,
) -> Result<(PairCode, Frequencies), String> {
    let lengths = Lengths::from_counts(counts).map_err(|e| e.to_string())?;
    let freqs = byte::Frequencies::from_counts(counts).map_err(|e| e.to_string())?;
    let code = code.unwrap_or_else(|| {
        let raw = counts.iter().sum::<u64>() as f64 * f64::from(2 * raw_bits);
        let bits = |(&count, &f): (&u64, &u16)| count as f64 * (4096.0 / f64::from(f.max(1))).log2();
        let rans: f64 = counts.iter().zip(freqs.as_array()).map(bits).sum();
        // every pair that occurs has a code
        let prefix = lengths.cost(counts).unwrap_or(u64::MAX) as f64;
        if prefix + raw > (1.0 + MOST_LOSS) * (rans + raw) { PairCode::Rans } else { PairCode::Prefix }
    });
    let table = match code {
        PairCode::Rans => Frequencies::Pairs(Box::new(freqs)),
        PairCode::Prefix => Frequencies::Prefix(Box::new(lengths)),
    };
    Ok((code, table))
}

/// How often each pair of nibbles occurs.
fn count(coded: &Coded, pairs: Pairs, plan: &Plan, input: Input<'_>) -> Box<[u64; 256]> {
    let add = |mut a: Box<[u64; 256]>, b: Box<[u64; 256]>| {
        a.iter_mut().zip(b.iter()).for_each(|(a, b)| *a += b);
        a
    };
    let zero = || Box::new([0u64; 256]);
    (0..coded.tiles() as usize)
        .into_par_iter()
        .fold(zero, |mut counts, tile| {
            with_tile(coded, input, tile, |weights| {
                count_pairs(plan, weights, (pairs, coded.cols as usize), &mut counts);
            });
            counts
        })
        .reduce(zero, add)
}

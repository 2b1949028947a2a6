//! All tiles of a tensor: in parallel, handed over in order, a bounded number in memory at a time.

use std::ops::Range;

use rans_core::{byte, nibble};
use rayon::prelude::*;

use crate::directory::{Codec, Coded, MAX_TILE_WEIGHTS, Values, matrix};
use crate::levels::Split;
use crate::plan::{Histogram, Plan};
use crate::tile::{Frequencies, Splitter, TileEncoder, TileEntry};

/// Where levels come from.
///
/// Called more than once for the same rows, from several threads, and must give the same levels each time.
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
    /// GPUs: the `byte` codec on pairs of nibbles.
    Gpu,
}

/// Codec and tile height for a matrix.
///
/// A stream costs a start state a lane, of which about 5 bits (`nibble`) and 13 bits (`byte`) carry nothing. With 512
/// symbols a lane, 1,024 for large tensors, that is 0.1-0.3 % at 3.5 bits. Fewer lanes serve small tensors.
pub fn layout(rows: u64, cols: u64, profile: Profile) -> (Codec, u64) {
    let weights = rows * cols;
    let (codec, target, unit) = match profile {
        Profile::Gpu => (Codec::BytePairs, 32 * 2048, 8),
        Profile::Cpu => {
            let (groups, target) = match weights {
                0..0x8000 => (1, 64 * 512),
                0x8000..0x10_0000 => (4, 256 * 512),
                _ => (8, 512 * 1024),
            };
            let groups = u64::min(groups, rows.max(1)) as u32;
            (Codec::Nibble(groups * nibble::GROUP as u32), target, u64::from(groups))
        }
    };
    // tiles of equal height, a multiple of the rows that are coded side by side
    let tiles = weights.div_ceil(target).max(1);
    let height = rows.div_ceil(tiles).next_multiple_of(unit).min(rows).max(1);
    let most = (MAX_TILE_WEIGHTS / cols.max(1)).max(1);
    (codec, height.min(most))
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
                buffer.iter().for_each(|&l| h.add(l));
                (h, buffer)
            },
        )
        .map(|(h, _)| h)
        .reduce(|| Histogram::new(center), |a, b| a.merge(&b))
}

/// A tensor about to be coded.
pub struct Encoder<'a> {
    coded: Coded,
    plan: &'a Plan,
    levels: &'a dyn Levels,
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
        let (rows, cols) = matrix(shape).ok_or("the shape's product overflows")?;
        let (codec, tile_rows) = layout(rows, cols, profile);
        let Split { raw_bits, center } = plan.split;
        let coded = Coded { scheme: scheme.into(), rows, cols, tile_rows, codec, raw_bits, center, values };
        coded.check(shape)?;
        let freqs = match codec {
            Codec::Nibble(_) => Frequencies::Nibble(plan.freqs),
            Codec::BytePairs => Frequencies::Pairs(Box::new(pair_frequencies(&coded, plan, levels)?)),
        };
        Ok(Self { coded, plan, levels, freqs })
    }

    /// How the tensor is coded.
    pub fn coded(&self) -> &Coded {
        &self.coded
    }

    /// The frequencies of its symbols.
    pub fn frequencies(&self) -> &Frequencies {
        &self.freqs
    }

    /// Codes all tiles and hands them to `sink` in order.
    pub fn run<E: Send>(&self, mut sink: impl FnMut(&[u8], TileEntry) -> Result<(), E>) -> Result<(), E> {
        let encoder = TileEncoder::new(&self.coded, &self.freqs, splitter(self.plan));
        let tiles = self.coded.tiles() as usize;
        // a few tiles a thread in memory at a time
        let batch = 2 * rayon::current_num_threads();
        for first in (0..tiles).step_by(batch) {
            let made: Vec<_> = (first..tiles.min(first + batch))
                .into_par_iter()
                .map(|tile| {
                    let levels = tile_levels(&self.coded, self.levels, tile);
                    // the plan holds every level, the buffers the worst case
                    encoder.encode(&levels).expect("a planned tile can be coded")
                })
                .collect();
            made.iter().try_for_each(|(bytes, entry)| sink(bytes, *entry))?;
        }
        Ok(())
    }
}

fn splitter(plan: &Plan) -> Splitter<'_> {
    Splitter { split: plan.split, freqs: &plan.freqs, filler: plan.filler }
}

fn tile_levels(coded: &Coded, levels: &dyn Levels, tile: usize) -> Vec<i32> {
    let first = tile * coded.tile_rows as usize;
    let rows = first..first + coded.rows_of_tile(tile as u64) as usize;
    let mut buffer = vec![0; rows.len() * coded.cols as usize];
    levels.fill(rows, &mut buffer);
    buffer
}

fn pair_frequencies(coded: &Coded, plan: &Plan, levels: &dyn Levels) -> Result<byte::Frequencies, String> {
    let add = |mut a: Box<[u64; 256]>, b: Box<[u64; 256]>| {
        a.iter_mut().zip(b.iter()).for_each(|(a, b)| *a += b);
        a
    };
    let zero = || Box::new([0u64; 256]);
    let counts = (0..coded.tiles() as usize)
        .into_par_iter()
        .fold(zero, |mut counts, tile| {
            let buffer = tile_levels(coded, levels, tile);
            splitter(plan).count_pairs(&buffer, coded.cols as usize, &mut counts);
            counts
        })
        .reduce(zero, add);
    byte::Frequencies::from_counts(&counts).map_err(|e| e.to_string())
}

//! All ways to multiply with the same weights, in turns, each over copies of its own that no cache holds together.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ecq_format::reader::CodedTensor;
use ecq_gpu::engine::read;
use ecq_gpu::variant::{Lanes, Table as Place, Tuning};
use ecq_gpu::wgpu::{Buffer, BufferUsages, CommandEncoder};
use ecq_gpu::{Clock, Engine, Matrix, Packed, upload};

use super::copies::repetitions;
use super::tensors::exact;
use crate::timing::median;

/// Most that a product may be off, relative to the norm of the exact one.
pub const TOLERANCE: f64 = 1e-5;

/// What is done with weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Product with plain nibbles of one scale: what all else is compared with.
    Nibbles,
    /// Product from the prefix code or rANS.
    Fused(Code),
    /// Product with weights that were decoded before.
    Packed,
    /// Decoding to packed weights.
    Decode(Code),
    /// Product from the prefix code as [`TUNINGS`] has it.
    Tuned(usize),
}

/// Choices beside the usual ones, on devices with subgroups.
pub const TUNINGS: [(&str, Tuning); 4] = [
    ("  table in buffer", Tuning { table: Place::Storage, streams: 8 }),
    ("  4 streams", Tuning { table: Place::Workgroup, streams: 4 }),
    ("  2 streams", Tuning { table: Place::Workgroup, streams: 2 }),
    ("  1, in buffer", Tuning { table: Place::Storage, streams: 1 }),
];

/// Code of the pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The prefix code, first of the files.
    Prefix,
    /// rANS.
    Rans,
}

impl Way {
    /// What the table calls it, for packed weights of so many bits.
    pub fn name(self, bits: u32) -> String {
        match self {
            Self::Nibbles => "plain 4-bit".into(),
            Self::Fused(Code::Prefix) => "fused, prefix".into(),
            Self::Fused(Code::Rans) => "fused, rANS".into(),
            Self::Packed => format!("cached, {bits}-bit"),
            Self::Decode(Code::Prefix) => "decode, prefix".into(),
            Self::Decode(Code::Rans) => "decode, rANS".into(),
            Self::Tuned(i) => TUNINGS[i].0.into(),
        }
    }
}

/// Products of all numbers of vectors.
const WAYS: [Way; 4] = [Way::Nibbles, Way::Fused(Code::Prefix), Way::Fused(Code::Rans), Way::Packed];

/// How much GPU memory copies may take.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Bytes that a cache may hold: copies together are four times as large.
    pub cache: u64,
    /// Bytes of all copies.
    pub memory: u64,
}

impl Room {
    /// Copies of a thing of so many bytes; a quarter of all memory is for them.
    fn copies(self, bytes: u64) -> usize {
        let wanted = (4 * self.cache).div_ceil(bytes);
        wanted.min(self.memory / 4 / bytes).max(1) as usize
    }
}

/// Plain nibbles in GPU memory.
pub struct Nibbles {
    matrix: Matrix,
    packed: Vec<Packed>,
}

impl Nibbles {
    /// Decodes copies of a tensor.
    pub fn new(engine: &Engine, clock: &Clock, tensor: &CodedTensor<'_>, room: Room) -> Result<Self> {
        let matrix = Matrix::new(engine, "nibbles", tensor)?;
        let packed = packed(engine, clock, &matrix, room)?;
        ensure!(packed[0].bits() == 4, "plain weights have {} bits, not 4", packed[0].bits());
        Ok(Self { matrix, packed })
    }
}

/// Copies of the weights of a matrix.
fn packed(engine: &Engine, clock: &Clock, matrix: &Matrix, room: Room) -> Result<Vec<Packed>> {
    let first = Packed::new(engine, matrix)?;
    let more = room.copies(first.bytes()) - 1;
    let rest = (0..more).map(|_| Packed::new(engine, matrix));
    let all = std::iter::once(Ok(first)).chain(rest).collect::<ecq_gpu::Result<Vec<_>>>()?;
    clock.time(|encoder| all.iter().try_for_each(|packed| packed.decode(engine, encoder, matrix)))?;
    Ok(all)
}

/// Everything that a race needs in GPU memory.
pub struct Contest<'a> {
    engine: &'a Engine,
    clock: &'a Clock,
    nibbles: &'a Nibbles,
    /// With each of [`TUNINGS`], where it has subgroups and they are to be tried.
    tuned: Vec<Engine>,
    /// In the prefix code, in rANS.
    coded: [Vec<Matrix>; 2],
    packed: Vec<Packed>,
    numbers: Vec<f32>,
    x: Buffer,
    /// For each number of vectors that weights are multiplied with at once.
    y: Vec<(usize, Buffer)>,
}

impl<'a> Contest<'a> {
    /// Uploads copies of a tensor in both codes, to multiply with so many vectors at once. `None` if one copy of each thing does not fit the memory.
    pub fn new(
        engine: &'a Engine,
        clock: &'a Clock,
        nibbles: &'a Nibbles,
        tensors: &[Box<CodedTensor<'_>>; 2],
        counts: &[usize],
        room: Room,
        tune: bool,
    ) -> Result<Option<Self>> {
        let matrix = |i: usize| Matrix::new(engine, "weights", &tensors[i]);
        let first = [matrix(0)?, matrix(1)?];
        let needs = first[0].bytes() + first[1].bytes() + Packed::new(engine, &first[0])?.bytes();
        if needs + nibbles.packed[0].bytes() > room.memory {
            return Ok(None);
        }
        let (rows, cols) = (first[0].rows(), first[0].cols());
        let packed = packed(engine, clock, &first[0], room)?;
        let fill = |first: Matrix, i: usize| -> Result<Vec<Matrix>> {
            let more = room.copies(first.bytes()) - 1;
            let rest = (0..more).map(|_| matrix(i));
            Ok(std::iter::once(Ok(first)).chain(rest).collect::<ecq_gpu::Result<_>>()?)
        };
        let [prefix, rans] = first;
        let coded = [fill(prefix, 0)?, fill(rans, 1)?];
        let count = counts.iter().copied().max().context("no number of vectors")?;
        let number = |i: usize| (i * 7919 % 100_003) as f32 / 50_001.5 - 1.0;
        let numbers: Vec<f32> = (0..count * cols).map(number).collect();
        let vectors = |count: usize, usage| upload::buffer(engine, "vectors", 4 * count as u64, usage);
        let x = vectors(numbers.len(), BufferUsages::STORAGE)?;
        engine.queue().write_buffer(&x, 0, bytemuck::cast_slice(&numbers));
        let y = |&count: &usize| -> Result<(usize, Buffer)> {
            Ok((count, vectors(count * rows, BufferUsages::STORAGE | BufferUsages::COPY_SRC)?))
        };
        let y = counts.iter().map(y).collect::<Result<_>>()?;
        let tuned = match (tune, engine.lanes()) {
            (true, Lanes::Subgroups(_)) => TUNINGS.iter().map(|(_, tuning)| engine.tuned(*tuning)).collect(),
            _ => Vec::new(),
        };
        Ok(Some(Self { engine, clock, nibbles, tuned, coded, packed, numbers, x, y }))
    }

    /// Bits of a packed weight.
    pub fn packed_bits(&self) -> u32 {
        self.packed[0].bits()
    }

    /// Copies that a way takes in turns.
    pub fn copies(&self, way: Way) -> usize {
        match way {
            Way::Nibbles => self.nibbles.packed.len(),
            Way::Packed => self.packed.len(),
            Way::Fused(code) | Way::Decode(code) => self.coded[code as usize].len(),
            Way::Tuned(_) => self.coded[Code::Prefix as usize].len(),
        }
    }

    /// Bytes of weights that a way reads.
    pub fn bytes(&self, way: Way) -> u64 {
        match way {
            Way::Nibbles => self.nibbles.packed[0].bytes(),
            Way::Packed => self.packed[0].bytes(),
            Way::Fused(code) | Way::Decode(code) => self.coded[code as usize][0].bytes(),
            Way::Tuned(_) => self.coded[Code::Prefix as usize][0].bytes(),
        }
    }

    /// Records what a way does for a number of vectors, with the copies whose turn it is.
    fn record(
        &self,
        way: Way,
        (vectors, y): &(usize, Buffer),
        turn: usize,
        encoder: &mut CommandEncoder,
    ) -> Result<()> {
        let (engine, first) = (self.engine, &self.coded[0][0]);
        let x = self.x.slice(..4 * (vectors * first.cols()) as u64);
        let y = y.slice(..);
        match way {
            Way::Nibbles => {
                let Nibbles { matrix, packed } = self.nibbles;
                packed[turn % packed.len()].record(engine, encoder, matrix, x, y)?;
            }
            Way::Fused(code) => {
                let copies = &self.coded[code as usize];
                copies[turn % copies.len()].record(engine, encoder, x, y)?;
            }
            Way::Tuned(i) => {
                let copies = &self.coded[Code::Prefix as usize];
                copies[turn % copies.len()].record(&self.tuned[i], encoder, x, y)?;
            }
            Way::Packed => {
                self.packed[turn % self.packed.len()].record(engine, encoder, first, x, y)?;
            }
            Way::Decode(code) => {
                let copies = &self.coded[code as usize];
                let packed = &self.packed[turn % self.packed.len()];
                packed.decode(engine, encoder, &copies[turn % copies.len()])?;
            }
        }
        Ok(())
    }

    /// Numbers of vectors, in the order that was asked for.
    fn counts(&self) -> impl Iterator<Item = usize> + '_ {
        self.y.iter().map(|(count, _)| *count)
    }

    /// Holds the products of the first and the last copy against sums in f64 of some rows. Returns the largest error of
    /// this tensor's, relative to the norm; it is an error if any is too large.
    pub fn check(&self, tensor: &CodedTensor<'_>, nibbles: &CodedTensor<'_>) -> Result<f64> {
        let own = exact(tensor, &self.numbers).context("products in f64")?;
        let plain = exact(nibbles, &self.numbers).context("products in f64")?;
        let mut largest = 0f64;
        let tuned = (0..self.tuned.len()).map(Way::Tuned);
        for way in WAYS.into_iter().chain(tuned) {
            let expected = if way == Way::Nibbles { &plain } else { &own };
            for y in &self.y {
                for turn in [0, self.copies(way) - 1] {
                    let error = self.error(way, y, turn, expected)?;
                    let name = way.name(self.packed_bits());
                    ensure!(
                        error <= TOLERANCE,
                        "{name}, {} vectors, copy {turn}: the product is off by {error:e} of its norm, at most {TOLERANCE:e}",
                        y.0
                    );
                    if way != Way::Nibbles {
                        largest = largest.max(error);
                    }
                }
            }
        }
        // decoding from rANS fills the packed weights anew, which must then give the same
        let y = &self.y[0];
        self.clock.time(|encoder| self.record(Way::Decode(Code::Rans), y, 0, encoder))?;
        let error = self.error(Way::Packed, y, 0, &own)?;
        ensure!(error <= TOLERANCE, "decoded from rANS: a product is off by {error:e} of its norm");
        Ok(largest.max(error))
    }

    fn error(
        &self,
        way: Way,
        y: &(usize, Buffer),
        turn: usize,
        expected: &[Vec<(usize, f64)>],
    ) -> Result<f64> {
        // what another way has left there shall not do
        self.clock.time(|encoder| {
            encoder.clear_buffer(&y.1, 0, None);
            self.record(way, y, turn, encoder)
        })?;
        let words = read(self.engine.device(), self.engine.queue(), &y.1, y.1.size())?;
        let rows = self.coded[0][0].rows();
        let mut largest = 0f64;
        for (words, expected) in words.chunks_exact(rows).zip(expected) {
            let off = |&(row, e): &(usize, f64)| (f64::from(f32::from_bits(words[row])) - e).powi(2);
            let error: f64 = expected.iter().map(off).sum();
            let norm: f64 = expected.iter().map(|(_, e)| e * e).sum();
            let error = (error / norm).sqrt();
            // a NaN is an error, too
            largest = if error <= largest { largest } else { error };
        }
        Ok(largest)
    }

    /// Rounds in which each way runs once, until `time` is over; nine at least, after warming up. `target` is how many
    /// seconds one run shall take.
    pub fn race(&self, time: Duration, target: f64) -> Result<Vec<Runner>> {
        let products = |way: Way| (0..self.y.len()).map(move |i| (way, Some(i)));
        let decode = [(Way::Decode(Code::Prefix), None), (Way::Decode(Code::Rans), None)];
        // with the first number of vectors
        let tuned = (0..self.tuned.len()).map(|i| (Way::Tuned(i), Some(0)));
        let all = WAYS.into_iter().flat_map(products).chain(tuned).chain(decode);
        let mut runners: Vec<Runner> =
            all.map(|(way, y)| Runner::new(way, y, self.counts().nth(y.unwrap_or(0)).unwrap_or(1))).collect();
        for runner in &mut runners {
            runner.times = repetitions(target, |times| runner.run(self, times))?;
        }
        let begun = Instant::now();
        while runners[0].rounds.len() < 9 || begun.elapsed() < time {
            for runner in &mut runners {
                let times = runner.times;
                let taken = runner.run(self, times)?;
                runner.rounds.push(taken / times as f64);
            }
        }
        Ok(runners)
    }
}

/// A way in a race.
pub struct Runner {
    /// What is done.
    pub way: Way,
    /// With how many vectors; decoding is compared with products with the first number of them.
    pub vectors: usize,
    /// In the contest: the result. None for decoding.
    pub y: Option<usize>,
    /// Seconds of each round, for once.
    rounds: Vec<f64>,
    /// How often in a round.
    times: usize,
    turn: usize,
}

impl Runner {
    fn new(way: Way, y: Option<usize>, vectors: usize) -> Self {
        Self { way, vectors, y, rounds: Vec::new(), times: 1, turn: 0 }
    }

    /// Seconds for so many times.
    fn run(&mut self, contest: &Contest<'_>, times: usize) -> Result<f64> {
        let (first, y) = (self.turn, &contest.y[self.y.unwrap_or(0)]);
        self.turn += times;
        contest.clock.time(|encoder| {
            let mut turns = first..first + times;
            turns.try_for_each(|turn| contest.record(self.way, y, turn, encoder))
        })
    }

    /// Median of seconds.
    pub fn median(&self) -> f64 {
        median(self.rounds.clone())
    }

    /// Seconds of the best round.
    pub fn best(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// How many times as long as another way: the median of the ratios of single rounds.
    pub fn ratio(&self, other: &Self) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(a, b)| a / b).collect())
    }
}

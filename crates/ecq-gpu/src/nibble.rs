//! How streams of the `nibble` codec lie on a machine: a workgroup decodes a tile, its invocations keep lanes side by side.

use ecq_format::reader::CodedTensor;
use ecq_format::tile::Frequencies;
use minijinja::{Value, context};
use rans_core::nibble::{DecodeTable, GROUP};

use crate::variant::Lanes;

/// Most invocations of a workgroup, which WebGPU promises.
const MOST: u32 = 256;
/// Most vectors whose sums are in workgroup memory at once.
const AT_ONCE: u32 = 8;
/// Words of the table: 256 slots, and 16 symbols as such.
const TABLE: u32 = 256 + 16;

/// The table of a tensor: symbol, rank and frequency of each slot. `None` for other codecs.
pub fn codes(tensor: &CodedTensor<'_>) -> Option<Vec<u32>> {
    let Frequencies::Nibble(freqs) = tensor.frequencies() else { return None };
    let slots = DecodeTable::new(freqs);
    let word = |(symbol, freq, rank): (u8, u16, u16)| {
        u32::from(symbol) << 28 | u32::from(rank) << 9 | u32::from(freq)
    };
    Some(slots.entries().map(word).collect())
}

/// A workgroup.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// Its invocations.
    pub threads: u32,
    machine: Lanes,
    /// Groups of 64 lanes.
    groups: u32,
    /// Lanes of an invocation: 1, 2 or 4.
    kept: u32,
    /// Vectors of a product, or 0.
    vectors: u32,
}

impl Walk {
    /// For streams of so many lanes and products with so many vectors, or none.
    pub fn new(lanes: u32, machine: Lanes, vectors: u32) -> Self {
        let kept = lanes.div_ceil(MOST).next_power_of_two();
        let threads = lanes / kept;
        let threads = match machine {
            Lanes::Subgroups(size) => threads.next_multiple_of(size),
            Lanes::Barriers => threads,
        };
        Self { threads, machine, groups: lanes / GROUP as u32, kept, vectors }
    }

    /// Invocations of a group.
    fn members(&self) -> u32 {
        GROUP as u32 / self.kept
    }

    /// Subgroups, or invocations where there are none, of a group.
    fn of_group(&self) -> u32 {
        match self.machine {
            Lanes::Subgroups(size) => (self.members() / size).max(1),
            Lanes::Barriers => self.members(),
        }
    }

    /// Parts of a sum in workgroup memory.
    fn parts(&self) -> u32 {
        match self.of_group() {
            1 => 0,
            of_group => self.threads * of_group / self.members(),
        }
    }

    fn at_once(&self) -> u32 {
        self.vectors.min(AT_ONCE)
    }

    /// Words that say how many lanes need a byte, or which ones; there are two or three such sets.
    fn asked(&self) -> (u32, u32) {
        match self.machine {
            Lanes::Subgroups(size) if self.threads == size => (0, 2),
            Lanes::Subgroups(size) => (self.threads / size, 2),
            Lanes::Barriers => (self.groups * GROUP as u32 / 32, 3),
        }
    }

    /// Bytes of workgroup memory.
    pub fn bytes(&self) -> u32 {
        let (asked, sets) = self.asked();
        4 * (TABLE + sets * asked + self.parts() * self.at_once())
    }

    /// What templates take from it.
    pub fn context(&self) -> Value {
        let (subgroups, size) = match self.machine {
            Lanes::Subgroups(size) => (true, size),
            Lanes::Barriers => (false, 1),
        };
        let distances: Vec<u32> = (0..size.min(self.members()).ilog2()).map(|i| 1 << i).collect();
        context! {
            subgroups, s => size, k => self.kept, groups => self.groups, members => self.members(),
            of_group => self.of_group(), parts => self.parts(), at_once => self.at_once(),
            asked => self.asked().0, masks => size.div_ceil(32), distances,
        }
    }
}

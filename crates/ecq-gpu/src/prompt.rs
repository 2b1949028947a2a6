//! How a workgroup shares out a product with many vectors: plain numbers that the template and the plan have in common.

use crate::variant::Lanes;

/// Columns whose weights are in workgroup memory at once.
const COLUMNS: u32 = 32;

/// The part of a product that a workgroup makes, and that of an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Tiles of a workgroup: of each, a band is decoded at once.
    pub tiles: u32,
    /// Its invocations.
    pub threads: u32,
    /// Its vectors.
    pub vectors: u32,
    /// Groups of four vectors that an invocation multiplies with a band.
    pub groups: u32,
    /// Columns whose numbers of all its vectors are in workgroup memory at once.
    pub deep: u32,
}

impl Prompt {
    /// For lanes that lie so.
    ///
    /// Weights and vectors fill the least workgroup memory that is promised; without subgroups there are fewer tiles, as
    /// something must stand for ballots. An invocation has 32 sums, and 64 where subgroups are so small that a weight would
    /// serve few vectors.
    pub fn of(lanes: Lanes) -> Self {
        let (tiles, lanes) = match lanes {
            Lanes::Subgroups(size) => (8, size.min(32)),
            Lanes::Barriers => (4, 32),
        };
        let groups = if lanes < 16 { 2 } else { 1 };
        let vectors = 4 * groups * lanes;
        Self { tiles, threads: tiles * lanes, vectors, groups, deep: (2048 / vectors).min(COLUMNS) }
    }

    /// Bytes of workgroup memory for weights and vectors.
    pub fn memory(&self) -> u32 {
        4 * (8 * self.tiles * COLUMNS + self.vectors * self.deep)
    }
}

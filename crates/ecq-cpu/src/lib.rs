//! Matrix products straight from the coded tensors of a `.ecq` file: `y = W x` without W ever being in memory.
#![deny(unsafe_code)] // but for the kernels in `arch`

mod activations;
mod arch;
mod matrix;
mod packed;
mod scaling;
mod spread;
mod tile;

pub use activations::{Activations, Precision};
pub use matrix::Matrix;
pub use packed::Packed;
pub use rans_core::{InstructionSet, Isa};

/// Columns that kernels take at once.
const BLOCK: usize = 64;
/// Sums that a kernel keeps for a row.
const LANES: usize = 16;
/// Neighbouring columns of a block that go to the same lane.
const LANE: usize = BLOCK / LANES;

//! The `.ecq` file: quantized tensors stored at their entropy, in a valid safetensors container.
//!
//! The way of a tensor, and where each step lives:
//!
//! | step | module |
//! |---|---|
//! | integer levels → nibble, raw bits, escapes | [`levels`] |
//! | histogram of the levels → the cheapest split, the frequencies | [`plan`] |
//! | a tile of levels → bytes, and back | [`tile`] |
//! | scales and other side data → bytes, and back | [`side`] |
//! | all tiles of a tensor, in parallel, in order | [`encode`] |
//! | tensors → file | [`writer`], under a temporary name at first: [`staging`] |
//! | file → tensors | [`reader`] |
//!
//! [`directory`] is what the header of the file says. `docs/format.md` in the repository is the normative
//! specification. This crate names quantization schemes and does no arithmetic with weights.
#![deny(unsafe_code)] // but for the memory map

pub mod directory;
pub mod encode;
mod error;
pub mod escapes;
pub mod levels;
pub mod plan;
pub mod reader;
pub mod side;
pub mod staging;
pub mod tile;
pub mod writer;

pub use error::{Error, Result};
pub use reader::{Limits, Reader};
pub use safetensors::Dtype;
pub use writer::Writer;

/// The version of the format that this crate writes, and the only one that it reads.
pub const VERSION: u32 = 1;

//! The `.ecq` file: quantized tensors stored at their entropy, in a valid safetensors container.
//!
//! The way of a tensor, and where each step lives:
//!
//! | step | module |
//! |---|---|
//! | integer levels → nibble, raw bits, escapes | [`levels`] |
//! | bit patterns of floats → levels | [`pattern`] |
//! | levels of 8 bits → differences from a prediction | [`predict`] |
//! | many of them at once | [`planes`] |
//! | histogram of the levels → the cheapest split, the frequencies | [`plan`] |
//! | a tile of levels or bit patterns → bytes, and back | [`tile`]; nibbles in pairs: [`pairs`] |
//! | scales and other side data → bytes, and back | [`side`] |
//! | all tiles of a tensor, in parallel, in order | [`encode`], [`ordered`](mod@ordered) |
//! | tensors → file | [`writer`], under a temporary name at first: [`staging`] |
//! | file → tensors | [`reader`]; files that change or cannot be read meanwhile: [`Mapped::check`], [`signals`] |
//!
//! [`directory`] is what the header of the file says. `docs/format.md` in the repository is the normative
//! specification. This crate names quantization schemes and does no arithmetic with weights.
#![deny(unsafe_code)] // but for the memory map, and the signals that come of it

mod blob;
pub mod directory;
pub mod encode;
mod error;
pub mod escapes;
pub mod levels;
mod mapped;
pub mod ordered;
pub mod pairs;
pub mod pattern;
pub mod plan;
pub mod planes;
pub mod predict;
pub mod reader;
mod scales;
pub mod side;
pub mod signals;
pub mod staging;
pub mod tile;
pub mod writer;

pub use error::{Error, Result, shown};
pub use mapped::Mapped;
pub use reader::{Limits, Reader};
pub use safetensors::Dtype;
pub use writer::Writer;

/// The newest version of the format, and the last that is read. Files are written in the oldest that can say them.
pub const VERSION: u32 = 4;

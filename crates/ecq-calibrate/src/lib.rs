//! Quantization for the entropy coder by what is known of a model's activations and gradients.
//!
//! | step | module |
//! |---|---|
//! | a text → tokens in chunks | [`text`], [`texts`] |
//! | chunks through the uncompressed model → second moments of inputs, squared gradients of outputs | [`mod@gather`]; a block, forward and backward: `block.rs` |
//! | statistics in a file | [`statistics`]; one that goes on after an interruption: `writer.rs` |
//! | llama.cpp's importance matrices as statistics | [`imatrix`] |
//! | second moments → which errors count, and how they are made up for | `factor.rs` |
//! | weights → levels, column by column | `feedback.rs` |
//! | bits for all tensors from one multiplier | [`calibrated`] |
//! | what a file tells of its calibration | [`record`] |
//! | chunks through a model with these or those weights | [`decoder`] |
//! | weights beside those that they were made from, on what was not learned from | [`quality`] |
#![forbid(unsafe_code)]

mod block;
pub mod calibrated;
pub mod decoder;
mod error;
mod factor;
mod feedback;
pub mod gather;
pub mod imatrix;
mod linear;
pub mod quality;
pub mod record;
pub mod statistics;
pub mod text;
pub mod texts;
mod writer;

pub use block::LAYERS;
pub use calibrated::Calibrated;
pub use decoder::Decoder;
pub use error::{Error, Result};
pub use gather::gather;
pub use record::Record;
pub use statistics::Statistics;
pub use texts::Texts;
pub use writer::goes_on;

#[cfg(test)]
#[path = "../../ecq-llm/tests/fixture/mod.rs"]
#[allow(clippy::unwrap_used, dead_code, missing_docs)]
mod fixture;
#[cfg(test)]
#[path = "../../ecq-llm/tests/reference/mod.rs"]
#[allow(clippy::unwrap_used, dead_code, missing_docs)]
mod reference;

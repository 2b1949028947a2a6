//! What the fuzzer runs. One function a target; each takes bytes as they come and must neither panic, nor read or write
//! where it must not, nor take memory that the bytes do not justify.
//!
//! | target | bytes | what is done with them |
//! |---|---|---|
//! | [`ecq()`] | a `.ecq` file | opened, verified, multiplied on every instruction set |
//! | [`gguf`] | a GGUF file | opened, described; what opens is converted, verified and rebuilt |
//! | [`safetensors`] | a safetensors file, behind it a `config.json` | the same |
//! | [`streams`] | choices | both codecs: coded, decoded on every instruction set; damaged, decoded again: all must agree |
//! | [`round_trip`] | choices | a file of tensors of every kind, written and read |
//! | [`tokenizer`] | GGUF, or the JSON files of a folder | a tokenizer, a text, a chat |
//!
//! The mutators of [`mutate`] know what a file looks like: plain changes would not get past its checksums.

pub mod mutate;
mod place;
mod round_trip;
mod sources;
mod streams;
mod tokenizer;

#[path = "../../crates/ecq-format/tests/common/mod.rs"]
mod common;
mod ecq;

pub use ecq::ecq;
pub use round_trip::round_trip;
pub use sources::{gguf, safetensors};
pub use streams::streams;
pub use tokenizer::tokenizer;

//! The whole ECQ pipeline as a library: models in, `.ecq` out, and back.
//!
//! | what | module |
//! |---|---|
//! | safetensors, GGUF and Hugging Face folders, checked | [`source`] |
//! | GGUF's block formats | [`blocks`] |
//! | a source's tensors as levels or weights | [`tensors`] |
//! | bits for each tensor | [`rates`] |
//! | source → `.ecq` | [`convert`](mod@convert) |
//! | `.ecq` → the source files, or safetensors | [`restore`](mod@restore) |
//! | `.ecq` → `.ecq` in the codecs of another profile | [`recode`](mod@recode) |
//! | checksums, decoding, comparison with the source | [`verify`](mod@verify) |
//! | what is inside a `.ecq` file | [`inspect`](mod@inspect) |
//! | what each scheme would give | [`analyze`](mod@analyze) |
//!
//! Nothing here prints; progress goes to a [`Progress`], remarks to `tracing`.

#![forbid(unsafe_code)]

pub mod analyze;
pub mod blocks;
mod calibrator;
pub mod convert;
mod error;
mod file_name;
pub mod inspect;
mod progress;
pub mod rates;
pub mod recode;
pub mod restore;
pub mod source;
pub mod tensors;
mod verbatim;
pub mod verify;

pub use error::{Error, Result};
pub use progress::{Progress, Silent};

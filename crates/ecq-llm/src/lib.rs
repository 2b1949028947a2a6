//! Language models run from the entropy-coded weights of a `.ecq` file, on the CPU or a GPU.
//!
//! ```no_run
//! use ecq_llm::{Model, Options, Sampling};
//!
//! let model = Model::open("model.ecq".as_ref(), Options::default())?;
//! let prompt = model.tokenizer().encode("The capital of France is")?;
//! let mut cache = model.cache(512)?;
//! for token in model.generate(&prompt, &mut cache, Sampling::default(), &|| false)?.take(20) {
//!     print!("{}", model.tokenizer().decode(&[token?]));
//! }
//! # Ok::<(), ecq_llm::Error>(())
//! ```
#![forbid(unsafe_code)]

mod attention;
mod cache;
pub mod chat;
mod choice;
pub mod comparison;
mod components;
pub mod config;
mod decoder;
mod description;
mod error;
mod file;
pub mod gpu;
mod logits;
pub mod math;
mod model;
mod names;
mod network;
mod options;
mod sampling;
pub mod source;
mod system;
mod tensors;
mod tokenizer;
mod uncompressed;
mod weights;

pub use attention::Rope;
pub use cache::Cache;
pub use choice::{Choice, Sizes};
pub use config::Config;
pub use description::Description;
pub use ecq_cpu::Precision;
pub use error::{Error, Result};
pub use file::ModelFile;
pub use gpu::Adapter;
pub use logits::Logits;
pub use model::{Generate, Model};
pub use names::Names;
pub use options::{Decode, Device, Options};
pub use sampling::{Sampler, Sampling, most_likely};
pub use system::SystemMemory;
pub use tokenizer::Tokenizer;
pub use uncompressed::Uncompressed;

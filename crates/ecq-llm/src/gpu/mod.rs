//! The decoder on a GPU, through `ecq-gpu`, with everything on the device between the embedding of a token and its logits.
//!
//! The CPU decodes a token's row of the embedding from the mapped file, and makes cosines and sines of its position in f64;
//! both are written to the device. Products are those of [`ecq_gpu::Weights`], all else is done by the kernels of
//! [`kernels`]. A token is one submission; a prompt goes through in batches of up to 128 tokens, a submission a block. Keys and
//! values of earlier tokens stay in GPU memory, and only logits come back. All numbers are f32, and so are sums.

mod adapter;
mod cache;
pub mod kernels;
mod network;
mod pass;
mod room;
mod steps;
mod weights;

pub use adapter::{Adapter, present};
pub(crate) use cache::Cache;
pub(crate) use network::Network;

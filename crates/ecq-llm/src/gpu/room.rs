//! Buffers that tokens pass through.

use ecq_gpu::Engine;
use ecq_gpu::upload::buffer;
use ecq_gpu::wgpu::{Buffer, BufferUsages};

use super::weights::uniform;
use crate::config::Config;

/// For up to so many vectors each number of them has kernels of its own, which drivers compile when they are first used.
pub const FEW: usize = 16;

/// Vectors that are multiplied for so many tokens: of 2 to 16 always 16. What is behind the tokens is not used.
pub fn padded(tokens: usize) -> usize {
    if (2..FEW).contains(&tokens) { FEW } else { tokens }
}

/// Buffers of a pass.
pub struct Room {
    /// Tokens that there is room for.
    pub tokens: usize,
    /// Tokens whose logits there is room for.
    pub logits: usize,
    pub x: Buffer,
    pub normed: Buffer,
    pub query: Buffer,
    pub key: Buffer,
    pub value: Buffer,
    pub attended: Buffer,
    pub gate: Buffer,
    pub up: Buffer,
    pub delta: Buffer,
    /// Cosines and sines of the tokens' angles.
    pub angles: Buffer,
    /// Uniform: positions that are filled.
    pub filled: Buffer,
    /// The product with the output matrix.
    pub output: Buffer,
    /// The same where the CPU reads it.
    pub staging: Buffer,
}

impl Room {
    /// For so many tokens and logits. Errors: [`ecq_gpu::Error::Limit`], [`ecq_gpu::Error::OutOfMemory`].
    pub fn new(engine: &Engine, config: &Config, tokens: usize, logits: usize) -> ecq_gpu::Result<Self> {
        let Config { width, hidden, heads, kv_heads, head, vocabulary, .. } = *config;
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
        let make = |what: &str, numbers: usize| buffer(engine, what, 4 * (tokens * numbers) as u64, usage);
        let read = 4 * (logits * vocabulary) as u64;
        Ok(Self {
            tokens,
            logits,
            x: make("tokens", width)?,
            normed: make("normed tokens", width)?,
            query: make("queries", heads * head)?,
            key: make("keys", kv_heads * head)?,
            value: make("values", kv_heads * head)?,
            attended: make("attention", heads * head)?,
            gate: make("the MLP", hidden)?,
            up: make("the MLP", hidden)?,
            delta: make("tokens", width)?,
            angles: make("angles", head)?,
            filled: uniform(engine, "positions", &[0; 4])?,
            output: buffer(engine, "logits", read, usage)?,
            staging: buffer(engine, "logits for the CPU", read, BufferUsages::MAP_READ)?,
        })
    }

    /// Bytes of such buffers.
    pub fn bytes(config: &Config, tokens: usize, logits: usize) -> u64 {
        let Config { width, hidden, heads, kv_heads, head, vocabulary, .. } = *config;
        let token = 3 * width + 2 * hidden + (2 * heads + 2 * kv_heads + 1) * head;
        4 * (tokens * token + 2 * logits * vocabulary) as u64
    }
}

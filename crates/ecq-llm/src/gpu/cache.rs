//! Keys and values in GPU memory.

use ecq_gpu::upload::buffer;
use ecq_gpu::wgpu::{Buffer, BufferUsages};
use ecq_gpu::{Dispatch, Engine};

use super::weights::uniform;
use crate::config::Config;

/// Keys and values, as f32: for each block those of all heads.
pub struct Cache {
    pub positions: usize,
    pub len: usize,
    pub layers: Vec<Vec<Shelf>>,
    /// Parameters of the kernels, for each shelf of a block.
    pub params: Vec<Params>,
    /// Attention of a single token in each block, once it was made, with the buffer of positions of the room it is for.
    pub token: Option<(Buffer, Vec<Vec<Dispatch>>)>,
}

/// Some heads of a block: as many as a binding has room for.
pub struct Shelf {
    /// For each head and number a row of positions.
    pub keys: Buffer,
    /// For each head and position a row of numbers.
    pub values: Buffer,
}

/// What kernels are told of a shelf.
pub struct Params {
    pub store: Buffer,
    pub attend: Buffer,
    /// Heads of keys in it.
    pub heads: usize,
}

impl Cache {
    /// An empty one. Errors: [`ecq_gpu::Error::OutOfMemory`], and [`ecq_gpu::Error::Limit`] if not even one head fits a buffer.
    pub fn new(engine: &Engine, config: &Config, positions: usize) -> ecq_gpu::Result<Self> {
        let Config { heads, kv_heads, head, layers, .. } = *config;
        let limits = engine.limits();
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let one = 4 * (positions * head) as u64;
        let group = ((most / one) as usize).clamp(1, kv_heads);
        let shared_by = heads / kv_heads;
        let scale = 1.0 / (head as f32).sqrt();
        let mut params = Vec::new();
        for first in (0..kv_heads).step_by(group) {
            let count = group.min(kv_heads - first);
            let store = [kv_heads, first, count, head, positions].map(|n| n as u32);
            let [a, b, c, d, e] = [heads, first * shared_by, shared_by, head, positions].map(|n| n as u32);
            params.push(Params {
                store: uniform(engine, "the cache", &store)?,
                attend: uniform(engine, "the cache", &[a, b, c, d, e, scale.to_bits()])?,
                heads: count,
            });
        }
        let make = |count: usize| buffer(engine, "the cache", one * count as u64, BufferUsages::STORAGE);
        let shelf = |p: &Params| Ok(Shelf { keys: make(p.heads)?, values: make(p.heads)? });
        let layer = |_| params.iter().map(shelf).collect::<ecq_gpu::Result<_>>();
        let layers = (0..layers).map(layer).collect::<ecq_gpu::Result<_>>()?;
        Ok(Self { positions, len: 0, layers, params, token: None })
    }

    /// Bytes of a cache.
    pub fn bytes(config: &Config, positions: usize) -> u64 {
        8 * (config.layers * config.kv_heads * config.head * positions) as u64
    }
}

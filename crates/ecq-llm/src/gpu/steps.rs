//! What is recorded for tokens: kernels bound to their buffers. Those of a single token are made once.

use ecq_gpu::wgpu::{BindingResource, Buffer, BufferAddress};
use ecq_gpu::{Dispatch, Product, Result, Weights};

use super::cache::Cache;
use super::kernels::{Kernel, grid};
use super::network::Network;
use super::room::{Room, padded};
use super::weights::{Projection, first};
use crate::config::Config;

/// Something to record.
pub enum Step {
    /// A kernel.
    Run(Dispatch),
    /// A product with coded weights.
    Multiply(Product),
    /// Keys and values into the cache that tokens pass with, and attention.
    Attend,
    /// So many bytes of a buffer from there on, to the beginning of another.
    Copy { from: Buffer, offset: BufferAddress, to: Buffer, bytes: BufferAddress },
}

/// Makes the steps of so many tokens in a room.
pub struct Maker<'n> {
    network: &'n Network<'n>,
    weights: &'n Weights,
    room: &'n Room,
    tokens: usize,
    steps: Vec<Step>,
}

impl<'n> Maker<'n> {
    pub fn new(network: &'n Network<'n>, weights: &'n Weights, room: &'n Room, tokens: usize) -> Self {
        Self { network, weights, room, tokens, steps: Vec::new() }
    }

    /// Through a block.
    pub fn block(mut self, layer: usize) -> Result<Vec<Step>> {
        let (network, room) = (self.network, self.room);
        let block = &network.blocks[layer];
        let Config { heads, kv_heads, .. } = network.config;
        self.norm(&block.attention_norm, [&room.x, &room.normed])?;
        self.multiply(&block.query, [&room.normed, &room.query])?;
        self.multiply(&block.key, [&room.normed, &room.key])?;
        self.multiply(&block.value, [&room.normed, &room.value])?;
        if let Some([query, key]) = &block.head_norms {
            self.norm_heads(query, &room.query, heads)?;
            self.norm_heads(key, &room.key, kv_heads)?;
        }
        self.rotate(&network.params.rotate_query, &room.query, heads)?;
        self.rotate(&network.params.rotate_key, &room.key, kv_heads)?;
        self.steps.push(Step::Attend);
        self.multiply(&block.out, [&room.attended, &room.delta])?;
        self.add()?;
        self.norm(&block.mlp_norm, [&room.x, &room.normed])?;
        self.multiply(&block.gate, [&room.normed, &room.gate])?;
        self.multiply(&block.up, [&room.normed, &room.up])?;
        let gate = [&network.params.gate, &room.up, &room.gate].map(Buffer::as_entire_binding);
        self.run(Kernel::Gate, gate, grid(network.config.hidden, self.tokens))?;
        self.multiply(&block.down, [&room.gate, &room.delta])?;
        self.add()?;
        Ok(self.steps)
    }

    /// The logits of so many tokens from that one on, and their way to where the CPU reads them.
    pub fn output(mut self, from: usize, count: usize) -> Result<Vec<Step>> {
        let (network, room) = (self.network, self.room);
        let Config { width, vocabulary, .. } = network.config;
        self.copy([&room.x, &room.delta], from * width, count * width);
        self.norm(&network.norm, [&room.delta, &room.normed])?;
        let [x, y] =
            [first(&room.normed, padded(count) * width), first(&room.output, padded(count) * vocabulary)];
        network.output.steps(&network.kernels, self.weights, [x, y], &mut self.steps)?;
        self.copy([&room.output, &room.staging], 0, count * vocabulary);
        Ok(self.steps)
    }

    fn multiply(&mut self, by: &Projection, [x, y]: [&Buffer; 2]) -> Result<()> {
        let count = padded(self.tokens);
        let buffers = [first(x, count * by.cols), first(y, count * by.rows)];
        by.steps(&self.network.kernels, self.weights, buffers, &mut self.steps)
    }

    fn norm(&mut self, weight: &Buffer, [x, y]: [&Buffer; 2]) -> Result<()> {
        let buffers = [&self.network.params.norm, x, weight, y].map(Buffer::as_entire_binding);
        self.run(Kernel::Norm, buffers, [1, self.tokens as u32])
    }

    fn norm_heads(&mut self, weight: &Buffer, heads: &Buffer, count: usize) -> Result<()> {
        let (params, copy) = (&self.network.params.head_norm, &self.room.attended);
        self.copy([heads, copy], 0, heads.size() as usize / 4);
        let buffers = [params, copy, weight, heads].map(Buffer::as_entire_binding);
        self.run(Kernel::Norm, buffers, [count as u32, self.tokens as u32])
    }

    fn rotate(&mut self, params: &Buffer, x: &Buffer, heads: usize) -> Result<()> {
        let buffers = [params, &self.room.angles, x].map(Buffer::as_entire_binding);
        self.run(Kernel::Rotate, buffers, grid(heads * self.network.config.head / 2, self.tokens))
    }

    fn add(&mut self) -> Result<()> {
        let buffers =
            [&self.network.params.add, &self.room.delta, &self.room.x].map(Buffer::as_entire_binding);
        self.run(Kernel::Add, buffers, grid(self.network.config.width, self.tokens))
    }

    fn run<const N: usize>(
        &mut self,
        kernel: Kernel,
        buffers: [BindingResource<'_>; N],
        grid: [u32; 2],
    ) -> Result<()> {
        self.steps.push(Step::Run(self.network.kernels.dispatch(kernel, buffers, grid)?));
        Ok(())
    }

    /// Numbers of a buffer, from that one on, to the beginning of another.
    fn copy(&mut self, [from, to]: [&Buffer; 2], offset: usize, numbers: usize) {
        let [offset, bytes] = [offset, numbers].map(|n| 4 * n as BufferAddress);
        self.steps.push(Step::Copy { from: from.clone(), offset, to: to.clone(), bytes });
    }
}

/// Keys and values of so many tokens into a block's cache, and attention.
pub fn attention(
    network: &Network<'_>,
    room: &Room,
    cache: &Cache,
    layer: usize,
    tokens: usize,
) -> Result<Vec<Dispatch>> {
    let Config { heads, kv_heads, head, .. } = network.config;
    let mut all = Vec::new();
    for (shelf, params) in cache.layers[layer].iter().zip(&cache.params) {
        let store = [&params.store, &room.filled, &room.key, &room.value, &shelf.keys, &shelf.values];
        let store = store.map(Buffer::as_entire_binding);
        all.push(network.kernels.dispatch(Kernel::Store, store, grid(params.heads * head, tokens))?);
        let attend = [&params.attend, &room.filled, &room.query, &shelf.keys, &shelf.values, &room.attended];
        let attend = attend.map(Buffer::as_entire_binding);
        let queries = params.heads * (heads / kv_heads);
        all.push(network.kernels.dispatch(Kernel::Attend, attend, [queries as u32, tokens as u32])?);
    }
    Ok(all)
}

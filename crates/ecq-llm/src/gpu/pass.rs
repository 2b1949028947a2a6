//! A batch of tokens on its way through the blocks.

use std::sync::mpsc::channel;

use ecq_gpu::wgpu::{Buffer, BufferAddress, CommandEncoder, MapMode, PollType, SubmissionIndex};
use ecq_gpu::{Error, Result, Weights};

use super::cache::Cache;
use super::kernels::{Kernel, grid};
use super::network::{Block, Network};
use super::room::{Room, padded};
use super::weights::{Projection, first};
use crate::config::Config;

/// What records the commands of a batch.
pub struct Pass<'n> {
    network: &'n Network<'n>,
    weights: &'n mut Weights,
    room: &'n Room,
    encoder: CommandEncoder,
    tokens: usize,
}

impl<'n> Pass<'n> {
    /// For tokens whose embeddings are in a room.
    pub fn new(network: &'n Network<'n>, weights: &'n mut Weights, room: &'n Room, tokens: usize) -> Self {
        let encoder = network.engine.device().create_command_encoder(&Default::default());
        Self { network, weights, room, encoder, tokens }
    }

    /// Passes the tokens through, and returns the logits of so many of the last ones. `None` if it was stopped.
    pub fn run(mut self, cache: &Cache, wanted: usize, stop: &dyn Fn() -> bool) -> Result<Option<Vec<f32>>> {
        let mut last = None;
        for layer in 0..self.network.blocks.len() {
            self.block(layer, cache)?;
            // a block of a whole prompt is work enough for a submission, and drivers end those that take too long; so that it
            // can be stopped, no more than two are on their way
            if self.tokens > 1 {
                let before = last.replace(self.submit());
                self.wait(before)?;
                if stop() {
                    return Ok(None);
                }
            }
        }
        let mut all = Vec::with_capacity(wanted * self.network.config.vocabulary);
        for from in (self.tokens - wanted..self.tokens).step_by(self.room.logits.max(1)) {
            let count = self.room.logits.min(self.tokens - from);
            self.output(from, count)?;
            self.submit();
            self.read(count, &mut all)?;
        }
        if wanted == 0 {
            self.submit();
        }
        Ok(Some(all))
    }

    fn block(&mut self, layer: usize, cache: &Cache) -> Result<()> {
        let (network, room) = (self.network, self.room);
        let block: &Block = &network.blocks[layer];
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
        self.attend(layer, cache)?;
        self.multiply(&block.out, [&room.attended, &room.delta])?;
        self.add()?;
        self.norm(&block.mlp_norm, [&room.x, &room.normed])?;
        self.multiply(&block.gate, [&room.normed, &room.gate])?;
        self.multiply(&block.up, [&room.normed, &room.up])?;
        let gate = [&network.params.gate, &room.up, &room.gate].map(Buffer::as_entire_binding);
        self.kernel(Kernel::Gate, gate, grid(network.config.hidden, self.tokens))?;
        self.multiply(&block.down, [&room.gate, &room.delta])?;
        self.add()
    }

    /// Records the logits of tokens, and their way to where the CPU reads them.
    fn output(&mut self, from: usize, count: usize) -> Result<()> {
        let (network, room) = (self.network, self.room);
        let Config { width, vocabulary, .. } = network.config;
        let bytes = |numbers: usize| 4 * numbers as BufferAddress;
        self.encoder.copy_buffer_to_buffer(
            &room.x,
            bytes(from * width),
            &room.delta,
            0,
            bytes(count * width),
        );
        self.norm(&network.norm, [&room.delta, &room.normed])?;
        let [x, y] =
            [first(&room.normed, padded(count) * width), first(&room.output, padded(count) * vocabulary)];
        network.output.record(&network.kernels, self.weights, &mut self.encoder, [x, y])?;
        self.encoder.copy_buffer_to_buffer(&room.output, 0, &room.staging, 0, bytes(count * vocabulary));
        Ok(())
    }

    fn multiply(&mut self, by: &Projection, [x, y]: [&Buffer; 2]) -> Result<()> {
        let count = padded(self.tokens);
        let buffers = [first(x, count * by.cols), first(y, count * by.rows)];
        by.record(&self.network.kernels, self.weights, &mut self.encoder, buffers)
    }

    fn norm(&mut self, weight: &Buffer, [x, y]: [&Buffer; 2]) -> Result<()> {
        let buffers = [&self.network.params.norm, x, weight, y].map(Buffer::as_entire_binding);
        self.kernel(Kernel::Norm, buffers, [1, self.tokens as u32])
    }

    fn norm_heads(&mut self, weight: &Buffer, heads: &Buffer, count: usize) -> Result<()> {
        let (params, copy) = (&self.network.params.head_norm, &self.room.attended);
        self.encoder.copy_buffer_to_buffer(heads, 0, copy, 0, heads.size());
        let buffers = [params, copy, weight, heads].map(Buffer::as_entire_binding);
        self.kernel(Kernel::Norm, buffers, [count as u32, self.tokens as u32])
    }

    fn rotate(&mut self, params: &Buffer, x: &Buffer, heads: usize) -> Result<()> {
        let buffers = [params, &self.room.angles, x].map(Buffer::as_entire_binding);
        self.kernel(Kernel::Rotate, buffers, grid(heads * self.network.config.head / 2, self.tokens))
    }

    fn attend(&mut self, layer: usize, cache: &Cache) -> Result<()> {
        let (room, config) = (self.room, &self.network.config);
        let Config { heads, kv_heads, head, .. } = *config;
        for (shelf, params) in cache.layers[layer].iter().zip(&cache.params) {
            let store = [&params.store, &room.filled, &room.key, &room.value, &shelf.keys, &shelf.values];
            let store = store.map(Buffer::as_entire_binding);
            self.kernel(Kernel::Store, store, grid(params.heads * head, self.tokens))?;
            let attend =
                [&params.attend, &room.filled, &room.query, &shelf.keys, &shelf.values, &room.attended];
            let attend = attend.map(Buffer::as_entire_binding);
            let queries = params.heads * (heads / kv_heads);
            self.kernel(Kernel::Attend, attend, [queries as u32, self.tokens as u32])?;
        }
        Ok(())
    }

    fn add(&mut self) -> Result<()> {
        let buffers =
            [&self.network.params.add, &self.room.delta, &self.room.x].map(Buffer::as_entire_binding);
        self.kernel(Kernel::Add, buffers, grid(self.network.config.width, self.tokens))
    }

    fn kernel<const N: usize>(
        &mut self,
        kernel: Kernel,
        buffers: [ecq_gpu::wgpu::BindingResource<'_>; N],
        grid: [u32; 2],
    ) -> Result<()> {
        self.network.kernels.record(&mut self.encoder, kernel, buffers, grid)
    }

    /// Submits what was recorded so far.
    fn submit(&mut self) -> SubmissionIndex {
        let engine = &self.network.engine;
        let next = engine.device().create_command_encoder(&Default::default());
        engine.queue().submit([std::mem::replace(&mut self.encoder, next).finish()])
    }

    fn wait(&self, submission: Option<SubmissionIndex>) -> Result<()> {
        let Some(index) = submission else { return Ok(()) };
        let until = PollType::Wait { submission_index: Some(index), timeout: None };
        self.network.engine.device().poll(until).map(|_| ()).map_err(|e| Error::Lost(e.to_string()))
    }

    /// Waits for logits, and adds them to others.
    fn read(&self, count: usize, all: &mut Vec<f32>) -> Result<()> {
        let fail = |why: String| Error::Wgpu { what: "reading logits".into(), why };
        let slice = first(&self.room.staging, count * self.network.config.vocabulary);
        let (sender, receiver) = channel();
        slice.map_async(MapMode::Read, move |result| {
            let _ = sender.send(result); // nobody waits after an error of poll
        });
        self.network.engine.wait()?;
        let mapped = receiver.recv().map_err(|e| fail(e.to_string()))?;
        mapped.map_err(|e| Error::Lost(e.to_string()))?;
        {
            let view = slice.get_mapped_range().map_err(|e| fail(e.to_string()))?;
            all.extend(view.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)));
        }
        self.room.staging.unmap();
        Ok(())
    }
}

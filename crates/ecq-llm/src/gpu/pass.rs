//! A batch of tokens on its way through the blocks.

use std::sync::mpsc::channel;

use ecq_gpu::wgpu::{CommandEncoder, ComputePass, MapMode, PollType, SubmissionIndex};
use ecq_gpu::{Dispatch, Error, Result, Weights, dispatch};

use super::cache::Cache;
use super::network::Network;
use super::room::Room;
use super::steps::{Maker, Step, attention};
use super::weights::first;

/// What records the commands of a batch.
pub struct Pass<'n> {
    network: &'n Network<'n>,
    weights: &'n mut Weights,
    room: &'n Room,
    /// What is being recorded in the encoder; it ends before that does.
    pass: Option<ComputePass<'static>>,
    encoder: CommandEncoder,
    tokens: usize,
}

impl<'n> Pass<'n> {
    /// For tokens whose embeddings are in a room.
    pub fn new(network: &'n Network<'n>, weights: &'n mut Weights, room: &'n Room, tokens: usize) -> Self {
        let encoder = network.engine.device().create_command_encoder(&Default::default());
        Self { network, weights, room, encoder, pass: None, tokens }
    }

    /// Passes the tokens through, and returns the logits of so many of the last ones. `None` if it was stopped. `kept` has the
    /// steps of a single token in this room: through each block, then to its logits.
    pub fn run(
        mut self,
        cache: &mut Cache,
        kept: &mut Vec<Vec<Step>>,
        wanted: usize,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<f32>>> {
        if self.tokens == 1 {
            return self.one(cache, kept, wanted).map(Some);
        }
        let mut last = None;
        for layer in 0..self.network.blocks.len() {
            let mut steps = self.maker().block(layer)?;
            let attention = attention(self.network, self.room, cache, layer, self.tokens)?;
            self.record(&mut steps, &attention)?;
            // a block of a whole prompt is work enough for a submission, and drivers end those that take too long; so that it
            // can be stopped, no more than two are on their way
            let before = last.replace(self.submit());
            self.wait(before)?;
            if stop() {
                return Ok(None);
            }
        }
        let mut all = Vec::with_capacity(wanted * self.network.config.vocabulary);
        for from in (self.tokens - wanted..self.tokens).step_by(self.room.logits.max(1)) {
            let count = self.room.logits.min(self.tokens - from);
            let mut steps = self.maker().output(from, count)?;
            self.record(&mut steps, &[])?;
            self.submit();
            self.read(count, &mut all)?;
        }
        Ok(Some(all))
    }

    /// Passes a single token through, by steps that are made for the first one.
    fn one(&mut self, cache: &mut Cache, kept: &mut Vec<Vec<Step>>, wanted: usize) -> Result<Vec<f32>> {
        let (network, room, blocks) = (self.network, self.room, self.network.blocks.len());
        if kept.is_empty() {
            let mut made = (0..blocks).map(|layer| self.maker().block(layer)).collect::<Result<Vec<_>>>()?;
            made.push(self.maker().output(0, 1)?);
            *kept = made;
        }
        let made = match cache.token.take() {
            Some((of, made)) if of == room.filled => (of, made),
            _ => {
                let all = (0..blocks).map(|layer| attention(network, room, cache, layer, 1));
                (room.filled.clone(), all.collect::<Result<_>>()?)
            }
        };
        let (_, attention) = cache.token.insert(made);
        for (steps, attention) in kept.iter_mut().zip(attention.iter()) {
            self.record(steps, attention)?;
        }
        let mut all = Vec::new();
        if let Some(output) = kept.last_mut().filter(|_| wanted > 0) {
            self.record(output, &[])?;
        }
        self.submit();
        if wanted > 0 {
            self.read(1, &mut all)?;
        }
        Ok(all)
    }

    fn maker(&self) -> Maker<'_> {
        Maker::new(self.network, self.weights, self.room, self.tokens)
    }

    /// Records steps, with the attention of their block.
    fn record(&mut self, steps: &mut [Step], attention: &[Dispatch]) -> Result<()> {
        for step in steps {
            if let Step::Copy { from, offset, to, bytes } = step {
                // not within a pass
                self.pass = None;
                self.encoder.copy_buffer_to_buffer(from, *offset, to, 0, *bytes);
                continue;
            }
            let begin = || self.encoder.begin_compute_pass(&Default::default()).forget_lifetime();
            let pass = self.pass.get_or_insert_with(begin);
            match step {
                Step::Run(kernel) => kernel.record(pass),
                Step::Multiply(product) => self.weights.multiply(pass, product)?,
                Step::Attend => dispatch::record(attention, pass),
                Step::Copy { .. } => {}
            }
        }
        Ok(())
    }

    /// Submits what was recorded so far.
    fn submit(&mut self) -> SubmissionIndex {
        self.pass = None;
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

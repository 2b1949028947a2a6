//! Texts through the uncompressed model, a block at a time: second moments of the inputs of all linear layers, and mean squared
//! gradients of their outputs.
//!
//! A first sweep takes all chunks forward through one block after another, so that only one block's weights and moments are in
//! memory, and the numbers of all tokens between two blocks. A second one takes some of the chunks backward; what they were
//! before each block waits in the file. The loss is the cross-entropy of tokens that the model itself would say (drawn from
//! its probabilities): the mean of its squared gradients is the curvature of the KL divergence from the model. Results do not
//! depend on the number of threads, nor on where an earlier run was interrupted.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use ecq_convert::Progress;
use ecq_llm::math::softmax;
use ecq_llm::{Config, Rope, Uncompressed};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;

use crate::block::{Block, Gradients, INPUT_OF, INPUTS, LAYERS, norm_backward, normed};
use crate::decoder::embedded;
use crate::error::{Error, Result};
use crate::linear::{add_product, product, view, view_mut};
use crate::statistics::{About, triangle};
use crate::texts::Texts;
use crate::writer::{Shapes, Writer, copy_name};

/// Chunks that go through a block side by side.
const BATCH: usize = 8;
/// Columns of a matrix of moments that a thread adds to at a time.
const PANEL: usize = 192;
/// Bytes of each tensor that tell a model from others.
const LOOKED_AT: usize = 1 << 12;
/// Tokens whose logits are there at a time.
const LOGITS: usize = 64;

/// Names in a file of statistics.
pub mod names {
    /// Mean squared gradient of each output of a tensor.
    pub fn gradients(tensor: &str) -> String {
        format!("{tensor}.gradients")
    }

    /// How often each token occurs.
    pub const COUNTS: &str = "embedding.counts";
    /// Mean squared gradient of a number of an embedding.
    pub const EMBEDDING: &str = "embedding.gradient";
    /// Second moments of what logits are computed from.
    pub const OUTPUT: &str = "output.inputs";
    /// Numbers of all tokens between two blocks, while statistics are being gathered.
    pub(super) const BETWEEN: &str = "unfinished.between";
    /// Gradients of those of some tokens.
    pub(super) const SLOPES: &str = "unfinished.slopes";

    /// What tokens whose gradients are wanted were before a block.
    pub(super) fn before(layer: usize) -> String {
        format!("unfinished.before.{layer}")
    }
}

/// The matrix that logits are computed with.
pub fn output_name(model: &Uncompressed<'_>) -> &'static str {
    let names = model.names();
    names.output().filter(|name| model.has(name)).unwrap_or(names.embedding())
}

/// What statistics of a model are called, and their shapes.
fn plan(model: &Uncompressed<'_>, about: &mut About) -> Shapes {
    let Config { width, hidden, heads, head, kv_heads, vocabulary, layers, .. } = *model.config();
    let mut shapes = Vec::new();
    for layer in 0..layers {
        for (name, size) in INPUTS.into_iter().zip([width, heads * head, width, hidden]) {
            shapes.push((moments(layer, name), vec![triangle(size)]));
        }
        let outputs = [heads * head, kv_heads * head, kv_heads * head, width, hidden, hidden, width];
        for ((part, input), outputs) in LAYERS.into_iter().zip(INPUT_OF).zip(outputs) {
            let tensor = tensor(model, layer, part);
            shapes.push((names::gradients(&tensor), vec![outputs]));
            about.inputs.insert(tensor, Some(moments(layer, INPUTS[input])));
        }
    }
    shapes.push((names::OUTPUT.into(), vec![triangle(width)]));
    shapes.push((names::gradients(output_name(model)), vec![vocabulary]));
    shapes.push((names::COUNTS.into(), vec![vocabulary]));
    shapes.push((names::EMBEDDING.into(), vec![1]));
    about.inputs.insert(model.names().embedding().into(), None);
    about.inputs.insert(output_name(model).into(), Some(names::OUTPUT.into()));
    shapes
}

pub(crate) fn moments(layer: usize, input: &str) -> String {
    format!("blocks.{layer}.{input}.inputs")
}

pub(crate) fn tensor(model: &Uncompressed<'_>, layer: usize, part: &str) -> String {
    format!("{}.weight", model.names().block(layer, part))
}

/// What is needed to go on: the numbers between two blocks, if it shall be possible, and what waits for the way back.
fn state(config: &Config, texts: &Texts, goes_on: bool) -> Shapes {
    let slopes = texts.gradient_tokens() * config.width;
    let mut shapes: Shapes = (0..config.layers).map(|layer| (names::before(layer), vec![slopes])).collect();
    for copy in (0..2).filter(|_| goes_on) {
        shapes.push((copy_name(names::BETWEEN, copy), vec![texts.tokens() * config.width]));
        shapes.push((copy_name(names::SLOPES, copy), vec![slopes]));
    }
    shapes
}

/// Steps of so many blocks: those of the way forward, the logits, those of the way back.
fn steps(layers: usize) -> usize {
    2 * layers + 1
}

/// A text on its way through the model.
struct Text {
    tokens: Vec<u32>,
    /// Numbers of its tokens between two blocks.
    x: Vec<f32>,
    /// Whether its gradients are wanted.
    backward: bool,
}

/// Gathers statistics of texts into a file, which is returned complete. `path` is for errors. If some time, `every`, is given,
/// a file that a run left which was interrupted is continued: such a run loses the block at work and what was done in that time.
///
/// Errors: [`Error::Model`], [`Error::NotFinite`], [`Error::Statistics`] if the file cannot be written, [`Error::Other`]
/// if it is not what a run for the same left, [`Error::Text`] for no texts, [`Error::Cancelled`].
pub fn gather(
    model: &Uncompressed<'_>,
    texts: &Texts,
    (path, file): (&Path, File),
    every: Option<Duration>,
    progress: &dyn Progress,
) -> Result<File> {
    if texts.chunks.iter().all(Vec::is_empty) {
        return Err(Error::Text {
            path: model.path().into(),
            why: "expected a text to learn from, found none".into(),
        });
    }
    let mut about = About::new(fingerprint(model), texts.clone());
    let shapes = plan(model, &mut about);
    let state = state(model.config(), texts, every.is_some());
    let layers = model.config().layers;
    let writer = Writer::new(path, file, &about, (&shapes, &state), (every, steps(layers)))?;
    if writer.done() == steps(layers) {
        return writer.finish(); // it only lacked its name
    }
    let rope = model.rope()?;
    let longest = texts.chunks.iter().map(Vec::len).max().unwrap_or(0);
    let mut turns = Vec::new();
    rope.turns(0, longest, &mut turns);
    let mut job = Job { model, rope, turns, writer, progress, tokens: texts.tokens() };
    let (tokens, back) = (texts.tokens() as u64, 3 * texts.gradient_tokens() as u64);
    progress.begin("statistics", (tokens + back) * layers as u64);
    let done = job.writer.done();
    progress.advance(tokens * done.min(layers) as u64 + back * done.saturating_sub(layers + 1) as u64);
    let mut all = job.begin(texts)?;
    for layer in done..layers {
        job.forward(layer, &mut all)?;
    }
    job.backward(all, texts.seed)?;
    job.writer.finish()
}

/// What tells a model from others: its shape, the names of its tensors, and how each begins.
pub fn fingerprint(model: &Uncompressed<'_>) -> String {
    let mut sum = crc32fast::Hasher::new();
    for (name, data) in model.tensors() {
        sum.update(name.as_bytes());
        sum.update(&data[..data.len().min(LOOKED_AT)]);
    }
    let Config { architecture, layers, width, hidden, vocabulary, .. } = model.config();
    format!("{architecture} {layers} {width} {hidden} {vocabulary} {:08x}", sum.finalize())
}

struct Job<'a> {
    model: &'a Uncompressed<'a>,
    rope: Rope,
    turns: Vec<[f32; 2]>,
    writer: Writer,
    progress: &'a dyn Progress,
    tokens: usize,
}

impl Job<'_> {
    /// All texts where they are: before the first block, or where an earlier run left them.
    fn begin(&mut self, texts: &Texts) -> Result<Vec<Text>> {
        let Config { width, vocabulary, layers, .. } = *self.model.config();
        let mut counts = vec![0.0; vocabulary];
        texts.chunks.iter().flatten().for_each(|&t| counts[t as usize] += 1.0);
        self.writer.put(names::COUNTS, &counts)?;
        let every = texts.gradients_every();
        let text = |(i, tokens): (usize, &Vec<u32>)| Text {
            tokens: tokens.clone(),
            x: Vec::new(),
            backward: i.is_multiple_of(every),
        };
        let mut all: Vec<Text> = texts.chunks.iter().enumerate().map(text).collect();
        match self.writer.done() {
            0 => {
                let table = self.model.numbers(self.model.names().embedding())?;
                let tokens: Vec<&[u32]> = texts.chunks.iter().map(Vec::as_slice).collect();
                let parts = embedded(&table, width, &tokens);
                all.iter_mut().zip(parts).for_each(|(text, x)| text.x = x);
                self.finite(0, &all)?;
            }
            done if done <= layers => {
                let x = self.writer.kept(names::BETWEEN)?;
                let parts = split(&x, &all, width);
                all.iter_mut().zip(parts).for_each(|(text, x)| text.x = x);
            }
            _ => {} // the way back needs their gradients alone
        }
        Ok(all)
    }

    /// Error: [`Error::NotFinite`] if what stands behind a block is.
    fn finite(&self, block: usize, texts: &[Text]) -> Result<()> {
        match texts.iter().all(|text| text.x.iter().all(|x| x.is_finite())) {
            true => Ok(()),
            false => Err(Error::NotFinite { path: self.model.path().into(), block }),
        }
    }

    /// All texts through a block, whose moments are written.
    fn forward(&mut self, layer: usize, texts: &mut [Text]) -> Result<()> {
        let block = Block::load(self.model, self.model, layer)?;
        let before = texts.iter().filter(|text| text.backward).flat_map(|text| &text.x);
        self.writer.put(&names::before(layer), &before.copied().collect::<Vec<f32>>())?;
        let mut sums: [Sums; 4] = Default::default();
        for batch in texts.chunks_mut(BATCH) {
            let one = |text: &mut Text| block.forward(&self.rope, self.turns_of(text), &mut text.x).inputs;
            let inputs: Vec<_> = batch.par_iter_mut().map(one).collect();
            for (i, sum) in sums.iter_mut().enumerate() {
                let all: Vec<&[f32]> = inputs.iter().map(|inputs| inputs[i].as_slice()).collect();
                sum.add(&all, batch.iter().map(|text| text.tokens.len()).sum());
            }
            self.advance(batch.iter().map(|text| text.tokens.len()).sum())?;
        }
        self.finite(layer, texts)?;
        for (sum, name) in sums.into_iter().zip(INPUTS) {
            self.writer.put(&moments(layer, name), &sum.mean(self.tokens))?;
        }
        self.writer.keep(layer + 1, names::BETWEEN, texts.iter().map(|text| text.x.as_slice()))
    }

    fn turns_of(&self, text: &Text) -> &[[f32; 2]] {
        let pairs = self.model.config().head / 2;
        &self.turns[..text.tokens.len() * pairs]
    }

    fn advance(&self, tokens: usize) -> Result<()> {
        self.progress.advance(tokens as u64);
        if self.progress.cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn output_moments(&mut self, texts: &[Text]) -> Result<()> {
        let norm = self.model.numbers(self.model.names().norm())?;
        let mut sum = Sums::default();
        for batch in texts.chunks(BATCH) {
            let one = |text: &Text| normed(&text.x, &norm, self.model.config().epsilon);
            let inputs: Vec<_> = batch.par_iter().map(one).collect();
            let all: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
            sum.add(&all, batch.iter().map(|text| text.tokens.len()).sum());
        }
        self.writer.put(names::OUTPUT, &sum.mean(self.tokens))?;
        self.advance(0)
    }

    /// Texts backward, from the logits to the embedding.
    fn backward(&mut self, mut texts: Vec<Text>, seed: u64) -> Result<()> {
        let Config { width, layers, .. } = *self.model.config();
        if self.writer.done() <= layers {
            self.output_moments(&texts)?;
        }
        texts.retain(|text| text.backward);
        let mut slopes = match self.writer.done() {
            done if done <= layers => self.logits(&texts, seed)?,
            _ => split(&self.writer.kept(names::SLOPES)?, &texts, width),
        };
        for step in self.writer.done().max(layers + 1)..=2 * layers {
            self.writer.keep(step, names::SLOPES, slopes.iter().map(Vec::as_slice))?;
            self.back_through(2 * layers - step, &texts, &mut slopes)?;
        }
        let square: f64 = slopes.iter().flatten().map(|&d| f64::from(d) * f64::from(d)).sum();
        let tokens: usize = texts.iter().map(|text| text.tokens.len()).sum();
        self.writer.put(names::EMBEDDING, &[(square / (tokens * width) as f64) as f32])
    }

    /// Texts backward through a block, the squares of whose gradients are written.
    fn back_through(&mut self, layer: usize, texts: &[Text], slopes: &mut [Vec<f32>]) -> Result<()> {
        let block = Block::load(self.model, self.model, layer)?;
        let width = self.model.config().width;
        let before = split(&self.writer.get(&names::before(layer))?, texts, width);
        let one = |((text, before), dy): ((&Text, &Vec<f32>), &mut Vec<f32>)| {
            let turns = self.turns_of(text);
            let tape = block.forward(&self.rope, turns, &mut before.clone());
            let mut sums: Gradients = block.outputs().map(|n| vec![0.0; n]);
            *dy = block.backward(&self.rope, turns, before, &tape, std::mem::take(dy), &mut sums);
            sums
        };
        let found: Vec<Gradients> = texts.par_iter().zip(&before).zip(slopes).map(one).collect();
        let tokens: usize = texts.iter().map(|text| text.tokens.len()).sum();
        for (i, part) in LAYERS.into_iter().enumerate() {
            let mut mean = vec![0.0f64; block.outputs()[i]];
            found.iter().for_each(|own| mean.iter_mut().zip(&own[i]).for_each(|(m, o)| *m += o));
            let mean: Vec<f32> = mean.iter().map(|m| (m / tokens as f64) as f32).collect();
            self.writer.put(&names::gradients(&tensor(self.model, layer, part)), &mean)?;
        }
        self.advance(3 * tokens)
    }

    /// The gradient of each text's last numbers, and those of the logits.
    fn logits(&mut self, texts: &[Text], seed: u64) -> Result<Vec<Vec<f32>>> {
        let Config { width, vocabulary, epsilon, .. } = *self.model.config();
        let norm = self.model.numbers(self.model.names().norm())?;
        let table = self.model.numbers(output_name(self.model))?;
        let tokens: usize = texts.iter().map(|text| text.tokens.len()).sum();
        let one = |(i, text): (usize, &Text)| {
            let mut random = SmallRng::seed_from_u64(seed ^ (i as u64) << 32);
            let last = normed(&text.x, &norm, epsilon);
            let mut dlast = vec![0.0; last.len()];
            let mut sums = vec![0.0f64; vocabulary];
            for (x, dx) in last.chunks(LOGITS * width).zip(dlast.chunks_mut(LOGITS * width)) {
                let mut p = vec![0.0; x.len() / width * vocabulary];
                product(view_mut(&mut p, vocabulary), view(x, width), view(&table, width).transpose());
                for p in p.chunks_exact_mut(vocabulary) {
                    softmax(p);
                    sums.iter_mut()
                        .zip(&*p)
                        .for_each(|(sum, &p)| *sum += f64::from(p) * (1.0 - f64::from(p)));
                    let said = draw(p, random.random());
                    p[said] -= 1.0;
                }
                product(view_mut(dx, width), view(&p, vocabulary), view(&table, width));
            }
            let mut dx = vec![0.0; last.len()];
            norm_backward(&text.x, &norm, epsilon, &dlast, &mut dx);
            (dx, sums)
        };
        let found: Vec<_> = texts.par_iter().enumerate().map(one).collect();
        let mut mean = vec![0.0f64; vocabulary];
        found.iter().for_each(|(_, sums)| mean.iter_mut().zip(sums).for_each(|(m, s)| *m += s));
        let mean: Vec<f32> = mean.iter().map(|m| (m / tokens as f64) as f32).collect();
        self.writer.put(&names::gradients(output_name(self.model)), &mean)?;
        Ok(found.into_iter().map(|(dx, _)| dx).collect())
    }
}

/// The first number at which the sum of probabilities reaches this one.
fn draw(p: &[f32], at: f32) -> usize {
    let mut sum = 0.0;
    p.iter()
        .position(|p| {
            sum += p;
            sum > at
        })
        .unwrap_or(p.len() - 1)
}

/// Sums of products of inputs.
#[derive(Default)]
struct Sums {
    size: usize,
    /// Panels of columns: each with the rows up to its last column.
    panels: Vec<Vec<f32>>,
}

impl Sums {
    /// Adds those of texts with so many tokens together.
    fn add(&mut self, texts: &[&[f32]], tokens: usize) {
        if self.panels.is_empty() {
            self.size = texts.iter().map(|x| x.len()).sum::<usize>() / tokens.max(1);
            let ends = (0..self.size).step_by(PANEL).map(|first| (self.size.min(first + PANEL), first));
            self.panels = ends.map(|(end, first)| vec![0.0; end * (end - first)]).collect();
        }
        let size = self.size;
        self.panels.par_iter_mut().enumerate().for_each(|(i, panel)| {
            let (first, end) = (i * PANEL, size.min((i + 1) * PANEL));
            for x in texts {
                let x = view(x, size);
                let (upper, own) = (x.subcols(0, end), x.subcols(first, end - first));
                add_product(view_mut(panel, end - first), 1.0, upper.transpose(), own);
            }
        });
    }

    /// The triangle from the diagonal on, row by row, divided by the number of tokens.
    fn mean(&self, tokens: usize) -> Vec<f32> {
        let mut all = Vec::with_capacity(triangle(self.size));
        for row in 0..self.size {
            for (i, panel) in self.panels.iter().enumerate().skip(row / PANEL) {
                let (first, end) = (i * PANEL, self.size.min((i + 1) * PANEL));
                let own = &panel[row * (end - first)..][..end - first];
                all.extend(own[row.saturating_sub(first)..].iter().map(|value| value / tokens as f32));
            }
        }
        all
    }
}

/// Numbers of texts one after another, each by itself.
fn split(all: &[f32], texts: &[Text], width: usize) -> Vec<Vec<f32>> {
    let mut rest = all;
    let take = |text: &Text| {
        let (own, behind) = rest.split_at(text.tokens.len() * width);
        rest = behind;
        own.to_vec()
    };
    texts.iter().map(take).collect()
}

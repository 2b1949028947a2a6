//! Texts through the uncompressed model, a block at a time: second moments of the inputs of all linear layers, and mean squared
//! gradients of their outputs.
//!
//! A first sweep takes all chunks forward through one block after another, so that only one block's weights and moments are in
//! memory, and the numbers of all tokens between two blocks. A second one takes some of the chunks backward. The loss is the
//! cross-entropy of tokens that the model itself would say (drawn from its probabilities): the mean of its squared gradients
//! is the curvature of the KL divergence from the model. Results do not depend on the number of threads.

use std::fs::File;
use std::path::Path;

use ecq_convert::Progress;
use ecq_llm::math::softmax;
use ecq_llm::{Config, Rope, Uncompressed};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;

use crate::block::{Block, Gradients, INPUT_OF, INPUTS, LAYERS, norm_backward, normed};
use crate::error::{Error, Result};
use crate::linear::{add_product, product, view, view_mut};
use crate::statistics::{About, Writer};

/// Chunks that go through a block side by side.
const BATCH: usize = 8;
/// Columns of a matrix of moments that a thread adds to at a time.
const PANEL: usize = 192;
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
}

/// The matrix that logits are computed with.
pub fn output_name(model: &Uncompressed<'_>) -> &'static str {
    let names = model.names();
    names.output().filter(|name| model.has(name)).unwrap_or(names.embedding())
}

/// What statistics of a model are called, and their shapes.
fn plan(model: &Uncompressed<'_>, about: &mut About) -> Vec<(String, Vec<usize>)> {
    let Config { width, hidden, heads, head, kv_heads, vocabulary, layers, .. } = *model.config();
    let mut shapes = Vec::new();
    for layer in 0..layers {
        for (name, size) in INPUTS.into_iter().zip([width, heads * head, width, hidden]) {
            shapes.push((moments(layer, name), vec![size, size]));
        }
        let outputs = [heads * head, kv_heads * head, kv_heads * head, width, hidden, hidden, width];
        for ((part, input), outputs) in LAYERS.into_iter().zip(INPUT_OF).zip(outputs) {
            let tensor = tensor(model, layer, part);
            shapes.push((names::gradients(&tensor), vec![outputs]));
            about.inputs.insert(tensor, Some(moments(layer, INPUTS[input])));
        }
    }
    shapes.push((names::OUTPUT.into(), vec![width, width]));
    shapes.push((names::gradients(output_name(model)), vec![vocabulary]));
    shapes.push((names::COUNTS.into(), vec![vocabulary]));
    shapes.push((names::EMBEDDING.into(), vec![1]));
    about.inputs.insert(model.names().embedding().into(), None);
    about.inputs.insert(output_name(model).into(), Some(names::OUTPUT.into()));
    shapes
}

fn moments(layer: usize, input: &str) -> String {
    format!("blocks.{layer}.{input}.inputs")
}

fn tensor(model: &Uncompressed<'_>, layer: usize, part: &str) -> String {
    format!("{}.weight", model.names().block(layer, part))
}

/// A text on its way through the model.
struct Text {
    tokens: Vec<u32>,
    /// Numbers of its tokens between two blocks.
    x: Vec<f32>,
    /// What they were before each block, if gradients are wanted.
    before: Option<Vec<Vec<f32>>>,
}

/// Gathers statistics of chunks, and gradients of one in `every` of them, into a file, which is returned complete. `path` is for
/// errors.
///
/// Errors: [`Error::Model`], [`Error::NotFinite`], [`Error::Statistics`] if the file cannot be written, [`Error::Cancelled`].
pub fn gather(
    model: &Uncompressed<'_>,
    chunks: &[Vec<u32>],
    every: usize,
    seed: u64,
    (path, file): (&Path, File),
    progress: &dyn Progress,
) -> Result<File> {
    let tokens = chunks.iter().map(Vec::len).sum();
    let gradient_tokens = chunks.iter().step_by(every).map(Vec::len).sum();
    let mut about = About::new(fingerprint(model)?, tokens, gradient_tokens);
    let shapes = plan(model, &mut about);
    let writer = Writer::new(path, file, &about, &shapes)?;
    let rope = model.rope()?;
    let longest = chunks.iter().map(Vec::len).max().unwrap_or(0);
    let mut turns = Vec::new();
    rope.turns(0, longest, &mut turns);
    let mut job = Job { model, rope, turns, writer, progress, tokens };
    let layers = model.config().layers as u64;
    progress.begin("statistics", (tokens as u64 + 3 * gradient_tokens as u64) * layers);
    let mut texts = job.begin(chunks, every)?;
    for layer in 0..model.config().layers {
        job.forward(layer, &mut texts)?;
    }
    job.output_moments(&texts)?;
    texts.retain(|text| text.before.is_some());
    job.gradients(&mut texts, seed)?;
    Ok(job.writer.finish())
}

/// A number of what a model is: names, and the norms, which every training moves.
pub fn fingerprint(model: &Uncompressed<'_>) -> Result<String> {
    let names = model.names();
    let mut sums = Vec::new();
    let first = format!("{}.weight", names.block(0, "attn_norm"));
    let last = format!("{}.weight", names.block(model.config().layers - 1, "ffn_norm"));
    for name in [names.norm(), &first, &last] {
        let numbers = model.numbers(name)?;
        sums.push(numbers.iter().fold(0u64, |h, x| h.rotate_left(5) ^ u64::from(x.to_bits())));
    }
    let Config { architecture, layers, width, hidden, vocabulary, .. } = model.config();
    // GGUF keeps queries and keys in another order
    let embedding = names.embedding();
    Ok(format!("{architecture} {layers} {width} {hidden} {vocabulary} {embedding} {sums:x?}"))
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
    fn begin(&mut self, chunks: &[Vec<u32>], every: usize) -> Result<Vec<Text>> {
        let Config { width, vocabulary, .. } = *self.model.config();
        let table = self.model.numbers(self.model.names().embedding())?;
        let mut counts = vec![0.0; vocabulary];
        chunks.iter().flatten().for_each(|&t| counts[t as usize] += 1.0);
        self.writer.put(names::COUNTS, &counts)?;
        let text = |(i, tokens): (usize, &Vec<u32>)| Text {
            x: tokens.iter().flat_map(|&t| &table[t as usize * width..][..width]).copied().collect(),
            tokens: tokens.clone(),
            before: i.is_multiple_of(every).then(Vec::new),
        };
        Ok(chunks.iter().enumerate().map(text).collect())
    }

    /// All texts through a block, whose moments are written.
    fn forward(&mut self, layer: usize, texts: &mut [Text]) -> Result<()> {
        let block = Block::load(self.model, layer)?;
        let mut sums: [Moments; 4] = Default::default();
        for batch in texts.chunks_mut(BATCH) {
            let one = |text: &mut Text| {
                text.before.iter_mut().for_each(|all| all.push(text.x.clone()));
                block.forward(&self.rope, self.turns_of(text), &mut text.x).inputs
            };
            let inputs: Vec<_> = batch.par_iter_mut().map(one).collect();
            for (i, sum) in sums.iter_mut().enumerate() {
                let all: Vec<&[f32]> = inputs.iter().map(|inputs| inputs[i].as_slice()).collect();
                sum.add(&all, batch.iter().map(|text| text.tokens.len()).sum());
            }
            self.advance(batch.iter().map(|text| text.tokens.len()).sum())?;
        }
        if texts.iter().any(|text| !text.x.iter().all(|x| x.is_finite())) {
            return Err(Error::NotFinite { path: self.model.path().into(), block: layer });
        }
        for (sum, name) in sums.into_iter().zip(INPUTS) {
            self.writer.put(&moments(layer, name), &sum.mean(self.tokens))?;
        }
        Ok(())
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
        let mut sum = Moments::default();
        for batch in texts.chunks(BATCH) {
            let one = |text: &Text| normed(&text.x, &norm, self.model.config().epsilon);
            let inputs: Vec<_> = batch.par_iter().map(one).collect();
            let all: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
            sum.add(&all, batch.iter().map(|text| text.tokens.len()).sum());
        }
        self.writer.put(names::OUTPUT, &sum.mean(self.tokens))
    }

    /// Texts backward, from the logits to the embedding.
    fn gradients(&mut self, texts: &mut [Text], seed: u64) -> Result<()> {
        let Config { width, layers, .. } = *self.model.config();
        let tokens: usize = texts.iter().map(|text| text.tokens.len()).sum();
        let mut all = self.logits(texts, seed)?;
        for layer in (0..layers).rev() {
            let block = Block::load(self.model, layer)?;
            let one = |(text, dy): (&mut Text, &mut Vec<f32>)| {
                let turns = self.turns_of(text);
                let mut x = text.before.as_mut().and_then(Vec::pop).unwrap_or_default();
                let before = x.clone();
                let tape = block.forward(&self.rope, turns, &mut x);
                let mut sums: Gradients = block.outputs().map(|n| vec![0.0; n]);
                *dy = block.backward(&self.rope, turns, &before, &tape, std::mem::take(dy), &mut sums);
                sums
            };
            let found: Vec<Gradients> = texts.par_iter_mut().zip(&mut all).map(one).collect();
            for (i, part) in LAYERS.into_iter().enumerate() {
                let mut mean = vec![0.0f64; block.outputs()[i]];
                found.iter().for_each(|own| mean.iter_mut().zip(&own[i]).for_each(|(m, o)| *m += o));
                let mean: Vec<f32> = mean.iter().map(|m| (m / tokens as f64) as f32).collect();
                self.writer.put(&names::gradients(&tensor(self.model, layer, part)), &mean)?;
            }
            self.advance(3 * tokens)?;
        }
        let square: f64 = all.iter().flatten().map(|&d| f64::from(d) * f64::from(d)).sum();
        self.writer.put(names::EMBEDDING, &[(square / (tokens * width) as f64) as f32])
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
struct Moments {
    size: usize,
    /// Panels of columns: each with the rows up to its last column.
    panels: Vec<Vec<f32>>,
}

impl Moments {
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

    /// The whole symmetric matrix, divided by the number of tokens.
    fn mean(&self, tokens: usize) -> Vec<f32> {
        let size = self.size;
        let mut all = vec![0.0; size * size];
        for (i, panel) in self.panels.iter().enumerate() {
            let (first, end) = (i * PANEL, size.min((i + 1) * PANEL));
            for row in 0..end {
                for column in first..end {
                    let value = panel[row * (end - first) + column - first] / tokens as f32;
                    all[row * size + column] = value;
                    all[column * size + row] = value;
                }
            }
        }
        all
    }
}

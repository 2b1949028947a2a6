//! A decoder in f32, all windows of texts a block at a time: what is measured is of weights alone, not of vectors rounded to 8 bits,
//! and dense products of matrices make it several times as fast as one token after another.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use ecq_convert::source::Source;
use ecq_convert::tensors::SourceMatrix;
use ecq_llm::math::{add, gate, norm, softmax};
use ecq_llm::{Config, Rope, Uncompressed};
use ecq_quant::weights::Weights;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Linear layers of a block, as GGUF calls them.
pub const LAYERS: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// A model whose linear layers may be replaced.
pub struct Decoder<'a> {
    model: &'a Uncompressed<'a>,
    rope: Rope,
    norm: Vec<f32>,
    embedding: Vec<f32>,
    /// The matrix that logits are computed with, where it is another.
    output: Option<Vec<f32>>,
}

/// Weights of a block.
struct Block {
    norms: [Vec<f32>; 2],
    layers: [Vec<f32>; 7],
}

impl<'a> Decoder<'a> {
    /// Of a plain Llama.
    pub fn new(model: &'a Uncompressed<'a>) -> Result<Self> {
        let names = model.names();
        let plain = model.config().architecture == "llama" && !model.has(&names.block(0, "attn_q.bias"));
        ensure!(plain, "{}: expected a Llama without biases", model.path().display());
        let output = names.output().filter(|name| model.has(name));
        let output = output.map(|name| model.numbers(name)).transpose()?;
        let [embedding, norm] = [names.embedding(), names.norm()].map(|name| model.numbers(name));
        Ok(Self { model, rope: model.rope()?, norm: norm?, embedding: embedding?, output })
    }

    /// Where the model is.
    pub fn path(&self) -> &Path {
        self.model.path()
    }

    /// Names of all linear layers.
    pub fn layers(&self) -> Vec<String> {
        let blocks = 0..self.model.config().layers;
        blocks.flat_map(|block| LAYERS.map(|part| self.name(block, part))).collect()
    }

    fn name(&self, block: usize, part: &str) -> String {
        format!("{}.weight", self.model.names().block(block, part))
    }

    /// What logits behind each token of windows are computed from, with linear layers of another source, or the model's own.
    pub fn last(&self, windows: &[&[u32]], layers: Option<&Source>) -> Result<Vec<Vec<f32>>> {
        let Config { width, layers: blocks, head, epsilon, .. } = *self.model.config();
        let table = &self.embedding;
        let begin = |window: &&[u32]| -> Vec<f32> {
            window.iter().flat_map(|&token| &table[token as usize * width..][..width]).copied().collect()
        };
        let mut all: Vec<Vec<f32>> = windows.iter().map(begin).collect();
        let mut turns = Vec::new();
        self.rope.turns(0, windows.iter().map(|window| window.len()).max().unwrap_or(0), &mut turns);
        for block in 0..blocks {
            let weights = self.block(block, layers)?;
            all.par_iter_mut().for_each(|x| {
                let turns = &turns[..x.len() / width * (head / 2)];
                self.forward(&weights, turns, x);
            });
        }
        all.par_iter_mut().for_each(|x| *x = normed(x, &self.norm, epsilon));
        Ok(all)
    }

    fn block(&self, block: usize, layers: Option<&Source>) -> Result<Block> {
        let numbers = |part: &str| -> Result<Vec<f32>> {
            let name = self.name(block, part);
            let own = self.model.numbers(&name)?;
            let Some(source) = layers else { return Ok(own) };
            let other = numbers(source, &name)?;
            ensure!(other.len() == own.len(), "{name}: {} weights, not {}", other.len(), own.len());
            Ok(other)
        };
        let mut layers: [Vec<f32>; 7] = Default::default();
        for (layer, part) in layers.iter_mut().zip(LAYERS) {
            *layer = numbers(part)?;
        }
        let norms = ["attn_norm", "ffn_norm"].map(|part| self.model.numbers(&self.name(block, part)));
        let [first, second] = norms;
        Ok(Block { norms: [first?, second?], layers })
    }

    /// A window through a block.
    fn forward(&self, block: &Block, turns: &[[f32; 2]], x: &mut [f32]) {
        let Config { width, hidden, heads, kv_heads, head, epsilon, .. } = *self.model.config();
        let [q, k, v, out, gates, ups, down] = &block.layers;
        let first = normed(x, &block.norms[0], epsilon);
        let [mut query, mut key, values] = [q, k, v].map(|weights| product(&first, weights, width));
        self.rope.turn(&mut query, heads, turns);
        self.rope.turn(&mut key, kv_heads, turns);
        let attended = self.attend(&query, &key, &values);
        add(x, &product(&attended, out, heads * head));
        let second = normed(x, &block.norms[1], epsilon);
        let [mut gated, up] = [gates, ups].map(|weights| product(&second, weights, width));
        gate(&mut gated, &up);
        add(x, &product(&gated, down, hidden));
    }

    fn attend(&self, query: &[f32], key: &[f32], values: &[f32]) -> Vec<f32> {
        let Config { heads, kv_heads, head, .. } = *self.model.config();
        let tokens = query.len() / (heads * head);
        let scale = 1.0 / (head as f32).sqrt();
        let (mut out, mut weights) = (vec![0.0; query.len()], vec![0.0; tokens * tokens]);
        for which in 0..heads {
            let own = which / (heads / kv_heads) * head;
            let q = view(query, heads * head).subcols(which * head, head);
            let k = view(key, kv_heads * head).subcols(own, head);
            multiply(view_mut(&mut weights, tokens), q, k.transpose());
            for (i, row) in weights.chunks_exact_mut(tokens).enumerate() {
                let (seen, ahead) = row.split_at_mut(i + 1);
                seen.iter_mut().for_each(|s| *s *= scale);
                softmax(seen);
                ahead.fill(0.0);
            }
            let v = view(values, kv_heads * head).subcols(own, head);
            let out = view_mut(&mut out, heads * head).subcols_mut(which * head, head);
            multiply(out, view(&weights, tokens), v);
        }
        out
    }

    /// Logits of some vectors that [`Self::last`] returned, one after another.
    pub fn logits(&self, last: &[f32]) -> Vec<f32> {
        product(last, self.output.as_ref().unwrap_or(&self.embedding), self.norm.len())
    }

    /// Numbers of a vector that [`Self::last`] returns.
    pub fn width(&self) -> usize {
        self.norm.len()
    }
}

/// All weights of a matrix.
fn numbers(source: &Source, name: &str) -> Result<Vec<f32>> {
    let found = source.tensors().iter().find(|tensor| tensor.name == name);
    let found = found.and_then(|tensor| SourceMatrix::new(source, tensor));
    let matrix = found.with_context(|| format!("{}: no weights of {name}", source.path().display()))?;
    let mut out = vec![0.0; matrix.rows() * matrix.cols()];
    matrix.fill(0..matrix.rows(), &mut out);
    Ok(out)
}

fn normed(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    norm(x, weight, epsilon, &mut out);
    out
}

/// `x Wᵀ`, for vectors and weights of so many inputs, row by row.
fn product(x: &[f32], weights: &[f32], inputs: usize) -> Vec<f32> {
    let outputs = weights.len() / inputs;
    let mut y = vec![0.0; x.len() / inputs * outputs];
    multiply(view_mut(&mut y, outputs), view(x, inputs), view(weights, inputs).transpose());
    y
}

/// `out = a b`, on one thread: windows are many.
fn multiply(out: MatMut<'_, f32>, a: MatRef<'_, f32>, b: MatRef<'_, f32>) {
    matmul(out, Accum::Replace, a, b, 1.0, Par::Seq);
}

fn view(data: &[f32], cols: usize) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice(data, data.len() / cols, cols)
}

fn view_mut(data: &mut [f32], cols: usize) -> MatMut<'_, f32> {
    let rows = data.len() / cols;
    MatMut::from_row_major_slice_mut(data, rows, cols)
}

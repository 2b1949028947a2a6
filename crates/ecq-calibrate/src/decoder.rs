//! A decoder in f32, all chunks of texts a block at a time: what is seen is of weights alone, not of vectors rounded to 8 bits; one
//! block's weights are in memory; and products of dense matrices are several times as fast as one token after another.

use ecq_convert::Progress;
use ecq_convert::restore::numbers;
use ecq_format::Reader;
use ecq_llm::{Config, Rope, Uncompressed};
use rayon::prelude::*;

use crate::block::{Block, normed};
use crate::error::{Error, Result};
use crate::gather::output_name;
use crate::linear::{product, view, view_mut};

/// Where the weights of a model come from: all numbers of a tensor, row by row.
pub trait Weights: Sync {
    /// Those of a tensor of this name.
    fn numbers(&self, name: &str) -> Result<Vec<f32>>;
}

impl Weights for Uncompressed<'_> {
    fn numbers(&self, name: &str) -> Result<Vec<f32>> {
        Ok(Uncompressed::numbers(self, name)?)
    }
}

/// A `.ecq` file that was made of the model.
impl Weights for Reader {
    fn numbers(&self, name: &str) -> Result<Vec<f32>> {
        numbers(self, name).map_err(Error::Convert)
    }
}

/// The shape of a model, whose weights may be another's.
pub struct Decoder<'a> {
    model: &'a Uncompressed<'a>,
    rope: Rope,
}

impl<'a> Decoder<'a> {
    /// Of a model.
    pub fn new(model: &'a Uncompressed<'a>) -> Result<Self> {
        Ok(Self { model, rope: model.rope()? })
    }

    /// The model.
    pub fn model(&self) -> &'a Uncompressed<'a> {
        self.model
    }

    /// What logits are computed from, for each chunk: as many vectors as it has tokens.
    ///
    /// Errors: [`Error::Model`] and [`Error::Convert`] for weights that cannot be read, [`Error::Cancelled`].
    pub fn last(
        &self,
        chunks: &[&[u32]],
        weights: &dyn Weights,
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<f32>>> {
        let Config { width, layers, epsilon, head, .. } = *self.model.config();
        let mut turns = Vec::new();
        self.rope.turns(0, chunks.iter().map(|chunk| chunk.len()).max().unwrap_or(0), &mut turns);
        let mut all = embedded(&weights.numbers(self.model.names().embedding())?, width, chunks);
        for layer in 0..layers {
            let block = Block::load(self.model, weights, layer)?;
            all.par_iter_mut().for_each(|x| {
                block.forward(&self.rope, &turns[..x.len() / width * (head / 2)], x);
            });
            progress.advance(chunks.iter().map(|chunk| chunk.len() as u64).sum());
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
        }
        let norm = weights.numbers(self.model.names().norm())?;
        all.par_iter_mut().for_each(|x| *x = normed(x, &norm, epsilon));
        Ok(all)
    }

    /// The matrix that logits are computed with.
    pub fn output(&self, weights: &dyn Weights) -> Result<Vec<f32>> {
        weights.numbers(output_name(self.model))
    }

    /// Logits of vectors of [`Self::last`], with the matrix of [`Self::output`].
    pub fn logits(&self, output: &[f32], last: &[f32]) -> Vec<f32> {
        let Config { width, vocabulary, .. } = *self.model.config();
        let mut logits = vec![0.0; last.len() / width * vocabulary];
        product(view_mut(&mut logits, vocabulary), view(last, width), view(output, width).transpose());
        logits
    }
}

/// The rows of a table of embeddings for the tokens of texts.
pub(crate) fn embedded(table: &[f32], width: usize, texts: &[&[u32]]) -> Vec<Vec<f32>> {
    let row = |&token: &u32| &table[token as usize * width..][..width];
    texts.iter().map(|text| text.iter().flat_map(row).copied().collect()).collect()
}

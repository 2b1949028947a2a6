//! What weights are worth beside those that they were made from, on texts that they were not calibrated with.

use ecq_convert::Progress;
use ecq_llm::comparison::Comparison;
use rayon::prelude::*;

use crate::decoder::{Decoder, Weights};
use crate::error::{Error, Result};

/// Tokens whose logits are there at a time, on each thread.
const PIECE: usize = 64;

/// A text, and what a model says of it.
pub struct Judge<'a> {
    decoder: Decoder<'a>,
    output: Vec<f32>,
    /// Chunks of two tokens or more.
    chunks: Vec<Vec<u32>>,
    /// What the model's logits are computed from. These take less room than logits, and a fraction of the time of a whole pass.
    last: Vec<Vec<f32>>,
}

impl<'a> Judge<'a> {
    /// Passes chunks of tokens through a model. Errors as for [`Decoder::last`].
    pub fn new(decoder: Decoder<'a>, chunks: &[Vec<u32>], progress: &dyn Progress) -> Result<Self> {
        // of a single token nothing is foreseen
        let chunks: Vec<_> = chunks.iter().filter(|chunk| chunk.len() > 1).cloned().collect();
        let output = decoder.output(decoder.model())?;
        let last = decoder.last(&seen(&chunks), decoder.model(), progress)?;
        Ok(Self { decoder, output, chunks, last })
    }

    /// The decoder.
    pub fn decoder(&self) -> &Decoder<'a> {
        &self.decoder
    }

    /// Compares the predictions of other weights with the model's.
    ///
    /// Errors: those of [`Decoder::last`], [`Error::NotFinite`] for weights that compute no numbers.
    pub fn compare(&self, weights: &dyn Weights, progress: &dyn Progress) -> Result<Comparison> {
        let own = self.decoder.last(&seen(&self.chunks), weights, progress)?;
        let output = self.decoder.output(weights)?;
        let config = self.decoder.model().config();
        let piece = PIECE * config.width;
        let mut found = Comparison::default();
        for ((chunk, base), own) in self.chunks.iter().zip(&self.last).zip(&own) {
            let pieces: Vec<_> = base.chunks(piece).zip(own.chunks(piece)).collect();
            let logits = |(base, own): &(&[f32], &[f32])| {
                [self.decoder.logits(&self.output, base), self.decoder.logits(&output, own)]
            };
            let logits: Vec<[Vec<f32>; 2]> = pieces.par_iter().map(logits).collect();
            let rows = logits.iter().flat_map(|[base, own]| {
                base.chunks_exact(config.vocabulary).zip(own.chunks_exact(config.vocabulary))
            });
            rows.zip(&chunk[1..]).for_each(|((base, own), &next)| found.add(own, Some(base), next));
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
        }
        match found.is_finite() {
            true => Ok(found),
            false => {
                let path = self.decoder.model().path().into();
                Err(Error::NotFinite { path, block: config.layers - 1 })
            }
        }
    }
}

/// Tokens behind which there is another: logits behind the last one of a chunk say nothing of it.
fn seen(chunks: &[Vec<u32>]) -> Vec<&[u32]> {
    chunks.iter().map(|chunk| &chunk[..chunk.len() - 1]).collect()
}

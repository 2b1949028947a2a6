//! What a coded model is worth beside the one that it was made from, on texts that it was not calibrated with.

use ecq_convert::Progress;
use ecq_llm::comparison::Comparison;
use ecq_llm::{Config, Model, Uncompressed};
use rayon::prelude::*;

use crate::block::{Block, normed};
use crate::error::{Error, Result};
use crate::gather::output_name;
use crate::linear::{product, view, view_mut};

/// Tokens whose logits are there at a time.
const PIECE: usize = 64;

/// Compares a model's predictions in chunks of tokens with those of its source.
///
/// Errors: [`Error::Model`] for a model that cannot be run, [`Error::NotFinite`] for one that computes no numbers,
/// [`Error::Cancelled`].
pub fn compare(
    source: &Uncompressed<'_>,
    model: &Model,
    chunks: &[Vec<u32>],
    progress: &dyn Progress,
) -> Result<Comparison> {
    let Config { width, vocabulary, layers, .. } = *source.config();
    let tokens: usize = chunks.iter().map(Vec::len).sum();
    progress.begin("held-out text", (tokens * (layers + 1)) as u64);
    let last = forward(source, chunks, progress)?;
    let table = source.numbers(output_name(source))?;
    let longest = chunks.iter().map(Vec::len).max().unwrap_or(1);
    let mut cache = model.cache(longest)?;
    let mut found = Comparison::default();
    for (chunk, last) in chunks.iter().zip(&last).filter(|(chunk, _)| chunk.len() > 1) {
        cache.truncate(0);
        // logits behind the last token say nothing of the chunk
        let (seen, next) = (&chunk[..chunk.len() - 1], &chunk[1..]);
        let pieces = seen.chunks(PIECE).zip(next.chunks(PIECE)).zip(last.chunks(PIECE * width));
        for ((seen, next), x) in pieces {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            let mut expected = vec![0.0; seen.len() * vocabulary];
            expected.par_chunks_mut(vocabulary * PIECE / 8).zip(x.par_chunks(width * PIECE / 8)).for_each(
                |(logits, x)| {
                    let x = &x[..logits.len() / vocabulary * width];
                    product(view_mut(logits, vocabulary), view(x, width), view(&table, width).transpose());
                },
            );
            let mut pairs = expected.chunks_exact(vocabulary).zip(next);
            model.logits(seen, &mut cache, |logits| {
                if let Some((expected, &next)) = pairs.next() {
                    found.add(logits, Some(expected), next);
                }
            })?;
            progress.advance(seen.len() as u64);
        }
    }
    match found.is_finite() {
        true => Ok(found),
        false => Err(Error::NotFinite { path: source.path().into(), block: layers - 1 }),
    }
}

/// What logits are computed from, for each chunk.
fn forward(source: &Uncompressed<'_>, chunks: &[Vec<u32>], progress: &dyn Progress) -> Result<Vec<Vec<f32>>> {
    let Config { width, layers, epsilon, .. } = *source.config();
    let rope = source.rope()?;
    let mut turns = Vec::new();
    rope.turns(0, chunks.iter().map(Vec::len).max().unwrap_or(0), &mut turns);
    let pairs = source.config().head / 2;
    let table = source.numbers(source.names().embedding())?;
    let row = |&t: &u32| &table[t as usize * width..][..width];
    let mut all: Vec<Vec<f32>> =
        chunks.iter().map(|chunk| chunk.iter().flat_map(row).copied().collect()).collect();
    drop(table);
    for layer in 0..layers {
        let block = Block::load(source, layer)?;
        all.par_iter_mut().for_each(|x| {
            block.forward(&rope, &turns[..x.len() / width * pairs], x);
        });
        progress.advance(chunks.iter().map(|chunk| chunk.len() as u64).sum());
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
    }
    let norm = source.numbers(source.names().norm())?;
    Ok(all.iter().map(|x| normed(x, &norm, epsilon)).collect())
}

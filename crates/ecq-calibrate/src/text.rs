//! Texts as tokens.

use std::path::Path;

use ecq_convert::Progress;
use ecq_llm::{Cache, Config, Model, Sampler, Sampling, Uncompressed};
use rayon::prelude::*;

use crate::error::{Error, Result};

/// Tokens of a chunk, which the model sees from its first one on.
pub const CONTEXT: usize = 512;

/// Texts that a model makes side by side at most.
const TOGETHER: usize = 32;
/// Bytes that keys and values of all of them may take; 0.76 GB are those of SmolLM2-135M, 4.3 GB would be those of a model of 8
/// billion weights.
const CACHES: u64 = 1 << 30;

/// Chunks of a text, spread evenly over it: whole ones of [`CONTEXT`] tokens, or of as many as the model was trained for, at most `tokens` tokens together.
///
/// Errors: [`Error::Text`] for a text of less than a chunk, or with a token that the model does not have.
pub fn chunks(path: &Path, text: &str, model: &Uncompressed<'_>, tokens: usize) -> Result<Vec<Vec<u32>>> {
    let bad = |why| Error::Text { path: path.into(), why };
    let Config { context, vocabulary, .. } = *model.config();
    let context = CONTEXT.min(context);
    if context < 2 {
        return Err(bad("expected a model that reads more than a token, found one that does not".into()));
    }
    let all = model.tokenizer().encode(text)?;
    let whole: Vec<&[u32]> = all.chunks_exact(context).collect();
    if whole.is_empty() {
        let found = all.len();
        return Err(bad(format!(
            "expected a text of at least {context} tokens, found {found}: use a longer one"
        )));
    }
    // of the text itself all were looked at, but not what begins it
    if let Some(token) = all.iter().find(|&&token| token as usize >= vocabulary) {
        return Err(bad(format!(
            "token {token} is none of the model's {vocabulary}: its metadata is damaged"
        )));
    }
    let wanted = (tokens / context).clamp(1, whole.len());
    Ok((0..wanted).map(|i| whole[i * whole.len() / wanted].to_vec()).collect())
}

/// How a model makes texts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Tokens of each: [`CONTEXT`], or as many as the model was trained for.
    pub context: usize,
    /// How many, so that they have at most so many tokens together as were asked for; one at least.
    pub count: usize,
    /// How many at most are made side by side.
    pub together: usize,
}

impl Plan {
    /// For so many tokens together.
    pub fn new(config: &Config, tokens: usize) -> Self {
        let context = CONTEXT.min(config.context);
        let count = (tokens / context).max(1);
        // the same on any machine, for what is made depends on it by rounding
        let fit = CACHES / Cache::bytes(config, context).max(1);
        let most = count.min(TOGETHER).min(fit as usize).max(1);
        // in rounds that differ by a text at most: a few alone would take as long as many
        Self { context, count, together: count.div_ceil(count.div_ceil(most)) }
    }

    /// Positions of all caches that there are at once.
    pub fn positions(&self) -> usize {
        self.context * self.together
    }
}

/// Chunks that a model makes itself: each begins with its token for that, and goes on as the model's probabilities say. It is
/// not stopped by a token that ends a text, behind which models go on with another one. The same seed makes the same chunks,
/// whatever the number of threads.
///
/// Errors: [`Error::Text`] for a model without a token to begin with, [`Error::Cancelled`], and those of running it.
pub fn own(
    model: &Model,
    path: &Path,
    tokens: usize,
    seed: u64,
    progress: &dyn Progress,
) -> Result<Vec<Vec<u32>>> {
    let no_begin =
        || "expected a model with a token that begins texts, found none: calibrate with a text".into();
    let begin =
        model.tokenizer().begin().ok_or_else(|| Error::Text { path: path.into(), why: no_begin() })?;
    let Plan { context, count, together } = Plan::new(model.config(), tokens);
    progress.begin("text of its own", (count * (context - 1)) as u64);
    let sampler = |i: usize| {
        let seed = seed ^ (i as u64) << 32;
        Sampler::new(Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed })
    };
    let mut samplers: Vec<Sampler> = (0..count).map(sampler).collect();
    let mut chunks = vec![vec![begin]; count];
    let mut caches =
        (0..together).map(|_| model.cache(context)).collect::<std::result::Result<Vec<_>, _>>()?;
    for (chunks, samplers) in chunks.chunks_mut(together).zip(samplers.chunks_mut(together)) {
        let caches = &mut caches[..chunks.len()];
        caches.iter_mut().for_each(|cache| cache.truncate(0));
        for _ in 1..context {
            let last: Vec<&[u32]> = chunks.iter().map(|chunk| &chunk[chunk.len() - 1..]).collect();
            let logits = model.next_of_each(&last, caches, &|| progress.cancelled())?;
            if logits.is_empty() {
                return Err(Error::Cancelled);
            }
            let texts = chunks.par_iter_mut().zip(&mut *samplers).zip(&logits);
            texts.for_each(|((chunk, sampler), logits)| chunk.push(sampler.next(logits)));
            progress.advance(chunks.len() as u64);
        }
    }
    Ok(chunks)
}

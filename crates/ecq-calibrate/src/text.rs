//! Texts as tokens.

use std::path::Path;

use ecq_convert::Progress;
use ecq_llm::{Config, Model, Sampler, Sampling, Uncompressed};

use crate::error::{Error, Result};

/// Tokens of a chunk, which the model sees from its first one on.
pub const CONTEXT: usize = 512;

/// Chunks of a text, spread evenly over it: whole ones of [`CONTEXT`] tokens, or of as many as the model was trained for, at most `tokens` tokens together.
///
/// Errors: [`Error::Text`] for a text of less than a chunk, or with a token that the model does not have.
pub fn chunks(path: &Path, text: &str, model: &Uncompressed<'_>, tokens: usize) -> Result<Vec<Vec<u32>>> {
    let bad = |why| Error::Text { path: path.into(), why };
    let Config { context, vocabulary, .. } = *model.config();
    let context = CONTEXT.min(context);
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

/// Chunks that a model makes itself: each begins with its token for that, and goes on as the model's probabilities say. It is
/// not stopped by a token that ends a text, behind which models go on with another one.
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
    let context = CONTEXT.min(model.config().context);
    let count = (tokens / context).max(1);
    progress.begin("text of its own", (count * context) as u64);
    let mut chunks = Vec::with_capacity(count);
    for i in 0..count {
        let sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: seed ^ (i as u64) << 32 };
        let (mut sampler, mut cache) = (Sampler::new(sampling), model.cache(context)?);
        let mut chunk = vec![begin];
        while chunk.len() < context {
            let last = chunk[chunk.len() - 1];
            let logits = model.next(&[last], &mut cache, &|| progress.cancelled())?;
            if logits.is_empty() {
                return Err(Error::Cancelled);
            }
            chunk.push(sampler.next(&logits));
            progress.advance(1);
        }
        chunks.push(chunk);
    }
    Ok(chunks)
}

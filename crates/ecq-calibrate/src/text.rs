//! Texts as tokens.

use std::path::Path;

use ecq_llm::Tokenizer;

use crate::error::{Error, Result};

/// Tokens of a chunk, which the model sees from its first one on.
pub const CONTEXT: usize = 512;

/// Chunks of a text, spread evenly over it: whole ones of [`CONTEXT`] tokens, at most `tokens` tokens together.
///
/// Error: [`Error::Text`] for a text of less than a chunk.
pub fn chunks(path: &Path, text: &str, tokenizer: &Tokenizer, tokens: usize) -> Result<Vec<Vec<u32>>> {
    let all = tokenizer.encode(text)?;
    let whole: Vec<&[u32]> = all.chunks_exact(CONTEXT).collect();
    if whole.is_empty() {
        let why =
            format!("expected a text of at least {CONTEXT} tokens, found {}: use a longer one", all.len());
        return Err(Error::Text { path: path.into(), why });
    }
    let wanted = (tokens / CONTEXT).clamp(1, whole.len());
    Ok((0..wanted).map(|i| whole[i * whole.len() / wanted].to_vec()).collect())
}

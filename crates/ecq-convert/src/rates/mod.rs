//! How many bits each tensor gets: one multiplier for all of them, and rules by name.
//!
//! | step | module |
//! |---|---|
//! | patterns of names → what is done with those tensors; sensitivities from a file | [`rules`] |
//! | rate-distortion curves of all tensors → bits for each | [`share`] |
//! | bits for each, until the file has its size | [`size`] |

pub mod rules;
pub mod share;
pub mod size;

pub use rules::{Choice, Rules, Sensitivities};
pub use share::{RateControl, Target};

/// How much more an error counts in a tensor that the model's output comes from: half a bit more.
///
/// The output layer works on every token without a later layer to even its errors out, and in models whose embedding
/// is the output layer as well, the same errors enter twice.
pub const OUTPUT_SENSITIVITY: f64 = 2.0;

/// The sensitivity of a tensor that no file lists: more for output layers, and for embeddings unless there is an output
/// layer beside them; one for all others.
pub fn default_sensitivity(name: &str, has_output: bool) -> f64 {
    if is_output(name) || (!has_output && is_embedding(name)) { OUTPUT_SENSITIVITY } else { 1.0 }
}

/// Whether a name is that of an output layer: `lm_head.weight`, GGUF's `output.weight`, `embed_out.weight`.
pub fn is_output(name: &str) -> bool {
    let stem = name.strip_suffix(".weight").or(name.strip_suffix(".qweight")).unwrap_or(name);
    stem == "output" || stem.ends_with("lm_head") || stem.ends_with("embed_out")
}

/// Whether a name is that of a table of token embeddings.
pub fn is_embedding(name: &str) -> bool {
    ["embed_tokens", "token_embd", "word_embeddings", "tok_embeddings", ".wte.", "embed_in"]
        .iter()
        .any(|part| name.contains(part))
        || name.starts_with("wte.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embedding_counts_more_only_where_it_is_the_output_too() {
        assert_eq!(default_sensitivity("token_embd.weight", false), OUTPUT_SENSITIVITY);
        assert_eq!(default_sensitivity("token_embd.weight", true), 1.0);
        assert_eq!(default_sensitivity("model.embed_tokens.weight", false), OUTPUT_SENSITIVITY);
        assert_eq!(default_sensitivity("lm_head.weight", true), OUTPUT_SENSITIVITY);
        assert_eq!(default_sensitivity("output.weight", true), OUTPUT_SENSITIVITY);
        assert_eq!(default_sensitivity("blk.0.attn_output.weight", false), 1.0);
        assert_eq!(default_sensitivity("encoder.layer.0.output.dense.weight", false), 1.0);
    }
}

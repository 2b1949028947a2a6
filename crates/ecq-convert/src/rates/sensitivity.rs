//! How much an error counts in a tensor of which no file says it: by its role in a decoder, which its name tells.
//!
//! The factors were measured, on one model: the squared gradients of SmolLM2-135M-Instruct's own predictions over a
//! novel, summed over the weights of a role, give the KL divergence that an error of the same power against the
//! tensor's does in each weight (docs/measurements.md has the figures). Gates of feed-forward layers are the unit.

use crate::source::SourceTensor;

/// The output layer, and an embedding that is the output layer as well: no later layer evens its errors out.
pub const OUTPUT: f64 = 4.0;
/// An embedding beside an output layer.
pub const EMBEDDING: f64 = 0.5;
/// Feed-forward layers of the first and the last block, times what they have elsewhere.
pub const ENDS: f64 = 4.0;

/// A role of a tensor in a block of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Query,
    Key,
    Value,
    /// Queries, keys and values in one.
    Attention,
    AttentionOutput,
    Gate,
    Up,
    /// Gate and up in one.
    GateUp,
    Down,
}

impl Role {
    /// The names of roles in GGUF files and in those of Hugging Face. Experts' are called `ffn_up_exps` in the first.
    fn of(name: &str) -> Option<Self> {
        let part = stem(name).rsplit('.').next().unwrap_or_default();
        Some(match part {
            "attn_q" | "q_proj" => Self::Query,
            "attn_k" | "k_proj" => Self::Key,
            "attn_v" | "v_proj" => Self::Value,
            "attn_qkv" | "qkv_proj" => Self::Attention,
            "attn_output" | "o_proj" => Self::AttentionOutput,
            "ffn_gate" | "ffn_gate_exps" | "ffn_gate_shexp" | "gate_proj" => Self::Gate,
            "ffn_up" | "ffn_up_exps" | "ffn_up_shexp" | "up_proj" => Self::Up,
            "gate_up_proj" => Self::GateUp,
            "ffn_down" | "ffn_down_exps" | "ffn_down_shexp" | "down_proj" => Self::Down,
            _ => return None,
        })
    }

    /// What an error counts where every head has keys and values of its own.
    fn factor(self) -> f64 {
        match self {
            Self::Query | Self::Key | Self::Up => 1.5,
            Self::Value => 8.0,
            Self::AttentionOutput => 1.3,
            Self::Gate => 1.0,
            Self::Down => 2.0,
            // the means of what is in them
            Self::Attention => 3.7,
            Self::GateUp => 1.25,
        }
    }

    /// Whether several heads share the rows of such a matrix, so that each row does the work of several.
    fn shared(self) -> bool {
        matches!(self, Self::Key | Self::Value)
    }

    fn feed_forward(self) -> bool {
        matches!(self, Self::Gate | Self::Up | Self::GateUp | Self::Down)
    }
}

/// What the sensitivities of a model's tensors depend on besides their names.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    has_output: bool,
    /// The last block that has feed-forward layers.
    last: Option<usize>,
}

impl Defaults {
    /// For the tensors of a model.
    pub fn of(tensors: &[SourceTensor]) -> Self {
        Self::of_names(tensors.iter().map(|t| t.name.as_str()))
    }

    fn of_names<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let feed_forward = |name: &&str| Role::of(name).is_some_and(Role::feed_forward);
        let last = names.clone().filter(feed_forward).filter_map(block).max();
        Self { has_output: names.into_iter().any(is_output), last }
    }

    /// The factor of a matrix by its name and shape; 1 for tensors whose role is not known.
    pub fn sensitivity(&self, name: &str, rows: usize, cols: usize) -> f64 {
        if is_output(name) {
            return OUTPUT;
        }
        if is_embedding(name) {
            return if self.has_output { EMBEDDING } else { OUTPUT };
        }
        let Some(role) = Role::of(name) else { return 1.0 };
        let heads = if role.shared() { (cols as f64 / rows.max(1) as f64).max(1.0) } else { 1.0 };
        let block = block(name);
        let end = role.feed_forward() && block.is_some() && (block == Some(0) || block == self.last);
        role.factor() * heads * if end { ENDS } else { 1.0 }
    }
}

/// A name without what it ends in for all weights.
fn stem(name: &str) -> &str {
    name.strip_suffix(".weight").or(name.strip_suffix(".qweight")).unwrap_or(name)
}

/// The number of the block that a tensor is in.
fn block(name: &str) -> Option<usize> {
    name.split('.').find_map(|part| part.parse().ok())
}

/// Whether a name is that of an output layer: `lm_head.weight`, GGUF's `output.weight`, `embed_out.weight`.
pub fn is_output(name: &str) -> bool {
    let stem = stem(name);
    stem == "output" || stem.ends_with("lm_head") || stem.ends_with("embed_out")
}

/// Whether a name is that of a decoder's table of token embeddings. Encoders' `word_embeddings` are none: no output is
/// computed from them.
pub fn is_embedding(name: &str) -> bool {
    ["embed_tokens", "token_embd", "tok_embeddings", ".wte.", "embed_in"]
        .iter()
        .any(|part| name.contains(part))
        || name.starts_with("wte.")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: [&str; 5] = [
        "token_embd.weight",
        "blk.0.ffn_up.weight",
        "blk.1.ffn_up.weight",
        "blk.2.ffn_up.weight",
        "blk.3.attn_q.weight",
    ];

    #[test]
    fn an_embedding_counts_more_only_where_it_is_the_output_too() {
        let square = |names: &[&'static str], name| {
            Defaults::of_names(names.iter().copied()).sensitivity(name, 64, 64)
        };
        let [tied, untied] = [&MODEL[..1], &["token_embd.weight", "output.weight"]];
        assert_eq!(square(tied, "token_embd.weight"), OUTPUT);
        assert_eq!(square(tied, "model.embed_tokens.weight"), OUTPUT);
        assert_eq!(square(untied, "token_embd.weight"), EMBEDDING);
        assert_eq!(square(untied, "output.weight"), OUTPUT);
        assert_eq!(square(tied, "lm_head.weight"), OUTPUT);
        assert_eq!(square(tied, "embeddings.word_embeddings.weight"), 1.0);
        assert_eq!(square(tied, "encoder.layer.0.output.dense.weight"), 1.0);
    }

    #[test]
    fn both_families_of_names_have_the_same_roles() {
        let defaults = Defaults::of_names(MODEL.into_iter());
        let pairs = [
            ("attn_q", "self_attn.q_proj", 1.5),
            ("attn_k", "self_attn.k_proj", 4.5),
            ("attn_v", "self_attn.v_proj", 24.0),
            ("attn_output", "self_attn.o_proj", 1.3),
            ("ffn_gate", "mlp.gate_proj", 1.0),
            ("ffn_up", "mlp.up_proj", 1.5),
            ("ffn_down", "mlp.down_proj", 2.0),
            ("attn_norm", "input_layernorm", 1.0),
        ];
        for (gguf, other, factor) in pairs {
            for name in [
                format!("blk.1.{gguf}.weight"),
                format!("model.layers.1.{other}.weight"),
                format!("model.layers.1.{other}.qweight"),
            ] {
                assert_eq!(defaults.sensitivity(&name, 192, 576), factor, "{name}");
            }
        }
        // heads with keys and values of their own, and matrices of more rows than columns
        assert_eq!(defaults.sensitivity("blk.1.attn_v.weight", 576, 576), 8.0);
        assert_eq!(defaults.sensitivity("blk.1.attn_v.weight", 1152, 576), 8.0);
        assert_eq!(defaults.sensitivity("blk.1.attn_v.weight", 0, 576), 8.0 * 576.0);
    }

    #[test]
    fn feed_forward_layers_count_more_at_both_ends() {
        let defaults = Defaults::of_names(MODEL.into_iter());
        let of = |name: &str| defaults.sensitivity(name, 64, 64);
        assert_eq!(of("blk.0.ffn_up.weight"), 1.5 * ENDS);
        assert_eq!(of("blk.1.ffn_up.weight"), 1.5);
        // block 3 has none
        assert_eq!(of("blk.2.ffn_down_exps.weight"), 2.0 * ENDS);
        assert_eq!(of("blk.0.attn_output.weight"), 1.3);
        assert_eq!(of("ffn_up.weight"), 1.5);
    }
}

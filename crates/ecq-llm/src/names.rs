//! Names of tensors: as GGUF calls them, and as Hugging Face does.

use ecq_format::Reader;

use crate::weights::has;

/// Parts of a block in both.
const PARTS: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// What frequencies of rotary embedding are divided by, in GGUF files of Llama 3.1 and later.
pub const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// Which names a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// `blk.0.attn_q.weight`
    Gguf,
    /// `model.layers.0.self_attn.q_proj.weight`
    HuggingFace,
}

impl Names {
    /// Those of a file.
    pub fn of(reader: &Reader) -> Self {
        Self::among(|name| has(reader, name))
    }

    /// Those of tensors that are there.
    pub fn among(has: impl Fn(&str) -> bool) -> Self {
        if has(Self::Gguf.embedding()) { Self::Gguf } else { Self::HuggingFace }
    }

    /// The table of embeddings.
    pub fn embedding(self) -> &'static str {
        match self {
            Self::Gguf => "token_embd.weight",
            Self::HuggingFace => "model.embed_tokens.weight",
        }
    }

    /// The matrix to logits, which a model may have.
    pub fn output(self) -> Option<&'static str> {
        Some(match self {
            Self::Gguf => "output.weight",
            Self::HuggingFace => "lm_head.weight",
        })
    }

    /// The last norm.
    pub fn norm(self) -> &'static str {
        match self {
            Self::Gguf => "output_norm.weight",
            Self::HuggingFace => "model.norm.weight",
        }
    }

    /// A part of a block, by GGUF's name, without `.weight`.
    pub fn block(self, layer: usize, part: &str) -> String {
        match self {
            Self::Gguf => format!("blk.{layer}.{part}"),
            Self::HuggingFace => {
                let found = PARTS.iter().find(|(gguf, _)| *gguf == part);
                format!("model.layers.{layer}.{}", found.map_or(part, |(_, own)| own))
            }
        }
    }
}

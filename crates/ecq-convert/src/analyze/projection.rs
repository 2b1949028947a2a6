//! How many tokens a second a memory bandwidth allows at most. A projection from sizes; nothing is run.

use serde::Serialize;

use super::lossless::LOSSLESS;
use super::schemes::COMMON;
use super::{Analysis, TensorAnalysis};

/// What the figures rest on, in sentences for whoever reads them.
pub const ASSUMPTIONS: [&str; 5] = [
    "every weight is read from memory once per token, and nothing else limits (batch 1)",
    "decoding costs no time; the bandwidth is the published peak, of which programs reach 60 to 90 %",
    "keys, values and activations are not counted",
    "tables that are only looked up (token, position and type embeddings) are not counted, but a token embedding is where the model has no output matrix of its own",
    "a mixture of experts reads fewer weights than are counted here",
];

/// Tokens a second at a memory bandwidth.
#[derive(Clone, Debug, Serialize)]
pub struct Projection {
    /// Always `projection`: none of this was measured.
    pub kind: &'static str,
    /// Where the bandwidth comes from.
    pub bandwidth_of: String,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// What the figures rest on.
    pub assumptions: Vec<String>,
    /// Tensors whose bytes are not counted, because they are only looked up.
    pub looked_up: Vec<String>,
    /// Token embedding that is counted as the output matrix, because the model has no other.
    pub tied: Option<String>,
    /// One for each way to hold the weights.
    pub rows: Vec<ProjectionRow>,
}

/// A way to hold the weights.
#[derive(Clone, Debug, Serialize)]
pub struct ProjectionRow {
    /// The way.
    pub way: String,
    /// Bits a weight of the coded matrices that are counted.
    pub bits: f64,
    /// Bytes that are read a token, with what is stored as it is.
    pub bytes_per_token: f64,
    /// Tokens a second.
    pub tokens_per_second: f64,
    /// SQNR of the coded matrices of the model in dB; none where nothing is lost.
    pub sqnr_db: Option<f64>,
}

/// How a tensor is used, by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Multiplied with.
    Product,
    /// Rows of it are looked up, one a token.
    LookUp,
    /// Looked up, and multiplied with where it is the output matrix as well.
    Tokens,
    /// The output matrix.
    Output,
}

/// By the names that GGUF and the common model classes give.
fn use_of(name: &str) -> Use {
    let name = name.to_ascii_lowercase();
    let parts: Vec<&str> = name.split('.').collect();
    let has = |part: &str| parts.contains(&part);
    if ["token_embd", "embed_tokens", "wte", "word_embeddings", "tok_embeddings"].iter().any(|p| has(p)) {
        Use::Tokens
    } else if [
        "position_embd",
        "embed_positions",
        "wpe",
        "position_embeddings",
        "token_type_embeddings",
        "token_types",
    ]
    .iter()
    .any(|p| has(p))
    {
        Use::LookUp
    } else if has("lm_head") || has("embed_out") || name == "output.weight" {
        Use::Output
    } else {
        Use::Product
    }
}

impl Projection {
    /// For a model on memory of this bandwidth, in bytes a second.
    pub fn new(analysis: &Analysis, bandwidth_of: &str, bytes_per_second: f64) -> Self {
        let uses = || analysis.tensors.iter().map(|t| (t, use_of(&t.name)));
        let names = analysis.tensors.iter().map(|t| &t.name);
        let names = names.chain(analysis.plain.iter().map(|p| &p.name)).chain(&analysis.left_out);
        let head = names.clone().any(|n| use_of(n) == Use::Output);
        let counted = |u: Use| match u {
            Use::Product | Use::Output => true,
            Use::LookUp => false,
            Use::Tokens => !head,
        };
        let read: Vec<&TensorAnalysis> = uses().filter(|(_, u)| counted(*u)).map(|(t, _)| t).collect();
        let plain = analysis.plain.iter().filter(|p| counted(use_of(&p.name))).map(|p| p.bytes).sum::<u64>();
        let row = |way: String, bits_of: &dyn Fn(&TensorAnalysis) -> f64, sqnr_db| {
            let bits: f64 = read.iter().map(|t| bits_of(t) * t.weights as f64).sum();
            let weights = read.iter().map(|t| t.weights).sum::<u64>().max(1);
            let bytes_per_token = bits / 8.0 + plain as f64;
            let tokens_per_second =
                if bytes_per_token > 0.0 { bytes_per_second / bytes_per_token } else { 0.0 };
            ProjectionRow { way, bits: bits / weights as f64, bytes_per_token, tokens_per_second, sqnr_db }
        };
        let mut rows = vec![row("source".into(), &|t| t.source_bits, None)];
        for scheme in &analysis.pooled.schemes {
            let name = &scheme.scheme;
            let bits = |t: &TensorAnalysis| t.scheme(name).map_or(t.source_bits, |s| s.bits);
            if name == LOSSLESS {
                rows.push(row("lossless, coded".into(), &bits, None));
            } else if *name == COMMON.to_string() {
                let stored = |t: &TensorAnalysis| t.scheme(name).map_or(t.source_bits, |s| s.stored_bits);
                rows.push(row(format!("{name}, plain 4-bit"), &stored, scheme.sqnr_db));
            } else if name.starts_with("ecq ") {
                rows.push(row(name.clone(), &bits, scheme.sqnr_db));
            }
        }
        let looked_up = names.clone().filter(|n| !counted(use_of(n))).cloned().collect();
        let tied = names.clone().find(|n| !head && use_of(n) == Use::Tokens).cloned();
        Self {
            kind: "projection",
            bandwidth_of: bandwidth_of.into(),
            bytes_per_second,
            assumptions: ASSUMPTIONS.map(String::from).into(),
            looked_up,
            tied,
            rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_used_as_their_names_say() {
        for (name, expected) in [
            ("token_embd.weight", Use::Tokens),
            ("model.embed_tokens.weight", Use::Tokens),
            ("transformer.wte.weight", Use::Tokens),
            ("embeddings.word_embeddings.weight", Use::Tokens),
            ("embeddings.position_embeddings.weight", Use::LookUp),
            ("transformer.wpe.weight", Use::LookUp),
            ("lm_head.weight", Use::Output),
            ("output.weight", Use::Output),
            ("blk.3.attn_output.weight", Use::Product),
            ("encoder.layer.0.output.dense.weight", Use::Product),
        ] {
            assert!(use_of(name) == expected, "{name}");
        }
    }
}

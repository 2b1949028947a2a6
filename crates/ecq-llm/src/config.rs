//! What a model is made of: its shape, from the metadata of GGUF or from `config.json`.

use std::path::Path;

use serde::Deserialize;

use crate::description::Description;
use crate::error::{Error, Result};

/// Architectures that are run, as GGUF and Hugging Face call them.
const ARCHITECTURES: [(&str, &str); 3] =
    [("llama", "LlamaForCausalLM"), ("qwen2", "Qwen2ForCausalLM"), ("qwen3", "Qwen3ForCausalLM")];

/// Which numbers of a head rotary embedding turns together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotary {
    /// Neighbours: 0 and 1, 2 and 3. GGUF keeps Llama's queries and keys in this order.
    Neighbours,
    /// Halves: 0 and n/2, 1 and n/2 + 1.
    Halves,
}

/// The shape of a decoder of the Llama family.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// As GGUF calls it.
    pub architecture: String,
    /// Number of blocks.
    pub layers: usize,
    /// Numbers of a token between blocks.
    pub width: usize,
    /// Numbers in the gated MLP.
    pub hidden: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub head: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Positions that the model was trained for.
    pub context: usize,
    /// Base of the rotary embedding's frequencies.
    pub rope_base: f32,
    /// Order of rotary embedding.
    pub rotary: Rotary,
    /// Added to the mean square of a norm.
    pub epsilon: f32,
}

/// What `config.json` says of its kind.
#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    architectures: Vec<String>,
}

/// What is read of `config.json`.
#[derive(Deserialize)]
struct Json {
    num_hidden_layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rope_theta: Option<f32>,
    rope_scaling: Option<serde_json::Value>,
    rms_norm_eps: f32,
    hidden_act: Option<String>,
}

impl Config {
    /// From the description in a file. `path` is for errors.
    ///
    /// Errors: [`Error::Model`] for another architecture, for what is missing, and for shapes that no model has.
    pub fn new(path: &Path, description: &Description) -> Result<Self> {
        let fail = |what: &str, expected: &str, got: String| Error::Model {
            path: path.into(),
            what: what.into(),
            expected: expected.into(),
            got,
        };
        let config = match description {
            Description::Gguf(values) => gguf(path, values)?,
            Description::Folder { config, .. } => {
                let broken = |e: serde_json::Error| {
                    fail("config.json", "the configuration of a language model", e.to_string())
                };
                // first what it is: other models have other entries
                let Kind { architectures } = serde_json::from_slice(config).map_err(broken)?;
                let architecture = known(path, &architectures)?;
                folder(path, architecture, serde_json::from_slice(config).map_err(broken)?)?
            }
        };
        let Config { heads, kv_heads, head, .. } = config;
        let sizes = [config.layers, config.width, config.hidden, config.vocabulary, config.context];
        if sizes.contains(&0) || sizes.iter().any(|&n| n > 1 << 28) || config.layers > 1 << 12 {
            return Err(fail("sizes", "positive numbers of a model", format!("{sizes:?}")));
        }
        let whole = heads > 0 && kv_heads > 0 && heads.is_multiple_of(kv_heads) && heads <= 1 << 16;
        if !whole || head == 0 || !head.is_multiple_of(2) || head > 1 << 16 {
            return Err(fail(
                "heads",
                "heads of an even size, a multiple of the heads of keys",
                format!("{heads} and {kv_heads} heads of {head} numbers"),
            ));
        }
        if !(config.epsilon >= 0.0 && config.epsilon < 1.0 && config.rope_base >= 1.0) {
            let got = format!("{} and {}", config.epsilon, config.rope_base);
            return Err(fail("epsilon and base", "a small number and a large one", got));
        }
        Ok(config)
    }
}

fn gguf(path: &Path, values: &crate::description::Values) -> Result<Config> {
    let fail = |what: &str, expected: &str, got: String| Error::Model {
        path: path.into(),
        what: what.into(),
        expected: expected.into(),
        got,
    };
    let known = ARCHITECTURES.map(|(name, _)| name);
    let architecture = values.get("general.architecture").and_then(|v| v.text()).unwrap_or("none").to_owned();
    if !known.contains(&architecture.as_str()) {
        return Err(fail("general.architecture", &known.join(", "), architecture));
    }
    let key = |key: &str| format!("{architecture}.{key}");
    let find = |name: &str| values.get(&key(name)).and_then(|v| v.unsigned()).map(|n| n as usize);
    let need = |name: &str| find(name).ok_or_else(|| fail(&key(name), "a whole number", "none".into()));
    let float = |name: &str| values.get(&key(name)).and_then(|v| v.float()).map(|n| n as f32);
    if let Some(scaling) = values.get(&key("rope.scaling.type")).and_then(|v| v.text())
        && scaling != "none"
    {
        return Err(fail(&key("rope.scaling.type"), "none", scaling.into()));
    }
    let (width, heads) = (need("embedding_length")?, need("attention.head_count")?);
    let tokens = values.get("tokenizer.ggml.tokens").and_then(|v| v.array()).map(<[_]>::len);
    let vocabulary = find("vocab_size").or(tokens);
    let head = find("attention.key_length").unwrap_or(width / heads.max(1));
    Ok(Config {
        layers: need("block_count")?,
        width,
        hidden: need("feed_forward_length")?,
        heads,
        kv_heads: find("attention.head_count_kv").unwrap_or(heads),
        head,
        vocabulary: vocabulary.ok_or_else(|| fail(&key("vocab_size"), "a whole number", "none".into()))?,
        context: need("context_length")?,
        rope_base: float("rope.freq_base").unwrap_or(10_000.0),
        rotary: if architecture == "llama" { Rotary::Neighbours } else { Rotary::Halves },
        epsilon: float("attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
        architecture,
    })
}

/// The architecture among those that Hugging Face calls a model by.
fn known(path: &Path, architectures: &[String]) -> Result<&'static str> {
    let found = ARCHITECTURES.iter().find(|(_, name)| architectures.iter().any(|a| a == name));
    found.map(|(architecture, _)| *architecture).ok_or_else(|| Error::Model {
        path: path.into(),
        what: "architectures in config.json".into(),
        expected: ARCHITECTURES.map(|(_, name)| name).join(", "),
        got: if architectures.is_empty() { "none".into() } else { architectures.join(", ") },
    })
}

fn folder(path: &Path, architecture: &str, json: Json) -> Result<Config> {
    let fail = |what: &str, expected: &str, got: String| Error::Model {
        path: path.into(),
        what: format!("{what} in config.json"),
        expected: expected.into(),
        got,
    };
    if let Some(scaling) = json.rope_scaling.filter(|v| !v.is_null()) {
        return Err(fail("rope_scaling", "none", scaling.to_string()));
    }
    if let Some(act) = json.hidden_act.filter(|act| act != "silu") {
        return Err(fail("hidden_act", "silu", act));
    }
    Ok(Config {
        architecture: architecture.into(),
        layers: json.num_hidden_layers,
        width: json.hidden_size,
        hidden: json.intermediate_size,
        heads: json.num_attention_heads,
        kv_heads: json.num_key_value_heads.unwrap_or(json.num_attention_heads),
        head: json.head_dim.unwrap_or(json.hidden_size / json.num_attention_heads.max(1)),
        vocabulary: json.vocab_size,
        context: json.max_position_embeddings,
        rope_base: json.rope_theta.unwrap_or(10_000.0),
        rotary: Rotary::Halves,
        epsilon: json.rms_norm_eps,
    })
}

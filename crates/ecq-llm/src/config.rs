//! What a model is made of: its shape, from the metadata of GGUF or from `config.json`.

use std::path::Path;

use serde::Deserialize;

use crate::description::{Description, Value, Values};
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

/// How Llama 3 slows rotary embedding down, for more positions than it was trained with at first: the frequencies whose waves are
/// long beside those (`apply_scaling` in Meta's release).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeScaling {
    /// How much slower the slowest are.
    pub factor: f64,
    /// Turns in the positions of the first training, below which a frequency is among the slowest.
    pub low: f64,
    /// Turns above which it stays as it is.
    pub high: f64,
    /// Positions of the first training.
    pub original: f64,
}

impl RopeScaling {
    /// What a frequency, in radians a position, is divided by.
    pub fn divisor(&self, frequency: f64) -> f64 {
        let turns = self.original * frequency / std::f64::consts::TAU;
        let kept = ((turns - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        1.0 / ((1.0 - kept) / self.factor + kept)
    }
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
    /// What its frequencies are divided by, unless the file has a tensor of that.
    pub rope_scaling: Option<RopeScaling>,
    /// Added to the mean square of a norm.
    pub epsilon: f32,
    /// Whether logits are products with the table of embeddings; `None` where it is not said: they are, if there is no other matrix.
    pub tied: Option<bool>,
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
    rope_theta: Option<f64>,
    rope_scaling: Option<Rope>,
    /// Where newer configurations have the two above.
    rope_parameters: Option<Rope>,
    partial_rotary_factor: Option<f64>,
    rms_norm_eps: f32,
    hidden_act: Option<String>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    tie_word_embeddings: Option<bool>,
}

/// How positions turn heads.
#[derive(Deserialize)]
struct Rope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl Rope {
    /// Numbers of Llama 3, if all are there and make sense.
    fn llama3(&self) -> Option<RopeScaling> {
        let [factor, low, high, original] = [
            self.factor?,
            self.low_freq_factor?,
            self.high_freq_factor?,
            self.original_max_position_embeddings?,
        ];
        let sane = factor >= 1.0 && low > 0.0 && high > low && original >= 1.0;
        let finite = [factor, high, original].iter().all(|n| n.is_finite());
        (sane && finite).then_some(RopeScaling { factor, low, high, original })
    }
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
        for (what, size, most) in [
            ("the number of blocks", config.layers, 1 << 12),
            ("the numbers of a token", config.width, 1 << 28),
            ("the numbers in the MLP", config.hidden, 1 << 28),
            ("the vocabulary", config.vocabulary, 1 << 28),
            ("the context", config.context, 1 << 28),
        ] {
            if !(1..=most).contains(&size) {
                return Err(fail(what, &format!("1 to {most}"), size.to_string()));
            }
        }
        let whole = heads > 0 && kv_heads > 0 && heads.is_multiple_of(kv_heads) && heads <= 1 << 16;
        if !whole || head == 0 || !head.is_multiple_of(2) || head > 1 << 16 {
            return Err(fail(
                "heads",
                "heads of an even size, a multiple of the heads of keys",
                format!("{heads} and {kv_heads} heads of {head} numbers"),
            ));
        }
        let Config { epsilon, rope_base, .. } = config;
        if !(0.0..1.0).contains(&epsilon) {
            return Err(fail("epsilon of norms", "0 or more, below 1", epsilon.to_string()));
        }
        if !(1.0..f32::INFINITY).contains(&rope_base) {
            return Err(fail("base of the rotary embedding", "1 or more", rope_base.to_string()));
        }
        Ok(config)
    }
}

fn gguf(path: &Path, values: &Values) -> Result<Config> {
    let fail = |what: &str, expected: &str, got: String| Error::Model {
        path: path.into(),
        what: what.into(),
        expected: expected.into(),
        got,
    };
    let known = ARCHITECTURES.map(|(name, _)| name);
    let architecture = values.get("general.architecture").and_then(Value::text).unwrap_or("none").to_owned();
    if !known.contains(&architecture.as_str()) {
        return Err(fail("general.architecture", &known.join(", "), architecture));
    }
    let key = |key: &str| format!("{architecture}.{key}");
    // what is there must be read: a value of another type, as a list for each block, says that something is special
    let entry = |name: &str| values.get(&key(name));
    let find = |name: &str| match entry(name).map(|value| value.unsigned().ok_or(value)) {
        None => Ok(None),
        Some(Ok(n)) => Ok(Some(usize::try_from(n).unwrap_or(usize::MAX))),
        Some(Err(_)) => Err(fail(&key(name), "a whole number", "a value of another type".into())),
    };
    let need = |name: &str| find(name)?.ok_or_else(|| fail(&key(name), "a whole number", "none".into()));
    let float = |name: &str, default: f32| match entry(name).map(Value::float) {
        None => Ok(default),
        Some(Some(n)) => Ok(n as f32),
        Some(None) => Err(fail(&key(name), "a number", "a value of another type".into())),
    };
    if let Some(scaling) = entry("rope.scaling.type").and_then(Value::text)
        && scaling != "none"
    {
        return Err(fail(&key("rope.scaling.type"), "none", scaling.into()));
    }
    let (width, heads) = (need("embedding_length")?, need("attention.head_count")?);
    let tokens = values.get("tokenizer.ggml.tokens").and_then(Value::array).map(<[_]>::len);
    let vocabulary = find("vocab_size")?.or(tokens);
    let head = find("attention.key_length")?.unwrap_or(width / heads.max(1));
    for same in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = find(same)?.filter(|&other| other != head) {
            return Err(fail(&key(same), &format!("{head}, the numbers of a head"), other.to_string()));
        }
    }
    Ok(Config {
        layers: need("block_count")?,
        width,
        hidden: need("feed_forward_length")?,
        heads,
        kv_heads: find("attention.head_count_kv")?.unwrap_or(heads),
        head,
        vocabulary: vocabulary
            .ok_or_else(|| fail("tokenizer.ggml.tokens", "the tokens of a tokenizer", "none".into()))?,
        context: need("context_length")?,
        rope_base: float("rope.freq_base", 10_000.0)?,
        rotary: if architecture == "llama" { Rotary::Neighbours } else { Rotary::Halves },
        rope_scaling: None, // a tensor says so here
        epsilon: float("attention.layer_norm_rms_epsilon", 1e-5)?,
        tied: None,
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
    let kinds =
        [("rope_scaling", &json.rope_scaling, "none"), ("rope_parameters", &json.rope_parameters, "default")];
    let mut rope_scaling = None;
    for (entry, rope, unsaid) in kinds {
        let Some(rope) = rope else { continue };
        match (rope.rope_type.as_deref().unwrap_or(unsaid), rope.llama3()) {
            ("default", _) => {}
            ("llama3", Some(scaling)) => rope_scaling = Some(scaling),
            ("llama3", None) => {
                let numbers = "factor, low_freq_factor, high_freq_factor (above the low one) and original_max_position_embeddings";
                return Err(fail(entry, numbers, "not all of them, or no such numbers".into()));
            }
            (kind, _) => {
                let expected = "nothing, or the rope_type default or llama3";
                return Err(fail(entry, expected, format!("the rope_type {kind}")));
            }
        }
    }
    if let Some(part) = json.partial_rotary_factor.filter(|&part| part != 1.0) {
        return Err(fail("partial_rotary_factor", "1", part.to_string()));
    }
    let sliding = json.layer_types.iter().flatten().find(|kind| *kind != "full_attention");
    if json.use_sliding_window == Some(true) || sliding.is_some() {
        let got = sliding.map_or("sliding windows", |kind| kind);
        return Err(fail("attention", "attention to all earlier tokens in each block", got.into()));
    }
    let base = json.rope_parameters.and_then(|rope| rope.rope_theta).or(json.rope_theta);
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
        rope_base: base.unwrap_or(10_000.0) as f32,
        rotary: Rotary::Halves,
        rope_scaling,
        epsilon: json.rms_norm_eps,
        tied: json.tie_word_embeddings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn folder(changes: &Json) -> Result<Config> {
        let mut all = json!({
            "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 257, "max_position_embeddings": 100,
            "rms_norm_eps": 1e-5,
        });
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let config = all.to_string().into_bytes();
        let rest = Description::Folder { config, tokenizer: None, tokenizer_config: None, template: None };
        Config::new("model".as_ref(), &rest)
    }

    fn gguf_values() -> Values {
        let mut values: Values = [("block_count", 2), ("embedding_length", 64), ("feed_forward_length", 96)]
            .into_iter()
            .chain([("attention.head_count", 4), ("context_length", 100), ("vocab_size", 257)])
            .map(|(key, n)| (format!("llama.{key}"), Value::Unsigned(n)))
            .collect();
        values.insert("general.architecture".into(), Value::Text("llama".into()));
        values
    }

    fn gguf(changes: &[(&str, Value)]) -> Result<Config> {
        let mut values = gguf_values();
        values.extend(changes.iter().map(|(key, value)| (format!("llama.{key}"), value.clone())));
        Config::new("model".as_ref(), &Description::Gguf(values))
    }

    #[test]
    fn bases_are_found_where_they_may_be() {
        for (changes, base) in [
            (json!({}), 1e4),
            (json!({ "rope_theta": 5e5, "rope_scaling": null }), 5e5),
            (json!({ "rope_theta": 5e5, "rope_scaling": { "type": "default" } }), 5e5),
            (json!({ "rope_parameters": { "rope_theta": 5e5, "rope_type": "default" } }), 5e5),
        ] {
            assert_eq!(folder(&changes).unwrap().rope_base, base, "{changes}");
        }
        assert_eq!(gguf(&[("rope.freq_base", Value::Float(5e5))]).unwrap().rope_base, 5e5);
    }

    #[test]
    fn llama_3_slows_long_waves_down() {
        let numbers = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        });
        for entry in ["rope_scaling", "rope_parameters"] {
            let scaling = folder(&json!({ entry: numbers })).unwrap().rope_scaling.unwrap();
            // as Meta's release says it, by wavelengths
            for i in 0..64 {
                let frequency = 5e5f64.powf(-f64::from(i) / 64.0);
                let wave = std::f64::consts::TAU / frequency;
                let expected = if wave < 8192.0 / 4.0 {
                    frequency
                } else if wave > 8192.0 {
                    frequency / 8.0
                } else {
                    let smooth = (8192.0 / wave - 1.0) / 3.0;
                    (1.0 - smooth) * frequency / 8.0 + smooth * frequency
                };
                let found = frequency / scaling.divisor(frequency);
                assert!((found / expected - 1.0).abs() < 1e-12, "{entry}, {i}: {found}, not {expected}");
            }
        }
        for (key, value) in
            [("factor", json!(null)), ("high_freq_factor", json!(1)), ("low_freq_factor", json!(-1))]
        {
            let mut numbers = numbers.clone();
            numbers[key] = value;
            let error = folder(&json!({ "rope_scaling": numbers })).unwrap_err().to_string();
            assert!(error.contains("rope_scaling in config.json: expected factor"), "{error}");
        }
    }

    #[test]
    fn what_would_be_computed_otherwise_is_refused() {
        for (changes, says) in [
            (
                json!({ "rope_parameters": { "rope_theta": 5e5, "rope_type": "llama3" } }),
                "rope_parameters in config.json",
            ),
            (json!({ "rope_scaling": { "factor": 2.0 } }), "rope_scaling in config.json"),
            (json!({ "rope_scaling": { "type": "linear" } }), "found the rope_type linear"),
            (json!({ "partial_rotary_factor": 0.5 }), "partial_rotary_factor"),
            (json!({ "use_sliding_window": true }), "attention to all earlier tokens"),
            (json!({ "layer_types": ["full_attention", "sliding_attention"] }), "found sliding_attention"),
            (json!({ "hidden_act": "gelu" }), "found gelu"),
            (json!({ "rope_theta": 1e39 }), "base of the rotary embedding: expected 1 or more"),
            (json!({ "rope_theta": 0 }), "base of the rotary embedding: expected 1 or more"),
            (json!({ "rms_norm_eps": -1 }), "epsilon of norms"),
            (json!({ "num_hidden_layers": 1u64 << 60 }), "the number of blocks: expected 1 to 4096"),
            (json!({ "vocab_size": 0 }), "the vocabulary: expected 1 to"),
            (json!({ "num_attention_heads": 0 }), "heads"),
            (json!({ "num_key_value_heads": 3 }), "heads"),
            (json!({ "head_dim": 15 }), "heads"),
        ] {
            let error = folder(&changes).unwrap_err().to_string();
            assert!(error.starts_with("model: ") && error.contains(says), "{changes}: {error}");
        }
        let mut values = gguf_values();
        values.remove("llama.vocab_size");
        let error = Config::new("model".as_ref(), &Description::Gguf(values)).unwrap_err().to_string();
        assert!(
            error.contains("tokenizer.ggml.tokens: expected the tokens of a tokenizer, found none"),
            "{error}"
        );
        let list = || Value::Array(vec![Value::Unsigned(2)]);
        for (key, value, says) in [
            ("attention.head_count_kv", list(), "a value of another type"),
            ("attention.head_count", list(), "a value of another type"),
            ("attention.layer_norm_rms_epsilon", Value::Float(f64::NAN), "found NaN"),
            ("rope.freq_base", Value::Text("x".into()), "a value of another type"),
            ("rope.freq_base", Value::Float(f64::INFINITY), "found inf"),
            ("rope.scaling.type", Value::Text("yarn".into()), "found yarn"),
            ("rope.dimension_count", Value::Unsigned(8), "expected 16, the numbers of a head, found 8"),
            ("attention.value_length", Value::Unsigned(8), "expected 16"),
            ("block_count", Value::Unsigned(u64::MAX), "the number of blocks"),
        ] {
            let error = gguf(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(says), "{key}: {error}");
        }
    }
}

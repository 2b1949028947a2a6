//! A small language model with random weights, as a Hugging Face folder.

use serde_json::json;

use crate::{Folder, ok, write_safetensors};

/// Positions that it was trained for, as it says.
pub const CONTEXT: usize = 40_000;
const LAYERS: usize = 2;
const WIDTH: usize = 64;
const HIDDEN: usize = 96;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;

/// What is special about it.
pub struct Model {
    pub architecture: &'static str,
    pub vocabulary: usize,
    /// Whether two tokens have each other's number.
    pub swapped: bool,
    /// Blocks that it says it has.
    pub blocks: usize,
}

impl Default for Model {
    fn default() -> Self {
        Self { architecture: "LlamaForCausalLM", vocabulary: 257, swapped: false, blocks: LAYERS }
    }
}

impl Model {
    /// Writes the folder `model`. No token ends a text.
    pub fn write(&self, folder: &Folder) {
        let at = |name: &str| folder.at(&format!("model/{name}"));
        std::fs::create_dir_all(folder.at("model")).unwrap();
        let tensors: Vec<_> =
            self.shapes().into_iter().zip(0..).map(|((n, s), i)| (n, numbers(&s, i), s)).collect();
        let entries: Vec<_> =
            tensors.iter().map(|(n, b, s)| (n.as_str(), "BF16", &s[..], b.clone())).collect();
        write_safetensors(&at("model.safetensors"), &entries);
        let mut config = json!({
            "architectures": [self.architecture], "num_hidden_layers": self.blocks, "hidden_size": WIDTH,
            "intermediate_size": HIDDEN, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
            "vocab_size": self.vocabulary, "max_position_embeddings": CONTEXT, "rope_theta": 10_000.0,
        });
        // others have no such thing
        if self.architecture == Self::default().architecture {
            config["rms_norm_eps"] = json!(1e-5);
        }
        std::fs::write(at("config.json"), config.to_string()).unwrap();
        std::fs::write(at("tokenizer.json"), self.tokenizer()).unwrap();
    }

    /// Writes it, and converts it without loss.
    pub fn convert(&self, folder: &Folder) -> String {
        self.write(folder);
        let file = folder.at("model.ecq");
        ok(&["convert", &folder.at("model"), "-o", &file, "--scheme", "lossless"]);
        file
    }

    /// Writes it, and converts it to 4 bits a weight.
    pub fn quantize(&self, folder: &Folder) -> String {
        self.write(folder);
        let file = folder.at("model.ecq");
        ok(&["convert", &folder.at("model"), "-o", &file, "--bits", "4"]);
        file
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let kv = WIDTH / HEADS * KV_HEADS;
        let mut all = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocabulary, WIDTH]),
            ("model.norm.weight".to_owned(), vec![WIDTH]),
        ];
        for layer in 0..LAYERS {
            let parts: [(&str, &[usize]); 9] = [
                ("input_layernorm", &[WIDTH]),
                ("post_attention_layernorm", &[WIDTH]),
                ("self_attn.q_proj", &[WIDTH, WIDTH]),
                ("self_attn.k_proj", &[kv, WIDTH]),
                ("self_attn.v_proj", &[kv, WIDTH]),
                ("self_attn.o_proj", &[WIDTH, WIDTH]),
                ("mlp.gate_proj", &[HIDDEN, WIDTH]),
                ("mlp.up_proj", &[HIDDEN, WIDTH]),
                ("mlp.down_proj", &[WIDTH, HIDDEN]),
            ];
            let name = |part| format!("model.layers.{layer}.{part}.weight");
            all.extend(parts.map(|(part, shape)| (name(part), shape.to_vec())));
        }
        all
    }

    /// A token for each byte, in the letters that byte-level tokenizers write bytes with.
    fn tokenizer(&self) -> String {
        let printable = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let mut others = 256..;
        let letter = |b: u8| if printable(&b) { u32::from(b) } else { others.next().unwrap() };
        let mut letters: Vec<String> =
            (0..=255).map(letter).map(|c| char::from_u32(c).unwrap().to_string()).collect();
        if self.swapped {
            letters.swap(1, 2);
        }
        let vocabulary: serde_json::Map<_, _> =
            letters.into_iter().zip((0..).map(serde_json::Value::from)).collect();
        let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
            "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
        })
        .to_string()
    }
}

/// Random weights in bfloat16; those of norms are around 1.
fn numbers(shape: &[usize], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let number = |_| if shape.len() == 1 { 1.0 + 0.5 * draw() } else { 0.4 * draw() };
    (0..shape.iter().product::<usize>())
        .map(number)
        .flat_map(|w: f32| [w.to_le_bytes()[2], w.to_le_bytes()[3]])
        .collect()
}

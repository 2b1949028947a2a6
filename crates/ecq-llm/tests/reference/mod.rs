//! A decoder in f64, a token at a time, without a cache: for each token everything is computed again.

use std::collections::HashMap;

/// Of a model; heads have `width / heads` numbers.
#[derive(Clone, Copy)]
pub struct Shape {
    pub layers: usize,
    pub width: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub vocabulary: usize,
}

/// Names and shapes of the tensors of a folder.
pub fn tensors(shape: &Shape, architecture: &str) -> Vec<(String, Vec<usize>)> {
    let Shape { layers, width, hidden, heads, kv_heads, vocabulary } = *shape;
    let head = width / heads;
    let kv = head * kv_heads;
    let mut all = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, width]),
        ("model.norm.weight".to_owned(), vec![width]),
    ];
    for layer in 0..layers {
        let mut add =
            |name: &str, shape: Vec<usize>| all.push((format!("model.layers.{layer}.{name}"), shape));
        add("input_layernorm.weight", vec![width]);
        add("post_attention_layernorm.weight", vec![width]);
        for (name, rows) in [("q", width), ("k", kv), ("v", kv)] {
            add(&format!("self_attn.{name}_proj.weight"), vec![rows, width]);
            if architecture == "Qwen2ForCausalLM" {
                add(&format!("self_attn.{name}_proj.bias"), vec![rows]);
            }
        }
        if architecture == "Qwen3ForCausalLM" {
            add("self_attn.q_norm.weight", vec![head]);
            add("self_attn.k_norm.weight", vec![head]);
        }
        add("self_attn.o_proj.weight", vec![width, width]);
        add("mlp.gate_proj.weight", vec![hidden, width]);
        add("mlp.up_proj.weight", vec![hidden, width]);
        add("mlp.down_proj.weight", vec![width, hidden]);
    }
    all
}

/// Random weights; those of norms and biases are around 1.
pub fn random(count: usize, seed: u64, vector: bool) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| if vector { 1.0 + 0.5 * draw() } else { 0.4 * draw() }).collect()
}

/// A model's weights by name.
pub struct Reference<'a> {
    pub shape: Shape,
    /// What all frequencies of rotary embedding are divided by.
    pub slow: f64,
    pub weights: &'a HashMap<String, Vec<f32>>,
}

impl Reference<'_> {
    /// Logits behind each token.
    pub fn logits(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let Shape { layers, width, .. } = self.shape;
        let table = &self.weights["model.embed_tokens.weight"];
        let row = |token: u32| table[token as usize * width..][..width].iter().map(|&w| w.into()).collect();
        let mut all: Vec<Vec<f64>> = tokens.iter().map(|&token| row(token)).collect();
        for layer in 0..layers {
            self.block(layer, &mut all);
        }
        let normed = all.iter().map(|x| self.norm("model.norm.weight", x));
        normed.map(|x| self.product("model.embed_tokens.weight", &x)).collect()
    }

    fn block(&self, layer: usize, all: &mut [Vec<f64>]) {
        let Shape { width, heads, kv_heads, .. } = self.shape;
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let head = width / heads;
        let projected = |part: &str, x: &[f64], turn: Option<usize>| {
            let mut y = self.product(&name(&format!("self_attn.{part}_proj.weight")), x);
            if let Some(bias) = self.weights.get(&name(&format!("self_attn.{part}_proj.bias"))) {
                y.iter_mut().zip(bias).for_each(|(y, &b)| *y += f64::from(b));
            }
            let norm = name(&format!("self_attn.{part}_norm.weight"));
            if self.weights.contains_key(&norm) {
                y.chunks_mut(head).for_each(|head| head.copy_from_slice(&self.norm(&norm, head)));
            }
            if let Some(position) = turn {
                y.chunks_mut(head).for_each(|head| rotate(head, position as f64 / self.slow));
            }
            y
        };
        let normed: Vec<_> = all.iter().map(|x| self.norm(&name("input_layernorm.weight"), x)).collect();
        let keys: Vec<_> = normed.iter().enumerate().map(|(i, x)| projected("k", x, Some(i))).collect();
        let values: Vec<_> = normed.iter().map(|x| projected("v", x, None)).collect();
        for (i, x) in all.iter_mut().enumerate() {
            let query = projected("q", &normed[i], Some(i));
            let mut attended = vec![0.0; width];
            for h in 0..heads {
                let kv = h * kv_heads / heads * head;
                let score = |key: &Vec<f64>| {
                    let products = query[h * head..][..head].iter().zip(&key[kv..]);
                    (products.map(|(q, k)| q * k).sum::<f64>() / (head as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = keys[..=i].iter().map(score).collect();
                let sum: f64 = scores.iter().sum();
                for (value, score) in values.iter().zip(&scores) {
                    let out = attended[h * head..][..head].iter_mut().zip(&value[kv..]);
                    out.for_each(|(out, v)| *out += score / sum * v);
                }
            }
            let out = self.product(&name("self_attn.o_proj.weight"), &attended);
            x.iter_mut().zip(out).for_each(|(x, y)| *x += y);
            let normed = self.norm(&name("post_attention_layernorm.weight"), x);
            let gate = self.product(&name("mlp.gate_proj.weight"), &normed);
            let up = self.product(&name("mlp.up_proj.weight"), &normed);
            let gated: Vec<f64> = gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            let down = self.product(&name("mlp.down_proj.weight"), &gated);
            x.iter_mut().zip(down).for_each(|(x, y)| *x += y);
        }
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let scale = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + 1e-5).sqrt();
        x.iter().zip(&self.weights[name]).map(|(x, &w)| x / scale * f64::from(w)).collect()
    }

    fn product(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let rows = self.weights[name].chunks(x.len());
        rows.map(|row| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect()
    }
}

/// Rotary embedding as Hugging Face has it: the halves of a head belong together.
fn rotate(head: &mut [f64], position: f64) {
    let half = head.len() / 2;
    for i in 0..half {
        let angle = position * 10_000f64.powf(-(2.0 * i as f64) / head.len() as f64);
        let (a, b) = (head[i], head[i + half]);
        (head[i], head[i + half]) = (a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin());
    }
}

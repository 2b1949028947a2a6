//! A block of a decoder in f32, forward and backward, with the inputs of its layers kept.
//!
//! Forward it computes what `ecq_llm` does (`ecq-calibrate/tests` holds them together); backward, the gradients of a loss with
//! respect to the outputs of its linear layers, by the chain rule, layer by layer.

use ecq_llm::math::{gate, norm, softmax};
use ecq_llm::{Config, Rope, Uncompressed};

use crate::decoder::Weights;
use crate::error::Result;
use crate::linear::{Linear, add_product, product, view, view_mut};

/// Linear layers of a block, as GGUF calls them.
pub const LAYERS: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// Inputs of a block's layers, each shared by some.
pub const INPUTS: [&str; 4] = ["attention", "attention_output", "mlp", "mlp_output"];

/// Which of [`INPUTS`] each of [`LAYERS`] has.
pub const INPUT_OF: [usize; 7] = [0, 0, 0, 1, 2, 2, 3];

/// Sums of squared gradients, for each output of each of [`LAYERS`].
pub type Gradients = [Vec<f64>; 7];

/// A block's weights.
pub struct Block {
    norms: [Vec<f32>; 2],
    /// Of each head of queries and keys, where the model has them.
    head_norms: Option<[Vec<f32>; 2]>,
    layers: [Linear; 7],
    shape: Shape,
}

#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    kv_heads: usize,
    head: usize,
    epsilon: f32,
}

/// What a pass leaves behind.
pub struct Tape {
    /// Inputs of the layers, as [`INPUTS`] names them.
    pub inputs: [Vec<f32>; 4],
    /// Queries and keys before and after their norms and rotation.
    raw: [Vec<f32>; 2],
    turned: [Vec<f32>; 2],
    values: Vec<f32>,
    /// Between attention and MLP.
    middle: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
}

impl Block {
    /// Reads the weights of a block of a model, which may be another's of the same shape.
    ///
    /// Errors: those of reading them; [`Error::Model`](crate::Error::Model) for other shapes.
    pub fn load(model: &Uncompressed<'_>, weights: &dyn Weights, layer: usize) -> Result<Self> {
        let Config { width, hidden, heads, kv_heads, head, epsilon, .. } = *model.config();
        let name = |part: &str, kind: &str| format!("{}.{kind}", model.names().block(layer, part));
        let numbers = |part: &str| weights.numbers(&name(part, "weight"));
        let shapes = [
            [heads * head, width],
            [kv_heads * head, width],
            [kv_heads * head, width],
            [width, heads * head],
            [hidden, width],
            [hidden, width],
            [width, hidden],
        ];
        let mut layers = Vec::with_capacity(7);
        for (part, [outputs, inputs]) in LAYERS.into_iter().zip(shapes) {
            let bias = name(part, "bias");
            let bias = model.has(&bias).then(|| weights.numbers(&bias)).transpose()?;
            let weights = numbers(part)?;
            if weights.len() != outputs * inputs || bias.as_ref().is_some_and(|bias| bias.len() != outputs) {
                return Err(ecq_llm::Error::Model {
                    path: model.path().into(),
                    what: format!("tensor {}", name(part, "weight")),
                    expected: format!("{outputs} rows of {inputs} weights"),
                    got: format!("{} weights", weights.len()),
                }
                .into());
            }
            layers.push(Linear { weights, inputs, outputs, bias });
        }
        let head_norms = match model.has(&name("attn_q_norm", "weight")) {
            true => Some([numbers("attn_q_norm")?, numbers("attn_k_norm")?]),
            false => None,
        };
        let Ok(layers) = layers.try_into() else { unreachable!("seven layers") };
        let norms = [numbers("attn_norm")?, numbers("ffn_norm")?];
        Ok(Self { norms, head_norms, layers, shape: Shape { heads, kv_heads, head, epsilon } })
    }

    /// Number of outputs of each of [`LAYERS`].
    pub fn outputs(&self) -> [usize; 7] {
        std::array::from_fn(|i| self.layers[i].outputs)
    }

    /// Passes a text through, from its first token on: `x` becomes the block's output. `turns` are those of its positions.
    pub fn forward(&self, rope: &Rope, turns: &[[f32; 2]], x: &mut Vec<f32>) -> Tape {
        let Shape { heads, kv_heads, epsilon, .. } = self.shape;
        let [q, k, v, out, gates, ups, down] = &self.layers;
        let first = normed(x, &self.norms[0], epsilon);
        let (query, key, values) = (q.forward(&first), k.forward(&first), v.forward(&first));
        let mut turned = [query.clone(), key.clone()];
        for (i, heads) in [heads, kv_heads].into_iter().enumerate() {
            if let Some(norms) = &self.head_norms {
                turned[i] = normed(&turned[i], &norms[i], epsilon);
            }
            rope.turn(&mut turned[i], heads, turns);
        }
        let attended = self.shape.attend(&turned[0], &turned[1], &values);
        let mut middle = out.forward(&attended);
        add(&mut middle, x);
        let second = normed(&middle, &self.norms[1], epsilon);
        let (gated, up) = (gates.forward(&second), ups.forward(&second));
        let mut product = gated.clone();
        gate(&mut product, &up);
        *x = down.forward(&product);
        add(x, &middle);
        let inputs = [first, attended, second, product];
        Tape { inputs, raw: [query, key], turned, values, middle, gate: gated, up }
    }

    /// The gradient of the block's input from that of its output `dy`, for the text that left this tape. `x` is the input.
    /// Squares of the gradients of layers' outputs are added to `sums`.
    pub fn backward(
        &self,
        rope: &Rope,
        turns: &[[f32; 2]],
        x: &[f32],
        tape: &Tape,
        dy: Vec<f32>,
        sums: &mut Gradients,
    ) -> Vec<f32> {
        let epsilon = self.shape.epsilon;
        let [_, _, _, out, gates, ups, down] = &self.layers;
        squares(&dy, &mut sums[6]);
        let mut product = vec![0.0; tape.gate.len()];
        down.backward(&dy, &mut product);
        let (dgate, dup) = gate_backward(&tape.gate, &tape.up, &product);
        squares(&dgate, &mut sums[4]);
        squares(&dup, &mut sums[5]);
        let mut second = vec![0.0; x.len()];
        gates.backward(&dgate, &mut second);
        ups.backward(&dup, &mut second);
        let mut middle = dy;
        norm_backward(&tape.middle, &self.norms[1], epsilon, &second, &mut middle);
        squares(&middle, &mut sums[3]);
        let mut attended = vec![0.0; tape.inputs[1].len()];
        out.backward(&middle, &mut attended);
        let first = self.attention_backward(rope, turns, tape, &attended, sums);
        norm_backward(x, &self.norms[0], epsilon, &first, &mut middle);
        middle
    }

    /// From the gradient of what attention gives to that of its normed input.
    fn attention_backward(
        &self,
        rope: &Rope,
        turns: &[[f32; 2]],
        tape: &Tape,
        attended: &[f32],
        sums: &mut Gradients,
    ) -> Vec<f32> {
        let Shape { heads, kv_heads, epsilon, .. } = self.shape;
        let [q, k, v, ..] = &self.layers;
        let (dq, dk, dv) =
            self.shape.attend_backward(&tape.turned[0], &tape.turned[1], &tape.values, attended);
        let back: Vec<[f32; 2]> = turns.iter().map(|&[cos, sin]| [cos, -sin]).collect();
        let mut first = vec![0.0; tape.inputs[0].len()];
        let mut both = [dq, dk];
        for (i, (heads, layer)) in [(heads, q), (kv_heads, k)].into_iter().enumerate() {
            rope.turn(&mut both[i], heads, &back);
            if let Some(norms) = &self.head_norms {
                let mut raw = vec![0.0; both[i].len()];
                norm_backward(&tape.raw[i], &norms[i], epsilon, &both[i], &mut raw);
                both[i] = raw;
            }
            squares(&both[i], &mut sums[i]);
            layer.backward(&both[i], &mut first);
        }
        squares(&dv, &mut sums[2]);
        v.backward(&dv, &mut first);
        first
    }
}

impl Shape {
    /// Probabilities of a head: row `i` has those of the positions up to `i`, and zeros behind.
    fn probabilities(&self, query: &[f32], key: &[f32], which: usize) -> Vec<f32> {
        let Self { heads, kv_heads, head, .. } = *self;
        let tokens = query.len() / (heads * head);
        let mut all = vec![0.0; tokens * tokens];
        let q = view(query, heads * head).subcols(which * head, head);
        let k = view(key, kv_heads * head).subcols(which / (heads / kv_heads) * head, head);
        product(view_mut(&mut all, tokens), q, k.transpose());
        for (i, row) in all.chunks_exact_mut(tokens).enumerate() {
            let (seen, ahead) = row.split_at_mut(i + 1);
            seen.iter_mut().for_each(|s| *s *= self.scale());
            softmax(seen);
            ahead.fill(0.0);
        }
        all
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head as f32).sqrt()
    }

    fn attend(&self, query: &[f32], key: &[f32], values: &[f32]) -> Vec<f32> {
        let Self { heads, kv_heads, head, .. } = *self;
        let tokens = query.len() / (heads * head);
        let mut out = vec![0.0; query.len()];
        for which in 0..heads {
            let weights = self.probabilities(query, key, which);
            let v = view(values, kv_heads * head).subcols(which / (heads / kv_heads) * head, head);
            let out = view_mut(&mut out, heads * head).subcols_mut(which * head, head);
            product(out, view(&weights, tokens), v);
        }
        out
    }

    /// Gradients of queries, keys and values.
    fn attend_backward(
        &self,
        query: &[f32],
        key: &[f32],
        values: &[f32],
        dout: &[f32],
    ) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let Self { heads, kv_heads, head, .. } = *self;
        let tokens = query.len() / (heads * head);
        let (width, kv_width) = (heads * head, kv_heads * head);
        let mut dq = vec![0.0; query.len()];
        let (mut dk, mut dv) = (vec![0.0; key.len()], vec![0.0; values.len()]);
        let mut dscores = vec![0.0; tokens * tokens];
        for which in 0..heads {
            let (at, kv_at) = (which * head, which / (heads / kv_heads) * head);
            let weights = self.probabilities(query, key, which);
            let dout = view(dout, width).subcols(at, head);
            let v = view(values, kv_width).subcols(kv_at, head);
            let p = view(&weights, tokens);
            add_product(view_mut(&mut dv, kv_width).subcols_mut(kv_at, head), 1.0, p.transpose(), dout);
            product(view_mut(&mut dscores, tokens), dout, v.transpose());
            for (ds, p) in dscores.chunks_exact_mut(tokens).zip(weights.chunks_exact(tokens)) {
                let mean: f32 = ds.iter().zip(p).map(|(d, p)| d * p).sum();
                ds.iter_mut().zip(p).for_each(|(d, p)| *d = p * (*d - mean) * self.scale());
            }
            let ds = view(&dscores, tokens);
            let (q, k) = (view(query, width).subcols(at, head), view(key, kv_width).subcols(kv_at, head));
            product(view_mut(&mut dq, width).subcols_mut(at, head), ds, k);
            add_product(view_mut(&mut dk, kv_width).subcols_mut(kv_at, head), 1.0, ds.transpose(), q);
        }
        (dq, dk, dv)
    }
}

/// [`norm`] into new memory.
pub fn normed(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    norm(x, weight, epsilon, &mut out);
    out
}

/// Adds to `dx` the gradient of a norm's input from that of its output.
pub fn norm_backward(x: &[f32], weight: &[f32], epsilon: f32, dy: &[f32], dx: &mut [f32]) {
    let n = weight.len();
    for ((x, dy), dx) in x.chunks_exact(n).zip(dy.chunks_exact(n)).zip(dx.chunks_exact_mut(n)) {
        let square: f32 = x.iter().map(|x| x * x).sum();
        let scale = 1.0 / (square / n as f32 + epsilon).sqrt();
        let along: f32 = x.iter().zip(dy).zip(weight).map(|((x, d), w)| x * d * w).sum();
        let along = along * scale * scale * scale / n as f32;
        for (((dx, x), d), w) in dx.iter_mut().zip(x).zip(dy).zip(weight) {
            *dx += scale * w * d - along * x;
        }
    }
}

/// Gradients of `gate` and `up` from that of `silu(gate) * up`.
fn gate_backward(gate: &[f32], up: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let each = gate.iter().zip(up).zip(dy).map(|((&g, &u), &d)| {
        let sigmoid = 1.0 / (1.0 + (-g).exp());
        let silu = g * sigmoid;
        (d * u * (sigmoid + silu * (1.0 - sigmoid)), d * silu)
    });
    each.unzip()
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Adds the square of each column's numbers.
fn squares(dy: &[f32], sums: &mut [f64]) {
    debug_assert!(dy.len().is_multiple_of(sums.len().max(1)));
    for row in dy.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(sum, &d)| *sum += f64::from(d) * f64::from(d));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ecq_convert::source::{Source, SourceLimits};

    use super::*;
    use crate::fixture::{Fixture, SHAPE};
    use crate::reference::{Reference, random};

    const ARCHITECTURES: [&str; 3] = ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"];
    const TOKENS: [u32; 9] = [5, 250, 17, 17, 99, 0, 256, 3, 64];

    fn with_model(architecture: &str, run: impl FnOnce(&Fixture, &Uncompressed<'_>)) {
        let fixture = Fixture::new(architecture);
        let source = Source::open(&fixture.folder.path().join("model"), &SourceLimits::default()).unwrap();
        run(&fixture, &Uncompressed::new(&source).unwrap());
    }

    fn turns(rope: &Rope, tokens: usize) -> Vec<[f32; 2]> {
        let mut turns = Vec::new();
        rope.turns(0, tokens, &mut turns);
        turns
    }

    #[test]
    fn forward_is_what_the_formulas_say() {
        for architecture in ARCHITECTURES {
            with_model(architecture, |fixture, model| {
                let expected =
                    Reference { shape: SHAPE, slow: 1.0, weights: &fixture.weights }.logits(&TOKENS);
                let rope = model.rope().unwrap();
                let turns = turns(&rope, TOKENS.len());
                let table = model.numbers(model.names().embedding()).unwrap();
                let row = |&t: &u32| table[t as usize * SHAPE.width..][..SHAPE.width].to_vec();
                let mut x: Vec<f32> = TOKENS.iter().flat_map(row).collect();
                for layer in 0..SHAPE.layers {
                    Block::load(model, model, layer).unwrap().forward(&rope, &turns, &mut x);
                }
                let last = normed(&x, &model.numbers(model.names().norm()).unwrap(), model.config().epsilon);
                for (x, expected) in last.chunks(SHAPE.width).zip(&expected) {
                    for (row, expected) in table.chunks(SHAPE.width).zip(expected) {
                        let logit: f64 = row.iter().zip(x).map(|(a, b)| f64::from(a * b)).sum();
                        assert!(
                            (logit - expected).abs() < 1e-3 * expected.abs().max(1.0),
                            "{logit} {expected}"
                        );
                    }
                }
            });
        }
    }

    /// A loss: what a block gives, times fixed numbers.
    fn loss(block: &Block, rope: &Rope, x: &[f32], factors: &[f32]) -> f64 {
        let mut y = x.to_vec();
        block.forward(rope, &turns(rope, x.len() / SHAPE.width), &mut y);
        y.iter().zip(factors).map(|(&y, &f)| f64::from(y) * f64::from(f)).sum()
    }

    #[test]
    fn backward_is_the_slope_of_forward() {
        for architecture in ARCHITECTURES {
            with_model(architecture, |_, model| {
                let (block, rope) = (Block::load(model, model, 1).unwrap(), model.rope().unwrap());
                let x = random(6 * SHAPE.width, 77, false);
                let x: Vec<f32> = x.iter().map(|x| x * 8.0).collect();
                let factors = random(x.len(), 78, false);
                let turns = turns(&rope, 6);
                let tape = block.forward(&rope, &turns, &mut x.clone());
                let mut sums: Gradients = block.outputs().map(|n| vec![0.0; n]);
                let dx = block.backward(&rope, &turns, &x, &tape, factors.clone(), &mut sums);
                let size = (dx.iter().map(|d| d * d).sum::<f32>() / dx.len() as f32).sqrt();
                for at in (0..x.len()).step_by(7) {
                    let moved = |by: f32| {
                        let mut x = x.clone();
                        x[at] += by;
                        loss(&block, &rope, &x, &factors)
                    };
                    let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                    assert!(
                        (slope as f32 - dx[at]).abs() < 0.02 * size,
                        "{architecture}: {slope} {}",
                        dx[at]
                    );
                }
            });
        }
    }

    #[test]
    fn gradients_of_outputs_are_slopes_of_their_biases() {
        with_model("Qwen3ForCausalLM", |_, model| {
            let (mut block, rope) = (Block::load(model, model, 0).unwrap(), model.rope().unwrap());
            block.layers.iter_mut().for_each(|layer| layer.bias = Some(vec![0.0; layer.outputs]));
            // a single token: behind it nothing is summed
            let x: Vec<f32> = random(SHAPE.width, 79, false).iter().map(|x| x * 8.0).collect();
            let factors = random(SHAPE.width, 80, false);
            let turns = turns(&rope, 1);
            let tape = block.forward(&rope, &turns, &mut x.clone());
            let mut sums: Gradients = block.outputs().map(|n| vec![0.0; n]);
            block.backward(&rope, &turns, &x, &tape, factors.clone(), &mut sums);
            // a query and a key decide nothing where there is one position
            assert!(sums[0].iter().chain(&sums[1]).all(|&s| s < 1e-9));
            for layer in 2..LAYERS.len() {
                let size = sums[layer].iter().sum::<f64>().sqrt() / (sums[layer].len() as f64).sqrt();
                for at in (0..sums[layer].len()).step_by(5) {
                    let mut moved = |by: f32| {
                        block.layers[layer].bias.as_mut().unwrap()[at] = by;
                        let loss = loss(&block, &rope, &x, &factors);
                        block.layers[layer].bias.as_mut().unwrap()[at] = 0.0;
                        loss
                    };
                    let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                    let found = sums[layer][at].sqrt();
                    assert!((slope.abs() - found).abs() < 0.02 * size, "{}: {slope} {found}", LAYERS[layer]);
                }
            }
        });
    }
}

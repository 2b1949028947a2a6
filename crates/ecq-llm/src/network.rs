//! The decoder on the CPU: blocks of attention and gated MLPs.

use ecq_cpu::Precision;
use ecq_cpu::team::awake;
use ecq_format::Reader;

use crate::attention::{Cache, Rope, attend};
use crate::config::Config;
use crate::error::Result;
use crate::math::{add, gate, norm};
use crate::names::Names;
use crate::options::Decode;
use crate::weights::{Embedding, Weight, has, multiply, vector};

/// Tokens of a prompt that go through all blocks together.
const BATCH: usize = 128;

/// The weights of a model.
pub struct Network<'a> {
    config: Config,
    precision: Precision,
    embedding: Embedding<'a>,
    blocks: Vec<Block<'a>>,
    norm: Vec<f32>,
    output: Weight<'a>,
    rope: Rope,
}

struct Block<'a> {
    attention_norm: Vec<f32>,
    query: Projection<'a>,
    key: Projection<'a>,
    value: Projection<'a>,
    /// Norms of each head of queries and keys, where the model has them.
    head_norms: Option<[Vec<f32>; 2]>,
    out: Projection<'a>,
    mlp_norm: Vec<f32>,
    gate: Projection<'a>,
    up: Projection<'a>,
    down: Projection<'a>,
}

/// A matrix, and what is added to its products.
struct Projection<'a> {
    weight: Weight<'a>,
    bias: Option<Vec<f32>>,
}

impl<'a> Projection<'a> {
    fn load(reader: &'a Reader, name: &str, shape: [usize; 2], decode: Decode) -> Result<Self> {
        let weight = Weight::load(reader, &format!("{name}.weight"), shape, decode, None)?;
        let bias = format!("{name}.bias");
        let bias = has(reader, &bias).then(|| vector(reader, &bias, shape[0])).transpose()?;
        Ok(Self { weight, bias })
    }
}

/// Multiplies `count` vectors with several matrices, and adds what is added to each product.
fn project(
    precision: Precision,
    x: &[f32],
    count: usize,
    products: Vec<(&Projection<'_>, &mut Vec<f32>)>,
) -> Result<()> {
    let mut biased = Vec::new();
    let mut all = Vec::with_capacity(products.len());
    for (Projection { weight, bias }, y) in products {
        y.resize(count * weight.rows(), 0.0);
        match bias {
            None => all.push((weight, y.as_mut_slice())),
            Some(bias) => biased.push((weight, bias, y)),
        }
    }
    all.extend(biased.iter_mut().map(|(weight, _, y)| (*weight, y.as_mut_slice())));
    multiply(precision, x, all)?;
    for (_, bias, y) in biased {
        y.chunks_exact_mut(bias.len()).for_each(|y| add(y, bias));
    }
    Ok(())
}

/// Buffers of a pass.
#[derive(Default)]
struct Scratch {
    x: Vec<f32>,
    /// Of each token, for rotary embedding.
    turns: Vec<[f32; 2]>,
    normed: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    delta: Vec<f32>,
}

impl<'a> Network<'a> {
    /// Loads the tensors of a model. Errors: [`Error::Format`](crate::Error::Format), [`Error::Model`](crate::Error::Model).
    pub fn load(reader: &'a Reader, config: &Config, precision: Precision, decode: Decode) -> Result<Self> {
        let names = Names::of(reader);
        let Config { width, vocabulary, .. } = *config;
        let table = names.embedding();
        let embedding = Embedding::load(reader, table, [vocabulary, width])?;
        // the same tensor, unless the file has its own
        let (output, scales) = match names.output().filter(|name| has(reader, name)) {
            Some(name) => (name, None),
            None => (table, embedding.scales()),
        };
        let output = Weight::load(reader, output, [vocabulary, width], decode, scales)?;
        Ok(Self {
            embedding,
            blocks: (0..config.layers)
                .map(|layer| Block::load(reader, config, &names, layer, decode))
                .collect::<Result<_>>()?,
            norm: vector(reader, names.norm(), width)?,
            output,
            rope: Rope::load(reader, config)?,
            config: config.clone(),
            precision,
        })
    }

    /// An empty cache for so many positions.
    pub fn cache(&self, positions: usize) -> Cache {
        Cache::new(&self.config, positions)
    }

    /// Passes tokens through, behind those of the cache, which has room for them. Calls `each` with the logits of every token
    /// if `all`, else with those of the last one. `stop` is asked between blocks; if it says so, nothing more is done.
    pub fn run(
        &self,
        tokens: &[u32],
        cache: &mut Cache,
        all: bool,
        stop: &dyn Fn() -> bool,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<()> {
        awake(|| self.pass(tokens, cache, all, stop, each))
    }

    /// [`Self::run`], with the threads that there are.
    fn pass(
        &self,
        tokens: &[u32],
        cache: &mut Cache,
        all: bool,
        stop: &dyn Fn() -> bool,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<()> {
        let (mut scratch, mut done) = (Scratch::default(), 0);
        for batch in tokens.chunks(BATCH) {
            done += batch.len();
            if !self.blocks(batch, cache, &mut scratch, stop)? {
                return Ok(());
            }
            let wanted = match (all, done == tokens.len()) {
                (true, _) => batch.len(),
                (false, last) => usize::from(last),
            };
            let width = self.config.width;
            for x in scratch.x[(batch.len() - wanted) * width..].chunks(16 * width) {
                let count = x.len() / width;
                scratch.normed.resize(x.len(), 0.0);
                norm(x, &self.norm, self.config.epsilon, &mut scratch.normed);
                scratch.delta.resize(count * self.config.vocabulary, 0.0);
                multiply(self.precision, &scratch.normed, vec![(&self.output, &mut scratch.delta)])?;
                scratch.delta.chunks_exact(self.config.vocabulary).for_each(&mut *each);
            }
        }
        Ok(())
    }

    /// Passes a batch through all blocks, into `scratch.x`. False if it was stopped.
    fn blocks(
        &self,
        tokens: &[u32],
        cache: &mut Cache,
        scratch: &mut Scratch,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool> {
        let width = self.config.width;
        scratch.x.resize(tokens.len() * width, 0.0);
        self.embedding.rows(tokens, width, &mut scratch.x)?;
        self.rope.turns(cache.len(), tokens.len(), &mut scratch.turns);
        for (layer, block) in self.blocks.iter().enumerate() {
            if stop() {
                return Ok(false);
            }
            block.run(self, layer, tokens.len(), cache, scratch)?;
        }
        cache.advance(tokens.len());
        Ok(true)
    }
}

impl<'a> Block<'a> {
    fn load(
        reader: &'a Reader,
        config: &Config,
        names: &Names,
        layer: usize,
        decode: Decode,
    ) -> Result<Self> {
        let Config { width, hidden, heads, kv_heads, head, .. } = *config;
        let name = |part| names.block(layer, part);
        let load = |part, rows, cols| Projection::load(reader, &name(part), [rows, cols], decode);
        let weight = |part| format!("{}.weight", name(part));
        let norms = ["attn_q_norm", "attn_k_norm"].map(weight);
        let head_norms = match has(reader, &norms[0]) {
            true => Some([vector(reader, &norms[0], head)?, vector(reader, &norms[1], head)?]),
            false => None,
        };
        Ok(Self {
            attention_norm: vector(reader, &weight("attn_norm"), width)?,
            query: load("attn_q", heads * head, width)?,
            key: load("attn_k", kv_heads * head, width)?,
            value: load("attn_v", kv_heads * head, width)?,
            head_norms,
            out: load("attn_output", width, heads * head)?,
            mlp_norm: vector(reader, &weight("ffn_norm"), width)?,
            gate: load("ffn_gate", hidden, width)?,
            up: load("ffn_up", hidden, width)?,
            down: load("ffn_down", width, hidden)?,
        })
    }

    fn run(
        &self,
        network: &Network<'_>,
        layer: usize,
        count: usize,
        cache: &mut Cache,
        s: &mut Scratch,
    ) -> Result<()> {
        let (config, precision) = (&network.config, network.precision);
        s.normed.resize(s.x.len(), 0.0);
        norm(&s.x, &self.attention_norm, config.epsilon, &mut s.normed);
        let products =
            vec![(&self.query, &mut s.query), (&self.key, &mut s.key), (&self.value, &mut s.value)];
        project(precision, &s.normed, count, products)?;
        if let Some(norms) = &self.head_norms {
            for (x, weight) in [&mut s.query, &mut s.key].into_iter().zip(norms) {
                s.attended.clone_from(x);
                norm(&s.attended, weight, config.epsilon, x);
            }
        }
        network.rope.turn(&mut s.query, config.heads, &s.turns);
        network.rope.turn(&mut s.key, config.kv_heads, &s.turns);
        cache.store(layer, &s.key, &s.value);
        s.attended.resize(s.query.len(), 0.0);
        attend(config, cache, layer, &s.query, &mut s.attended);
        project(precision, &s.attended, count, vec![(&self.out, &mut s.delta)])?;
        add(&mut s.x, &s.delta);
        norm(&s.x, &self.mlp_norm, config.epsilon, &mut s.normed);
        let products = vec![(&self.gate, &mut s.gate), (&self.up, &mut s.up)];
        project(precision, &s.normed, count, products)?;
        gate(&mut s.gate, &s.up);
        project(precision, &s.gate, count, vec![(&self.down, &mut s.delta)])?;
        add(&mut s.x, &s.delta);
        Ok(())
    }
}

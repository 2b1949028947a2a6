//! The decoder on the CPU: blocks of attention and gated MLPs.

use ecq_cpu::Precision;
use ecq_cpu::team::awake;
use ecq_format::Reader;

use crate::attention::{Cache, Rope, attend};
use crate::cache::Sequence;
use crate::config::Config;
use crate::error::Result;
use crate::math::{add, gate, norm};
use crate::names::Names;
use crate::options::Decode;
use crate::weights::{Embedding, Weight, has, multiply, vector};

/// Tokens that go through all blocks together.
const BATCH: usize = 128;
/// Tokens whose logits are computed together: as many as a program is likely to sample side by side, in a few megabytes.
const LOGITS: usize = 32;

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

/// Tokens of a sequence in a batch.
struct Part<'a> {
    tokens: &'a [u32],
    cache: &'a mut Cache,
    /// How many of the last ones shall have logits.
    wanted: usize,
}

/// Takes the next tokens from sequences: all that there are, or [`BATCH`].
fn batch<'b>(left: &'b mut [Sequence<'_, Cache>], all: bool) -> Vec<Part<'b>> {
    let mut room = BATCH;
    let take = |sequence: &'b mut Sequence<'_, Cache>| {
        let (tokens, later) = sequence.tokens.split_at(room.min(sequence.tokens.len()));
        sequence.tokens = later;
        room -= tokens.len();
        let wanted = if all { tokens.len() } else { usize::from(later.is_empty()) };
        (!tokens.is_empty()).then_some(Part { tokens, cache: &mut *sequence.cache, wanted })
    };
    left.iter_mut().filter_map(take).collect()
}

/// Buffers of a pass.
#[derive(Default)]
struct Scratch {
    /// Of each token of a batch, one part after another.
    x: Vec<f32>,
    /// The same, for rotary embedding.
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

    /// Passes tokens of sequences through, each behind those of its cache, which has room for them. Calls `each` with the logits of
    /// every token if `all`, else with those of each sequence's last one, in order. `stop` is asked between blocks; if it says so,
    /// nothing more is done.
    ///
    /// Products are of all tokens of a batch together, of whichever sequences.
    pub fn run(
        &self,
        mut sequences: Vec<Sequence<'_, Cache>>,
        all: bool,
        stop: &dyn Fn() -> bool,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<()> {
        let mut scratch = Scratch::default();
        awake(|| {
            loop {
                let mut batch = batch(&mut sequences, all);
                if batch.is_empty() || !self.blocks(&mut batch, &mut scratch, stop)? {
                    return Ok(());
                }
                self.output(&batch, &mut scratch, each)?;
            }
        })
    }

    /// Passes a batch through all blocks, into `scratch.x`. False if it was stopped.
    fn blocks(&self, batch: &mut [Part<'_>], scratch: &mut Scratch, stop: &dyn Fn() -> bool) -> Result<bool> {
        let width = self.config.width;
        let tokens: Vec<u32> = batch.iter().flat_map(|part| part.tokens).copied().collect();
        scratch.x.resize(tokens.len() * width, 0.0);
        self.embedding.rows(&tokens, width, &mut scratch.x)?;
        scratch.turns.clear();
        for Part { tokens, cache, .. } in &*batch {
            self.rope.turns(cache.len(), tokens.len(), &mut scratch.turns);
        }
        for (layer, block) in self.blocks.iter().enumerate() {
            if stop() {
                return Ok(false);
            }
            block.run(self, layer, batch, scratch)?;
        }
        batch.iter_mut().for_each(|part| part.cache.advance(part.tokens.len()));
        Ok(true)
    }

    /// Calls `each` with the logits of those tokens of a batch that shall have some.
    fn output(&self, batch: &[Part<'_>], s: &mut Scratch, each: &mut dyn FnMut(&[f32])) -> Result<()> {
        let Config { width, vocabulary, epsilon, .. } = self.config;
        let (mut wanted, mut end) = (Vec::new(), 0);
        for part in batch {
            end += part.tokens.len();
            wanted.extend(end - part.wanted..end);
        }
        for rows in wanted.chunks(LOGITS) {
            s.normed.resize(rows.len() * width, 0.0);
            for (row, normed) in rows.iter().zip(s.normed.chunks_exact_mut(width)) {
                norm(&s.x[row * width..][..width], &self.norm, epsilon, normed);
            }
            s.delta.resize(rows.len() * vocabulary, 0.0);
            multiply(self.precision, &s.normed, vec![(&self.output, &mut s.delta)])?;
            s.delta.chunks_exact(vocabulary).for_each(&mut *each);
        }
        Ok(())
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
        batch: &mut [Part<'_>],
        s: &mut Scratch,
    ) -> Result<()> {
        let (config, precision) = (&network.config, network.precision);
        let count = s.x.len() / config.width;
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
        let (mut keys, mut values) = (s.key.as_slice(), s.value.as_slice());
        let mut ends = Vec::with_capacity(count);
        for Part { tokens, cache, .. } in batch {
            let own = tokens.len() * config.kv_heads * config.head;
            let (key, value);
            ((key, keys), (value, values)) = (keys.split_at(own), values.split_at(own));
            cache.store(layer, key, value);
            let cache: &Cache = cache;
            ends.extend((1..=tokens.len()).map(|i| (cache, cache.len() + i)));
        }
        s.attended.resize(s.query.len(), 0.0);
        attend(config, &ends, layer, &s.query, &mut s.attended);
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

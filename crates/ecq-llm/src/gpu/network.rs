//! The decoder on a GPU: its weights there, and tokens that pass through.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ecq_format::Reader;
use ecq_gpu::wgpu::Buffer;
use ecq_gpu::{Engine, Strategy, Weights};

use super::adapter::Adapter;
use super::cache::Cache;
use super::kernels::{Kernels, MOST_HEAD};
use super::pass::Pass;
use super::room::{FEW, Room, padded};
use super::steps::Step;
use super::weights::{Loader, Projection, failed, uniform};
use crate::attention::Rope;
use crate::config::{Config, Rotary};
use crate::error::{Error, Result};
use crate::names::Names;
use crate::options::{Decode, Options};
use crate::weights::{Embedding, has};

/// Tokens of a prompt that go through all blocks together: as many vectors as a product takes at once.
pub const BATCH: usize = 128;

/// The weights of a model in GPU memory, and what else a pass needs.
pub struct Network<'a> {
    pub config: Config,
    pub engine: Engine,
    pub kernels: Arc<Kernels>,
    pub blocks: Vec<Block>,
    pub norm: Buffer,
    pub output: Projection,
    pub params: Params,
    path: PathBuf,
    adapter: String,
    embedding: Embedding<'a>,
    rope: Rope,
    /// Bytes of weights.
    resident: u64,
    state: Mutex<State>,
}

/// What changes from pass to pass.
struct State {
    weights: Weights,
    /// With the steps of a single token in it.
    room: Option<(Room, Vec<Vec<Step>>)>,
    /// Embeddings on their way.
    embedded: Vec<f32>,
}

/// A block's weights.
pub struct Block {
    pub attention_norm: Buffer,
    pub query: Projection,
    pub key: Projection,
    pub value: Projection,
    /// Norms of each head of queries and keys, where the model has them.
    pub head_norms: Option<[Buffer; 2]>,
    pub out: Projection,
    pub mlp_norm: Buffer,
    pub gate: Projection,
    pub up: Projection,
    pub down: Projection,
}

/// Uniform buffers of kernels, which are the same for all blocks.
pub struct Params {
    pub norm: Buffer,
    pub head_norm: Buffer,
    pub add: Buffer,
    pub gate: Buffer,
    pub rotate_query: Buffer,
    pub rotate_key: Buffer,
}

impl Params {
    fn new(engine: &Engine, config: &Config) -> ecq_gpu::Result<Self> {
        let Config { width, hidden, heads, kv_heads, head, epsilon, rotary, .. } = *config;
        let make = |words: &[u32]| uniform(engine, "parameters", words);
        let norm = |len: usize| make(&[len as u32, epsilon.to_bits()]);
        let pairs = head as u32 / 2;
        let (apart, step) = match rotary {
            Rotary::Neighbours => (1, 2),
            Rotary::Halves => (pairs, 1),
        };
        let rotate = |heads: usize| make(&[heads as u32, pairs, apart, step]);
        Ok(Self {
            norm: norm(width)?,
            head_norm: norm(head)?,
            add: make(&[width as u32, width as u32])?,
            gate: make(&[hidden as u32])?,
            rotate_query: rotate(heads)?,
            rotate_key: rotate(kv_heads)?,
        })
    }
}

impl<'a> Network<'a> {
    /// Loads the tensors of a model into GPU memory. The embedding is read from the file, token by token.
    ///
    /// Errors: [`Error::Format`], [`Error::Model`], [`Error::Gpu`]; [`Error::Argument`] if there may not be enough memory.
    pub fn load(reader: &'a Reader, config: &Config, options: &Options, adapter: &Adapter) -> Result<Self> {
        let path = reader.path();
        if config.head > MOST_HEAD {
            return Err(Error::Model {
                path: path.into(),
                what: "heads".into(),
                expected: format!("at most {MOST_HEAD} numbers in a head on a GPU (--device cpu takes more)"),
                got: config.head.to_string(),
            });
        }
        let fail = |e| failed(path, format!("on {}", adapter.name()), e);
        let engine = adapter.engine.clone();
        let params = engine.guard("parameters", || Params::new(&engine, config)).map_err(fail)?;
        let budget = options.memory.unwrap_or(u64::MAX);
        let passing = Cache::bytes(config, options.positions) + Room::bytes(config, BATCH, 1);
        let strategy = match options.decode {
            Decode::Fused => Strategy::Fused,
            Decode::Cached => Strategy::Cached,
            Decode::Prefetch => Strategy::Prefetch,
            // what is left for them is known below
            Decode::Lru => Strategy::Lru { bytes: 0 },
            Decode::Auto => Strategy::Auto { bytes: 0 },
        };
        let weights = Weights::new(&engine, strategy);
        let mut loader = Loader { reader, engine: &engine, weights, others: passing, budget };
        let names = Names::of(reader);
        let Config { width, vocabulary, .. } = *config;
        let table = names.embedding();
        let embedding = Embedding::load(reader, table, [vocabulary, width])?;
        let blocks = (0..config.layers).map(|layer| Block::load(&mut loader, config, &names, layer));
        let blocks = blocks.collect::<Result<_>>()?;
        let norm = loader.vector(names.norm(), width)?;
        // the same tensor, unless the file has its own
        let output = names.output().filter(|name| has(reader, name)).unwrap_or(table);
        let output = loader.matrix(output, [vocabulary, width])?;
        let left = budget - (loader.weights.memory().total() + loader.others).min(budget);
        loader.weights.set_budget(left);
        loader.weights.settle().map_err(fail)?;
        loader.check()?;
        // for a token, a few, and many
        loader.weights.compile(&[1, FEW as u32, BATCH as u32]).map_err(fail)?;
        let Loader { weights, others, .. } = loader;
        Ok(Self {
            resident: weights.memory().total() + others - passing,
            state: Mutex::new(State { weights, room: None, embedded: Vec::new() }),
            config: config.clone(),
            rope: Rope::load(reader, config)?,
            path: path.into(),
            kernels: adapter.kernels.clone(),
            params,
            adapter: adapter.name().into(),
            embedding,
            blocks,
            norm,
            output,
            engine,
        })
    }

    /// Name of the adapter.
    pub fn adapter(&self) -> &str {
        &self.adapter
    }

    /// Bytes of weights in GPU memory.
    pub fn resident(&self) -> u64 {
        self.resident
    }

    /// An empty cache for so many positions. Error: [`Error::Gpu`] if there is no memory for it.
    pub fn cache(&self, positions: usize) -> Result<Cache> {
        let made = self.engine.guard("the cache", || Cache::new(&self.engine, &self.config, positions));
        made.map_err(|e| self.failed(e))
    }

    fn failed(&self, error: ecq_gpu::Error) -> Error {
        failed(&self.path, format!("on {}", self.adapter), error)
    }

    /// Passes tokens through, behind those of the cache, which has room for them. Calls `each` with the logits of every token
    /// if `all`, else with those of the last one. `stop` is asked between submissions; if it says so, nothing more is done.
    pub fn run(
        &self,
        tokens: &[u32],
        cache: &mut Cache,
        all: bool,
        stop: &dyn Fn() -> bool,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { weights, room, embedded } = &mut *state;
        let Config { width, vocabulary, .. } = self.config;
        let mut done = 0;
        for batch in tokens.chunks(BATCH) {
            if stop() {
                return Ok(());
            }
            done += batch.len();
            let wanted = match (all, done == tokens.len()) {
                (true, _) => batch.len(),
                (false, last) => usize::from(last),
            };
            embedded.resize(batch.len() * width, 0.0);
            self.embedding.rows(batch, width, embedded)?;
            let made = self.engine.guard("tokens", || {
                let (room, kept) = self.room(room, batch.len(), wanted)?;
                self.send(room, embedded, cache.len);
                Pass::new(self, weights, room, batch.len()).run(cache, kept, wanted, stop)
            });
            // what was recorded for other products may not have been submitted
            let made = made.inspect_err(|_| weights.forget()).map_err(|e| self.failed(e))?;
            let Some(logits) = made else { return Ok(()) };
            cache.len += batch.len();
            logits.chunks_exact(vocabulary).for_each(&mut *each);
        }
        Ok(())
    }

    /// Room for so many tokens, of which so many shall have logits.
    fn room<'s>(
        &self,
        room: &'s mut Option<(Room, Vec<Vec<Step>>)>,
        tokens: usize,
        logits: usize,
    ) -> ecq_gpu::Result<&'s mut (Room, Vec<Vec<Step>>)> {
        let limits = self.engine.limits();
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let most = (most / (4 * self.config.vocabulary as u64)) as usize;
        // whole turns of a product
        let most = if most < BATCH { (most / FEW * FEW).max(1) } else { BATCH };
        let (mut tokens, mut logits) = (padded(tokens), padded(logits).min(most));
        let made = match room.take() {
            Some(old) if old.0.tokens >= tokens && old.0.logits >= logits => old,
            old => {
                if let Some((old, steps)) = old {
                    (tokens, logits) = (old.tokens.max(tokens), old.logits.max(logits));
                    // they are gone before there is a new one
                    drop((old, steps));
                }
                (Room::new(&self.engine, &self.config, tokens, logits)?, Vec::new())
            }
        };
        Ok(room.insert(made))
    }

    /// Sends what a pass begins with.
    fn send(&self, room: &Room, embedded: &[f32], filled: usize) {
        let count = embedded.len() / self.config.width;
        let angles: Vec<[f32; 2]> = (0..count).flat_map(|i| self.rope.angles(filled + i)).collect();
        let queue = self.engine.queue();
        queue.write_buffer(&room.x, 0, bytemuck::cast_slice(embedded));
        queue.write_buffer(&room.angles, 0, bytemuck::cast_slice(&angles));
        queue.write_buffer(&room.filled, 0, bytemuck::bytes_of(&[filled as u32, 0, 0, 0]));
    }
}

impl Block {
    fn load(loader: &mut Loader<'_>, config: &Config, names: &Names, layer: usize) -> Result<Self> {
        let Config { width, hidden, heads, kv_heads, head, .. } = *config;
        let name = |part| names.block(layer, part);
        let weight = |part| format!("{}.weight", name(part));
        let norms = ["attn_q_norm", "attn_k_norm"].map(weight);
        let head_norms = match has(loader.reader, &norms[0]) {
            true => Some([loader.vector(&norms[0], head)?, loader.vector(&norms[1], head)?]),
            false => None,
        };
        Ok(Self {
            attention_norm: loader.vector(&weight("attn_norm"), width)?,
            query: loader.projection(&name("attn_q"), [heads * head, width])?,
            key: loader.projection(&name("attn_k"), [kv_heads * head, width])?,
            value: loader.projection(&name("attn_v"), [kv_heads * head, width])?,
            head_norms,
            out: loader.projection(&name("attn_output"), [width, heads * head])?,
            mlp_norm: loader.vector(&weight("ffn_norm"), width)?,
            gate: loader.projection(&name("ffn_gate"), [hidden, width])?,
            up: loader.projection(&name("ffn_up"), [hidden, width])?,
            down: loader.projection(&name("ffn_down"), [width, hidden])?,
        })
    }
}

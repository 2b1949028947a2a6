//! A model in a file, and texts from it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use ecq_format::{Limits, Reader};
use self_cell::self_cell;

use crate::cache::Cache;
use crate::config::Config;
use crate::decoder::Decoder;
use crate::description::Description;
use crate::error::{Error, Result};
use crate::gpu::Adapter;
use crate::options::{Decode, Device, Options};
use crate::sampling::{Sampler, Sampling};
use crate::tokenizer::Tokenizer;

self_cell!(
    struct Loaded {
        owner: Reader,
        #[covariant]
        dependent: Decoder,
    }
);

/// A model, ready to run.
pub struct Model {
    loaded: Loaded,
    config: Config,
    tokenizer: Tokenizer,
    /// No other model has it: a cache of another's is not taken for one of this.
    number: u64,
    /// How weights are kept.
    decode: Decode,
}

impl Model {
    /// Opens a `.ecq` file that was converted from GGUF or from a Hugging Face folder. On the CPU weights stay in the file, which
    /// is mapped; on a GPU, the fastest that there is, its memory has them, and embeddings stay in the file.
    ///
    /// Errors: [`Error::Format`] and [`Error::Metadata`] for damage, [`Error::Model`] for an architecture that is not run,
    /// [`Error::Tokenizer`]; [`Error::NoGpu`] and [`Error::Gpu`] on a GPU, and [`Error::Argument`] if its weights take more memory
    /// than they may.
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        Self::load(path, options, None)
    }

    /// Opens a file as [`Self::open`] does; if a GPU is to compute, or may, it is this one.
    pub fn open_on(path: &Path, options: Options, adapter: &Adapter) -> Result<Self> {
        Self::load(path, options, Some(adapter))
    }

    fn load(path: &Path, options: Options, adapter: Option<&Adapter>) -> Result<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let reader = Reader::open(path, Limits::default())?;
        let description = Description::of(&reader)?;
        let config = Config::new(path, &description)?;
        let tokenizer = Tokenizer::new(path, &description)?;
        let loaded = Loaded::try_new(reader, |reader| Decoder::load(reader, &config, &options, adapter))?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        Ok(Self { loaded, config, tokenizer, number, decode: options.decode })
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What computes: [`Device::Cpu`] or [`Device::Gpu`].
    pub fn device(&self) -> Device {
        match self.decoder() {
            Decoder::Cpu(_) => Device::Cpu,
            Decoder::Gpu(_) => Device::Gpu,
        }
    }

    /// Name of the GPU's adapter, if one computes.
    pub fn adapter(&self) -> Option<&str> {
        match self.decoder() {
            Decoder::Cpu(_) => None,
            Decoder::Gpu(network) => Some(network.adapter()),
        }
    }

    /// How weights are kept.
    pub fn decode(&self) -> Decode {
        self.decode
    }

    /// Bytes of GPU memory that its weights take, if a GPU computes.
    pub fn resident(&self) -> Option<u64> {
        match self.decoder() {
            Decoder::Cpu(_) => None,
            Decoder::Gpu(network) => Some(network.resident()),
        }
    }

    /// A cache for so many positions. Errors: [`Error::Argument`] for none, or more than the model was trained for;
    /// [`Error::Gpu`] if there is no memory for it.
    pub fn cache(&self, positions: usize) -> Result<Cache> {
        if positions == 0 || positions > self.config.context {
            return Err(Error::Argument {
                what: "the context",
                expected: format!("1 to {} tokens, for which the model was trained", self.config.context),
                got: positions.to_string(),
            });
        }
        Ok(Cache { model: self.number, memory: self.decoder().cache(positions)? })
    }

    /// Calls `each` with the logits behind every token, in order; tokens come behind those of the cache.
    ///
    /// Errors: [`Error::Argument`] for tokens that the vocabulary does not have, or no room in the cache; [`Error::Format`].
    pub fn logits(&self, tokens: &[u32], cache: &mut Cache, mut each: impl FnMut(&[f32])) -> Result<()> {
        self.check(tokens, cache)?;
        self.decoder().run(tokens, &mut cache.memory, true, &|| false, &mut each)
    }

    /// Passes tokens through and returns the logits behind the last one; empty if `stop` said so. Errors as [`Self::logits`],
    /// and [`Error::Argument`] for no tokens.
    pub fn next(&self, tokens: &[u32], cache: &mut Cache, stop: &dyn Fn() -> bool) -> Result<Vec<f32>> {
        if tokens.is_empty() {
            return Err(Error::Argument {
                what: "the prompt",
                expected: "at least one token".into(),
                got: "none".into(),
            });
        }
        self.check(tokens, cache)?;
        let mut logits = Vec::new();
        self.decoder().run(tokens, &mut cache.memory, false, stop, &mut |found| logits = found.to_vec())?;
        Ok(logits)
    }

    /// Tokens that follow a prompt, until the model ends the text or the cache is full. Errors as [`Self::next`].
    pub fn generate<'a>(
        &'a self,
        prompt: &[u32],
        cache: &'a mut Cache,
        sampling: Sampling,
        stop: &'a dyn Fn() -> bool,
    ) -> Result<Generate<'a>> {
        let logits = self.next(prompt, cache, stop)?;
        Ok(Generate { model: self, cache, sampler: Sampler::new(sampling), logits, stop })
    }

    fn decoder(&self) -> &Decoder<'_> {
        self.loaded.borrow_dependent()
    }

    fn check(&self, tokens: &[u32], cache: &Cache) -> Result<()> {
        if cache.model != self.number {
            return Err(Error::Argument {
                what: "the cache",
                expected: "one that this model made".into(),
                got: "another model's".into(),
            });
        }
        let vocabulary = self.config.vocabulary;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::Argument {
                what: "a token",
                expected: format!("a number below {vocabulary}"),
                got: token.to_string(),
            });
        }
        let room = cache.positions() - cache.len();
        if tokens.len() > room {
            return Err(Error::Argument {
                what: "the text",
                expected: format!("at most {room} tokens, for which there is room in the context"),
                got: tokens.len().to_string(),
            });
        }
        Ok(())
    }
}

/// Tokens of a text, as the model makes them.
pub struct Generate<'a> {
    model: &'a Model,
    cache: &'a mut Cache,
    sampler: Sampler,
    logits: Vec<f32>,
    stop: &'a dyn Fn() -> bool,
}

impl Iterator for Generate<'_> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.logits.is_empty() || (self.stop)() {
            return None;
        }
        let token = self.sampler.next(&self.logits);
        self.logits.clear();
        if self.model.tokenizer.is_end(token) {
            return None;
        }
        if self.cache.len() < self.cache.positions() {
            match self.model.next(&[token], self.cache, self.stop) {
                Ok(logits) => self.logits = logits,
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(token))
    }
}

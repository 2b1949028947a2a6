//! A model in a file, and texts from it.

use std::path::Path;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use ecq_format::Reader;
use memmap2::MmapMut;
use self_cell::self_cell;

use crate::attention;
use crate::cache::{Cache, Memory, Sequence};
use crate::choice::Choice;
use crate::config::Config;
use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::file::{ModelFile, check_context};
use crate::gpu::{self, Adapter};
use crate::options::{Device, Options};
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
    choice: Choice,
}

impl Model {
    /// Opens a `.ecq` file and loads it: [`ModelFile::open`] and [`Self::load`] at once.
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        Self::load(ModelFile::open(path)?, options)
    }

    /// Makes a model ready to run. On the CPU coded weights stay in the file, which is mapped; on a GPU, the fastest that there
    /// is, its memory has them, and embeddings stay in the file.
    ///
    /// Errors: [`Error::Argument`] for options that do not fit, [`Error::Format`] for damage, [`Error::Model`] for tensors that
    /// are missing or of another shape; [`Error::NoGpu`] and [`Error::Gpu`] on a GPU.
    pub fn load(file: ModelFile, options: Options) -> Result<Self> {
        Self::load_on(file, options, None)
    }

    /// As [`Self::load`]; if a GPU is to compute, or may, it is this one.
    pub fn load_on(file: ModelFile, options: Options, adapter: Option<&Adapter>) -> Result<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let sizes = file.sizes(options.positions);
        let ModelFile { reader, config, tokenizer } = file;
        let loaded =
            Loaded::try_new(reader, |reader| Decoder::load(reader, &config, &options, sizes, adapter))?;
        let choice = loaded.borrow_dependent().choice;
        Ok(Self { loaded, config, tokenizer, number: MADE.fetch_add(1, Ordering::Relaxed), choice })
    }

    /// What it runs on, and how.
    pub fn choice(&self) -> Choice {
        self.choice
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Name of the GPU's adapter, if one computes.
    pub fn adapter(&self) -> Option<&str> {
        self.decoder().gpu().map(gpu::Network::adapter)
    }

    /// Bytes of GPU memory that its weights take, if a GPU computes.
    pub fn resident(&self) -> Option<u64> {
        self.decoder().gpu().map(gpu::Network::resident)
    }

    /// A cache for so many positions. Errors: [`Error::Argument`] for none, for more than the model was trained for, and for more
    /// than the system has memory for; [`Error::Gpu`] if a GPU does not.
    pub fn cache(&self, positions: usize) -> Result<Cache> {
        check_context(&self.config, positions)?;
        let bytes = attention::Cache::memory(&self.config, positions);
        // asked of the system, not of the allocator, which a program may have end it
        let room = usize::try_from(bytes).is_ok_and(|bytes| MmapMut::map_anon(bytes).is_ok());
        if self.choice.device == Device::Cpu && !room {
            return Err(Error::Argument {
                what: "the context",
                expected: "one for which there is memory".into(),
                got: format!("{positions} tokens, whose keys and values take {bytes} bytes"),
            });
        }
        Ok(Cache { model: self.number, memory: self.decoder().cache(positions)? })
    }

    /// Calls `each` with the logits behind every token, in order; tokens come behind those of the cache.
    ///
    /// Errors: [`Error::Argument`] for tokens that the vocabulary does not have, or no room in the cache; [`Error::Format`].
    pub fn logits(&self, tokens: &[u32], cache: &mut Cache, mut each: impl FnMut(&[f32])) -> Result<()> {
        self.check(tokens, cache)?;
        self.run(vec![Sequence { tokens, cache: &mut cache.memory }], true, &|| false, &mut each)
    }

    /// Passes tokens through and returns the logits behind the last one; empty, and the cache as it was, if `stop` said so. Errors
    /// as [`Self::logits`], and [`Error::Argument`] for no tokens.
    pub fn next(&self, tokens: &[u32], cache: &mut Cache, stop: &dyn Fn() -> bool) -> Result<Vec<f32>> {
        let mut logits = self.next_of_each(&[tokens], slice::from_mut(cache), stop)?;
        Ok(logits.pop().unwrap_or_default())
    }

    /// [`Self::next`] of several sequences: of each some tokens, one or more, and the cache that has its earlier ones. Returns the
    /// logits behind the last token of each sequence; nothing if `stop` said so. Then, and after errors, all caches are as they were.
    ///
    /// On the CPU weights are multiplied with all tokens together, attention is of each sequence. Logits are those of each sequence
    /// alone but for rounding, for how many vectors there are decides which kernels multiply them: with
    /// [`Precision::F32`](crate::Precision::F32) by some 1e-6 of their norm, with integers by as much as those are off
    /// anyway. The same call gives the same to the bit, whatever the number of threads. On a GPU one sequence passes after another.
    ///
    /// Errors: as [`Self::next`], for any of the sequences; [`Error::Argument`] for no sequences, or not as many caches.
    pub fn next_of_each(
        &self,
        tokens: &[&[u32]],
        caches: &mut [Cache],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<f32>>> {
        let wrong = |what, expected: String, got: String| Err(Error::Argument { what, expected, got });
        if tokens.is_empty() {
            return wrong("the sequences", "at least one".into(), "none".into());
        }
        if tokens.len() != caches.len() {
            let expected = format!("{}, one for each sequence", tokens.len());
            return wrong("the caches", expected, caches.len().to_string());
        }
        for (tokens, cache) in tokens.iter().zip(&*caches) {
            if tokens.is_empty() {
                return wrong("the prompt", "at least one token".into(), "none".into());
            }
            self.check(tokens, cache)?;
        }
        let before: Vec<usize> = caches.iter().map(Cache::len).collect();
        let pairs = tokens.iter().zip(caches.iter_mut());
        let sequences = pairs.map(|(tokens, cache)| Sequence { tokens, cache: &mut cache.memory }).collect();
        let mut all = Vec::with_capacity(tokens.len());
        let done = self.run(sequences, false, stop, &mut |logits| all.push(logits.to_vec()));
        if done.is_err() || all.len() < tokens.len() {
            all.clear();
            caches.iter_mut().zip(before).for_each(|(cache, len)| cache.truncate(len));
        }
        done.map(|()| all)
    }

    /// The decoder's, and whether the file that it reads from is still the same.
    fn run(
        &self,
        sequences: Vec<Sequence<'_, Memory>>,
        all: bool,
        stop: &dyn Fn() -> bool,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<()> {
        let done = self.decoder().run(sequences, all, stop, each);
        self.loaded.borrow_owner().check()?; // of another file, any other error is a consequence, and success is none
        done
    }

    /// Tokens that follow a prompt, until the model ends the text or the cache is full. Errors as [`Self::next`], and
    /// [`Error::Model`] for logits of which none is a number.
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
        if self.logits.iter().all(|logit| logit.is_nan()) {
            self.logits.clear();
            return Some(Err(Error::Model {
                path: self.model.loaded.borrow_owner().path().into(),
                what: "logits".into(),
                expected: "numbers".into(),
                got: "none: weights are damaged, or those of another architecture".into(),
            }));
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

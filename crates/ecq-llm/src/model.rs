//! A model in a file, and texts from it.

use std::path::Path;

use ecq_format::Reader;
use self_cell::self_cell;

use crate::attention::Cache;
use crate::choice::Choice;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::file::{ModelFile, check_context};
use crate::network::Network;
use crate::options::Options;
use crate::sampling::{Sampler, Sampling};
use crate::tokenizer::Tokenizer;

self_cell!(
    struct Loaded {
        owner: Reader,
        #[covariant]
        dependent: Network,
    }
);

/// A model, ready to run.
pub struct Model {
    loaded: Loaded,
    config: Config,
    tokenizer: Tokenizer,
    choice: Choice,
}

impl Model {
    /// Opens a `.ecq` file and loads it: [`ModelFile::open`] and [`Self::load`] at once.
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        Self::load(ModelFile::open(path)?, options)
    }

    /// Makes a model ready to run. Coded weights stay in the file, which is mapped.
    ///
    /// Errors: [`Error::Argument`] for options that do not fit, [`Error::Format`] for damage, [`Error::Model`] for tensors that
    /// are missing or of another shape.
    pub fn load(file: ModelFile, options: Options) -> Result<Self> {
        let choice = file.sizes(options.positions).choose(&options)?;
        let ModelFile { reader, config, tokenizer } = file;
        let loaded = Loaded::try_new(reader, |reader| {
            Network::load(reader, &config, options.precision, choice.decode)
        })?;
        Ok(Self { loaded, config, tokenizer, choice })
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

    /// A cache for so many positions. Error: [`Error::Argument`] for none, or more than the model was trained for.
    pub fn cache(&self, positions: usize) -> Result<Cache> {
        check_context(&self.config, positions)?;
        Ok(self.network().cache(positions))
    }

    /// Calls `each` with the logits behind every token, in order; tokens come behind those of the cache.
    ///
    /// Errors: [`Error::Argument`] for tokens that the vocabulary does not have, or no room in the cache; [`Error::Format`].
    pub fn logits(&self, tokens: &[u32], cache: &mut Cache, mut each: impl FnMut(&[f32])) -> Result<()> {
        self.check(tokens, cache)?;
        self.network().run(tokens, cache, true, &|| false, &mut each)
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
        self.network().run(tokens, cache, false, stop, &mut |found| logits = found.to_vec())?;
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

    fn network(&self) -> &Network<'_> {
        self.loaded.borrow_dependent()
    }

    fn check(&self, tokens: &[u32], cache: &Cache) -> Result<()> {
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

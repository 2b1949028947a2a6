//! A model's file before its weights are loaded: what can be known, and refused, in milliseconds.

use std::path::Path;

use ecq_format::{Limits, Reader};

use crate::choice::Sizes;
use crate::config::Config;
use crate::description::Description;
use crate::error::{Error, Result};
use crate::tensors;
use crate::tokenizer::Tokenizer;

/// A `.ecq` file with a language model, open but not loaded.
pub struct ModelFile {
    pub(crate) reader: Reader,
    pub(crate) config: Config,
    pub(crate) tokenizer: Tokenizer,
}

impl ModelFile {
    /// Opens a `.ecq` file that was converted from GGUF or from a Hugging Face folder.
    ///
    /// Errors: [`Error::Format`] and [`Error::Metadata`] for damage, [`Error::Model`] for an architecture that is not run and
    /// for tensors that are missing, too many or of another shape, [`Error::Tokenizer`].
    pub fn open(path: &Path) -> Result<Self> {
        let reader = Reader::open(path, Limits::default())?;
        let description = Description::of(&reader)?;
        let config = Config::new(path, &description)?;
        tensors::check(path, &config, tensors::shapes(&reader))?;
        let tokenizer = Tokenizer::new(path, description, config.vocabulary)?;
        Ok(Self { reader, config, tokenizer })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.reader.path()
    }

    /// The file.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The model's shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What it will take in memory with a cache for so many positions.
    pub fn sizes(&self, positions: usize) -> Sizes {
        Sizes::of(&self.reader, &self.config, positions)
    }

    /// Error: [`Error::Argument`] for a context of none, or of more than the model was trained for.
    pub fn check_context(&self, positions: usize) -> Result<()> {
        check_context(&self.config, positions)
    }
}

pub(crate) fn check_context(config: &Config, positions: usize) -> Result<()> {
    if (1..=config.context).contains(&positions) {
        return Ok(());
    }
    Err(Error::Argument {
        what: "the context",
        expected: format!("1 to {} tokens, for which the model was trained", config.context),
        got: positions.to_string(),
    })
}

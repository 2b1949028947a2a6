//! A model as its source has it, before it is converted: for whoever needs its weights as numbers.

use std::path::Path;

use ecq_convert::blocks::to_f32;
use ecq_convert::source::Source;
use ecq_convert::tensors::SourceMatrix;
use ecq_quant::weights::Weights;

use crate::attention::Rope;
use crate::config::Config;
use crate::description::Description;
use crate::error::{Error, Result};
use crate::names::{Names, ROPE_DIVISORS};
use crate::source::shapes;
use crate::tensors;
use crate::tokenizer::Tokenizer;

/// A language model in a GGUF file or a Hugging Face folder.
pub struct Uncompressed<'a> {
    source: &'a Source,
    config: Config,
    tokenizer: Tokenizer,
    names: Names,
}

impl<'a> Uncompressed<'a> {
    /// Reads what a source says of its model; no weights yet.
    ///
    /// Errors: [`Error::Metadata`], [`Error::Model`], [`Error::Tokenizer`] as for a file that is to be run.
    pub fn new(source: &'a Source) -> Result<Self> {
        let path = source.path();
        let description = Description::of_source(path, source)?;
        let config = Config::new(path, &description)?;
        let shapes = shapes(source);
        tensors::check(path, &config, shapes.clone())?;
        let names = Names::among(|name| shapes.contains_key(name));
        let tokenizer = Tokenizer::new(path, description, config.vocabulary)?;
        Ok(Self { source, config, tokenizer, names })
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What its tensors are called.
    pub fn names(&self) -> Names {
        self.names
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// Whether there is such a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.source.tensors().iter().any(|tensor| tensor.name == name)
    }

    /// All tensors: names, and bytes as the source has them.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.source.tensors().iter().map(|tensor| (tensor.name.as_str(), self.source.data(tensor)))
    }

    /// All numbers of a tensor, row by row. Error: [`Error::Model`] for a tensor that is not there, or of another type than
    /// weights have.
    pub fn numbers(&self, name: &str) -> Result<Vec<f32>> {
        let wrong = |expected: &str, got: String| Error::Model {
            path: self.path().into(),
            what: format!("tensor {name}"),
            expected: expected.into(),
            got,
        };
        let found = self.source.tensors().iter().find(|tensor| tensor.name == name);
        let tensor = found.ok_or_else(|| wrong("a tensor of this name", "none".into()))?;
        if let Some(matrix) = SourceMatrix::new(self.source, tensor) {
            let mut out = vec![0.0; matrix.rows() * matrix.cols()];
            matrix.fill(0..matrix.rows(), &mut out);
            return Ok(out);
        }
        let mut out = vec![0.0; tensor.shape.iter().product::<u64>() as usize];
        to_f32(&tensor.dtype, self.source.data(tensor), &mut out)
            .map_err(|e| wrong("weights", e.to_string()))?;
        Ok(out)
    }

    /// Its rotary embedding. Errors as for [`Self::numbers`].
    pub fn rope(&self) -> Result<Rope> {
        let divisors = self.has(ROPE_DIVISORS).then(|| self.numbers(ROPE_DIVISORS)).transpose()?;
        Rope::new(self.path(), &self.config, divisors)
    }
}

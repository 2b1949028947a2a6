//! What a `.ecq` file says of its model beside the tensors: the metadata of a GGUF file, or the files of a folder.

use std::collections::HashMap;
use std::path::Path;

pub use ecq_convert::source::gguf::values::Value;
use ecq_convert::source::gguf::values::metadata;
use ecq_convert::source::{Companion, FileFormat, Source, SourceLimits};
use ecq_format::Reader;
use ecq_format::directory::Role;

use crate::error::{Error, Result};

/// Metadata of GGUF, by key.
pub type Values = HashMap<String, Value>;

/// A description of a model.
pub enum Description {
    /// Metadata of a GGUF file.
    Gguf(Values),
    /// Files of a folder.
    Folder {
        /// `config.json`
        config: Vec<u8>,
        /// `tokenizer.json`, if there is one.
        tokenizer: Option<Vec<u8>>,
        /// `tokenizer_config.json`, if there is one.
        tokenizer_config: Option<Vec<u8>>,
        /// `chat_template.jinja`, if there is one.
        template: Option<Vec<u8>>,
    },
}

impl Description {
    /// Reads what travels in a file. Errors: [`Error::Format`], [`Error::Metadata`]; [`Error::Model`] if there is nothing.
    pub fn of(reader: &Reader) -> Result<Self> {
        let directory = reader.directory();
        if let Some(source) = directory.sources.iter().find(|source| source.format == "gguf") {
            return Self::gguf(reader.path(), &reader.blob(source.verbatim)?);
        }
        let file = |name: &str| -> Result<Option<Vec<u8>>> {
            let found = directory.blobs.iter().position(|b| b.role == Role::Companion && b.name == name);
            Ok(found.map(|index| reader.blob(index)).transpose()?)
        };
        Self::files(reader.path(), file)
    }

    /// The same of a model that is not converted yet. Errors: [`Error::Metadata`], [`Error::Model`], [`Error::Cache`].
    pub fn of_source(path: &Path, source: &Source) -> Result<Self> {
        if let Some(file) = source.files().iter().find(|file| file.format == FileFormat::Gguf) {
            return Self::gguf(path, file.bytes());
        }
        Self::files(path, |name| {
            let found = source.companions().iter().find(|file| file.name == name);
            let read = |file: &Companion| {
                let cannot = |e: std::io::Error| Error::Cache { path: file.path.clone(), why: e.to_string() };
                std::fs::read(&file.path).map_err(cannot)
            };
            found.map(read).transpose()
        })
    }

    fn gguf(path: &Path, bytes: &[u8]) -> Result<Self> {
        let (what, path) = ("metadata of GGUF", path.to_owned());
        let values = metadata(&path, bytes, &SourceLimits::default());
        values.map(Self::Gguf).map_err(|source| Error::Metadata { path, what, source: Box::new(source) })
    }

    fn files(path: &Path, file: impl Fn(&str) -> Result<Option<Vec<u8>>>) -> Result<Self> {
        let Some(config) = file("config.json")? else {
            return Err(Error::Model {
                path: path.into(),
                what: "its description".into(),
                expected: "a language model from GGUF, or from a folder with config.json".into(),
                got: "neither".into(),
            });
        };
        Ok(Self::Folder {
            config,
            tokenizer: file("tokenizer.json")?,
            tokenizer_config: file("tokenizer_config.json")?,
            template: file("chat_template.jinja")?,
        })
    }
}

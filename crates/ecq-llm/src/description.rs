//! What a `.ecq` file says of its model beside the tensors: the metadata of a GGUF file, or the files of a folder.

use std::collections::HashMap;

use ecq_convert::source::SourceLimits;
pub use ecq_convert::source::gguf::values::Value;
use ecq_convert::source::gguf::values::metadata;
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
            let bytes = reader.blob(source.verbatim)?;
            let (path, what) = (reader.path(), "metadata of GGUF");
            let values = metadata(path, &bytes, &SourceLimits::default());
            return values.map(Self::Gguf).map_err(|source| Error::Metadata {
                path: path.into(),
                what,
                source: Box::new(source),
            });
        }
        let file = |name: &str| -> Result<Option<Vec<u8>>> {
            let found = directory.blobs.iter().position(|b| b.role == Role::Companion && b.name == name);
            Ok(found.map(|index| reader.blob(index)).transpose()?)
        };
        let Some(config) = file("config.json")? else {
            return Err(Error::Model {
                path: reader.path().into(),
                what: "its description".into(),
                expected: "a model converted from GGUF, or from a folder with config.json".into(),
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

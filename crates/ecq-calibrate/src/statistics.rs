//! Statistics of a model in a safetensors file: second moments of inputs as square matrices, mean squared gradients of outputs as
//! vectors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ecq_format::Mapped;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The key of the file's metadata under which [`About`] is, as JSON.
const KEY: &str = "ecq_statistics";
/// The version of what is below.
const VERSION: u32 = 1;

/// What statistics are of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    version: u32,
    /// A number that other models do not have.
    pub model: String,
    /// Tokens whose inputs were seen.
    pub tokens: usize,
    /// Tokens whose gradients were seen.
    pub gradient_tokens: usize,
    /// For each tensor the name of its inputs' second moments, if those are known.
    pub inputs: BTreeMap<String, Option<String>>,
}

impl About {
    /// Of a model and so many tokens.
    pub fn new(model: String, tokens: usize, gradient_tokens: usize) -> Self {
        Self { version: VERSION, model, tokens, gradient_tokens, inputs: BTreeMap::new() }
    }
}

/// A file that is being written, in any order.
pub struct Writer {
    path: PathBuf,
    file: File,
    /// Offset and number of values.
    places: BTreeMap<String, (u64, usize)>,
}

impl Writer {
    /// Begins a file whose tensors of f32 have these shapes. `path` is for errors.
    pub fn new(path: &Path, mut file: File, about: &About, shapes: &[(String, Vec<usize>)]) -> Result<Self> {
        let mut header = serde_json::Map::new();
        let about = serde_json::to_string(about).map_err(|e| bad(path, e.to_string()))?;
        header.insert("__metadata__".into(), serde_json::json!({ KEY: about }));
        let mut end = 0;
        let mut places = BTreeMap::new();
        for (name, shape) in shapes {
            let len: usize = shape.iter().product();
            let entry =
                serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [end, end + 4 * len] });
            header.insert(name.clone(), entry);
            places.insert(name.clone(), (end as u64, len));
            end += 4 * len;
        }
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let first = 8 + header.len() as u64;
        places.values_mut().for_each(|place| place.0 += first);
        let write = |file: &mut File| {
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(&header)?;
            file.set_len(first + end as u64)
        };
        write(&mut file).map_err(|e| bad(path, format!("cannot write: {e}")))?;
        Ok(Self { path: path.into(), file, places })
    }

    /// Writes a tensor.
    ///
    /// # Panics
    /// If it was not announced, or has another length.
    pub fn put(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let (offset, len) = self.places[name];
        assert_eq!(values.len(), len, "{name}");
        let bytes: &[u8] = bytemuck::cast_slice(values); // little-endian machines only, as all of ours
        let put = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.write_all(bytes));
        put.map_err(|e| bad(&self.path, format!("cannot write: {e}")))
    }

    /// The file, complete.
    pub fn finish(self) -> File {
        self.file
    }
}

fn bad(path: &Path, why: String) -> Error {
    Error::Statistics { path: path.into(), why }
}

/// Statistics of a model.
#[derive(Debug)]
pub struct Statistics {
    path: PathBuf,
    file: Mapped,
    about: About,
}

impl Statistics {
    /// Opens a file. Error: [`Error::Statistics`] if it is none.
    pub fn open(path: &Path, file: File) -> Result<Self> {
        let file = Mapped::new(file).map_err(|e| bad(path, format!("cannot read: {e}")))?;
        let expected = "expected statistics written by ecq convert --statistics";
        let (_, header) =
            SafeTensors::read_metadata(&file).map_err(|e| bad(path, format!("{expected}: {e}")))?;
        let about = header.metadata().as_ref().and_then(|all| all.get(KEY));
        let about = about.ok_or_else(|| bad(path, expected.into()))?;
        let about: About = serde_json::from_str(about).map_err(|e| bad(path, format!("{expected}: {e}")))?;
        if about.version != VERSION {
            return Err(bad(
                path,
                format!("expected version {VERSION}, found {}: make it anew", about.version),
            ));
        }
        Ok(Self { path: path.into(), file, about })
    }

    /// What they are of.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// A tensor of so many values.
    pub fn get(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let wrong = |why| self.wrong(name, why);
        let all = SafeTensors::deserialize(&self.file).map_err(|e| wrong(e.to_string()))?;
        let found = all.tensor(name).map_err(|e| wrong(e.to_string()))?;
        let bytes = found.data();
        if found.dtype() != safetensors::Dtype::F32 || bytes.len() != 4 * len {
            return Err(wrong(format!(
                "expected {len} values of F32, found {:?} of {}",
                found.shape(),
                found.dtype()
            )));
        }
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        match values.iter().find(|value| !value.is_finite()) {
            None => Ok(values),
            Some(value) => Err(wrong(format!("expected finite numbers, found {value}"))),
        }
    }

    /// An error about what belongs to a name.
    pub(crate) fn wrong(&self, name: &str, why: String) -> Error {
        bad(&self.path, format!("{name}: {why}; make the statistics anew"))
    }
}

//! Statistics of a model in a safetensors file: second moments of inputs as triangles, or their diagonals; mean squared
//! gradients of outputs as vectors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ecq_format::Mapped;
use ecq_llm::{Config, Uncompressed};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::gather::fingerprint;
use crate::text::CONTEXT;
use crate::texts::Texts;

/// The key of the file's metadata under which [`About`] is, as JSON.
pub(crate) const KEY: &str = "ecq_statistics";
/// The version of what is below.
const VERSION: u32 = 2;

/// What statistics are of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    version: u32,
    /// A number that other models do not have; empty if nobody knows the model.
    pub model: String,
    /// The texts that were seen, and those that were not.
    pub texts: Texts,
    /// For each tensor the name of its inputs' second moments, if those are known.
    pub inputs: BTreeMap<String, Option<String>>,
}

impl About {
    /// Of a model and texts.
    pub fn new(model: String, texts: Texts) -> Self {
        Self { version: VERSION, model, texts, inputs: BTreeMap::new() }
    }
}

/// Second moments of a layer's inputs: means over tokens of products of two of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Moments {
    /// Row by row from the diagonal on: n (n + 1) / 2 numbers for n inputs.
    Triangle(Vec<f32>),
    /// Squares alone.
    Diagonal(Vec<f32>),
}

impl Moments {
    /// Where row `i` and column `j` of so many, `j` not before `i`, are in a triangle.
    pub fn place(size: usize, i: usize, j: usize) -> usize {
        i * size - i * (i + 1) / 2 + j
    }

    /// Of a symmetric matrix, row by row.
    #[cfg(test)]
    pub(crate) fn of(square: &[f32], size: usize) -> Self {
        Self::Triangle((0..size).flat_map(|i| &square[i * size + i..][..size - i]).copied().collect())
    }

    /// The mean square of each input, of which there are so many.
    pub fn squares(&self, size: usize) -> impl Iterator<Item = f32> {
        (0..size).map(move |i| match self {
            Self::Triangle(all) => all[Self::place(size, i, i)],
            Self::Diagonal(all) => all[i],
        })
    }
}

/// Length of the triangle of a square matrix.
pub const fn triangle(size: usize) -> usize {
    size * (size + 1) / 2
}

/// Where a tensor is.
#[derive(Debug)]
enum Data {
    /// In a file: types, offsets and lengths in bytes.
    File(Mapped, BTreeMap<String, (Dtype, usize, usize)>),
    Memory(BTreeMap<String, Vec<f32>>),
}

/// Statistics of a model.
#[derive(Debug)]
pub struct Statistics {
    path: PathBuf,
    about: About,
    data: Data,
}

impl Statistics {
    /// Opens a file. Error: [`Error::Statistics`] if it is none.
    pub fn open(path: &Path, file: File) -> Result<Self> {
        let bad = |why| bad(path, why);
        let file = Mapped::new(file).map_err(|e| bad(format!("cannot read: {e}")))?;
        let expected = "expected statistics written by ecq convert --statistics";
        let none = |e: &dyn std::fmt::Display| bad(format!("{expected}: {e}"));
        let (length, header) = SafeTensors::read_metadata(&file).map_err(|e| none(&e))?;
        let about = header.metadata().as_ref().and_then(|all| all.get(KEY));
        let about = about.ok_or_else(|| bad(expected.into()))?;
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(about).map_err(|e| none(&e))?;
        if version != VERSION {
            return Err(bad(format!("expected version {VERSION}, found {version}: make it anew")));
        }
        let about: About = serde_json::from_str(about).map_err(|e| none(&e))?;
        let place = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
            (name, (info.dtype, 8 + length + info.data_offsets.0, info.data_offsets.1 - info.data_offsets.0))
        };
        let places: BTreeMap<_, _> = header.tensors().into_iter().map(place).collect();
        Ok(Self { path: path.into(), about, data: Data::File(file, places) })
    }

    /// Of a model, from a file that [`gather`](crate::gather()) wrote or from an importance matrix of llama.cpp.
    ///
    /// Errors: [`Error::Statistics`] if it is neither, or of another model; [`Error::Model`] if that cannot be read.
    pub fn of_model(path: &Path, model: &Uncompressed<'_>) -> Result<Self> {
        let cannot = |e| bad(path, format!("cannot read: {e}"));
        let mut file = File::open(path).map_err(cannot)?;
        let mut first = Vec::new();
        Read::by_ref(&mut file).take(9).read_to_end(&mut first).map_err(cannot)?;
        // a safetensors file begins with the length of an object
        if first.get(8) != Some(&b'{') {
            return crate::imatrix::read(path, model);
        }
        let found = Self::open(path, file)?;
        if found.about.model != fingerprint(model) {
            let why =
                "expected statistics of this model, found those of another: make them anew with --calibrate";
            return Err(bad(path, why.into()));
        }
        let texts = &found.about.texts;
        let Config { vocabulary, context, .. } = *model.config();
        let lengths = 2..=CONTEXT.min(context);
        let well = |chunk: &Vec<u32>| {
            lengths.contains(&chunk.len()) && chunk.iter().all(|&token| (token as usize) < vocabulary)
        };
        if !texts.chunks.iter().chain(&texts.held_out).all(well) {
            return Err(bad(path, "expected texts that this model can read: make it anew".into()));
        }
        Ok(found)
    }

    /// Statistics in memory; `path` is for errors.
    pub fn of(path: &Path, about: About, tensors: BTreeMap<String, Vec<f32>>) -> Self {
        Self { path: path.into(), about, data: Data::Memory(tensors) }
    }

    /// What they are of.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Number of values of a tensor.
    fn len(&self, name: &str) -> Option<usize> {
        match &self.data {
            Data::File(_, places) => places.get(name).map(|place| place.2 / 4),
            Data::Memory(tensors) => tensors.get(name).map(Vec::len),
        }
    }

    /// Whether there is such a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.len(name).is_some()
    }

    /// A tensor of so many values.
    pub fn get(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let wrong = |found: &str| self.wrong(name, format!("expected {len} values of F32, found {found}"));
        let values: Vec<f32> = match &self.data {
            Data::Memory(tensors) => tensors.get(name).ok_or_else(|| wrong("none"))?.clone(),
            Data::File(file, places) => {
                let &(dtype, start, bytes) = places.get(name).ok_or_else(|| wrong("none"))?;
                if dtype != Dtype::F32 {
                    return Err(wrong(&format!("{dtype}")));
                }
                let values = file[start..start + bytes].as_chunks().0;
                let values = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
                file.check().map_err(|why| bad(&self.path, why.into()))?;
                file.used(bytes as u64);
                values
            }
        };
        if values.len() != len {
            return Err(wrong(&values.len().to_string()));
        }
        match values.iter().find(|value| !value.is_finite()) {
            None => Ok(values),
            Some(value) => Err(self.wrong(name, format!("expected finite numbers, found {value}"))),
        }
    }

    /// The second moments of so many inputs.
    pub fn moments(&self, name: &str, size: usize) -> Result<Moments> {
        let found = match self.len(name) == Some(size) && size > 1 {
            true => Moments::Diagonal(self.get(name, size)?),
            false => Moments::Triangle(self.get(name, triangle(size))?),
        };
        if found.squares(size).any(|square| square < 0.0) {
            return Err(self.wrong(name, "expected squares, found numbers below 0".into()));
        }
        Ok(found)
    }

    /// An error about what belongs to a name.
    pub(crate) fn wrong(&self, name: &str, why: String) -> Error {
        bad(&self.path, format!("{name}: {why}; make the statistics anew"))
    }
}

/// An error about a file of statistics.
pub(crate) fn bad(path: &Path, why: String) -> Error {
    Error::Statistics { path: path.into(), why }
}

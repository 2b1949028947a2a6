//! The tensors of a model by what they are for, and products with them on the CPU.

use std::ops::Range;

use ecq_cpu::{Factor, Matrix, Packed, Precision, multiply_all};
use ecq_format::Reader;
use ecq_format::directory::TensorRecord;
use ecq_format::reader::{CodedTensor, Tensor};
use ecq_quant::values::Dequantizer;
use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::options::Decode;

/// A matrix to multiply with.
pub enum Weight<'a> {
    /// Coded.
    Coded(Matrix<'a>),
    /// Decoded to integers.
    Packed(Packed),
    /// As numbers: what the file stores as it was.
    Plain {
        /// Columns.
        cols: usize,
        /// Row by row.
        weights: Vec<f32>,
    },
}

impl<'a> Weight<'a> {
    /// A tensor of a file that must have this shape. Errors: [`Error::Format`], [`Error::Model`].
    /// Scales that are decoded already are shared.
    pub fn load(
        reader: &'a Reader,
        name: &str,
        [rows, cols]: [usize; 2],
        decode: Decode,
        scales: Option<&Dequantizer>,
    ) -> Result<Self> {
        let weight = match (tensor(reader, name, &[rows, cols])?, scales) {
            (Numbers::Coded(tensor), Some(scales)) => Self::coded(tensor, scales, decode)?,
            (Numbers::Coded(tensor), None) => {
                let scales = Dequantizer::of(&tensor)?;
                Self::coded(tensor, &scales, decode)?
            }
            (Numbers::Plain(weights), _) => Self::Plain { cols, weights },
        };
        // the scales were copied, and what is cached will not be read again
        reader.give_back();
        Ok(weight)
    }

    fn coded(tensor: Box<CodedTensor<'a>>, scales: &Dequantizer, decode: Decode) -> Result<Self> {
        if decode == Decode::Cached {
            match Packed::with_values(&tensor, scales) {
                Ok(packed) => return Ok(Self::Packed(packed)),
                // floats without loss, and what has no plain integers
                Err(ecq_format::Error::Unsupported { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self::Coded(Matrix::owning(tensor, scales)))
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Self::Coded(matrix) => matrix.rows(),
            Self::Packed(packed) => packed.rows(),
            Self::Plain { cols, weights } => weights.len() / cols,
        }
    }
}

/// `y = W x` for each weight and each vector of `x`. Error: [`Error::Format`] for damage.
pub fn multiply(precision: Precision, x: &[f32], products: Vec<(&Weight<'_>, &mut [f32])>) -> Result<()> {
    let mut coded = Vec::with_capacity(products.len());
    for (weight, y) in products {
        match weight {
            Weight::Coded(matrix) => coded.push((Factor::Matrix(matrix), y)),
            Weight::Packed(packed) => coded.push((Factor::Packed(packed), y)),
            Weight::Plain { cols, weights } => {
                let rows = weights.len() / cols;
                for (x, y) in x.chunks_exact(*cols).zip(y.chunks_exact_mut(rows)) {
                    for (w, y) in weights.chunks_exact(*cols).zip(y) {
                        *y = crate::math::dot(w, x);
                    }
                }
            }
        }
    }
    Ok(multiply_all(precision, x, coded)?)
}

/// The table of embeddings: rows of a matrix by their numbers.
pub enum Embedding<'a> {
    /// Coded; a row is decoded with its tile.
    Coded {
        /// The tensor.
        tensor: Box<CodedTensor<'a>>,
        /// Its scales.
        values: Dequantizer,
    },
    /// As numbers.
    Plain(Vec<f32>),
}

impl<'a> Embedding<'a> {
    /// A tensor of a file that must have this shape. Errors: [`Error::Format`], [`Error::Model`].
    pub fn load(reader: &'a Reader, name: &str, [rows, cols]: [usize; 2]) -> Result<Self> {
        Ok(match tensor(reader, name, &[rows, cols])? {
            Numbers::Coded(tensor) => {
                let values = Dequantizer::of(&tensor)?;
                Self::Coded { tensor, values }
            }
            Numbers::Plain(weights) => Self::Plain(weights),
        })
    }

    /// Its scales, for products with it.
    pub fn scales(&self) -> Option<&Dequantizer> {
        match self {
            Self::Coded { values, .. } => Some(values),
            Self::Plain(_) => None,
        }
    }

    /// Copies rows, one after another; each tile is decoded once. Rows are there: tokens were checked.
    pub fn rows(&self, tokens: &[u32], width: usize, out: &mut [f32]) -> Result<()> {
        let (tensor, values) = match self {
            Self::Plain(weights) => {
                for (&token, out) in tokens.iter().zip(out.chunks_exact_mut(width)) {
                    out.copy_from_slice(&weights[token as usize * width..][..width]);
                }
                return Ok(());
            }
            Self::Coded { tensor, values } => (tensor, values),
        };
        let height = tensor.coded().tile_rows as usize;
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|&i| tokens[i]);
        let (mut levels, mut held) = (Vec::new(), usize::MAX);
        for i in order {
            let row = tokens[i] as usize;
            if row / height != held {
                held = row / height;
                tensor.levels(held, &mut levels)?;
            }
            let own: Range<usize> = row..row + 1;
            values.fill(own, &levels[row % height * width..][..width], &mut out[i * width..][..width]);
        }
        Ok(())
    }
}

/// What a file has of a tensor.
pub enum Numbers<'a> {
    /// Coded.
    Coded(Box<CodedTensor<'a>>),
    /// As it was, row by row.
    Plain(Vec<f32>),
}

/// A tensor of a file that must have this shape. Errors: [`Error::Format`], [`Error::Model`].
pub fn tensor<'a>(reader: &'a Reader, name: &str, shape: &[usize]) -> Result<Numbers<'a>> {
    let found = reader.directory().tensors.iter().find(|record| record.name == name);
    let record = found.ok_or_else(|| wrong(reader, name, "a tensor of this name", "none".into()))?;
    if !record.shape.iter().map(|&n| n as usize).eq(shape.iter().copied()) {
        return Err(wrong(reader, name, &format!("the shape {shape:?}"), format!("{:?}", record.shape)));
    }
    match reader.load(record)? {
        Tensor::Coded(tensor) => Ok(Numbers::Coded(tensor)),
        Tensor::Plain(bytes) => Ok(Numbers::Plain(floats(reader, record, bytes)?)),
        Tensor::Part(_) => Err(wrong(reader, name, "weights", "scales of another tensor".into())),
    }
}

/// A vector of a file, of this length. Errors: [`Error::Format`], [`Error::Model`].
pub fn vector(reader: &Reader, name: &str, len: usize) -> Result<Vec<f32>> {
    match tensor(reader, name, &[len])? {
        Numbers::Plain(numbers) => Ok(numbers),
        Numbers::Coded(tensor) => {
            let mut out = vec![0.0; len];
            let values = Dequantizer::of(&tensor)?;
            let (mut levels, cols) = (Vec::new(), tensor.coded().cols as usize);
            for tile in 0..tensor.tiles() {
                let rows = tensor.rows(tile);
                tensor.levels(tile, &mut levels)?;
                values.fill(rows.clone(), &levels, &mut out[rows.start * cols..rows.end * cols]);
            }
            Ok(out)
        }
    }
}

/// Whether a file has a tensor.
pub fn has(reader: &Reader, name: &str) -> bool {
    reader.directory().tensors.iter().any(|record| record.name == name)
}

/// The numbers of a tensor that is stored as it was.
fn floats(reader: &Reader, record: &TensorRecord, bytes: &[u8]) -> Result<Vec<f32>> {
    Ok(match record.dtype.as_str() {
        "F32" => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        "F16" => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        "BF16" => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        other => return Err(wrong(reader, &record.name, "a coded tensor, F32, F16 or BF16", other.into())),
    })
}

/// An error about a tensor.
pub fn wrong(reader: &Reader, name: &str, expected: &str, got: String) -> Error {
    Error::Model {
        path: reader.path().into(),
        what: format!("tensor {name}"),
        expected: expected.into(),
        got,
    }
}

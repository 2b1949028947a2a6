//! Matrices to multiply: a block of weights, repeated until the matrix is full, quantized and written as files are.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use ecq_benches::tensor::{NAME, Repeated, store};
use ecq_format::directory::{Codec, PairCode, Pairs, Values};
use ecq_format::encode::{Encoder, Input, Profile, layout};
use ecq_format::pattern::{self, FloatFormat};
use ecq_format::plan::Plan;
use ecq_format::reader::{CodedTensor, Tensor};
use ecq_format::{Limits, Reader};
use ecq_quant::quantize::Quantized;
use ecq_quant::values::Dequantizer;
use ecq_quant::weights::Dense;
use ecq_quant::{Granularity, Scheme};
use half::bf16;
use serde::Serialize;

/// Weights that are made and quantized; larger matrices repeat their rows. Enough for quantizers to see tails, few enough
/// to be made in seconds.
pub const BLOCK: usize = 1 << 21;

/// Rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
}

impl Shape {
    /// Number of weights.
    pub fn weights(self) -> usize {
        self.rows * self.cols
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.rows, self.cols)
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('x').and_then(|(r, c)| Some((r.parse().ok()?, c.parse().ok()?)));
        match parsed {
            Some((rows, cols)) if (8..=1 << 20).contains(&rows) && (32..=1 << 20).contains(&cols) => {
                Ok(Self { rows, cols })
            }
            _ => Err("expected ROWSxCOLS, at least 8x32, at most 2^20 each".into()),
        }
    }
}

/// What weights become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Levels.
    Lossy(Scheme),
    /// BF16 without loss.
    Bf16,
}

impl Kind {
    /// Nibbles and one scale, no escapes: the simplest weights that a kernel for packed ones can have.
    pub const NIBBLES: Self = Self::Lossy(Scheme::Absmax4(Granularity::Tensor));
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lossy(Scheme::Ecq { bits, .. }) => write!(f, "ecq {bits:.1}"),
            Self::Lossy(scheme) => f.write_str(scheme.name()),
            Self::Bf16 => f.write_str("BF16"),
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    /// A number of bits a weight, `int8` or `bf16`.
    fn from_str(text: &str) -> Result<Self, String> {
        let scheme = match text {
            "bf16" => return Ok(Self::Bf16),
            "int8" => Scheme::Int8(Granularity::Row),
            bits => Scheme::ecq(bits.parse().map_err(|_| "expected bits a weight, int8 or bf16")?),
        };
        scheme.check().map_err(|e| e.to_string())?;
        Ok(Self::Lossy(scheme))
    }
}

/// Writes the same weights in the prefix code and in rANS, and opens both files.
pub fn files(folder: &Path, shape: Shape, kind: Kind, block: &[f32]) -> Result<[Reader; 2]> {
    let height = (block.len() / shape.cols).clamp(1, shape.rows);
    let block = block.get(..height * shape.cols).context("a row is longer than the block")?;
    match kind {
        Kind::Lossy(scheme) => {
            let dense = Dense::new(block, shape.cols).context("the block is no whole number of rows")?;
            let quantized = Quantized::new(scheme, &dense, Profile::Gpu)?;
            let mut levels = vec![0; block.len()];
            quantized.levels(0..height, &mut levels);
            let repeated = Repeated { cols: shape.cols, levels };
            let of = (scheme.name(), *quantized.values(), quantized.plan(), quantized.planes());
            both(folder, shape, of, Input::Levels(&repeated))
        }
        Kind::Bf16 => {
            // weights of a usual size
            let row: Vec<u8> = block.iter().flat_map(|w| bf16::from_f32(0.02 * w).to_le_bytes()).collect();
            let len = 2 * shape.weights();
            let mut bytes = Vec::with_capacity(len);
            while bytes.len() < len {
                bytes.extend(&row[..row.len().min(len - bytes.len())]);
            }
            let plan = pattern::plan(FloatFormat::Bf16, &bytes, shape.cols);
            let (pattern, plan) = plan.context("BF16 cannot be planned")?;
            both(folder, shape, ("bf16", Values::ONE, &plan, &[]), Input::Floats(pattern, &bytes))
        }
    }
}

fn both(
    folder: &Path,
    shape: Shape,
    (scheme, values, plan, planes): (&str, Values, &Plan, &[Vec<u8>]),
    input: Input<'_>,
) -> Result<[Reader; 2]> {
    let dims = [shape.rows as u64, shape.cols as u64];
    let (Codec::Pairs(pairs), height) = layout(dims[0], dims[1], Profile::Gpu) else {
        bail!("the profile for GPUs has no pairs")
    };
    let one = |code: PairCode| -> Result<Reader> {
        let layout = (Codec::Pairs(Pairs { code, ..pairs }), height);
        let encoder = Encoder::with_layout(scheme, &dims, values, layout, plan, input);
        let encoder = encoder.map_err(|why| anyhow!("{shape} {scheme}: {why}"))?;
        // rows are repeated, so are their scales
        let lengths = encoder.coded().side_planes();
        let side = planes.iter().zip(lengths).map(|(p, n)| p.iter().copied().cycle().take(n).collect());
        let path = folder.join(format!("{code:?}.ecq"));
        store(&path, &encoder, &side.collect::<Vec<_>>())?;
        Ok(Reader::open(&path, Limits::default())?)
    };
    Ok([one(PairCode::Prefix)?, one(PairCode::Rans)?])
}

/// The tensor of a file.
pub fn coded(reader: &Reader) -> Result<Box<CodedTensor<'_>>> {
    let Tensor::Coded(tensor) = reader.tensor(NAME)? else { bail!("the tensor is not coded") };
    Ok(tensor)
}

/// Bits a weight that the tensor takes in its file, scales and tables with it.
pub fn bits(reader: &Reader) -> Result<f64> {
    let record = reader.directory().tensors.first().context("a file without a tensor")?;
    let weights = record.coded.as_ref().context("the tensor is not coded")?.weights();
    Ok(8.0 * reader.stored_bytes(record) as f64 / weights as f64)
}

/// Products of some rows in f64: for each vector of `x` the row and its product; rows are from all over the matrix.
pub fn exact(tensor: &CodedTensor<'_>, x: &[f32]) -> Result<Vec<Vec<(usize, f64)>>> {
    const ROWS: usize = 48;
    let coded = tensor.coded();
    let (rows, cols) = (coded.rows as usize, coded.cols as usize);
    let dequantizer = Dequantizer::of(tensor)?;
    let mut found = vec![Vec::new(); x.len() / cols];
    let (mut levels, mut row) = (Vec::new(), vec![0.0; cols]);
    let mut last = usize::MAX;
    for i in 0..ROWS.min(rows) {
        let at = i * (rows - 1) / (ROWS.min(rows) - 1).max(1);
        let tile = at / coded.tile_rows as usize;
        if tile != last {
            tensor.levels(tile, &mut levels)?;
            last = tile;
        }
        let start = (at - tensor.rows(tile).start) * cols;
        dequantizer.fill(at..at + 1, &levels[start..start + cols], &mut row);
        for (x, found) in x.chunks_exact(cols).zip(&mut found) {
            found.push((at, row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum()));
        }
    }
    Ok(found)
}

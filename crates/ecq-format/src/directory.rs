//! What the header of a `.ecq` file says: one JSON document under `__metadata__["ecq"]`.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::levels::{MAX_CENTER, MAX_RAW_BITS, MAX_RAW_BITS_V1, Split};
use crate::pattern::Pattern;

/// Most weights in a tile. Bounds what a reader must allocate for one.
pub const MAX_TILE_WEIGHTS: u64 = 1 << 24;
/// Most bytes of planes that one byte of side data may stand for. Bounds what a reader must allocate for them.
pub const MAX_PARAMS_PER_BYTE: u64 = 4096;

/// The whole directory.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Format version.
    pub version: u32,
    /// Program and version that wrote the file; for people.
    pub writer: String,
    /// Whether the source files can be restored byte for byte.
    pub lossless: bool,
    /// The files that the model came from.
    pub sources: Vec<SourceFile>,
    /// Companion files and verbatim parts of the sources.
    pub blobs: Vec<Blob>,
    /// The tensors, in source order.
    pub tensors: Vec<TensorRecord>,
}

/// A file that tensors came from.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// File name without folders.
    pub name: String,
    /// "gguf" or "safetensors".
    pub format: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of the whole file, lower-case hexadecimal.
    pub sha256: String,
    /// Index of the blob with every byte of the file that is not tensor data, in order.
    pub verbatim: usize,
}

/// Bytes that are no tensor.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// File name of a companion, or of the source file that the bytes are from.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Length in bytes when unpacked.
    pub size: u64,
    /// Whether the entry holds a zstd frame or the bytes themselves.
    pub zstd: bool,
    /// CRC-32 of the entry.
    pub crc: u32,
}

/// What a blob is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A file that travels along: config.json, a tokenizer.
    Companion,
    /// The bytes of a source file that are not tensor data.
    Verbatim,
}

/// A tensor.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TensorRecord {
    /// Its name.
    pub name: String,
    /// Its shape, outermost dimension first.
    pub shape: Vec<u64>,
    /// Its type in the source: "F32", "BF16", "Q4_1", …
    pub dtype: String,
    /// Where its bytes are in the source.
    pub source: Extent,
    /// Coded, or stored as it was: `None`, with the CRC-32 of the entry in `crc`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub coded: Option<Coded>,
    /// CRC-32 of the plain entry, or of index, tables and side data of a coded tensor, in that order.
    pub crc: u32,
}

/// A range of a source file.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// Index into [`Directory::sources`].
    pub file: usize,
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// How a tensor is coded.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Coded {
    /// Name of the quantization scheme; decides how a lossless source is packed again.
    pub scheme: String,
    /// Rows of the matrix: the product of all dimensions but the last.
    pub rows: u64,
    /// Columns: the last dimension.
    pub cols: u64,
    /// Rows in each tile but the last.
    pub tile_rows: u64,
    /// Wire codec of the nibble plane.
    pub codec: Codec,
    /// Raw bits of a level.
    pub raw_bits: u32,
    /// Centre of the levels.
    pub center: i32,
    /// From level to weight, unless there is a `pattern`.
    pub values: Values,
    /// Set if levels stand for the bit patterns of floats; `values` is then [`Values::ONE`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pattern: Option<Pattern>,
}

/// Wire codec of the nibble plane.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// The `nibble` codec of `rans-core` with this many lanes, a nibble a symbol.
    Nibble(u32),
    /// The `byte` codec of `rans-core`, the nibbles of two neighbouring rows in a symbol.
    BytePairs,
}

/// From level q to weight: `w = step * (s * (q + bias) + m) + offset`, in that order, in f32.
///
/// s and m are 1 and 0, or come from `scales`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Values {
    /// Factor of everything; an f32 value written as the f64 that equals it.
    pub step: f64,
    /// 0; 0.5 where levels lie between the multiples of the step; -8 for codes around 8.
    pub bias: f64,
    /// Added at the end; an f32 value.
    pub offset: f64,
    /// Where s and m come from.
    pub scales: Scales,
}

impl Values {
    /// Weights are levels.
    pub const ONE: Self = Self { step: 1.0, bias: 0.0, offset: 0.0, scales: Scales::None };
}

/// Where scales come from. Their bytes are the planes of the side data, in the order given here.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Scales {
    /// s = 1, m = 0. No side data.
    None,
    /// s = row\[r\] * column\[c\], each `2^((byte - 128) / 8)` or 1 where absent. A plane of bytes for each present.
    RowColumn {
        /// One byte a row.
        row: bool,
        /// One byte a column.
        column: bool,
    },
    /// s is the binary16 of the weight's group of `size` columns in a row (the last group of a row may be
    /// shorter), m is 0 or a second binary16. Planes: high bytes of all s, low bytes of all s, then of all m.
    Group {
        /// Columns of a group.
        size: u64,
        /// Whether there is an m.
        min: bool,
    },
}

impl Coded {
    /// The split of the levels.
    pub fn split(&self) -> Split {
        Split { raw_bits: self.raw_bits, center: self.center }
    }

    /// The version of the format that this tensor needs.
    pub fn version(&self) -> u32 {
        if self.pattern.is_some() || self.raw_bits > MAX_RAW_BITS_V1 { 2 } else { 1 }
    }

    /// Number of weights.
    pub fn weights(&self) -> u64 {
        self.rows * self.cols
    }

    /// Number of tiles.
    pub fn tiles(&self) -> u64 {
        self.rows.div_ceil(self.tile_rows)
    }

    /// Rows of a tile: `tile_rows`, or what is left for the last.
    pub fn rows_of_tile(&self, tile: u64) -> u64 {
        self.tile_rows.min(self.rows - tile * self.tile_rows)
    }

    /// Rows of a tile, as a range in the matrix.
    pub fn tile_range(&self, tile: usize) -> Range<usize> {
        let first = tile * self.tile_rows as usize;
        first..first + self.rows_of_tile(tile as u64) as usize
    }

    /// Groups in a row, and binary16 numbers a group; zeros without group scales.
    pub fn groups(&self) -> (u64, u64) {
        match self.values.scales {
            Scales::Group { size, min } => (self.cols.div_ceil(size), 1 + u64::from(min)),
            _ => (0, 0),
        }
    }

    /// Lengths of the planes of the side data.
    pub fn side_planes(&self) -> Vec<usize> {
        let lengths = match self.values.scales {
            Scales::None => vec![],
            Scales::RowColumn { row, column } => {
                [(row, self.rows), (column, self.cols)].iter().filter(|p| p.0).map(|p| p.1).collect()
            }
            Scales::Group { .. } => {
                let (groups, params) = self.groups();
                vec![groups * self.rows; 2 * params as usize]
            }
        };
        lengths.into_iter().map(|n| n as usize).collect()
    }

    /// Checks every field against its range, and against the shape of the tensor.
    pub fn check(&self, shape: &[u64]) -> Result<(), String> {
        let (rows, cols) = matrix(shape).ok_or("the shape's product overflows")?;
        if (self.rows, self.cols) != (rows, cols) || rows == 0 || cols == 0 {
            return Err(format!("a matrix of {} x {} for the shape {shape:?}", self.rows, self.cols));
        }
        if self.tile_rows == 0 || self.tile_rows > rows {
            return Err(format!("tiles of {} rows in a matrix of {rows} rows", self.tile_rows));
        }
        if self.tile_rows.checked_mul(cols).is_none_or(|n| n > MAX_TILE_WEIGHTS) {
            return Err(format!("tiles of {} x {cols} weights, at most {MAX_TILE_WEIGHTS}", self.tile_rows));
        }
        if let Codec::Nibble(lanes) = self.codec {
            rans_core::nibble::Strips::flat(lanes as usize, 0).map_err(|e| e.to_string())?;
        }
        if self.raw_bits > MAX_RAW_BITS || self.center.unsigned_abs() > MAX_CENTER as u32 {
            return Err(format!("{} raw bits around {}", self.raw_bits, self.center));
        }
        let v = &self.values;
        if [v.step, v.bias, v.offset].iter().any(|&x| !x.is_finite() || f64::from(x as f32) != x) {
            return Err("step, bias or offset is not a finite f32".into());
        }
        if let Some(pattern) = self.pattern {
            pattern.check(self.split())?;
            if *v != Values::ONE {
                return Err("values beside a pattern".into());
            }
        }
        match v.scales {
            Scales::Group { size, .. } if size == 0 || size > cols => {
                Err(format!("groups of {size} columns in rows of {cols}"))
            }
            Scales::RowColumn { row: false, column: false } => Err("neither row nor column scales".into()),
            _ => Ok(()),
        }
    }
}

/// Rows and columns of a tensor: all dimensions but the last, and the last; 1 x 1 for 0-d. `None` on overflow.
pub fn matrix(shape: &[u64]) -> Option<(u64, u64)> {
    let (&cols, outer) = shape.split_last().unwrap_or((&1, &[]));
    let rows = outer.iter().try_fold(1u64, |a, &d| a.checked_mul(d))?;
    rows.checked_mul(cols)?;
    Some((rows, cols))
}

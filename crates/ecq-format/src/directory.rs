//! What the header of a `.ecq` file says: one JSON document under `__metadata__["ecq"]`.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::levels::{MAX_CENTER, MAX_RAW_BITS, MAX_RAW_BITS_V1, Split};
use crate::pattern::Pattern;
use crate::predict::Predictor;
pub use crate::scales::{Codebook, Min, NumberFormat, Scales, Values};

/// Most weights in a tile. Bounds what a reader must allocate for one.
pub const MAX_TILE_WEIGHTS: u64 = 1 << 24;
/// Most bytes of planes that one byte of side data may stand for. Bounds what a reader must allocate for them.
pub const MAX_PARAMS_PER_BYTE: u64 = 4096;

/// Most rows of a band of pairs: a lane's code for a block of 32 columns, which a kernel holds in registers.
pub const MAX_BAND: u32 = 64;

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
    /// Set if its bytes are side data of another tensor, in another form; then it is not coded and has no entry.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub part: Option<Part>,
    /// CRC-32 of the plain entry, of a part's bytes in the source, or of index, tables and side data of a coded tensor, in
    /// that order.
    pub crc: u32,
}

/// Where the bytes of a tensor are that a source stores beside the codes of another: scales, zero points.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Name of the coded tensor.
    pub of: String,
    /// Which of the parts that its scheme has.
    pub index: u32,
}

impl TensorRecord {
    /// The version of the format that this record needs.
    pub fn version(&self) -> u32 {
        self.coded.as_ref().map_or(if self.part.is_some() { 3 } else { 1 }, Coded::version)
    }
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
    /// Set if what is coded are the differences of levels of 8 bits from a prediction.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub predictor: Option<Predictor>,
}

/// Wire codec of the nibble plane.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(try_from = "CodecName", into = "CodecName")]
pub enum Codec {
    /// The `nibble` codec of `rans-core` with this many lanes, a nibble a symbol.
    Nibble(u32),
    /// The nibbles of two neighbouring rows in a symbol.
    Pairs(Pairs),
}

/// How pairs of nibbles are coded.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Pairs {
    /// The coder.
    pub code: PairCode,
    /// Rows that a stream codes side by side, all columns of them before the next ones: even, at most [`MAX_BAND`].
    pub band: u32,
    /// Columns of a stream: a multiple of 32, or all there are.
    pub strip: u64,
}

/// The coder of pairs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PairCode {
    /// The code of `prefix-core`.
    Prefix,
    /// The `byte` codec of `rans-core`.
    Rans,
}

impl Pairs {
    /// All rows of a tile in a band, all columns in a strip: the one form that versions 1 to 3 have, `byte_pairs`.
    pub const WHOLE: Self = Self { code: PairCode::Rans, band: u32::MAX - 1, strip: u64::MAX };

    /// The same for tiles of this size, in the oldest form that says it.
    #[must_use]
    pub fn oldest(self, tile_rows: u64, cols: u64) -> Self {
        let whole = u64::from(self.band) >= tile_rows && self.strip >= cols;
        if whole && self.code == PairCode::Rans { Self::WHOLE } else { self }
    }

    fn check(self, cols: u64) -> Result<(), String> {
        let Self { band, strip, .. } = self;
        if self == Self::WHOLE {
            return Ok(());
        }
        if !band.is_multiple_of(2) || !(2..=MAX_BAND).contains(&band) {
            return Err(format!("bands of {band} rows, expected an even number from 2 to {MAX_BAND}"));
        }
        if strip == 0 || (!strip.is_multiple_of(32) && strip < cols) {
            return Err(format!("strips of {strip} columns, expected a multiple of 32 or all {cols}"));
        }
        Ok(())
    }
}

/// What the directory calls a codec.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CodecName {
    Nibble(u32),
    BytePairs,
    Pairs(Pairs),
}

impl From<Codec> for CodecName {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::Nibble(lanes) => Self::Nibble(lanes),
            Codec::Pairs(Pairs::WHOLE) => Self::BytePairs,
            Codec::Pairs(pairs) => Self::Pairs(pairs),
        }
    }
}

impl TryFrom<CodecName> for Codec {
    type Error = String;

    fn try_from(name: CodecName) -> Result<Self, String> {
        match name {
            CodecName::Nibble(lanes) => Ok(Self::Nibble(lanes)),
            CodecName::BytePairs => Ok(Self::Pairs(Pairs::WHOLE)),
            // the numbers of `byte_pairs` are no numbers that a file may say
            CodecName::Pairs(Pairs::WHOLE) => Err("pairs without bands, expected `byte_pairs`".into()),
            CodecName::Pairs(pairs) => Ok(Self::Pairs(pairs)),
        }
    }
}

impl Coded {
    /// The split of the levels.
    pub fn split(&self) -> Split {
        Split { raw_bits: self.raw_bits, center: self.center }
    }

    /// The version of the format that this tensor needs.
    pub fn version(&self) -> u32 {
        let floats = self.pattern.is_some() || self.raw_bits > MAX_RAW_BITS_V1;
        let own = if self.predictor.is_some() { 3 } else { 1 + u32::from(floats) };
        let codec = match self.codec {
            Codec::Nibble(_) | Codec::Pairs(Pairs::WHOLE) => 1,
            Codec::Pairs(_) => 4,
        };
        own.max(self.values.version()).max(codec)
    }

    /// Number of weights.
    pub fn weights(&self) -> u64 {
        self.rows * self.cols
    }

    /// Number of tiles.
    pub fn tiles(&self) -> u64 {
        self.rows.div_ceil(self.tile_rows)
    }

    /// Strips of columns of a tile, each with a stream of its own.
    pub fn strips(&self) -> u64 {
        match self.codec {
            Codec::Nibble(_) => 1,
            Codec::Pairs(pairs) => self.cols.div_ceil(pairs.strip.max(1)),
        }
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
        match self.codec {
            Codec::Nibble(lanes) => {
                rans_core::nibble::Strips::flat(lanes as usize, 0).map_err(|e| e.to_string())?;
            }
            Codec::Pairs(pairs) => pairs.check(cols)?,
        }
        if self.raw_bits > MAX_RAW_BITS || self.center.unsigned_abs() > MAX_CENTER as u32 {
            return Err(format!("{} raw bits around {}", self.raw_bits, self.center));
        }
        self.values.check(self.split(), cols)?;
        if let Some(pattern) = self.pattern {
            pattern.check(self.split())?;
            if self.values != Values::ONE {
                return Err("values beside a pattern".into());
            }
        }
        if self.predictor.is_some() && self.pattern.is_some() {
            return Err("a predictor beside a pattern".into());
        }
        Ok(())
    }
}

/// Rows and columns of a tensor: all dimensions but the last, and the last; 1 x 1 for 0-d. `None` on overflow.
pub fn matrix(shape: &[u64]) -> Option<(u64, u64)> {
    let (&cols, outer) = shape.split_last().unwrap_or((&1, &[]));
    let rows = outer.iter().try_fold(1u64, |a, &d| a.checked_mul(d))?;
    rows.checked_mul(cols)?;
    Some((rows, cols))
}

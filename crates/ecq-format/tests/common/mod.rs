//! A small model for tests: what goes into a file, and everything that a reader gets out of it.
#![allow(dead_code)] // each test binary uses its part

pub mod forge;
pub mod sources;

use std::ops::{Range, RangeInclusive};
use std::path::Path;

use ecq_format::directory::{self, Codec, Directory, Extent, Pairs, Role, Scales, SourceFile, Values};
use ecq_format::encode::{Encoder, Input, Levels, Profile, histogram, layout};
use ecq_format::levels::Split;
use ecq_format::pattern::{self, FloatFormat, Pattern};
use ecq_format::plan::Plan;
use ecq_format::predict::{Differences, Predictor};
use ecq_format::reader::Tensor;
use ecq_format::side::Side;
use ecq_format::writer::TensorHead;
use ecq_format::{Dtype, Limits, Reader, Result, Writer};
use rans_core::nibble::Frequencies;

/// Name of the one source file.
pub const SOURCE: &str = "model.gguf";
/// What the source file has besides tensors.
pub const VERBATIM: &[u8] = b"GGUF, its keys and its tensor infos";

/// Numbers that look random and are the same on every machine.
pub struct Draw(pub u64);

impl Draw {
    /// 32 bits.
    pub fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 32) as u32
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.bits()) * u64::from(n)) >> 32) as u32
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.bits() as u8).collect()
    }
}

/// Levels in memory.
#[derive(Clone, Debug)]
pub struct Matrix {
    pub rows: usize,
    pub cols: usize,
    pub levels: Vec<i32>,
}

impl Matrix {
    pub fn new(rows: usize, cols: usize, mut level: impl FnMut() -> i32) -> Self {
        Self { rows, cols, levels: (0..rows * cols).map(|_| level()).collect() }
    }
}

impl Levels for Matrix {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        out.copy_from_slice(&self.levels[rows.start * self.cols..rows.end * self.cols]);
    }
}

/// A tensor to be coded.
#[derive(Clone, Debug)]
pub struct Coded {
    pub name: String,
    pub shape: Vec<u64>,
    pub matrix: Matrix,
    pub profile: Profile,
    pub center: i32,
    pub raw_bits: RangeInclusive<u32>,
    pub values: Values,
    pub planes: Vec<Vec<u8>>,
    pub predictor: Option<Predictor>,
}

/// A tensor that is side data of another.
#[derive(Clone, Debug)]
pub struct Piece {
    pub name: String,
    pub shape: Vec<u64>,
    pub part: directory::Part,
    pub bytes: Vec<u8>,
}

/// A tensor to be stored as it is.
#[derive(Clone, Debug)]
pub struct Plain {
    pub name: String,
    pub shape: Vec<u64>,
    pub dtype: String,
    pub stored: Option<Dtype>,
    pub bytes: Vec<u8>,
}

/// Floats to be coded without loss.
#[derive(Clone, Debug)]
pub struct Floats {
    pub name: String,
    pub shape: Vec<u64>,
    pub format: FloatFormat,
    pub profile: Profile,
    pub bytes: Vec<u8>,
}

impl Floats {
    /// The type's name in safetensors.
    pub fn dtype(&self) -> &'static str {
        match self.format {
            FloatFormat::Bf16 => "BF16",
            FloatFormat::F16 => "F16",
            FloatFormat::F8E4M3 => "F8_E4M3",
            FloatFormat::F8E5M2 => "F8_E5M2",
        }
    }
}

/// What goes into a file.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub coded: Vec<Coded>,
    pub floats: Vec<Floats>,
    pub plain: Vec<Plain>,
    pub pieces: Vec<Piece>,
    pub blobs: Vec<(String, Vec<u8>)>,
    /// Codec and most rows of a tile for tensors of profile `Gpu`, instead of those of the profile.
    pub pairs: Option<(Pairs, u64)>,
    /// Lanes and most rows of a tile for tensors of profile `Cpu`, likewise.
    pub lanes: Option<(u32, u64)>,
}

pub fn values(scales: Scales) -> Values {
    Values { step: 0.0625, bias: 0.5, scales, ..Values::ONE }
}

impl Model {
    /// A tensor "w" of floats, to be coded without loss.
    pub fn of_floats(
        format: FloatFormat,
        (rows, cols): (usize, usize),
        profile: Profile,
        bytes: Vec<u8>,
    ) -> Self {
        let shape = vec![rows as u64, cols as u64];
        let floats = Floats { name: "w".into(), shape, format, profile, bytes };
        Self { floats: vec![floats], ..Self::default() }
    }

    /// Codec and rows of a tile.
    fn layout(&self, rows: u64, cols: u64, profile: Profile) -> (Codec, u64) {
        match (profile, self.pairs, self.lanes) {
            (Profile::Gpu, Some((pairs, tile_rows)), _) => (Codec::Pairs(pairs), tile_rows.min(rows)),
            (Profile::Cpu, _, Some((lanes, tile_rows))) => (Codec::Nibble(lanes), tile_rows.min(rows)),
            _ => layout(rows, cols, profile),
        }
    }

    /// Whether some tensors are in other layouts than those of their profiles.
    fn laid_out(&self) -> bool {
        self.pairs.is_some() || self.lanes.is_some()
    }

    /// Writes everything; the source holds the tensors one after another and then [`VERBATIM`].
    pub fn write(&self, path: &Path, overwrite: bool, header: u64) -> Result<u64> {
        let mut writer = Writer::create(path, overwrite, header)?;
        let mut offset = 0;
        for t in &self.coded {
            let source = Extent { file: 0, offset, len: 2 * t.matrix.levels.len() as u64 };
            offset += source.len;
            let head = TensorHead { name: &t.name, shape: &t.shape, dtype: "BF16", source };
            let (rows, cols) = (t.matrix.rows, t.matrix.cols);
            let layout = self.layout(rows as u64, cols as u64, t.profile);
            let tile_rows = layout.1 as usize;
            let differences =
                t.predictor.map(|predictor| Differences { levels: &t.matrix, tile_rows, cols, predictor });
            let levels = differences.as_ref().map_or(&t.matrix as &dyn Levels, |d| d);
            let counts = histogram(levels, rows, cols, t.center);
            let plan = match *t.raw_bits.start() {
                // plans go no further: a level for every nibble
                raw_bits @ 9.. => {
                    let split = Split { raw_bits, center: t.center };
                    let freqs = Frequencies::new([16; 16]).unwrap();
                    Plan { freqs, ..Plan::for_split(&counts, split).unwrap() }
                }
                // a codebook begins at its centre, wherever most of the levels are
                _ if t.values.codebook.is_some() => {
                    Plan::for_split(&counts, Split { raw_bits: 0, center: t.center }).unwrap()
                }
                _ => Plan::cheapest(&counts, t.raw_bits.clone()).unwrap(),
            };
            let encoder = if self.laid_out() {
                let levels = Input::Levels(levels);
                Encoder::with_layout("ecq", &t.shape, t.values, layout, &plan, levels)
            } else {
                Encoder::new("ecq", &t.shape, t.values, t.profile, &plan, levels)
            };
            let encoder = encoder.unwrap();
            writer.coded(head, &encoder.predicted(t.predictor), &Side::new(&t.planes), |_| true)?;
        }
        for t in &self.floats {
            let source = Extent { file: 0, offset, len: t.bytes.len() as u64 };
            offset += source.len;
            let head = TensorHead { name: &t.name, shape: &t.shape, dtype: t.dtype(), source };
            let cols = *t.shape.last().unwrap() as usize;
            let (pattern, plan) = pattern::plan(t.format, &t.bytes, cols).unwrap();
            let encoder = if self.laid_out() {
                let rows = t.shape.iter().product::<u64>() / cols as u64;
                let layout = self.layout(rows, cols as u64, t.profile);
                let floats = Input::Floats(pattern, &t.bytes);
                Encoder::with_layout("lossless", &t.shape, Values::ONE, layout, &plan, floats)
            } else {
                Encoder::floats("lossless", &t.shape, t.profile, &plan, pattern, &t.bytes)
            };
            let encoder = encoder.unwrap();
            writer.coded(head, &encoder, &Side::new(&[]), |_| true)?;
        }
        for t in &self.plain {
            let source = Extent { file: 0, offset, len: t.bytes.len() as u64 };
            offset += source.len;
            let head = TensorHead { name: &t.name, shape: &t.shape, dtype: &t.dtype, source };
            writer.plain(head, t.stored, &t.bytes)?;
        }
        for t in &self.pieces {
            let source = Extent { file: 0, offset, len: t.bytes.len() as u64 };
            offset += source.len;
            let head = TensorHead { name: &t.name, shape: &t.shape, dtype: "U8", source };
            writer.part(head, t.part.clone(), crc32fast::hash(&t.bytes))?;
        }
        for (name, bytes) in &self.blobs {
            writer.blob(name, Role::Companion, bytes)?;
        }
        let verbatim = writer.blob(SOURCE, Role::Verbatim, VERBATIM)?;
        let size = offset + VERBATIM.len() as u64;
        let source =
            SourceFile { name: SOURCE.into(), format: "gguf".into(), size, sha256: "0".repeat(64), verbatim };
        writer.finish(vec![source], false)
    }
}

/// Everything that a file says.
#[derive(Debug, PartialEq)]
pub struct Contents {
    pub directory: Directory,
    pub tensors: Vec<Part>,
    pub blobs: Vec<Vec<u8>>,
}

/// What a tensor of a file holds.
#[derive(Debug, PartialEq)]
pub enum Part {
    Plain(Vec<u8>),
    Coded { levels: Vec<i32>, planes: Vec<Vec<u8>> },
    Floats { pattern: Pattern, levels: Vec<i32>, bytes: Vec<u8> },
    Of(directory::Part),
}

/// Reads all there is, so that every checksum is looked at.
pub fn read(path: &Path) -> Result<Contents> {
    let reader = Reader::open(path, Limits::default())?;
    let mut contents =
        Contents { directory: reader.directory().clone(), tensors: Vec::new(), blobs: Vec::new() };
    for record in &reader.directory().tensors {
        contents.tensors.push(match reader.load(record)? {
            Tensor::Plain(bytes) => Part::Plain(bytes.to_vec()),
            Tensor::Part(part) => Part::Of(part.clone()),
            Tensor::Coded(tensor) => {
                let (mut levels, mut tile) = (Vec::new(), Vec::new());
                let (mut bytes, mut floats) = (Vec::new(), Vec::new());
                for i in 0..tensor.tiles() {
                    tensor.levels(i, &mut tile)?;
                    levels.extend(&tile);
                    if tensor.coded().pattern.is_some() {
                        tensor.floats(i, &mut bytes)?;
                        floats.extend(&bytes);
                    }
                }
                match tensor.coded().pattern {
                    Some(pattern) => Part::Floats { pattern, levels, bytes: floats },
                    None => Part::Coded { levels, planes: tensor.side()? },
                }
            }
        });
    }
    for i in 0..reader.directory().blobs.len() {
        contents.blobs.push(reader.blob(i)?);
    }
    Ok(contents)
}

/// Bytes of floats: wild ones are any bits, others lie around 0 with some zeros, infinities and the like.
pub fn floats(format: FloatFormat, count: usize, wild: bool, draw: &mut Draw) -> Vec<u8> {
    let exponents = 1u32 << (format.bits() - 1 - format.mantissa());
    let weight = |draw: &mut Draw| {
        let exponent = match draw.below(500) {
            0 => 0,
            1 => exponents - 1,
            _ => exponents * 2 / 3 - draw.bits().leading_zeros().min(exponents / 2),
        };
        let bits = exponent << format.mantissa() | draw.below(1 << format.mantissa());
        bits | draw.below(2) << (format.bits() - 1)
    };
    let mut bytes = Vec::new();
    for _ in 0..count {
        let bits = if wild { draw.bits() } else { weight(draw) };
        bytes.extend(&bits.to_le_bytes()[..format.bytes()]);
    }
    bytes
}

/// A file of a few kilobytes that has one of everything.
pub fn one_of_everything() -> Model {
    let mut draw = Draw(7);
    let small = Matrix::new(3, 33, || [-1, 0, 0, 1][draw.below(4) as usize]);
    let mut tall = Matrix::new(5, 40, || draw.below(24) as i32 - 12);
    tall.levels[77] = 1 << 30;
    let scale: Vec<u8> = (0..10).map(|_| 0x2c + draw.below(3) as u8).collect();
    let low = draw.bytes(10);
    let tensor = |name: &str, matrix: Matrix, profile, raw_bits, values, planes| Coded {
        name: name.into(),
        shape: vec![matrix.rows as u64, matrix.cols as u64],
        matrix,
        profile,
        center: 0,
        raw_bits,
        values,
        planes,
        predictor: None,
    };
    let row_scales = Scales::RowColumn { row: true, column: false };
    let plain = |name: &str, dtype: &str, stored, shape: &[u64], bytes: &[u8]| Plain {
        name: name.into(),
        shape: shape.into(),
        dtype: dtype.into(),
        stored,
        bytes: bytes.into(),
    };
    Model {
        coded: vec![
            tensor(
                "n",
                tall,
                Profile::Cpu,
                1..=8,
                values(Scales::Group { size: 32, min: false }),
                vec![scale, low],
            ),
            tensor("b", small, Profile::Gpu, 0..=0, values(row_scales), vec![vec![128, 131, 120]]),
        ],
        plain: vec![
            plain("norm", "F32", Some(Dtype::F32), &[3], &[0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64]),
            plain("odd", "Q6_K", None, &[256], &draw.bytes(21)),
        ],
        floats: vec![],
        pieces: vec![],
        blobs: vec![("config.json".into(), b"[1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024]".into())],
        pairs: Some((Pairs::WHOLE, 64)),
        lanes: None,
    }
}

//! What is inside a `.ecq` file, from its header and tables alone: no tile is decoded.

use ecq_format::Reader;
use ecq_format::directory::{Codec, PairCode, Pairs, Role, TensorRecord};
use ecq_format::plan::entropy;
use ecq_format::reader::Tensor;
use ecq_format::tile::Frequencies;
use serde::Serialize;

use crate::Result;

/// A whole file.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Format version.
    pub version: u32,
    /// Program that wrote it.
    pub writer: String,
    /// Whether the source comes back byte for byte.
    pub lossless: bool,
    /// Source files.
    pub sources: Vec<SourceInfo>,
    /// Companion files.
    pub companions: Vec<String>,
    /// Tensors in source order.
    pub tensors: Vec<TensorInfo>,
    /// Sums.
    pub totals: Totals,
}

/// A source file.
#[derive(Clone, Debug, Serialize)]
pub struct SourceInfo {
    /// Name.
    pub name: String,
    /// Format.
    pub format: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256.
    pub sha256: String,
}

/// A tensor.
#[derive(Clone, Debug, Serialize)]
pub struct TensorInfo {
    /// Name.
    pub name: String,
    /// Shape, outermost first.
    pub shape: Vec<u64>,
    /// Type in the source.
    pub dtype: String,
    /// Quantization scheme; "plain" if stored as it was, "part" if stored with another tensor.
    pub scheme: String,
    /// Wire codec; "-" if stored as it was.
    pub codec: String,
    /// Raw bits a weight.
    pub raw_bits: u32,
    /// Number of weights.
    pub weights: u64,
    /// Bytes in the source.
    pub source_bytes: u64,
    /// Bytes in the file, all parts and filling.
    pub stored_bytes: u64,
    /// Bits a weight in the file.
    pub bits: f64,
    /// Entropy of the coding table plus raw bits, in bits a weight: what the levels cost without scales and tiles. `verify`
    /// measures the entropy of the data themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_entropy: Option<f64>,
    /// The tensor that it is part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part_of: Option<String>,
    /// Bytes by part.
    pub parts: Vec<(&'static str, u64)>,
    /// Number of tiles.
    pub tiles: u64,
}

/// Sums over a file.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the sources and companions.
    pub source_bytes: u64,
    /// Bytes of header: directory, names, filling.
    pub header_bytes: u64,
    /// Bytes of all tensors in the file.
    pub tensor_bytes: u64,
    /// Bytes of all tensors in the source.
    pub source_tensor_bytes: u64,
    /// Bytes of companions and metadata in the file.
    pub blob_bytes: u64,
    /// Weights of coded tensors.
    pub coded_weights: u64,
    /// Bytes of coded tensors.
    pub coded_bytes: u64,
    /// Bits a weight over the coded tensors.
    pub coded_bits: f64,
}

/// Reads what there is to know without decoding. Errors: a damaged index or table.
pub fn inspect(reader: &Reader) -> Result<Inspection> {
    let directory = reader.directory();
    let tensors = directory.tensors.iter().map(|t| tensor(reader, t)).collect::<Result<Vec<_>>>()?;
    let coded: Vec<_> = tensors.iter().filter(|t| t.table_entropy.is_some()).collect();
    let companions = directory.blobs.iter().filter(|b| b.role == Role::Companion);
    let mut totals = Totals {
        file_bytes: reader.file_size(),
        source_bytes: sum(directory.sources.iter().map(|s| s.size).chain(companions.clone().map(|b| b.size))),
        header_bytes: reader.header_size(),
        tensor_bytes: sum(tensors.iter().map(|t| t.stored_bytes)),
        source_tensor_bytes: sum(tensors.iter().map(|t| t.source_bytes)),
        coded_weights: sum(coded.iter().map(|t| t.weights)),
        coded_bytes: sum(coded.iter().map(|t| t.stored_bytes)),
        ..Totals::default()
    };
    totals.blob_bytes =
        totals.file_bytes.saturating_sub(totals.header_bytes.saturating_add(totals.tensor_bytes));
    totals.coded_bits = bits(totals.coded_bytes, totals.coded_weights);
    let sources = directory.sources.iter().map(|s| SourceInfo {
        name: s.name.clone(),
        format: s.format.clone(),
        bytes: s.size,
        sha256: s.sha256.clone(),
    });
    Ok(Inspection {
        version: directory.version,
        writer: directory.writer.clone(),
        lossless: directory.lossless,
        sources: sources.collect(),
        companions: companions.map(|b| b.name.clone()).collect(),
        tensors,
        totals,
    })
}

/// Of numbers that a file claims, so there may be no such sum.
pub(crate) fn sum(all: impl Iterator<Item = u64>) -> u64 {
    all.fold(0, u64::saturating_add)
}

/// Bits a weight; 0 for no weights.
pub(crate) fn bits(bytes: u64, weights: u64) -> f64 {
    if weights == 0 { 0.0 } else { 8.0 * bytes as f64 / weights as f64 }
}

fn tensor(reader: &Reader, record: &TensorRecord) -> Result<TensorInfo> {
    let stored_bytes = reader.stored_bytes(record);
    let mut info = TensorInfo {
        name: record.name.clone(),
        shape: record.shape.clone(),
        dtype: record.dtype.clone(),
        scheme: if record.part.is_some() { "part" } else { "plain" }.into(),
        codec: "-".into(),
        raw_bits: 0,
        weights: record.shape.iter().fold(1, |a: u64, &d| a.saturating_mul(d)),
        source_bytes: record.source.len,
        stored_bytes,
        bits: 0.0,
        table_entropy: None,
        part_of: record.part.as_ref().map(|part| part.of.clone()),
        parts: reader.stored_parts(record),
        tiles: 0,
    };
    info.bits = bits(stored_bytes, info.weights);
    if let Some(coded) = &record.coded
        && let Tensor::Coded(tensor) = reader.load(record)?
    {
        info.scheme = coded.scheme.clone();
        info.codec = match coded.codec {
            Codec::Nibble(lanes) => format!("nibble x{lanes}"),
            Codec::Pairs(pairs) => match pairs.code {
                _ if pairs == Pairs::WHOLE => "byte pairs".into(),
                PairCode::Rans => "pairs rans".into(),
                PairCode::Prefix => "prefix".into(),
            },
        };
        info.raw_bits = coded.raw_bits;
        info.tiles = coded.tiles();
        let of = |f: &[u16]| entropy(f.iter().map(|&f| u64::from(f)));
        let nibble = match tensor.frequencies() {
            Frequencies::Nibble(f) => of(f.as_array()),
            Frequencies::Pairs(f) => of(f.as_array()) / 2.0,
            Frequencies::Prefix(lengths) => {
                // a code of n bits is the best one for a frequency of 2^-n
                let frequency = |s| lengths.get(s).map_or(0, |bits| 1u64 << (prefix_core::MAX_BITS - bits));
                entropy((0..=255).map(frequency)) / 2.0
            }
        };
        info.table_entropy = Some(nibble + f64::from(coded.raw_bits));
    }
    Ok(info)
}

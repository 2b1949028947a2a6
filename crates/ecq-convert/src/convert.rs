//! Source to `.ecq`.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use ecq_format::directory::{Extent, Role, SourceFile};
use ecq_format::encode::{Encoder, Profile};
use ecq_format::side::Side;
use ecq_format::writer::{TensorHead, Writer};
use ecq_format::{Dtype, pattern};
use ecq_quant::Scheme;
use ecq_quant::quantize::Quantized;
use ecq_quant::weights::Weights;
use sha2::{Digest, Sha256};

use crate::progress::step;
use crate::source::{self, FileFormat, Source, SourceLimits, SourceTensor, SourceType};
use crate::tensors::{BlockTensor, SourceMatrix};
use crate::{Error, Progress, Result};

/// Most bytes of a source file that belong to no tensor; what a reader unpacks by default.
const MOST_ELSE: u64 = 1 << 30;

/// Scheme of floats that are coded without loss.
const FLOATS: &str = "lossless";

/// Fewest weights of a tensor that is coded in pairs.
const SMALLEST_PAIRED: usize = 8192;

/// What is done with the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Treatment {
    /// Nothing is lost: the source files can be restored byte for byte.
    Lossless,
    /// Weights are quantized.
    Lossy(Scheme),
}

/// How to convert.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What is done with the weights.
    pub treatment: Treatment,
    /// What the result shall be decoded on.
    pub profile: Profile,
    /// Whether an existing output is replaced.
    pub overwrite: bool,
}

/// Converts a model. Returns the length of the file written.
///
/// Tensors that do not gain are stored as they are; `Reader` tells which. Memory holds a batch of tiles and the scales of
/// one tensor. The output stands under its name only when it is complete.
///
/// Errors: all of [`Error`] that concern sources and writing.
pub fn convert(input: &Path, output: &Path, options: &Options, progress: &dyn Progress) -> Result<u64> {
    let source = Source::open(input, &SourceLimits::default())?;
    convert_source(&source, output, options, progress)
}

/// [`convert`](fn@convert) for a source that is open.
pub fn convert_source(
    source: &Source,
    output: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<u64> {
    refuse_input(source, output)?;
    let total = source.tensors().iter().map(|t| t.len).sum();
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    let header = source.tensors().iter().map(|t| 8 * t.name.len() as u64 + 1200).sum::<u64>() + 4096;
    let mut writer = Writer::create(output, options.overwrite, header)?;
    progress.begin(&format!("converting to {name}"), total);
    let sources = std::thread::scope(|scope| {
        // SHA-256 takes about as long as coding; it has nothing to wait for
        let sums = scope.spawn(|| source.files().iter().map(|f| sha256(f, progress)).collect::<Vec<_>>());
        tensors(source, &mut writer, options, progress)?;
        blobs(source, &mut writer, sums)
    })?;
    if progress.cancelled() {
        return Err(Error::Cancelled);
    }
    Ok(writer.finish(sources, options.treatment == Treatment::Lossless)?)
}

/// An input that is memory-mapped must not be replaced. Error: [`Error::OntoInput`] if `output` is a file of the source.
pub fn refuse_input(source: &Source, output: &Path) -> Result<()> {
    let Ok(real) = output.canonicalize() else { return Ok(()) };
    let paths = source.files().iter().map(|f| &f.path).chain(source.companions().iter().map(|c| &c.path));
    match paths.into_iter().find(|p| p.canonicalize().is_ok_and(|p| p == real)) {
        Some(_) => Err(Error::OntoInput(output.into())),
        None => Ok(()),
    }
}

/// Codes all tensors that gain; then stores the others, wide types first, so that all are aligned.
fn tensors(source: &Source, writer: &mut Writer, options: &Options, progress: &dyn Progress) -> Result<()> {
    let mut plain = Vec::new();
    for tensor in source.tensors() {
        if !code(source, tensor, writer, options, progress)? {
            plain.push((tensor, plain_type(tensor)));
        }
        step(progress, 0)?;
    }
    plain.sort_by_key(|(_, dtype)| std::cmp::Reverse(dtype.map_or(8, |d| d.bitsize())));
    for (tensor, dtype) in plain {
        writer.plain(head(tensor), dtype, source.data(tensor))?;
        source.files()[tensor.file].used(tensor.len);
        step(progress, tensor.len)?;
    }
    Ok(())
}

fn head(tensor: &SourceTensor) -> TensorHead<'_> {
    let &SourceTensor { file, offset, len, .. } = tensor;
    let source = Extent { file, offset, len };
    TensorHead { name: &tensor.name, shape: &tensor.shape, dtype: tensor.dtype.name(), source }
}

/// Codes a tensor if it can be and gains by it.
fn code(
    source: &Source,
    tensor: &SourceTensor,
    writer: &mut Writer,
    options: &Options,
    progress: &dyn Progress,
) -> Result<bool> {
    let Some(matrix) = SourceMatrix::new(source, tensor) else { return Ok(false) };
    let go_on = |rows| {
        progress.advance(matrix.used(rows));
        !progress.cancelled()
    };
    // the table of a few thousand pairs would take more than the pairs
    let small = matrix.rows() * matrix.cols() < SMALLEST_PAIRED;
    let profile = if small { Profile::Cpu } else { options.profile };
    let quantize = |why| Error::Quantize {
        path: source.files()[tensor.file].path.clone(),
        tensor: tensor.name.clone(),
        why,
    };
    match options.treatment {
        Treatment::Lossless => {
            let unstorable = |why| quantize(ecq_quant::Error::Unstorable(why));
            if let Some(blocks) = BlockTensor::new(&matrix) {
                let (scheme, values, plan) = (blocks.scheme(), blocks.values(), &blocks.plan);
                let encoder = Encoder::new(scheme, &tensor.shape, values, profile, plan, &blocks);
                let encoder = encoder.map_err(unstorable)?;
                return store(tensor, writer, &encoder, plan.bits, &blocks.planes, go_on);
            }
            let planned = matrix.floats().and_then(|(f, b)| Some((pattern::plan(f, b, matrix.cols())?, b)));
            let Some(((pattern, plan), bytes)) = planned else { return Ok(false) };
            let encoder = Encoder::floats(FLOATS, &tensor.shape, profile, &plan, pattern, bytes);
            store(tensor, writer, &encoder.map_err(unstorable)?, plan.bits, &[], go_on)
        }
        Treatment::Lossy(scheme) => {
            let quantized = Quantized::new(scheme, &matrix, profile).map_err(quantize)?;
            let encoder = quantized.encoder(&tensor.shape, profile).map_err(quantize)?;
            store(tensor, writer, &encoder, quantized.plan().bits, quantized.planes(), go_on)
        }
    }
}

/// Writes a coded tensor unless it would take more than the source does.
fn store(
    tensor: &SourceTensor,
    writer: &mut Writer,
    encoder: &Encoder<'_>,
    bits: f64,
    planes: &[Vec<u8>],
    go_on: impl FnMut(Range<usize>) -> bool,
) -> Result<bool> {
    // states, tables, index and directory come on top of the levels
    let side = Side::new(planes);
    let about = bits / 8.0 + side.bytes() as f64 + 256.0;
    if about >= tensor.len as f64 {
        tracing::debug!(tensor = tensor.name, "coding does not make it smaller");
        return Ok(false);
    }
    writer.coded(head(tensor), encoder, &side, go_on)?;
    Ok(true)
}

/// The safetensors type under which a tensor is stored as it is; `None` for bytes.
pub(crate) fn plain_type(tensor: &SourceTensor) -> Option<Dtype> {
    let dtype = match &tensor.dtype {
        SourceType::F32 => Dtype::F32,
        SourceType::F16 => Dtype::F16,
        SourceType::BF16 => Dtype::BF16,
        SourceType::F8E4M3 => Dtype::F8_E4M3,
        SourceType::F8E5M2 => Dtype::F8_E5M2,
        SourceType::Other(other) => {
            serde_json::from_value(serde_json::Value::String(other.name.to_string())).ok()?
        }
        _ => return None,
    };
    let weights = tensor.shape.iter().try_fold(1u64, |a, &d| a.checked_mul(d))?;
    (weights.checked_mul(dtype.bitsize() as u64)? == tensor.len.checked_mul(8)?).then_some(dtype)
}

/// Stores companions and the verbatim parts of the sources; returns what the directory says of the sources.
fn blobs(
    source: &Source,
    writer: &mut Writer,
    sums: std::thread::ScopedJoinHandle<'_, Vec<String>>,
) -> Result<Vec<SourceFile>> {
    for companion in source.companions() {
        let bytes = std::fs::read(&companion.path).map_err(Error::io(&companion.path, "read"))?;
        writer.blob(&companion.name, Role::Companion, &bytes)?;
    }
    let mut files = Vec::new();
    for (i, file) in source.files().iter().enumerate() {
        let extents = source.tensors().iter().filter(|t| t.file == i).map(|t| (t.offset, t.len));
        let bytes = file.bytes();
        let gaps: Vec<_> = gaps(extents, bytes.len() as u64).collect();
        let kept = gaps.iter().map(|(_, len)| len).sum::<u64>();
        if kept > MOST_ELSE {
            return Err(Error::TooMuchElse { path: file.path.clone(), bytes: kept, limit: MOST_ELSE });
        }
        let mut verbatim = Vec::with_capacity(kept as usize);
        gaps.iter().for_each(|&(at, len)| verbatim.extend(&bytes[at as usize..(at + len) as usize]));
        let verbatim = writer.blob(&file.name, Role::Verbatim, &verbatim)?;
        let format = match file.format {
            FileFormat::Gguf => "gguf",
            FileFormat::Safetensors => "safetensors",
        };
        let (name, size) = (file.name.clone(), bytes.len() as u64);
        files.push(SourceFile { name, format: format.into(), size, sha256: String::new(), verbatim });
    }
    let sums = sums.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    files.iter_mut().zip(sums).for_each(|(file, sum)| file.sha256 = sum);
    Ok(files)
}

/// (offset, length) of what lies between extents, which must ascend and not overlap, and after them up to `size`.
pub(crate) fn gaps(extents: impl Iterator<Item = (u64, u64)>, size: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = 0;
    extents.chain([(size, 0)]).map(move |(offset, len)| {
        let gap = (at, offset.saturating_sub(at));
        at = offset + len;
        gap
    })
}

/// SHA-256 in hexadecimal; stops early, with a worthless sum, when the work is cancelled.
pub(crate) fn sha256(file: &source::SourceFile, progress: &dyn Progress) -> String {
    let mut hasher = Sha256::new();
    for piece in file.bytes().chunks(1 << 24) {
        if progress.cancelled() {
            break;
        }
        hasher.update(piece);
        file.used(piece.len() as u64);
    }
    hex(&hasher.finalize())
}

pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

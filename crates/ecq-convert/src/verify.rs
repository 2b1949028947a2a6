//! Every checksum, every tile; and the source, if it is there to compare with.

use std::ops::Range;

use ecq_format::Reader;
use ecq_format::directory::TensorRecord;
use ecq_format::plan::entropy;
use ecq_format::reader::{CodedTensor, Tensor};
use ecq_quant::measure::Distortion;
use ecq_quant::values::Dequantizer;
use ecq_quant::weights::Weights;
use serde::Serialize;

use crate::inspect::bits;
use crate::progress::step;
use crate::restore::{Packers, source_file, tiles};
use crate::source::packed::Role;
use crate::source::{Source, SourceTensor};
use crate::tensors::SourceMatrix;
use crate::verbatim::sha256;
use crate::{Error, Progress, Result};

/// What was verified.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// Whether the file is a lossless one, whose sources were rebuilt and have the SHA-256 that they had.
    pub lossless: bool,
    /// SHA-256 of each rebuilt source.
    pub sources: Vec<(String, String)>,
    /// Whether each source file was compared, and is identical to what is rebuilt.
    pub identical: Option<bool>,
    /// Tensors in file order.
    pub tensors: Vec<TensorCheck>,
    /// Pooled over the coded tensors.
    pub total: Option<TensorCheck>,
}

/// A tensor that decodes.
#[derive(Clone, Debug, Serialize)]
pub struct TensorCheck {
    /// Name.
    pub name: String,
    /// Number of weights.
    pub weights: u64,
    /// Scheme; "plain", or "part" of another tensor.
    pub scheme: String,
    /// Bytes in the file.
    pub stored_bytes: u64,
    /// Bits a weight in the file, everything counted.
    pub bits: f64,
    /// Order-0 entropy of all planes (nibbles, raw bits, bytes of side data) in bits a weight. None for plain tensors.
    pub entropy: Option<f64>,
    /// Number of escapes.
    pub escapes: u64,
    /// Signal to quantization noise ratio against the source in dB; none without a source or if exact.
    pub sqnr_db: Option<f64>,
    /// Largest absolute error against the source.
    pub max_error: Option<f64>,
    /// Whether all weights equal the source's.
    pub exact: Option<bool>,
    #[serde(skip)]
    distortion: Option<Distortion>,
}

/// Checks every checksum and decodes every tile; a lossless file's sources are rebuilt and their SHA-256 compared.
/// With `against`, the source is compared too: byte for byte, or weight by weight.
///
/// Errors: the first damage found; [`Error::NotTheSource`] if the source is another model; that a file did not stay as it
/// was.
pub fn verify(reader: &Reader, against: Option<&Source>, progress: &dyn Progress) -> Result<Verification> {
    let verified = whole(reader, against, progress);
    // of files that changed, any other error is a consequence, and success is none
    reader.check()?;
    against.map_or(Ok(()), Source::check)?;
    verified
}

fn whole(reader: &Reader, against: Option<&Source>, progress: &dyn Progress) -> Result<Verification> {
    let directory = reader.directory();
    let name = reader.path().file_name().unwrap_or_default().to_string_lossy();
    let passes = 1 + u64::from(directory.lossless);
    progress.begin(
        &format!("verifying {name}"),
        passes * directory.tensors.iter().map(|t| t.source.len).sum::<u64>(),
    );
    for index in 0..directory.blobs.len() {
        let mut blob = reader.unpack(index)?;
        while !blob.next(u64::MAX)?.is_empty() {
            step(progress, 0)?;
        }
    }
    let mut sources = Vec::new();
    if directory.lossless {
        for (i, source) in directory.sources.iter().enumerate() {
            let sum = source_file(reader, i, &mut std::io::sink(), progress)?;
            sources.push((source.name.clone(), sum));
        }
    }
    let identical = against.filter(|_| directory.lossless);
    let identical = identical.map(|source| same_files(reader, source, &sources, progress)).transpose()?;
    let (mut tensors, mut packers) = (Vec::new(), Packers::default());
    for record in &directory.tensors {
        let original = against.map(|source| Ok::<_, Error>((source, counterpart(reader, record, source)?)));
        let original = original.transpose()?;
        tensors.push(check(reader, record, original, &mut packers)?);
        reader.used(record.source.len);
        step(progress, record.source.len)?;
    }
    let total = pooled(&tensors);
    Ok(Verification { lossless: directory.lossless, sources, identical, tensors, total })
}

/// Compares the checksums of the source files with those of what was rebuilt.
fn same_files(
    reader: &Reader,
    source: &Source,
    rebuilt: &[(String, String)],
    progress: &dyn Progress,
) -> Result<bool> {
    for (i, file) in source.files().iter().enumerate() {
        let found = sha256(file, || progress.cancelled());
        step(progress, 0)?;
        let expected = rebuilt.get(i).map(|(_, sum)| sum);
        if source.files().len() != rebuilt.len() || expected != Some(&found) {
            return Err(Error::NotTheSource {
                path: reader.path().into(),
                source_path: source.path().into(),
                why: format!(
                    "'{}' has SHA-256 {found}, expected {}",
                    file.name,
                    expected.map_or("no such file", |s| s)
                ),
            });
        }
    }
    Ok(true)
}

fn counterpart<'a>(reader: &Reader, record: &TensorRecord, source: &'a Source) -> Result<&'a SourceTensor> {
    let not = |why: String| Error::NotTheSource {
        path: reader.path().into(),
        source_path: source.path().into(),
        why,
    };
    let found = source.tensors().iter().find(|t| t.name == record.name);
    let found = found.ok_or_else(|| not(format!("it has no tensor '{}'", record.name)))?;
    // coded, it has the shape of the weights
    let shape = match source.role(found) {
        Role::Main(packed) if record.coded.is_some() => &packed.shape,
        _ => &found.shape,
    };
    if *shape != record.shape || found.dtype.name() != record.dtype {
        let dtype = found.dtype.name();
        return Err(not(format!(
            "tensor '{}' is {dtype} {shape:?} there, expected {} {:?}",
            record.name, record.dtype, record.shape
        )));
    }
    Ok(found)
}

fn check(
    reader: &Reader,
    record: &TensorRecord,
    original: Option<(&Source, &SourceTensor)>,
    packers: &mut Packers,
) -> Result<TensorCheck> {
    let weights = record.shape.iter().fold(1, |a: u64, &d| a.saturating_mul(d));
    let stored_bytes = reader.stored_bytes(record);
    let mut check = TensorCheck {
        name: record.name.clone(),
        weights,
        scheme: record.coded.as_ref().map_or("plain".into(), |c| c.scheme.clone()),
        stored_bytes,
        bits: bits(stored_bytes, weights),
        entropy: None,
        escapes: 0,
        sqnr_db: None,
        max_error: None,
        exact: None,
        distortion: None,
    };
    match reader.load(record)? {
        Tensor::Plain(bytes) => check.exact = original.map(|(s, t)| s.data(t) == bytes),
        Tensor::Part(part) => {
            check.scheme = "part".into();
            if let Some((source, tensor)) = original {
                check.exact = Some(packers.part(reader, part)?.is_some_and(|b| b.0 == source.data(tensor)));
            }
        }
        Tensor::Coded(tensor) => {
            let matrix = original.and_then(|(s, t)| SourceMatrix::any(s, t));
            let (entropy, escapes, distortion) = decode(&tensor, matrix.as_ref())?;
            (check.entropy, check.escapes) = (Some(entropy), escapes);
            if let Some(d) = distortion {
                check.exact = Some(d.noise == 0.0);
                check.sqnr_db = (d.noise > 0.0).then(|| d.sqnr());
                check.max_error = Some(d.max_error);
                check.distortion = Some(d);
            }
        }
    }
    Ok(check)
}

/// Counts of a tensor's planes.
#[derive(Default)]
struct Counts {
    nibbles: [u64; 16],
    raw: Vec<u64>,
    escapes: u64,
    distortion: Distortion,
}

/// Entropy of all planes in bits a weight, number of escapes, distortion against a source.
fn decode(
    tensor: &CodedTensor<'_>,
    original: Option<&SourceMatrix<'_>>,
) -> Result<(f64, u64, Option<Distortion>)> {
    let coded = tensor.coded();
    let side = tensor.side()?;
    let dequantizer = Dequantizer::new(coded, &side);
    let split = coded.split();
    let mut total = Counts { raw: vec![0; 1 << coded.raw_bits], ..Counts::default() };
    let map = |rows: Range<usize>, levels: &[i32], counts: &mut Counts| {
        *counts = Counts { raw: vec![0; 1 << coded.raw_bits], ..Counts::default() };
        for &level in levels {
            match split.split(level) {
                Some((nibble, raw)) => {
                    counts.nibbles[usize::from(nibble)] += 1;
                    counts.raw[usize::from(raw)] += 1;
                }
                None => counts.escapes += 1,
            }
        }
        if let Some(original) = original {
            let (mut back, mut weights) = (vec![0.0; levels.len()], vec![0.0; levels.len()]);
            dequantizer.fill(rows.clone(), levels, &mut back);
            original.fill(rows, &mut weights);
            weights.iter().zip(&back).for_each(|(&w, &b)| counts.distortion.add(w, b));
        }
        Ok(())
    };
    tiles(tensor, map, |counts| {
        total.nibbles.iter_mut().zip(counts.nibbles).for_each(|(a, b)| *a += b);
        total.raw.iter_mut().zip(&counts.raw).for_each(|(a, b)| *a += b);
        total.escapes += counts.escapes;
        total.distortion = total.distortion.and(counts.distortion);
        Ok(())
    })?;
    let weights = coded.weights() as f64;
    let kept = total.nibbles.iter().sum::<u64>() as f64;
    let levels = entropy(total.nibbles.iter().copied()) * kept + entropy(total.raw.iter().copied()) * kept;
    let scales: f64 = side.iter().map(|plane| plane_entropy(plane) * plane.len() as f64).sum();
    Ok(((levels + scales) / weights, total.escapes, original.map(|_| total.distortion)))
}

fn plane_entropy(plane: &[u8]) -> f64 {
    let mut counts = [0u64; 256];
    plane.iter().for_each(|&b| counts[usize::from(b)] += 1);
    entropy(counts.iter().copied())
}

/// All coded tensors as one.
fn pooled(tensors: &[TensorCheck]) -> Option<TensorCheck> {
    let coded: Vec<_> = tensors.iter().filter(|t| t.entropy.is_some()).collect();
    let first = coded.first()?;
    let same = coded.iter().all(|t| t.scheme == first.scheme);
    let weights = coded.iter().map(|t| t.weights).sum();
    let stored_bytes = coded.iter().map(|t| t.stored_bytes).sum();
    let mean = |of: &dyn Fn(&TensorCheck) -> f64| {
        coded.iter().map(|t| of(t) * t.weights as f64).sum::<f64>() / weights as f64
    };
    let distortion = coded.iter().try_fold(Distortion::default(), |a, t| t.distortion.map(|d| a.and(d)));
    Some(TensorCheck {
        name: "all coded tensors".into(),
        weights,
        scheme: if same { first.scheme.clone() } else { "mixed".into() },
        stored_bytes,
        bits: bits(stored_bytes, weights),
        entropy: Some(mean(&|t| t.entropy.unwrap_or(0.0))),
        escapes: coded.iter().map(|t| t.escapes).sum(),
        sqnr_db: distortion.filter(|d| d.noise > 0.0).map(|d| d.sqnr()),
        max_error: distortion.map(|d| d.max_error),
        exact: distortion.map(|d| d.noise == 0.0),
        distortion,
    })
}

//! `.ecq` back to files: the exact source, or weights in safetensors.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ecq_format::directory::{Directory, Part, Role, SourceFile, TensorRecord, matrix};
use ecq_format::ordered::ordered;
use ecq_format::reader::{CodedTensor, Tensor};
use ecq_format::{Dtype, Reader, staging};
use ecq_quant::values::Dequantizer;
use half::{bf16, f16};
use safetensors::tensor::{Metadata, TensorInfo};
use sha2::{Digest, Sha256};

use crate::blocks::{BlockError, to_f32};
use crate::convert::RECORD;
use crate::file_name;
use crate::inspect::sum;
use crate::progress::step;
use crate::source::SourceType;
use crate::tensors::Packer;
use crate::verbatim::{gaps, hex};
use crate::{Error, Progress, Result};

/// A float type for restored weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Float {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// bfloat16.
    BF16,
}

impl Float {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
        }
    }

    fn named(name: &str) -> Option<Self> {
        [("F32", Self::F32), ("F16", Self::F16), ("BF16", Self::BF16)]
            .into_iter()
            .find(|f| f.0 == name)
            .map(|f| f.1)
    }

    /// Writes little-endian bytes over `out`. Finite weights stay finite: beyond the type's range they become its largest
    /// value.
    fn write(self, weights: &[f32], out: &mut Vec<u8>) {
        out.resize(weights.len() * self.dtype().bitsize() / 8, 0);
        let within = |w: f32, most: f32| if w.is_finite() { w.clamp(-most, most) } else { w };
        let halves = out.as_chunks_mut().0.iter_mut().zip(weights);
        match self {
            Self::F32 => {
                let all = out.as_chunks_mut().0.iter_mut().zip(weights);
                all.for_each(|(out, w)| *out = w.to_le_bytes());
            }
            Self::F16 => {
                let most = f16::MAX.to_f32();
                halves.for_each(|(out, &w)| *out = f16::from_f32(within(w, most)).to_le_bytes());
            }
            Self::BF16 => {
                let most = bf16::MAX.to_f32();
                halves.for_each(|(out, &w)| *out = bf16::from_f32(within(w, most)).to_le_bytes());
            }
        }
    }
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The file or folder.
    pub path: PathBuf,
    /// Names of the files with their SHA-256, for sources that came back byte for byte.
    pub exact: Vec<(String, String)>,
}

/// Restores a file. A lossless one gives back its source files, each checked against the SHA-256 that it had; a lossy one
/// gives one safetensors file in `float`, or each tensor's source type (F32 for quantized sources; what a source called
/// `X.qweight` is then `X.weight`, and its configuration no longer speaks of quantization). Weights beyond the
/// range of that type become its largest value.
///
/// A model with companion files, or of several files, becomes a folder, but for lossy ones whose `output` ends in
/// `.safetensors`. The output stands under its name only when it is complete.
pub fn restore(
    reader: &Reader,
    output: &Path,
    float: Option<Float>,
    overwrite: bool,
    progress: &dyn Progress,
) -> Result<Restored> {
    let directory = reader.directory();
    let companions: Vec<_> =
        directory.blobs.iter().enumerate().filter(|(_, b)| b.role == Role::Companion).collect();
    check_names(
        reader,
        companions.iter().map(|(_, b)| &b.name).chain(directory.sources.iter().map(|s| &s.name)),
    )?;
    let name = reader.path().file_name().unwrap_or_default().to_string_lossy();
    progress.begin(&format!("restoring {name}"), sum(directory.tensors.iter().map(|t| t.source.len)));
    let exact = directory.lossless && float.is_none();
    let lone = if exact {
        directory.sources.len() == 1 && companions.is_empty()
    } else {
        companions.iter().all(|(_, b)| b.name == RECORD)
            || output.extension().is_some_and(|e| e == "safetensors")
    };
    let mut sums = Vec::new();
    if lone {
        write_file(reader, output, overwrite, |sink| match exact {
            true => source_file(reader, 0, sink, progress)
                .map(|sum| sums.push((directory.sources[0].name.clone(), sum))),
            false => lossy_file(reader, float, sink, progress),
        })?;
        return Ok(Restored { path: output.into(), exact: sums });
    }
    // packed weights that are still packed need what the configuration says of them
    let keep_config = exact || has_packed(directory);
    folder(output, |folder| {
        for &(i, blob) in &companions {
            // an index of shards would be wrong beside a single file
            if exact || !blob.name.ends_with(".safetensors.index.json") {
                companion(reader, i, &folder.join(&blob.name), keep_config || blob.name != "config.json")?;
            }
        }
        if !exact {
            return write_file(reader, &folder.join("model.safetensors"), false, |sink| {
                lossy_file(reader, float, sink, progress)
            });
        }
        for (i, source) in directory.sources.iter().enumerate() {
            write_file(reader, &folder.join(&source.name), false, |sink| {
                source_file(reader, i, sink, progress).map(|sum| sums.push((source.name.clone(), sum)))
            })?;
        }
        Ok(())
    })?;
    Ok(Restored { path: output.into(), exact: sums })
}

/// Writes a companion as it was, or a configuration that is no longer of packed weights.
fn companion(reader: &Reader, index: usize, path: &Path, as_it_was: bool) -> Result<()> {
    let mut file = File::create_new(path).map_err(Error::io(path, "create"))?;
    let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(path, "write"));
    if as_it_was {
        let mut blob = reader.unpack(index)?;
        while let piece @ [_, ..] = blob.next(u64::MAX)? {
            write(piece)?;
        }
    } else {
        write(&unquantized(reader.blob(index)?))?;
    }
    file.sync_all().map_err(Error::io(path, "write"))
}

/// Whether weights are among the tensors that mean nothing without others beside them: levels that nobody could read and
/// that were kept, or numbers with scales of their own.
fn has_packed(directory: &Directory) -> bool {
    let alone = || directory.tensors.iter().filter(|t| t.part.is_none());
    let names: HashSet<&str> = alone().map(|t| t.name.as_str()).collect();
    let states: HashSet<&str> =
        names.iter().filter_map(|n| n.split_once(".quant_state.")).map(|(main, _)| main).collect();
    let beside =
        |stem: &str, parts: &[&str]| parts.iter().any(|part| names.contains(&*format!("{stem}.{part}")));
    alone().any(|t| {
        let stem = t.name.strip_suffix(".weight");
        let levels = t.coded.is_none()
            && (t.name.ends_with(".qweight")
                || states.contains(t.name.as_str())
                || stem.is_some_and(|stem| beside(stem, &["scales"])));
        levels
            || stem.is_some_and(|stem| beside(stem, &["weight_scale", "weight_scale_inv", "weight_packed"]))
    })
}

/// A model's configuration without what it says of packed weights: beside plain ones a loader would look for them. What is
/// no such configuration stays as it is.
fn unquantized(config: Vec<u8>) -> Vec<u8> {
    let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_slice(&config) else { return config };
    let packed: Vec<_> =
        ["quantization", "quantization_config"].iter().filter_map(|&key| fields.remove(key)).collect();
    if packed.is_empty() {
        return config;
    }
    serde_json::to_vec_pretty(&fields).unwrap_or(config)
}

/// The name that the weights of a tensor have when they are plain: loaders look for no `qweight` then.
fn plain_name(reader: &Reader, record: &TensorRecord) -> String {
    let stem = record.coded.as_ref().and(record.name.strip_suffix(".qweight"));
    let plain = stem.map(|stem| format!("{stem}.weight"));
    let taken = |name: &String| reader.directory().tensors.iter().any(|t| t.name == *name);
    plain.filter(|name| !taken(name)).unwrap_or_else(|| record.name.clone())
}

/// Names from a file must be plain, and each its own.
fn check_names<'a>(reader: &Reader, names: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        // file systems that ignore case would let one name overwrite another
        if !file_name::is_plain(name) || !seen.insert(name.to_lowercase()) {
            return Err(Error::FileName { path: reader.path().into(), name: name.clone() });
        }
    }
    Ok(())
}

/// Writes a file under a temporary name and renames it.
fn write_file(
    reader: &Reader,
    path: &Path,
    overwrite: bool,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    if let Ok(there) = path.symlink_metadata() {
        if there.is_dir() {
            return Err(Error::FolderInTheWay(path.into()));
        }
        if !overwrite {
            return Err(ecq_format::Error::Exists(path.into()).into());
        }
        if path.canonicalize().ok() == reader.path().canonicalize().ok() {
            return Err(Error::OntoInput(path.into()));
        }
    }
    let mut sink = BufWriter::with_capacity(1 << 20, staging::file(path)?);
    let written = write(&mut sink);
    reader.check()?; // of a file that changed, any other error is a consequence, and success is none
    written?;
    let file = sink.into_inner().map_err(|e| Error::io(path, "write")(e.into_error()))?;
    Ok(staging::finish(file, path, overwrite)?)
}

/// Fills a folder under a temporary name and renames it. An empty folder may be there.
fn folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        let empty = std::fs::read_dir(path).map(|mut d| d.next().is_none());
        match empty {
            Ok(true) => {}
            Ok(false) => return Err(Error::FolderInTheWay(path.into())),
            Err(_) if path.is_dir() => return Err(Error::FolderInTheWay(path.into())),
            Err(_) => return Err(ecq_format::Error::Exists(path.into()).into()),
        }
    }
    let made = staging::folder(path)?;
    fill(made.path())?;
    Ok(made.finish(path)?)
}

/// Writes source file `index` byte for byte; returns its SHA-256 after checking it.
///
/// Errors: [`Error::Inconsistent`], [`Error::Sha256`], and what reading and writing give.
pub fn source_file(
    reader: &Reader,
    index: usize,
    sink: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<String> {
    let source = &reader.directory().sources[index];
    let inconsistent =
        |name: &str, why: String| Error::Inconsistent { path: reader.path().into(), name: name.into(), why };
    let mut tensors: Vec<_> = reader.directory().tensors.iter().filter(|t| t.source.file == index).collect();
    tensors.sort_by_key(|t| (t.source.offset, t.source.len));
    for pair in tensors.windows(2) {
        if pair[0].source.offset + pair[0].source.len > pair[1].source.offset {
            return Err(inconsistent(&pair[1].name, format!("overlaps '{}' in the source", pair[0].name)));
        }
    }
    let mut verbatim = reader.unpack(source.verbatim)?;
    let mut sink = HashingSink { sink, hasher: Sha256::new(), written: 0, path: reader.path(), source };
    let mut packers = Packers::default();
    let gaps = gaps(tensors.iter().map(|t| (t.source.offset, t.source.len)), source.size);
    for (i, (_, mut len)) in gaps.enumerate() {
        while len > 0 {
            let piece = verbatim.next(len)?;
            if piece.is_empty() {
                return Err(inconsistent(&source.name, "its verbatim part is too short".into()));
            }
            len -= piece.len() as u64;
            sink.write(piece)?;
            step(progress, 0)?;
        }
        if let Some(tensor) = tensors.get(i) {
            let before = sink.written;
            tensor_bytes(reader, tensor, &mut packers, |bytes| {
                sink.write(bytes)?;
                reader.used(bytes.len() as u64); // about: coded they are fewer
                step(progress, bytes.len() as u64)
            })?;
            if sink.written - before != tensor.source.len {
                return Err(inconsistent(
                    &tensor.name,
                    "does not have the length that it had in the source".into(),
                ));
            }
        }
    }
    if !verbatim.next(1)?.is_empty() {
        return Err(inconsistent(&source.name, "its verbatim part is too long".into()));
    }
    sink.check()
}

struct HashingSink<'a> {
    sink: &'a mut dyn Write,
    hasher: Sha256,
    written: u64,
    path: &'a Path,
    source: &'a SourceFile,
}

impl HashingSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        self.sink.write_all(bytes).map_err(Error::io(Path::new(&self.source.name), "write"))
    }

    fn check(self) -> Result<String> {
        let found = hex(&self.hasher.finalize());
        let SourceFile { name, sha256, .. } = self.source;
        if found == *sha256 {
            return Ok(found);
        }
        Err(Error::Sha256 { path: self.path.into(), name: name.clone(), expected: sha256.clone(), found })
    }
}

/// The bytes that a tensor had in a lossless source, piece by piece.
fn tensor_bytes(
    reader: &Reader,
    record: &TensorRecord,
    packers: &mut Packers,
    mut sink: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let inconsistent =
        |why: String| Error::Inconsistent { path: reader.path().into(), name: record.name.clone(), why };
    let tensor = match reader.load(record)? {
        Tensor::Plain(bytes) => return sink(bytes),
        Tensor::Coded(tensor) => tensor,
        Tensor::Part(part) => {
            let bytes = packers.part(reader, part)?.filter(|(_, dtype)| *dtype == record.dtype);
            let bytes = bytes.map(|b| b.0).filter(|bytes| crc32fast::hash(bytes) == record.crc);
            let why = || inconsistent(format!("'{}' does not hold its bytes", part.of));
            return sink(&bytes.ok_or_else(why)?);
        }
    };
    let coded = tensor.coded();
    if coded.pattern.is_some() {
        return floats(&tensor, sink);
    }
    let packer = packers.of(&record.name, &tensor)?.map_err(|e| inconsistent(e.to_string()))?;
    let mut whole = packer.whole(record.source.len).map_err(|e| inconsistent(e.to_string()))?;
    let pack = |rows: Range<usize>, levels: &[i32], out: &mut (Range<usize>, Vec<u8>)| {
        out.0 = rows.clone();
        packer.pack(rows, levels, &mut out.1).map_err(|e| inconsistent(e.to_string()))
    };
    tiles(&tensor, pack, |(rows, bytes)| match &mut whole {
        Some(whole) => {
            whole.place(rows, bytes);
            Ok(())
        }
        None => sink(bytes),
    })?;
    whole.map_or(Ok(()), |whole| sink(whole.bytes()))
}

/// The last packer made: a tensor and its parts are neighbours in most sources, and share their side data.
#[derive(Default)]
pub(crate) struct Packers(Option<(String, Packer)>);

impl Packers {
    /// The packer of a coded tensor; the inner error says why it has none.
    fn of(
        &mut self,
        name: &str,
        tensor: &CodedTensor<'_>,
    ) -> Result<std::result::Result<&Packer, BlockError>> {
        if self.0.as_ref().is_none_or(|last| last.0 != name) {
            match Packer::new(tensor.coded(), tensor.side()?) {
                Ok(made) => self.0 = Some((name.to_owned(), made)),
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(self.0.as_ref().map(|last| &last.1).ok_or_else(|| BlockError::Scheme(name.to_owned())))
    }

    /// The bytes that a tensor had which is part of another, and their type; `None` if that one has no such part.
    pub(crate) fn part(&mut self, reader: &Reader, part: &Part) -> Result<Option<(Vec<u8>, &'static str)>> {
        let Tensor::Coded(whole) = reader.tensor(&part.of)? else { return Ok(None) };
        Ok(self.of(&part.of, &whole)?.ok().and_then(|packer| packer.part(part.index)))
    }
}

/// Decodes the levels of all tiles in parallel, through `map`, and hands the results to `sink` in order. `map` writes over
/// what it finds.
pub(crate) fn tiles<T: Default + Send>(
    tensor: &CodedTensor<'_>,
    map: impl Fn(Range<usize>, &[i32], &mut T) -> Result<()> + Sync,
    mut sink: impl FnMut(&T) -> Result<()>,
) -> Result<()> {
    let make = |tile, (levels, out): &mut (Vec<i32>, T)| {
        tensor.levels(tile, levels)?;
        map(tensor.rows(tile), levels, out)
    };
    in_order(tensor, make, |(_, out)| sink(out))
}

/// Decodes the floats of all tiles in parallel and hands their bytes to `sink` in order.
fn floats(tensor: &CodedTensor<'_>, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    in_order(tensor, |tile, out| Ok(tensor.floats(tile, out)?), |bytes: &Vec<u8>| sink(bytes))
}

fn in_order<T: Default + Send>(
    tensor: &CodedTensor<'_>,
    make: impl Fn(usize, &mut T) -> Result<()> + Sync,
    mut sink: impl FnMut(&T) -> Result<()>,
) -> Result<()> {
    let make = |tile, (out, failed): &mut (T, Option<Error>)| *failed = make(tile, out).err();
    ordered(tensor.tiles(), make, |(out, failed)| failed.take().map_or_else(|| sink(out), Err))
}

/// Writes all tensors as one safetensors file, wide types first.
fn lossy_file(
    reader: &Reader,
    float: Option<Float>,
    sink: &mut dyn Write,
    progress: &dyn Progress,
) -> Result<()> {
    let mut all: Vec<(&TensorRecord, Dtype, Option<Float>)> =
        reader.directory().tensors.iter().filter(|t| t.part.is_none()).map(|t| target(t, float)).collect();
    all.sort_by_key(|(_, dtype, _)| std::cmp::Reverse(dtype.bitsize()));
    let mut at = 0usize;
    let mut entries = Vec::new();
    for (record, dtype, to) in &all {
        let inconsistent = |why: &str| Error::Inconsistent {
            path: reader.path().into(),
            name: record.name.clone(),
            why: why.into(),
        };
        let weights =
            matrix(&record.shape).map(|(r, c)| r * c).ok_or_else(|| inconsistent("its shape overflows"))?;
        let (shape, len) = match to {
            Some(f) => (&record.shape[..], weights.checked_mul(f.dtype().bitsize() as u64 / 8)),
            None if *dtype == Dtype::U8 => (&[record.source.len][..], Some(record.source.len)),
            None => (&record.shape[..], Some(record.source.len)),
        };
        let end = len.and_then(|len| at.checked_add(usize::try_from(len).ok()?));
        let end = end.ok_or_else(|| inconsistent("it is too large"))?;
        let shape = shape.iter().map(|&d| d as usize).collect();
        entries
            .push((plain_name(reader, record), TensorInfo { dtype: *dtype, shape, data_offsets: (at, end) }));
        at = end;
    }
    let name = reader.path().to_owned();
    let failed = |why: String| Error::Inconsistent { path: name.clone(), name: "directory".into(), why };
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(metadata), entries).map_err(|e| failed(e.to_string()))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|e| failed(e.to_string()))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let io = |e| Error::io(reader.path(), "write what it restores to")(e);
    sink.write_all(&(json.len() as u64).to_le_bytes()).and_then(|()| sink.write_all(&json)).map_err(io)?;
    for (record, _, to) in all {
        weights(reader, record, to, |bytes| {
            sink.write_all(bytes).map_err(Error::io(reader.path(), "write from"))?;
            reader.used(bytes.len() as u64);
            step(progress, 0)
        })?;
        step(progress, record.source.len)?;
    }
    Ok(())
}

/// The type a tensor is restored to, and the conversion if its values are read at all.
fn target(record: &TensorRecord, float: Option<Float>) -> (&TensorRecord, Dtype, Option<Float>) {
    let own = Float::named(&record.dtype);
    let dtype = named(record);
    let read = own.is_some() || record.coded.is_some() || dtype.block().is_some();
    // 8-bit floats stay what they are unless another type is asked for
    if read || (float.is_some() && dtype.float_bytes().is_some()) {
        let to = float.or(own).unwrap_or(Float::F32);
        return (record, to.dtype(), Some(to));
    }
    let other = serde_json::from_value(serde_json::Value::String(record.dtype.clone()));
    (record, other.unwrap_or(Dtype::U8), None)
}

/// The type that a tensor had in its source. The names of both source formats do not overlap.
fn named(record: &TensorRecord) -> SourceType {
    SourceType::named(record.dtype.clone(), !record.dtype.starts_with("F8_"))
}

/// All numbers of a tensor, row by row, whatever it is stored as. Errors: [`Error::Format`] and [`Error::Inconsistent`] for damage,
/// or if there is no such tensor, or it has no numbers.
pub fn numbers(reader: &Reader, name: &str) -> Result<Vec<f32>> {
    let missing =
        |why: &str| Error::Inconsistent { path: reader.path().into(), name: name.into(), why: why.into() };
    let record = reader.directory().tensors.iter().find(|record| record.name == name);
    let record = record.ok_or_else(|| missing("expected a tensor of this name, found none"))?;
    let (_, _, to) = target(record, Some(Float::F32));
    let to = to.ok_or_else(|| missing("expected numbers"))?;
    let mut all = Vec::new();
    weights(reader, record, Some(to), |bytes| {
        all.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)));
        Ok(())
    })?;
    reader.used(reader.stored_bytes(record));
    Ok(all)
}

fn weights(
    reader: &Reader,
    record: &TensorRecord,
    to: Option<Float>,
    mut sink: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    match (reader.load(record)?, to) {
        (Tensor::Plain(bytes), Some(to)) if Float::named(&record.dtype) != Some(to) => {
            let mut out = Vec::new();
            plain_floats(&named(record), bytes, |floats| {
                to.write(floats, &mut out);
                sink(&out)
            })
            .unwrap_or_else(|why| {
                let (path, name) = (reader.path().into(), record.name.clone());
                Err(Error::Inconsistent { path, name, why: why.to_string() })
            })
        }
        (Tensor::Plain(bytes), _) => sink(bytes),
        // its tensor has the weights
        (Tensor::Part(_), _) => Ok(()),
        // bit patterns come back in their own type without a detour
        (Tensor::Coded(tensor), Some(to))
            if tensor.coded().pattern.is_some() && Float::named(&record.dtype) == Some(to) =>
        {
            floats(&tensor, sink)
        }
        (Tensor::Coded(tensor), to) => {
            let dequantizer = Dequantizer::of(&tensor)?;
            let to = to.unwrap_or(Float::F32);
            let map = |rows, levels: &[i32], out: &mut (Vec<f32>, Vec<u8>)| {
                out.0.resize(levels.len(), 0.0);
                dequantizer.fill(rows, levels, &mut out.0);
                to.write(&out.0, &mut out.1);
                Ok(())
            };
            tiles(&tensor, map, |(_, bytes)| sink(bytes))
        }
    }
}

/// Reads weights of any float or block type, piece by piece. The outer error: bytes that are no whole weights.
fn plain_floats(
    dtype: &SourceType,
    bytes: &[u8],
    mut sink: impl FnMut(&[f32]) -> Result<()>,
) -> std::result::Result<Result<()>, BlockError> {
    let (unit, weights) = match dtype.block() {
        Some(block) => (block.bytes(), block.weights()),
        None => (dtype.float_bytes().ok_or_else(|| BlockError::NotFloat(dtype.name().to_owned()))?, 1),
    };
    for piece in bytes.chunks(unit << 14) {
        let mut floats = vec![0.0; piece.len() / unit * weights];
        match dtype.block() {
            Some(block) => block.dequantize(piece, &mut floats)?,
            None => to_f32(dtype, piece, &mut floats)?,
        }
        if let Err(stopped) = sink(&floats) {
            return Ok(Err(stopped));
        }
    }
    Ok(Ok(()))
}

//! The GGUF container, versions 2 and 3, little-endian.
//!
//! Magic, version, tensor count, metadata count, metadata, tensor infos, padding to the alignment, data.
//! Metadata values are skipped where they stand; only the alignment and the architecture are kept.

pub mod values;

use std::collections::HashSet;
use std::path::Path;

use super::error::clip;
use super::{
    SourceError, SourceLimits, SourceTensor, SourceType, check_count, check_name, check_tensor_count,
};

/// First bytes of every GGUF file.
pub(super) const MAGIC: &[u8] = b"GGUF";

const DEFAULT_ALIGNMENT: u64 = 32;
/// Real files use 32; a page is plausible, more than this is damage.
const MAX_ALIGNMENT: u64 = 1 << 20;
/// ggml has at most 4.
const MAX_DIMENSIONS: u64 = 8;
/// Current tools write no nested arrays at all.
const MAX_ARRAY_DEPTH: usize = 4;

/// Smallest metadata entry: key length, value type, one byte of value.
const MIN_ENTRY: u64 = 8 + 4 + 1;
/// Smallest tensor info: name length, dimension count, type, offset.
const MIN_INFO: u64 = 8 + 4 + 4 + 8;

const VALUE_U32: u32 = 4;
const VALUE_STRING: u32 = 8;
const VALUE_ARRAY: u32 = 9;

/// The ggml types: id, name, weights in a block, bytes of a block.
///
/// Ids that are missing were withdrawn from ggml; they pass through like ids from the future.
const TYPES: &[(u32, &str, u64, u64)] = &[
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    // Two halves and 32 bytes in ggml since 2024; it is not written to files.
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

/// What is kept of a file.
pub(super) struct Model {
    pub(super) tensors: Vec<SourceTensor>,
    pub(super) architecture: Option<String>,
}

/// Reads and checks the header; tensors come out sorted by offset.
pub(super) fn parse(path: &Path, bytes: &[u8], limits: &SourceLimits) -> Result<Model, SourceError> {
    let mut cursor = Cursor::new(path, bytes, limits);
    cursor.take(MAGIC.len() as u64, "the magic")?;
    check_version(path, cursor.u32("the version")?)?;
    let tensor_count = cursor.u64("the tensor count")?;
    let entry_count = cursor.u64("the metadata count")?;
    check_tensor_count(path, tensor_count, limits)?;
    cursor.check_count("metadata entries", entry_count, MIN_ENTRY)?;
    let metadata = cursor.metadata(entry_count)?;
    let alignment = metadata.alignment.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(SourceError::Alignment { path: path.into(), value: alignment, limit: MAX_ALIGNMENT });
    }
    cursor.check_count("tensor infos", tensor_count, MIN_INFO)?;
    let mut infos = Vec::with_capacity(tensor_count as usize);
    let mut names = HashSet::with_capacity(tensor_count as usize);
    for _ in 0..tensor_count {
        let info = cursor.info()?;
        if !names.insert(info.name) {
            let (path, tensor) = (path.to_path_buf(), clip(info.name));
            return Err(SourceError::DuplicateTensor { other: path.clone(), path, tensor });
        }
        infos.push(info);
    }
    let layout = Layout { path, file_len: bytes.len() as u64, alignment, start: cursor.at as u64 };
    Ok(Model { tensors: layout.place(infos)?, architecture: metadata.architecture })
}

fn check_version(path: &Path, version: u32) -> Result<(), SourceError> {
    match version {
        2 | 3 => Ok(()),
        // The bytes of a small number the wrong way round.
        _ if version & 0xffff == 0 && version != 0 => Err(SourceError::BigEndian { path: path.into() }),
        _ => Err(SourceError::Version { path: path.into(), version }),
    }
}

/// Bytes of one metadata value of fixed size.
fn value_bytes(id: u32) -> Option<u64> {
    match id {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

#[derive(Default)]
struct Metadata {
    alignment: Option<u64>,
    architecture: Option<String>,
}

struct Info<'a> {
    name: &'a str,
    shape: Vec<u64>,
    dtype: SourceType,
    /// Relative to the start of the data.
    offset: u64,
    /// `None` where the type is not known.
    len: Option<u64>,
}

struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
    limits: &'a SourceLimits,
    /// Metadata values so far.
    values: u64,
}

impl<'a> Cursor<'a> {
    fn new(path: &'a Path, bytes: &'a [u8], limits: &'a SourceLimits) -> Self {
        Self { path, bytes, at: 0, limits, values: 0 }
    }

    /// Counts metadata values that are to come.
    fn count_values(&mut self, count: u64) -> Result<(), SourceError> {
        self.values = self.values.saturating_add(count);
        check_count(self.path, "metadata values", self.values, self.limits.max_values)
    }

    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn take(&mut self, needed: u64, what: &'static str) -> Result<&'a [u8], SourceError> {
        let (at, left) = (self.at as u64, self.left());
        if needed > left {
            return Err(SourceError::Truncated { path: self.path.into(), what, at, needed, left });
        }
        let limit = self.limits.max_header;
        if at + needed > limit {
            let (path, len) = (self.path.into(), at + needed);
            return Err(SourceError::HeaderTooLarge { path, len, limit });
        }
        let taken = &self.bytes[self.at..][..needed as usize];
        self.at += needed as usize;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], SourceError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, SourceError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, SourceError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Fails where `count` items of at least `min` bytes cannot fit in what is left.
    fn check_count(&self, what: &'static str, count: u64, min: u64) -> Result<(), SourceError> {
        let (at, left) = (self.at as u64, self.left());
        if count > left / min {
            return Err(SourceError::CountImpossible { path: self.path.into(), what, at, count, left });
        }
        Ok(())
    }

    fn string(&mut self, what: &'static str) -> Result<&'a [u8], SourceError> {
        let len = self.u64(what)?;
        let (at, left) = (self.at as u64, self.left());
        if len > left {
            return Err(SourceError::StringLength { path: self.path.into(), what, at, len, left });
        }
        self.take(len, what)
    }

    fn name(&mut self, what: &'static str) -> Result<&'a str, SourceError> {
        let name = self.string(what)?;
        check_name(self.path, what, name, self.limits)?;
        let at = (self.at - name.len()) as u64;
        std::str::from_utf8(name).map_err(|_| SourceError::Utf8 { path: self.path.into(), what, at })
    }

    /// The next metadata key, which must not be among `known`: readers differ in which of two values they take.
    fn key(&mut self, known: &mut HashSet<&'a str>) -> Result<&'a str, SourceError> {
        let key = self.name("a metadata key")?;
        if !known.insert(key) {
            return Err(SourceError::DuplicateKey { path: self.path.into(), key: clip(key) });
        }
        Ok(key)
    }

    fn metadata(&mut self, count: u64) -> Result<Metadata, SourceError> {
        let (mut metadata, mut known) = (Metadata::default(), HashSet::new());
        self.count_values(count)?;
        for _ in 0..count {
            let key = self.key(&mut known)?;
            let id = self.u32("a metadata value type")?;
            match key {
                "general.alignment" => {
                    self.expect_type("general.alignment", id, VALUE_U32, "4 (32-bit unsigned)")?;
                    metadata.alignment = Some(self.u32("the alignment")?.into());
                }
                "general.architecture" => {
                    self.expect_type("general.architecture", id, VALUE_STRING, "8 (string)")?;
                    metadata.architecture = Some(self.name("the architecture")?.to_owned());
                }
                _ => self.skip_value(key, id, 0)?,
            }
        }
        Ok(metadata)
    }

    fn expect_type(
        &self,
        key: &'static str,
        id: u32,
        wanted: u32,
        expected: &'static str,
    ) -> Result<(), SourceError> {
        if id != wanted {
            return Err(SourceError::KeyType { path: self.path.into(), key, id, expected });
        }
        Ok(())
    }

    fn skip_value(&mut self, key: &str, id: u32, depth: usize) -> Result<(), SourceError> {
        match (id, value_bytes(id)) {
            (_, Some(size)) => self.take(size, "a metadata value").map(drop),
            (VALUE_STRING, _) => self.string("a metadata string").map(drop),
            (VALUE_ARRAY, _) if depth < MAX_ARRAY_DEPTH => self.skip_array(key, depth + 1),
            (VALUE_ARRAY, _) => Err(SourceError::ArrayDepth {
                path: self.path.into(),
                key: clip(key),
                limit: MAX_ARRAY_DEPTH,
            }),
            _ => Err(SourceError::ValueType { path: self.path.into(), key: clip(key), id }),
        }
    }

    fn skip_array(&mut self, key: &str, depth: usize) -> Result<(), SourceError> {
        let id = self.u32("an array's value type")?;
        let count = self.u64("an array's length")?;
        if let Some(size) = value_bytes(id) {
            self.check_count("array values", count, size)?;
            self.count_values(count)?;
            return self.take(count * size, "an array").map(drop);
        }
        // A string is at least its length, an array its type and length.
        self.check_count("array values", count, 8)?;
        self.count_values(count)?;
        if !matches!(id, VALUE_STRING | VALUE_ARRAY) {
            return Err(SourceError::ValueType { path: self.path.into(), key: clip(key), id });
        }
        (0..count).try_for_each(|_| self.skip_value(key, id, depth))
    }

    fn info(&mut self) -> Result<Info<'a>, SourceError> {
        let name = self.name("a tensor name")?;
        let count = self.u32("a tensor's dimension count")?;
        let (count, limit) = (u64::from(count), MAX_DIMENSIONS.min(self.limits.max_dimensions as u64));
        if count > limit {
            return Err(SourceError::Dimensions { path: self.path.into(), tensor: clip(name), count, limit });
        }
        let mut shape = Vec::with_capacity(count as usize);
        for _ in 0..count {
            shape.push(self.u64("a tensor's dimension")?);
        }
        let id = self.u32("a tensor's type")?;
        let offset = self.u64("a tensor's offset")?;
        let (dtype, len) = tensor_type(self.path, name, &shape, id)?;
        shape.reverse();
        Ok(Info { name, shape, dtype, offset, len })
    }
}

/// Type and length in bytes of a tensor whose dimensions are given innermost first.
fn tensor_type(
    path: &Path,
    name: &str,
    dimensions: &[u64],
    id: u32,
) -> Result<(SourceType, Option<u64>), SourceError> {
    let overflow = || SourceError::ShapeOverflow { path: path.into(), tensor: clip(name) };
    let weights =
        dimensions.iter().try_fold(1u64, |product, &d| product.checked_mul(d)).ok_or_else(overflow)?;
    let Some(&(_, dtype, block, block_bytes)) = TYPES.iter().find(|entry| entry.0 == id) else {
        let len = (weights == 0).then_some(0);
        return Ok((SourceType::named(format!("type-{id}"), true), len));
    };
    let row = dimensions.first().copied().unwrap_or(1);
    if !row.is_multiple_of(block) {
        return Err(SourceError::RowLength { path: path.into(), tensor: clip(name), row, block, dtype });
    }
    let len = (weights / block).checked_mul(block_bytes).ok_or_else(overflow)?;
    Ok((SourceType::named(dtype, true), Some(len)))
}

/// Where the data of a file begins and ends.
struct Layout<'a> {
    path: &'a Path,
    file_len: u64,
    alignment: u64,
    /// End of the tensor infos, before padding.
    start: u64,
}

impl Layout<'_> {
    /// Sorts the tensors by offset and checks that they lie in the file, aligned and apart.
    fn place(&self, mut infos: Vec<Info<'_>>) -> Result<Vec<SourceTensor>, SourceError> {
        let data = self.start.next_multiple_of(self.alignment);
        // An unknown length sorts last among equals, so that empty tensors do not cut it short.
        infos.sort_by_key(|info| (info.offset, info.len.unwrap_or(u64::MAX), info.name));
        let mut tensors: Vec<SourceTensor> = Vec::with_capacity(infos.len());
        let mut free = data;
        let mut infos = infos.into_iter().peekable();
        while let Some(info) = infos.next() {
            let tensor = clip(info.name);
            if !info.offset.is_multiple_of(self.alignment) {
                let (offset, alignment) = (info.offset, self.alignment);
                return Err(SourceError::Misaligned { path: self.path.into(), tensor, offset, alignment });
            }
            let overflow = || SourceError::ShapeOverflow { path: self.path.into(), tensor: tensor.clone() };
            let offset = data.checked_add(info.offset).ok_or_else(overflow)?;
            let end = match info.len {
                Some(len) => offset.checked_add(len).ok_or_else(overflow)?,
                // At least a byte, so that a tensor of unknown type which shares its offset is an overlap.
                None => infos
                    .peek()
                    .map_or(self.file_len, |next| data.saturating_add(next.offset).min(self.file_len))
                    .max(offset.saturating_add(1)),
            };
            if end > self.file_len {
                let file_len = self.file_len;
                return Err(SourceError::OutOfFile { path: self.path.into(), tensor, end, file_len });
            }
            if offset < free {
                let other = tensors.last().map(|last| clip(&last.name)).unwrap_or_default();
                return Err(SourceError::Overlap { path: self.path.into(), tensor, other, at: offset });
            }
            free = end;
            tensors.push(SourceTensor {
                name: info.name.to_owned(),
                shape: info.shape,
                dtype: info.dtype,
                file: 0,
                offset,
                len: end - offset,
            });
        }
        Ok(tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_table_is_sorted_and_whole() {
        assert!(TYPES.is_sorted_by(|a, b| a.0 < b.0));
        assert!(TYPES.iter().all(|&(_, name, block, bytes)| !name.is_empty() && block > 0 && bytes > 0));
    }

    #[test]
    fn big_endian_versions_are_told_apart_from_wrong_ones() {
        let path = Path::new("m.gguf");
        assert!(check_version(path, 2).is_ok() && check_version(path, 3).is_ok());
        for version in [2u32, 3] {
            let error = check_version(path, version.swap_bytes()).unwrap_err();
            assert!(matches!(error, SourceError::BigEndian { .. }));
        }
        for version in [0, 1, 4, 77] {
            assert!(matches!(check_version(path, version), Err(SourceError::Version { .. })));
        }
    }
}

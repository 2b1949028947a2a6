//! The safetensors container: an 8-byte length, a JSON header, then data without holes.
//!
//! Tensor infos are the `safetensors` crate's own. The map around them is read here, because the crate
//! merges tensors that are given twice, does not name the tensor at fault, and adds offsets unchecked.
//! A test holds that the crate accepts whatever is accepted here.

use std::fmt;
use std::path::Path;

use safetensors::tensor::TensorInfo;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::error::clip;
use super::packed::Texts;
use super::{SourceError, SourceLimits, SourceTensor, SourceType, check_name, check_tensor_count};

/// Bytes of the header length.
const PREFIX: u64 = 8;

/// Reads and checks the header; tensors come out sorted by offset, with the `__metadata__`.
pub(super) fn parse(
    path: &Path,
    bytes: &[u8],
    file: usize,
    limits: &SourceLimits,
) -> Result<(Vec<SourceTensor>, Texts), SourceError> {
    let (header, data) = header(path, bytes, limits)?;
    let mut json = serde_json::Deserializer::from_str(header);
    let malformed = |error: serde_json::Error| SourceError::HeaderJson {
        path: path.into(),
        detail: clip(&error.to_string()),
    };
    let Header { mut infos, count, texts } =
        HeaderSeed { max_tensors: limits.max_tensors }.deserialize(&mut json).map_err(malformed)?;
    json.end().map_err(malformed)?;
    if texts.contains_key("ecq") {
        // an `.ecq` file is a safetensors file of a kind
        return Err(SourceError::IsEcq { path: path.into() });
    }
    check_tensor_count(path, count, limits)?;
    infos.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    if let Some(pair) = infos.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let (path, tensor) = (path.to_path_buf(), clip(&pair[0].0));
        return Err(SourceError::DuplicateTensor { other: path.clone(), path, tensor });
    }
    infos.sort_by_key(|(_, info)| info.data_offsets);
    let place = Placer { path, file, data, file_len: bytes.len() as u64, limits };
    Ok((place.all(infos)?, texts))
}

/// The header's text and the offset at which the data begins.
fn header<'a>(path: &Path, bytes: &'a [u8], limits: &SourceLimits) -> Result<(&'a str, u64), SourceError> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(SourceError::Truncated {
            path: path.into(),
            what: "the header length",
            at: 0,
            needed: PREFIX,
            left: bytes.len() as u64,
        });
    };
    if rest.first().is_some_and(|&first| first != b'{') {
        return Err(SourceError::BadMagic {
            path: path.into(),
            found: bytes[..9].to_vec(),
            expected: "\"GGUF\", or a header length of 8 bytes and \"{\"",
        });
    }
    let (len, left) = (u64::from_le_bytes(*prefix), rest.len() as u64);
    if len > left {
        return Err(SourceError::HeaderLength { path: path.into(), bytes: len, left });
    }
    if len > limits.max_header {
        return Err(SourceError::HeaderTooLarge { path: path.into(), len, limit: limits.max_header });
    }
    let header = std::str::from_utf8(&rest[..len as usize]).map_err(|error| SourceError::Utf8 {
        path: path.into(),
        what: "the header",
        at: PREFIX + error.valid_up_to() as u64,
    })?;
    Ok((header, PREFIX + len))
}

struct Header {
    /// At most one more than the limit.
    infos: Vec<(String, TensorInfo)>,
    /// How many there were.
    count: u64,
    /// The `__metadata__`.
    texts: Texts,
}

struct HeaderSeed {
    max_tensors: usize,
}

impl<'de> DeserializeSeed<'de> for HeaderSeed {
    type Value = Header;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header { infos: Vec::new(), count: 0, texts: Texts::new() };
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                if std::mem::replace(&mut has_metadata, true) {
                    return Err(A::Error::duplicate_field("__metadata__"));
                }
                header.texts = map.next_value::<Option<Texts>>()?.unwrap_or_default();
                continue;
            }
            header.count += 1;
            if header.infos.len() > self.max_tensors {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let info = map.next_value::<TensorInfo>().map_err(|error| {
                let (name, detail) = (clip(&name), error.to_string());
                A::Error::custom(format_args!("tensor {name:?}: {detail}"))
            })?;
            header.infos.push((name, info));
        }
        Ok(header)
    }
}

struct Placer<'a> {
    path: &'a Path,
    file: usize,
    /// Offset of the data in the file.
    data: u64,
    file_len: u64,
    limits: &'a SourceLimits,
}

impl Placer<'_> {
    /// Checks tensors in the order of their offsets: each follows the last, the file ends with them.
    fn all(&self, infos: Vec<(String, TensorInfo)>) -> Result<Vec<SourceTensor>, SourceError> {
        let mut tensors: Vec<SourceTensor> = Vec::with_capacity(infos.len());
        let mut free = self.data;
        for (name, info) in infos {
            let tensor = self.one(name, info)?;
            if tensor.offset < free {
                return Err(SourceError::Overlap {
                    path: self.path.into(),
                    tensor: clip(&tensor.name),
                    other: tensors.last().map(|last| clip(&last.name)).unwrap_or_default(),
                    at: tensor.offset,
                });
            }
            if tensor.offset > free {
                return Err(SourceError::Hole {
                    path: self.path.into(),
                    tensor: clip(&tensor.name),
                    from: free,
                    to: tensor.offset,
                });
            }
            free = tensor.offset + tensor.len;
            tensors.push(tensor);
        }
        if free != self.file_len {
            let (path, file_len) = (self.path.into(), self.file_len);
            return Err(SourceError::TrailingBytes { path, end: free, file_len });
        }
        Ok(tensors)
    }

    /// Checks one tensor by itself: name, shape, length, and that it lies in the file.
    fn one(&self, name: String, info: TensorInfo) -> Result<SourceTensor, SourceError> {
        let path = || self.path.to_path_buf();
        check_name(self.path, "a tensor name", name.as_bytes(), self.limits)?;
        let tensor = clip(&name);
        if info.shape.len() > self.limits.max_dimensions {
            let (count, limit) = (info.shape.len() as u64, self.limits.max_dimensions as u64);
            return Err(SourceError::Dimensions { path: path(), tensor, count, limit });
        }
        let (begin, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        let Some(found) = end.checked_sub(begin) else {
            return Err(SourceError::Offsets { path: path(), tensor, begin, end });
        };
        let shape: Vec<u64> = info.shape.iter().map(|&dimension| dimension as u64).collect();
        let bits = shape.iter().try_fold(1u64, |product, &dimension| product.checked_mul(dimension));
        let Some(bits) = bits.and_then(|weights| weights.checked_mul(info.dtype.bitsize() as u64)) else {
            return Err(SourceError::ShapeOverflow { path: path(), tensor });
        };
        if !bits.is_multiple_of(8) {
            return Err(SourceError::PartialByte { path: path(), tensor, bits });
        }
        if bits / 8 != found {
            return Err(SourceError::TensorLength { path: path(), tensor, expected: bits / 8, found });
        }
        let end = end.saturating_add(self.data);
        if end > self.file_len {
            return Err(SourceError::OutOfFile { path: path(), tensor, end, file_len: self.file_len });
        }
        let dtype = SourceType::named(info.dtype.to_string(), false);
        Ok(SourceTensor { name, shape, dtype, file: self.file, offset: self.data + begin, len: found })
    }
}

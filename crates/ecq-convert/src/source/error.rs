//! What can be wrong with a model source, each case under its own name.

use std::path::PathBuf;

/// A source that could not be opened.
///
/// Every variant carries the file and, where there is one, the tensor; the message says what was expected
/// and what to do. Names that come from the file are clipped to a printable length.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant's message is its documentation")]
pub enum SourceError {
    #[error("{path}: no such file or folder; check the path")]
    NotFound { path: PathBuf },
    #[error("{path}: cannot be read; check the permissions and the disk")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path}: there is no room to map it into memory; raise the limit of the process (ulimit -v)")]
    NoRoom { path: PathBuf, source: std::io::Error },
    #[error("{path}: {why}, then try again")]
    Changed { path: PathBuf, why: &'static str },
    #[error("{path}: is not a regular file; give a model file or a folder")]
    NotAFile { path: PathBuf },
    #[error("{path}: the file is empty; download it again")]
    Empty { path: PathBuf },
    #[error("{path}: is an .ecq file already; `ecq inspect` shows it, `ecq restore` gives the model back")]
    IsEcq { path: PathBuf },
    #[error("{path}: no .safetensors file in this folder; {hint}")]
    NoModel { path: PathBuf, hint: String },
    #[error(
        "{path}: neither GGUF nor safetensors: it begins with {found:02x?}, expected {expected}; \
             convert the model to one of these formats first"
    )]
    BadMagic { path: PathBuf, found: Vec<u8>, expected: &'static str },
    #[error(
        "{path}: truncated at byte {at}: {what} needs {needed} bytes and the file has {left} left; \
             download it again"
    )]
    Truncated { path: PathBuf, what: &'static str, at: u64, needed: u64, left: u64 },
    #[error("{path}: big-endian GGUF is not supported; convert the file to little-endian")]
    BigEndian { path: PathBuf },
    #[error("{path}: GGUF version {version} is not supported, expected 2 or 3; write it with a current tool")]
    Version { path: PathBuf, version: u32 },
    #[error(
        "{path}: {count} {what} are more than the limit of {limit}; a program that trusts the file can raise it"
    )]
    CountLimit { path: PathBuf, what: &'static str, count: u64, limit: u64 },
    #[error("{path}: {count} {what} at byte {at} cannot fit in the {left} bytes left; the file is damaged")]
    CountImpossible { path: PathBuf, what: &'static str, at: u64, count: u64, left: u64 },
    #[error(
        "{path}: its header or index has {len} bytes or more, above the limit of {limit}; \
             a program that trusts the file can raise it"
    )]
    HeaderTooLarge { path: PathBuf, len: u64, limit: u64 },
    #[error(
        "{path}: a header of {bytes} bytes is announced and {left} bytes follow; the file is truncated \
             or is not safetensors, download it again"
    )]
    HeaderLength { path: PathBuf, bytes: u64, left: u64 },
    #[error("{path}: the header is not valid safetensors JSON: {detail}; the file is damaged")]
    HeaderJson { path: PathBuf, detail: String },
    #[error(
        "{path}: {what} at byte {at} is {len} bytes long and the file has {left} left; \
             the file is damaged"
    )]
    StringLength { path: PathBuf, what: &'static str, at: u64, len: u64, left: u64 },
    #[error(
        "{path}: {what} of {len} bytes is longer than the limit of {limit}; \
             a program that trusts the file can raise it"
    )]
    NameTooLong { path: PathBuf, what: &'static str, len: u64, limit: u64 },
    #[error("{path}: {what} at byte {at} is not valid UTF-8; the file is damaged")]
    Utf8 { path: PathBuf, what: &'static str, at: u64 },
    #[error(
        "{path}: metadata key {key:?} has the unknown value type {id}, expected 0 to 12; \
             the file is damaged"
    )]
    ValueType { path: PathBuf, key: String, id: u32 },
    #[error("{path}: metadata key {key:?} nests arrays deeper than {limit}; the file is damaged")]
    ArrayDepth { path: PathBuf, key: String, limit: usize },
    #[error("{path}: metadata key {key:?} has value type {id}, expected {expected}; the file is damaged")]
    KeyType { path: PathBuf, key: &'static str, id: u32, expected: &'static str },
    #[error("{path}: metadata key {key:?} is given twice; the file is damaged")]
    DuplicateKey { path: PathBuf, key: String },
    #[error("{path}: alignment {value} is not a power of two from 1 to {limit}; the file is damaged")]
    Alignment { path: PathBuf, value: u64, limit: u64 },
    #[error(
        "{path}: tensor {tensor:?} has {count} dimensions, which is more than the limit of {limit}; \
             the file is damaged, or a program that trusts it can raise the limit"
    )]
    Dimensions { path: PathBuf, tensor: String, count: u64, limit: u64 },
    #[error("{path}: tensor {tensor:?}: its shape or offset overflows 64 bits; the file is damaged")]
    ShapeOverflow { path: PathBuf, tensor: String },
    #[error(
        "{path}: tensor {tensor:?}: rows of {row} are no multiple of the {block} weights of a {dtype} \
             block; the file is damaged"
    )]
    RowLength { path: PathBuf, tensor: String, row: u64, block: u64, dtype: &'static str },
    #[error(
        "{path}: tensor {tensor:?} at offset {offset} is not aligned to {alignment} bytes; \
             the file is damaged"
    )]
    Misaligned { path: PathBuf, tensor: String, offset: u64, alignment: u64 },
    #[error(
        "{path}: tensor {tensor:?} ends at byte {end} of a file of {file_len}; \
             the file is truncated, download it again"
    )]
    OutOfFile { path: PathBuf, tensor: String, end: u64, file_len: u64 },
    #[error("{path}: tensors {tensor:?} and {other:?} overlap at byte {at}; the file is damaged")]
    Overlap { path: PathBuf, tensor: String, other: String, at: u64 },
    #[error(
        "{path}: tensor {tensor:?} is given twice, first in {other}; keep one copy, \
             or give a single model file instead of the folder"
    )]
    DuplicateTensor { path: PathBuf, tensor: String, other: PathBuf },
    #[error(
        "{path}: tensor {tensor:?} has offsets {begin} to {end}, expected an increasing pair; \
             the file is damaged"
    )]
    Offsets { path: PathBuf, tensor: String, begin: u64, end: u64 },
    #[error(
        "{path}: tensor {tensor:?} has {found} bytes, expected {expected} from its shape and type; \
             the file is damaged"
    )]
    TensorLength { path: PathBuf, tensor: String, expected: u64, found: u64 },
    #[error(
        "{path}: tensor {tensor:?} is packed by GPTQ or AWQ, and nothing says how: expected \
             \"quantization_config\" in config.json, or a quantize_config.json; put the model's own file there, \
             or use --scheme lossless, which keeps such tensors as they are"
    )]
    Unexplained { path: PathBuf, tensor: String },
    #[error("{path}: tensor {tensor:?} of {bits} bits does not end on a byte; the file is damaged")]
    PartialByte { path: PathBuf, tensor: String, bits: u64 },
    #[error(
        "{path}: bytes {from} to {to} before tensor {tensor:?} belong to no tensor, \
             safetensors allows no holes; the file is damaged"
    )]
    Hole { path: PathBuf, tensor: String, from: u64, to: u64 },
    #[error(
        "{path}: the tensors end at byte {end} of a file of {file_len}, safetensors allows nothing \
             after them; the file is damaged"
    )]
    TrailingBytes { path: PathBuf, end: u64, file_len: u64 },
    #[error("{path}: the shard index is not valid: {detail}; download it again")]
    IndexJson { path: PathBuf, detail: String },
    #[error("{path}: several shard indexes: {names}; give the one you mean instead of the folder")]
    SeveralIndexes { path: PathBuf, names: String },
    #[error(
        "{path}: tensor {tensor:?} is placed in {file:?}, expected a plain .safetensors file name next \
             to the index; do not trust this index"
    )]
    IndexPath { path: PathBuf, tensor: String, file: String },
    #[error(
        "{path}: tensor {tensor:?} is placed in {file:?}, which is not there; \
             download the missing shard"
    )]
    IndexMissingFile { path: PathBuf, tensor: String, file: String },
    #[error(
        "{path}: tensor {tensor:?} is placed in {file:?}, which does not have it; \
             index and shards do not belong together, download them again"
    )]
    IndexMissingTensor { path: PathBuf, tensor: String, file: String },
}

/// A name from a file, clipped so that a hostile one cannot flood a message.
pub(super) fn clip(name: &str) -> String {
    const SHOWN: usize = 200;
    match name.char_indices().nth(SHOWN) {
        None => name.to_owned(),
        Some((end, _)) => format!("{}...", &name[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_clipped_on_a_character() {
        assert_eq!(clip("blk.0"), "blk.0");
        assert_eq!(clip(&"é".repeat(300)), format!("{}...", "é".repeat(200)));
    }

    #[test]
    fn errors_stay_small() {
        assert!(size_of::<SourceError>() <= 128);
    }
}

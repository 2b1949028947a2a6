//! What of a source is no tensor: kept verbatim, so that every file comes back byte for byte.

use std::fs::File;
use std::io::Read;

use ecq_format::directory::{self, SourceFile};
use ecq_format::writer::Writer;
use sha2::{Digest, Sha256};

use crate::convert::RECORD;
use crate::source::{self, Companion, FileFormat, Source, SourceError};
use crate::{Error, Result};

/// Most bytes of a source file that belong to no tensor; what a reader unpacks by default.
const MOST_ELSE: u64 = 1 << 30;

/// Stores companions and the verbatim parts of the sources; returns what the directory says of the sources, without their
/// checksums.
pub fn blobs(source: &Source, record: Option<&[u8]>, writer: &mut Writer) -> Result<Vec<SourceFile>> {
    if let Some(record) = record {
        writer.blob(RECORD, directory::Role::Companion, record)?;
    }
    // what a source that was calibrated told is not so of the new file
    for companion in source.companions().iter().filter(|c| record.is_none() || c.name != RECORD) {
        let bytes = companion_bytes(companion)?;
        writer.blob(&companion.name, directory::Role::Companion, &bytes)?;
    }
    let mut files = Vec::new();
    for (i, file) in source.files().iter().enumerate() {
        let verbatim = writer.blob(&file.name, directory::Role::Verbatim, &verbatim(source, i)?)?;
        let format = match file.format {
            FileFormat::Gguf => "gguf",
            FileFormat::Safetensors => "safetensors",
        };
        let (name, size) = (file.name.clone(), file.bytes().len() as u64);
        files.push(SourceFile { name, format: format.into(), size, sha256: String::new(), verbatim });
    }
    Ok(files)
}

/// The bytes of a companion, as many as it had when the source was opened.
fn companion_bytes(companion: &Companion) -> Result<Vec<u8>> {
    let Companion { path, size, .. } = companion;
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io(path, "read"))?;
    file.take(size + 1).read_to_end(&mut bytes).map_err(Error::io(path, "read"))?;
    match bytes.len() as u64 == *size {
        true => Ok(bytes),
        false => {
            let why = "was changed while it was being read; wait until nothing writes to it";
            Err(SourceError::Changed { path: path.clone(), why }.into())
        }
    }
}

/// The bytes of a source file that belong to no tensor.
pub fn verbatim(source: &Source, index: usize) -> Result<Vec<u8>> {
    let file = &source.files()[index];
    let extents = source.tensors().iter().filter(|t| t.file == index).map(|t| (t.offset, t.len));
    let bytes = file.bytes();
    let gaps: Vec<_> = gaps(extents, bytes.len() as u64).collect();
    let kept = gaps.iter().map(|(_, len)| len).sum::<u64>();
    if kept > MOST_ELSE {
        return Err(Error::TooMuchElse { path: file.path.clone(), bytes: kept, limit: MOST_ELSE });
    }
    let mut verbatim = Vec::with_capacity(kept as usize);
    gaps.iter().for_each(|&(at, len)| verbatim.extend(&bytes[at as usize..(at + len) as usize]));
    Ok(verbatim)
}

/// (offset, length) of what lies between extents, which must ascend and not overlap, and after them up to `size`.
pub fn gaps(extents: impl Iterator<Item = (u64, u64)>, size: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = 0;
    extents.chain([(size, 0)]).map(move |(offset, len)| {
        let gap = (at, offset.saturating_sub(at));
        at = offset + len;
        gap
    })
}

/// SHA-256 in hexadecimal; stops early, with a worthless sum, when it is to stop.
pub fn sha256(file: &source::SourceFile, stop: impl Fn() -> bool) -> String {
    let mut hasher = Sha256::new();
    for piece in file.bytes().chunks(1 << 24) {
        if stop() {
            break;
        }
        hasher.update(piece);
        file.used(piece.len() as u64);
    }
    hex(&hasher.finalize())
}

pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! Writes a `.ecq` file tensor by tensor, under a temporary name until it is complete.

use std::collections::{HashMap, HashSet};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use tempfile::NamedTempFile;

use crate::directory::{Blob, Coded, Directory, Extent, Part, Role, SourceFile, TensorRecord};
use crate::encode::Encoder;
use crate::side::Side;
use crate::tile::ENTRY_BYTES;
use crate::{Error, Result, staging};

/// Key of the directory in `__metadata__`.
pub(crate) const METADATA_KEY: &str = "ecq";
/// Name of the last entry, which holds the CRC-32 of everything before the data, and four zero bytes.
pub(crate) const SEAL: &str = "#seal";
/// zstd level of blobs: 15 takes 1 s for the 1.8 MB of a tokenizer; 19 would save 1.5 % more in twice the time.
const ZSTD_LEVEL: i32 = 15;

/// Data are moved over unused header space if they are at most this many times as long.
const MOVE_WORTH: u64 = 1024;

/// Names of the entries of a coded tensor, in file order: tiles, index, tables, side data.
pub(crate) fn entry_names(tensor: &str) -> [String; 4] {
    ["tiles", "index", "tables", "side"].map(|part| format!("{tensor}#{part}"))
}

/// Name of the entry of a blob.
pub(crate) fn blob_name(index: usize) -> String {
    format!("#blob/{index}")
}

/// Tensors may be called anything that is not empty, has no `#` and is not safetensors' own key.
pub fn check_name(name: &str) -> std::result::Result<(), &'static str> {
    if name.is_empty() || name == "__metadata__" || name.contains('#') {
        return Err(
            "a tensor's name must not be empty, contain '#' or be '__metadata__'; rename it in the source",
        );
    }
    Ok(())
}

/// What a tensor is called and where it is from.
#[derive(Clone, Debug)]
pub struct TensorHead<'a> {
    /// Name.
    pub name: &'a str,
    /// Shape, outermost dimension first.
    pub shape: &'a [u64],
    /// Type in the source.
    pub dtype: &'a str,
    /// Place in the source.
    pub source: Extent,
}

/// Writes a `.ecq` file. Memory holds one batch of tiles and the directory; nothing stands under the final name
/// until [`Self::finish`] has returned.
pub struct Writer {
    path: PathBuf,
    overwrite: bool,
    file: BufWriter<NamedTempFile>,
    /// Bytes kept free at the start for the header.
    reserved: u64,
    at: u64,
    entries: Vec<(String, TensorInfo)>,
    names: HashSet<String>,
    tensors: Vec<TensorRecord>,
    blobs: Vec<Blob>,
}

impl Writer {
    /// Starts a file. `header` is a guess of the header's length in bytes; a wrong one costs time or blanks, not
    /// correctness.
    ///
    /// Errors: [`Error::Exists`] if there is such a file and `overwrite` is false; [`Error::Io`].
    pub fn create(path: &Path, overwrite: bool, header: u64) -> Result<Self> {
        if !overwrite && path.symlink_metadata().is_ok() {
            return Err(Error::Exists(path.to_owned()));
        }
        let reserved = (header + 8).next_multiple_of(64);
        // tiles are larger and pass by the buffer
        let mut file = BufWriter::with_capacity(1 << 16, staging::file(path)?);
        file.seek(SeekFrom::Start(reserved)).map_err(Error::io(path, "write"))?;
        Ok(Self {
            path: path.to_owned(),
            overwrite,
            file,
            reserved,
            at: 0,
            entries: Vec::new(),
            names: HashSet::new(),
            tensors: Vec::new(),
            blobs: Vec::new(),
        })
    }

    /// Bytes of entries written so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.path, "write"))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Declares all bytes since `start` to be an entry.
    fn entry(&mut self, name: String, dtype: Dtype, shape: Vec<usize>, start: u64) -> Result<()> {
        if !self.names.insert(name.clone()) {
            return Err(self.unstorable(&name, "another entry of the file has this name"));
        }
        let data_offsets = (start as usize, self.at as usize);
        self.entries.push((name, TensorInfo { dtype, shape, data_offsets }));
        Ok(())
    }

    /// An entry of bytes, filled up with zeros to a multiple of 8 so that the next one is aligned.
    fn bytes_entry(&mut self, name: String, start: u64) -> Result<()> {
        let fill = (self.at.next_multiple_of(8) - self.at) as usize;
        self.put(&[0; 8][..fill])?;
        let len = (self.at - start) as usize;
        self.entry(name, Dtype::U8, vec![len], start)
    }

    fn unstorable(&self, name: &str, why: &str) -> Error {
        Error::Unstorable { path: self.path.clone(), name: name.into(), why: why.into() }
    }

    /// A tensor's name must be usable as a key beside the entries of coded tensors.
    fn check_name(&self, name: &str) -> Result<()> {
        if let Err(why) = check_name(name) {
            return Err(self.unstorable(name, why));
        }
        if self.tensors.iter().any(|t| t.name == name) {
            return Err(self.unstorable(name, "another tensor of the file has this name"));
        }
        Ok(())
    }

    /// Codes a tensor. `side` has the planes that [`Coded::side_planes`] lists. `go_on` is told of the rows
    /// that are done, and whether to go on is asked of it.
    ///
    /// Errors: [`Error::Unstorable`], [`Error::Io`], [`Error::Stopped`].
    pub fn coded(
        &mut self,
        head: TensorHead<'_>,
        encoder: &Encoder<'_>,
        side: &Side,
        mut go_on: impl FnMut(Range<usize>) -> bool,
    ) -> Result<()> {
        self.check_name(head.name)?;
        if !self.at.is_multiple_of(8) {
            return Err(self.unstorable(head.name, "coded tensors must come before plain ones and blobs"));
        }
        let coded = encoder.coded();
        if side.lengths != coded.side_planes() {
            return Err(
                self.unstorable(head.name, "the side data does not have the lengths that its scheme says")
            );
        }
        let [tiles, index, tables, side_data] = entry_names(head.name);
        let start = self.at;
        let mut entries = Vec::with_capacity(ENTRY_BYTES * coded.tiles() as usize);
        encoder.run(|rows, tile| {
            let (bytes, entry) = tile.map_err(|why| {
                let why = format!(
                    "rows {rows:?}: {why}; its weights changed while they were coded, convert it again"
                );
                self.unstorable(head.name, &why)
            })?;
            entries.extend(entry.to_bytes());
            self.put(bytes)?;
            if go_on(rows) { Ok(()) } else { Err(Error::Stopped) }
        })?;
        self.bytes_entry(tiles, start)?;
        let mut crc = crc32fast::Hasher::new();
        let freqs = encoder.frequencies().to_bytes();
        for (name, bytes) in [(index, &entries), (tables, &freqs), (side_data, &side.bytes)] {
            let start = self.at;
            if !bytes.is_empty() {
                self.put(bytes)?;
                self.bytes_entry(name, start)?;
                crc.update(bytes);
                crc.update(&[0; 8][..(self.at - start) as usize - bytes.len()]);
            }
        }
        self.record(head, Some(coded.clone()), None, crc.finalize());
        Ok(())
    }

    /// Stores a tensor as it is: `dtype` if safetensors has its type, else bytes (`None`).
    ///
    /// To keep tensors aligned, call this after all [`Self::coded`], larger types first.
    pub fn plain(&mut self, head: TensorHead<'_>, dtype: Option<Dtype>, bytes: &[u8]) -> Result<()> {
        self.check_name(head.name)?;
        let start = self.at;
        self.put(bytes)?;
        let shape = match dtype {
            Some(_) => head.shape.iter().map(|&d| d as usize).collect(),
            None => vec![bytes.len()],
        };
        self.entry(head.name.into(), dtype.unwrap_or(Dtype::U8), shape, start)?;
        self.record(head, None, None, crc32fast::hash(bytes));
        Ok(())
    }

    /// Records a tensor whose bytes are side data of a coded one, in another form. `crc` is the CRC-32 of those in the source.
    ///
    /// Errors: [`Error::Unstorable`] if there is no such coded tensor, or the name is taken.
    pub fn part(&mut self, head: TensorHead<'_>, part: Part, crc: u32) -> Result<()> {
        self.check_name(head.name)?;
        if !self.tensors.iter().any(|t| t.name == part.of && t.coded.is_some()) {
            return Err(self.unstorable(head.name, "it is part of a tensor that was not coded"));
        }
        self.record(head, None, Some(part), crc);
        Ok(())
    }

    fn record(&mut self, head: TensorHead<'_>, coded: Option<Coded>, part: Option<Part>, crc: u32) {
        let TensorHead { name, shape, dtype, source } = head;
        let (name, shape, dtype) = (name.into(), shape.into(), dtype.into());
        self.tensors.push(TensorRecord { name, shape, dtype, source, coded, part, crc });
    }

    /// Stores a file or a part of one; compressed if that helps. Returns its index.
    pub fn blob(&mut self, name: &str, role: Role, bytes: &[u8]) -> Result<usize> {
        let packed = pack(bytes).map_err(Error::io(&self.path, "compress for"))?;
        let zstd = packed.len() < bytes.len();
        let stored = if zstd { &packed[..] } else { bytes };
        let start = self.at;
        self.put(stored)?;
        let entry = blob_name(self.blobs.len());
        let len = stored.len();
        self.entry(entry, Dtype::U8, vec![len], start)?;
        let crc = crc32fast::hash(stored);
        self.blobs.push(Blob { name: name.into(), role, size: bytes.len() as u64, zstd, crc });
        Ok(self.blobs.len() - 1)
    }

    /// Writes the header and gives the file its name. Returns the length of the file.
    ///
    /// Tensors appear in the directory in the order of their place in the sources.
    pub fn finish(self, sources: Vec<SourceFile>, lossless: bool) -> Result<u64> {
        self.seal(sources, lossless)?.publish()
    }

    /// [`Self::finish`] without the name: the length of the file is known, and it can still be dropped.
    pub fn seal(mut self, sources: Vec<SourceFile>, lossless: bool) -> Result<Sealed> {
        self.tensors.sort_by_key(|t| (t.source.file, t.source.offset));
        let version = self.tensors.iter().map(TensorRecord::version).max();
        let version = version.unwrap_or(1);
        let directory = Directory {
            version,
            writer: concat!("ecq ", env!("CARGO_PKG_VERSION")).into(),
            lossless,
            sources,
            blobs: std::mem::take(&mut self.blobs),
            tensors: std::mem::take(&mut self.tensors),
        };
        let start = self.at;
        let seal_info = TensorInfo {
            dtype: Dtype::U8,
            shape: vec![8],
            data_offsets: (start as usize, start as usize + 8),
        };
        self.entries.push((SEAL.into(), seal_info));
        let header = self.header(&directory)?;
        let mut seal = [0; 8];
        seal[..4].copy_from_slice(&crc32fast::hash(&header).to_le_bytes());
        self.put(&seal)?;
        let path = self.path.clone();
        let io = |action| Error::io(&path, action);
        let mut file = self.file.into_inner().map_err(|e| Error::io(&path, "write")(e.into_error()))?;
        if header.len() as u64 != self.reserved {
            shift_data(&mut file, self.reserved, header.len() as u64).map_err(io("write"))?;
        }
        file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&header)).map_err(io("write"))?;
        Ok(Sealed { bytes: header.len() as u64 + self.at, file, path, overwrite: self.overwrite })
    }

    /// Length, JSON and blanks up to the data, which begins at a multiple of 64.
    fn header(&mut self, directory: &Directory) -> Result<Vec<u8>> {
        let fail = |why: String| Error::Unstorable { path: self.path.clone(), name: "header".into(), why };
        let text = serde_json::to_string(directory).map_err(|e| fail(e.to_string()))?;
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), text)]);
        let all = Metadata::new(Some(metadata), std::mem::take(&mut self.entries))
            .map_err(|e| fail(e.to_string()))?;
        let mut json = serde_json::to_vec(&all).map_err(|e| fail(e.to_string()))?;
        let mut len = (json.len() as u64 + 8).next_multiple_of(64);
        // blanks are cheaper than moving the data, unless the data are small
        if len < self.reserved && self.at > MOVE_WORTH * (self.reserved - len) {
            len = self.reserved;
        }
        json.resize(len as usize - 8, b' ');
        if json.len() > 100_000_000 {
            return Err(fail("the header would be over 100 MB, which safetensors does not allow".into()));
        }
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.extend(json);
        Ok(header)
    }
}

fn pack(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(bytes, ZSTD_LEVEL)
}

/// Bytes that a blob takes in a file.
pub fn blob_bytes(bytes: &[u8]) -> std::io::Result<u64> {
    Ok(pack(bytes)?.len().min(bytes.len()) as u64)
}

/// A whole file that has no name yet; dropped, nothing of it is left.
pub struct Sealed {
    file: NamedTempFile,
    path: PathBuf,
    overwrite: bool,
    bytes: u64,
}

impl Sealed {
    /// Length of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives the file its name. Returns its length. Errors: [`Error::Exists`], [`Error::Io`].
    pub fn publish(self) -> Result<u64> {
        staging::finish(self.file, &self.path, self.overwrite)?;
        Ok(self.bytes)
    }
}

/// Moves everything from `from` on to `to`, piece by piece in the order in which nothing is overwritten unread.
fn shift_data(file: &mut NamedTempFile, from: u64, to: u64) -> std::io::Result<()> {
    const PIECE: u64 = 1 << 20;
    let len = file.seek(SeekFrom::End(0))? - from;
    let pieces = len.div_ceil(PIECE);
    let mut buffer = vec![0; PIECE as usize];
    for i in 0..pieces {
        let start = PIECE * if to > from { pieces - 1 - i } else { i };
        let piece = &mut buffer[..PIECE.min(len - start) as usize];
        file.seek(SeekFrom::Start(from + start))?;
        file.read_exact(piece)?;
        file.seek(SeekFrom::Start(to + start))?;
        file.write_all(piece)?;
    }
    file.as_file().set_len(to + len)
}

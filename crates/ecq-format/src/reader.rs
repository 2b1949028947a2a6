//! Reads a `.ecq` file through a memory map. Opening reads the header; checksums are checked on first use.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;

pub use crate::blob::Unpacker;
use crate::directory::{Coded, Directory, Part, Role, TensorRecord, matrix};
use crate::tile::{ENTRY_BYTES, Frequencies, TileDecoder, TileEntry};
use crate::writer::{METADATA_KEY, SEAL, blob_name, check_name, entry_names};
use crate::{Error, Mapped, Result, VERSION, side};

/// What a caller is willing to read. The defaults suit models of any size on ordinary machines.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of header, about 1 KB a tensor; safetensors itself allows 100 MB.
    pub header: u64,
    /// Number of tensors.
    pub tensors: u64,
    /// Bytes of the name of a tensor or blob.
    pub name: u64,
    /// Dimensions of a tensor.
    pub dimensions: u64,
    /// Weights of all coded tensors together. Of equal weights a file of some kilobytes can hold any number, and whoever decodes
    /// them all takes time and room for them: set it to what the model at hand can have.
    pub weights: u64,
    /// Unpacked bytes of one blob.
    pub blob: u64,
    /// Weights of one tile, of which one takes four bytes of memory when decoded; the format allows 2^24.
    pub tile_weights: u64,
    /// Bytes of scales of one tensor.
    pub side_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header: 100_000_000,
            tensors: 1 << 20,
            name: 1 << 16,
            dimensions: 64,
            weights: 1 << 42,
            blob: 1 << 30,
            tile_weights: 1 << 24,
            side_bytes: 1 << 32,
        }
    }
}

/// An open `.ecq` file.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    map: Mapped,
    header: usize,
    directory: Directory,
    entries: HashMap<String, Entry>,
    by_name: HashMap<String, usize>,
    limits: Limits,
}

/// An entry of the container.
#[derive(Clone, Debug)]
struct Entry {
    range: Range<usize>,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Entry {
    /// Whether it is a plain run of bytes.
    fn is_bytes(&self) -> bool {
        self.dtype == Dtype::U8 && self.shape == [self.range.len()]
    }
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

impl Reader {
    /// Opens a file: reads the header and checks it against its seal, the file and `limits`, nothing else.
    ///
    /// The file should not be changed while it is open: see [`Mapped::new`] and [`Self::check`].
    ///
    /// Errors: [`Error::Io`], [`Error::NotEcq`], [`Error::Version`], [`Error::Header`], [`Error::Limit`],
    /// [`Error::Changed`].
    pub fn open(path: &Path, limits: Limits) -> Result<Self> {
        let map = map(path)?;
        let directory = read_directory(path, &map, &limits);
        check(path, &map)?; // or else its errors are those of another file
        let (header, entries, directory) = directory?;
        let fail = |why: String| Error::Header { path: path.into(), why };
        let mut by_name = HashMap::new();
        for (i, tensor) in directory.tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), i).is_some() {
                return Err(fail(format!("two tensors are called '{}'", tensor.name)));
            }
        }
        let reader = Self { path: path.into(), map, header, directory, entries, by_name, limits };
        reader.check_directory()?;
        Ok(reader)
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Is told of bytes that were read for the last time; see [`Mapped::used`]. For those who read a whole file once.
    pub fn used(&self, bytes: u64) {
        self.map.used(bytes);
    }

    /// Gives back the memory of pages that were read so far: they are read again when they are needed. For those who have
    /// copied what they need for long.
    pub fn give_back(&self) {
        self.map.give_back();
    }

    /// Length of the file in bytes.
    pub fn file_size(&self) -> u64 {
        self.map.len() as u64
    }

    /// Bytes of header, its filling included.
    pub fn header_size(&self) -> u64 {
        self.header as u64
    }

    /// What the header says.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    fn limit(&self, what: &str, value: u64, limit: u64) -> Result<()> {
        check_limit(&self.path, what, value, limit)
    }

    /// Damage; or, where the file is not the one that was opened any more, that.
    pub(crate) fn corrupt(&self, name: &str, part: impl Into<String>, why: impl Into<String>) -> Error {
        let damage =
            Error::Corrupt { path: self.path.clone(), name: name.into(), part: part.into(), why: why.into() };
        self.check().err().unwrap_or(damage)
    }

    /// Whether the file is still what it was when it was opened, and all that was read is from there; see
    /// [`Mapped::check`]. Damage that is found is checked so by itself; to be asked when nothing was found, before
    /// anything is made of what was read.
    ///
    /// Error: [`Error::Changed`].
    pub fn check(&self) -> Result<()> {
        check(&self.path, &self.map)
    }

    fn check_directory(&self) -> Result<()> {
        let directory = &self.directory;
        self.limit("the number of tensors", directory.tensors.len() as u64, self.limits.tensors)?;
        let mut known = 1; // the seal
        for (i, blob) in directory.blobs.iter().enumerate() {
            self.limit("the name of a blob", blob.name.len() as u64, self.limits.name)?;
            self.limit(&format!("the size of blob '{}'", blob.name), blob.size, self.limits.blob)?;
            self.entry(&blob.name, &blob_name(i))?;
            known += 1;
        }
        for source in &directory.sources {
            if directory.blobs.get(source.verbatim).is_none_or(|b| b.role != Role::Verbatim) {
                return Err(self.corrupt(&source.name, "directory", "its verbatim blob is missing"));
            }
        }
        let mut weights = 0u64;
        for tensor in &directory.tensors {
            known += self.check_tensor(tensor)?;
            weights = weights.saturating_add(tensor.coded.as_ref().map_or(0, Coded::weights));
            self.limit("the number of weights", weights, self.limits.weights)?;
        }
        if known != self.entries.len() {
            let why = format!("{} entries, of which {known} belong to something", self.entries.len());
            return Err(Error::Header { path: self.path.clone(), why });
        }
        Ok(())
    }

    /// Checks a tensor's record against the rest of the header; returns the number of its entries.
    fn check_tensor(&self, tensor: &TensorRecord) -> Result<usize> {
        let wrong = |why: String| self.corrupt(&tensor.name, "directory", why);
        self.limit("the name of a tensor", tensor.name.len() as u64, self.limits.name)?;
        let dimensions = format!("the number of dimensions of '{}'", tensor.name);
        self.limit(&dimensions, tensor.shape.len() as u64, self.limits.dimensions)?;
        let source = self.directory.sources.get(tensor.source.file);
        let end = tensor.source.offset.checked_add(tensor.source.len);
        if source.is_none_or(|s| end.is_none_or(|end| end > s.size)) {
            return Err(wrong("its place in the source is outside the source".into()));
        }
        check_name(&tensor.name).map_err(|why| wrong(why.into()))?;
        let version = || {
            let (needs, is) = (tensor.version(), self.directory.version);
            let why = format!("needs version {needs}, the file is of version {is}");
            if needs > is { Err(wrong(why)) } else { Ok(()) }
        };
        if let Some(part) = &tensor.part {
            return version().and_then(|()| self.check_part(tensor, part)).map(|()| 0);
        }
        let Some(coded) = &tensor.coded else {
            let entry = self.named(&tensor.name, &tensor.name)?;
            let typed = serde_json::to_value(entry.dtype).is_ok_and(|name| name == tensor.dtype.as_str())
                && entry.shape.iter().map(|&d| d as u64).eq(tensor.shape.iter().copied());
            let fits = entry.range.len() as u64 == tensor.source.len && matrix(&tensor.shape).is_some();
            return if fits && (typed || entry.is_bytes()) {
                Ok(1)
            } else {
                Err(wrong("not the entry that it says".into()))
            };
        };
        coded.check(&tensor.shape).map_err(wrong)?;
        version()?;
        let bytes = coded.pattern.map(|p| coded.weights().checked_mul(p.format.bytes() as u64));
        if bytes.is_some_and(|n| n != Some(tensor.source.len)) {
            return Err(wrong(format!("floats of {} bytes in the source", tensor.source.len)));
        }
        let what = format!("the weights of a tile of '{}'", tensor.name);
        self.limit(&what, coded.tile_rows * coded.cols, self.limits.tile_weights)?;
        let side: u64 = coded.side_planes().iter().map(|&n| n as u64).fold(0, u64::saturating_add);
        self.limit(&format!("the scales of '{}'", tensor.name), side, self.limits.side_bytes)?;
        let [tiles, index, tables, side_data] = entry_names(&tensor.name);
        let index = self.entry(&tensor.name, &index)?;
        let expected =
            coded.tiles().checked_mul(ENTRY_BYTES as u64).and_then(|n| n.checked_next_multiple_of(8));
        if expected != Some(index.len() as u64) {
            return Err(wrong(format!("an index of {} bytes for {} tiles", index.len(), coded.tiles())));
        }
        let mut parts = vec![tiles, tables];
        if side > 0 {
            parts.push(side_data);
        }
        parts.iter().try_for_each(|part| self.entry(&tensor.name, part).map(drop))?;
        Ok(parts.len() + 1)
    }

    fn check_part(&self, tensor: &TensorRecord, part: &Part) -> Result<()> {
        let whole = self.by_name.get(&part.of).map(|&i| &self.directory.tensors[i]);
        if tensor.coded.is_some() || whole.is_none_or(|t| t.coded.is_none()) {
            let why = format!("a part of '{}', which is no other, coded tensor", part.of);
            return Err(self.corrupt(&tensor.name, "directory", why));
        }
        match matrix(&tensor.shape) {
            Some(_) => Ok(()),
            None => Err(self.corrupt(&tensor.name, "directory", "the shape's product overflows")),
        }
    }

    fn named(&self, name: &str, entry: &str) -> Result<&Entry> {
        self.entries.get(entry).ok_or_else(|| self.corrupt(name, "header", format!("no entry '{entry}'")))
    }

    /// The range of an entry of bytes.
    fn entry(&self, name: &str, entry: &str) -> Result<Range<usize>> {
        match self.named(name, entry)? {
            e if e.is_bytes() => Ok(e.range.clone()),
            _ => Err(self.corrupt(name, "header", format!("entry '{entry}' is not of type U8"))),
        }
    }

    fn entry_bytes(&self, name: &str, entry: &str) -> Result<&[u8]> {
        Ok(&self.map[self.named(name, entry)?.range.clone()])
    }

    /// Bytes of a blob, unpacked and checked, in one piece. Errors: [`Error::Corrupt`]; `index` out of range is one too.
    pub fn blob(&self, index: usize) -> Result<Vec<u8>> {
        let (mut blob, mut bytes) = (self.unpack(index)?, Vec::new());
        // grows with what is really there, so a lying size allocates nothing
        while let piece @ [_, ..] = blob.next(u64::MAX)? {
            bytes.extend(piece);
        }
        Ok(bytes)
    }

    /// The same piece by piece, in memory that does not depend on the blob's size.
    pub fn unpack(&self, index: usize) -> Result<Unpacker<'_>> {
        let name = blob_name(index);
        let blob =
            self.directory.blobs.get(index).ok_or_else(|| self.corrupt(&name, "blob", "no such blob"))?;
        let stored = self.entry_bytes(&blob.name, &name)?;
        if crc32fast::hash(stored) != blob.crc {
            return Err(self.corrupt(&blob.name, "blob", "its checksum is wrong"));
        }
        Unpacker::new(self, blob, stored)
    }

    /// Bytes that a tensor occupies in the file, side data, index and filling included.
    pub fn stored_bytes(&self, tensor: &TensorRecord) -> u64 {
        self.stored_parts(tensor).iter().map(|(_, n)| n).sum()
    }

    /// Where in the file a tensor begins; `None` for a part of another.
    pub fn position(&self, tensor: &TensorRecord) -> Option<u64> {
        let [tiles, ..] = entry_names(&tensor.name);
        let name = if tensor.coded.is_some() { &tiles } else { &tensor.name };
        self.entries.get(name).map(|e| e.range.start as u64)
    }

    /// The safetensors type of a tensor stored as it was; `None` if it is stored as bytes, or not as it was.
    pub fn plain_type(&self, tensor: &TensorRecord) -> Option<Dtype> {
        let entry = self.entries.get(&tensor.name)?;
        let shaped = entry.shape.iter().map(|&d| d as u64).eq(tensor.shape.iter().copied());
        shaped.then_some(entry.dtype)
    }

    /// The entries of a tensor by part ("tiles", "index", …, or "plain") with their bytes.
    pub fn stored_parts(&self, tensor: &TensorRecord) -> Vec<(&'static str, u64)> {
        let len = |name: &String| self.entries.get(name).map_or(0, |e| e.range.len() as u64);
        match tensor.coded {
            _ if tensor.part.is_some() => Vec::new(),
            Some(_) => ["tiles", "index", "tables", "side"]
                .into_iter()
                .zip(entry_names(&tensor.name).iter().map(len))
                .collect(),
            None => vec![("plain", len(&tensor.name))],
        }
    }

    /// A tensor by name. Errors: [`Error::NoSuchTensor`], [`Error::Corrupt`].
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let index = self.by_name.get(name);
        let missing = || Error::NoSuchTensor { path: self.path.clone(), name: name.into() };
        self.load(&self.directory.tensors[*index.ok_or_else(missing)?])
    }

    /// The tensor of a record of this file's directory. Checks index, tables and side data, or the plain bytes.
    pub fn load<'a>(&'a self, record: &'a TensorRecord) -> Result<Tensor<'a>> {
        let name = &record.name;
        let wrong = |part: &str| self.corrupt(name, part, "its checksum is wrong");
        if let Some(part) = &record.part {
            return Ok(Tensor::Part(part));
        }
        let Some(coded) = &record.coded else {
            let bytes = self.entry_bytes(name, name)?;
            return if crc32fast::hash(bytes) == record.crc {
                Ok(Tensor::Plain(bytes))
            } else {
                Err(wrong("data"))
            };
        };
        let names = entry_names(name);
        let part = |i: usize| self.entries.get(&names[i]).map_or(&[][..], |e| &self.map[e.range.clone()]);
        let mut crc = crc32fast::Hasher::new();
        (1..4).for_each(|i| crc.update(part(i)));
        if crc.finalize() != record.crc {
            return Err(wrong("index, tables or side data"));
        }
        let freqs =
            Frequencies::from_bytes(coded.codec, part(2)).map_err(|why| self.corrupt(name, "tables", why))?;
        let mut tiles = Vec::with_capacity(coded.tiles() as usize); // the index is that long
        let mut at = 0u64;
        for (i, bytes) in part(1).as_chunks::<ENTRY_BYTES>().0.iter().take(coded.tiles() as usize).enumerate()
        {
            let entry = TileEntry::from_bytes(bytes);
            let len = entry.bytes(coded.split(), coded.rows_of_tile(i as u64) * coded.cols);
            let end = at.saturating_add(len);
            tiles.push((at..end, entry));
            at = end;
        }
        if at.checked_next_multiple_of(8) != Some(part(0).len() as u64) {
            return Err(self.corrupt(
                name,
                "index",
                format!("tiles of {at} bytes in {} bytes", part(0).len()),
            ));
        }
        if part(0)[at as usize..].iter().chain(&part(1)[ENTRY_BYTES * tiles.len()..]).any(|&b| b != 0) {
            return Err(self.corrupt(name, "filling", "bytes other than zero"));
        }
        let decoder = TileDecoder::new(coded, &freqs);
        let checked = tiles.iter().map(|_| AtomicBool::new(false)).collect();
        let (bytes, side) = (part(0), part(3));
        let tensor = CodedTensor { reader: self, name, coded, freqs, decoder, tiles, checked, bytes, side };
        Ok(Tensor::Coded(Box::new(tensor)))
    }
}

fn check_limit(path: &Path, what: &str, value: u64, limit: u64) -> Result<()> {
    if value <= limit {
        return Ok(());
    }
    Err(Error::Limit { path: path.into(), what: what.into(), value, limit })
}

fn map(path: &Path) -> Result<Mapped> {
    // asked before it is opened: whoever opens a pipe waits for its other end
    if !path.metadata().map_err(Error::io(path, "open"))?.is_file() {
        return Err(Error::NotEcq { path: path.into(), why: "it is no regular file".into() });
    }
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    Mapped::new(file).map_err(Error::io(path, "map"))
}

/// Header length, ranges of all entries in the file, and the directory, whose version and seal are checked.
fn read_directory(
    path: &Path,
    map: &[u8],
    limits: &Limits,
) -> Result<(usize, HashMap<String, Entry>, Directory)> {
    let (header, entries, text) = parse(path, map, limits)?;
    let fail = |why: String| Error::Header { path: path.into(), why };
    // the version first: another version's directory need not parse
    let version: VersionOnly = serde_json::from_str(&text).map_err(|e| fail(format!("directory: {e}")))?;
    if !(1..=VERSION).contains(&version.version) {
        return Err(Error::Version { path: path.into(), found: version.version });
    }
    let seal = entries.get(SEAL).filter(|e| e.range.end == map.len() && e.range.len() == 8 && e.is_bytes());
    let seal = seal.map(|e| e.range.clone());
    let seal = seal.ok_or_else(|| fail("the seal is missing at the end of the file".into()))?;
    let mut expected = [0; 8];
    expected[..4].copy_from_slice(&crc32fast::hash(&map[..header]).to_le_bytes());
    if map[seal] != expected {
        return Err(fail("its checksum is wrong".into()));
    }
    let directory: Directory = serde_json::from_str(&text).map_err(|e| fail(format!("directory: {e}")))?;
    Ok((header, entries, directory))
}

/// Error: [`Error::Changed`].
fn check(path: &Path, map: &Mapped) -> Result<()> {
    map.check().map_err(|why| Error::Changed { path: path.into(), why })
}

/// Header length, ranges of all entries in the file, and the text of the directory.
fn parse(path: &Path, bytes: &[u8], limits: &Limits) -> Result<(usize, HashMap<String, Entry>, String)> {
    let not = |why: &str| Error::NotEcq { path: path.into(), why: why.into() };
    let fail = |why: String| Error::Header { path: path.into(), why };
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| not("it is shorter than 8 bytes"))?;
    let length = u64::from_le_bytes(*length);
    if rest.first() != Some(&b'{') {
        return Err(not("it does not begin as a safetensors file; `ecq convert` makes one from a model"));
    }
    if length > rest.len() as u64 {
        return Err(fail(format!("it claims {length} bytes, the file has {}: cut short", bytes.len())));
    }
    check_limit(path, "the length of the header", length, limits.header)?;
    let data = 8 + length as usize;
    // not SafeTensors::read_metadata: its last check adds lengths from the file without a guard against overflow
    let metadata: Metadata = serde_json::from_slice(&bytes[8..data]).map_err(|e| fail(e.to_string()))?;
    if metadata.data_len() != bytes.len() - data {
        let (has, says) = (bytes.len() - data, metadata.data_len());
        return Err(fail(format!(
            "it describes {says} bytes of data, the file has {has}: cut short, or bytes added"
        )));
    }
    let text = metadata.metadata().as_ref().and_then(|m| m.get(METADATA_KEY)).cloned();
    let text =
        text.ok_or_else(|| not("it is a plain safetensors file; `ecq convert` makes an .ecq from it"))?;
    if !data.is_multiple_of(64) {
        return Err(fail(format!("the data begin at byte {data}, expected a multiple of 64")));
    }
    let entry = |info: &TensorInfo| Entry {
        range: data + info.data_offsets.0..data + info.data_offsets.1,
        dtype: info.dtype,
        shape: info.shape.clone(),
    };
    let entries = metadata.tensors().into_iter().map(|(name, info)| (name, entry(info))).collect();
    Ok((data, entries, text))
}

/// A tensor in an open file.
pub enum Tensor<'a> {
    /// Stored as in the source.
    Plain(&'a [u8]),
    /// Coded.
    Coded(Box<CodedTensor<'a>>),
    /// Side data of another tensor, in another form.
    Part(&'a Part),
}

/// A coded tensor: tiles in any order, from any thread.
pub struct CodedTensor<'a> {
    reader: &'a Reader,
    name: &'a str,
    coded: &'a Coded,
    freqs: Frequencies,
    decoder: TileDecoder,
    tiles: Vec<(Range<u64>, TileEntry)>,
    checked: Vec<AtomicBool>,
    bytes: &'a [u8],
    side: &'a [u8],
}

impl<'a> CodedTensor<'a> {
    /// How it is coded.
    pub fn coded(&self) -> &'a Coded {
        self.coded
    }

    /// Frequencies of the coded symbols.
    pub fn frequencies(&self) -> &Frequencies {
        &self.freqs
    }

    /// Rows of a tile, as a range in the matrix.
    pub fn rows(&self, tile: usize) -> Range<usize> {
        self.coded.tile_range(tile)
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.tiles.len()
    }

    /// The bytes of a tile and its entry; the checksum is checked on first use. Error: [`Error::Corrupt`].
    ///
    /// # Panics
    /// If there is no such tile.
    pub fn tile(&self, tile: usize) -> Result<(&'a [u8], TileEntry)> {
        let (range, entry) = self.tiles[tile].clone();
        let bytes = &self.bytes[range.start as usize..range.end as usize];
        if !self.checked[tile].load(Ordering::Relaxed) {
            if crc32fast::hash(bytes) != entry.crc {
                return Err(self.corrupt(tile, "its checksum is wrong".into()));
            }
            self.checked[tile].store(true, Ordering::Relaxed);
        }
        Ok((bytes, entry))
    }

    /// What the index says of a tile.
    ///
    /// # Panics
    /// If there is no such tile.
    pub fn entry(&self, tile: usize) -> TileEntry {
        self.tiles[tile].1
    }

    /// What decodes its tiles.
    pub fn decoder(&self) -> &TileDecoder {
        &self.decoder
    }

    /// An error that names the file, the tensor and the tile.
    pub fn corrupt(&self, tile: usize, why: String) -> Error {
        self.reader.corrupt(self.name, format!("tile {tile}"), why)
    }

    /// An error that names the file and the tensor, for what is in order but not provided for.
    pub fn unsupported(&self, why: String) -> Error {
        Error::Unsupported { path: self.reader.path.clone(), name: self.name.into(), why }
    }

    /// Decodes the levels of a tile into `levels`, which is resized to its weights. Error: [`Error::Corrupt`].
    ///
    /// # Panics
    /// If there is no such tile.
    pub fn levels(&self, tile: usize, levels: &mut Vec<i32>) -> Result<()> {
        let (bytes, entry) = self.tile(tile)?;
        levels.resize(self.rows(tile).len() * self.coded.cols as usize, 0);
        self.decoder.decode(bytes, entry, levels).map_err(|why| self.corrupt(tile, why))
    }

    /// Decodes the weights of a tile of floats into `out`, little-endian as in the source; `out` is resized to their bytes.
    /// Error: [`Error::Corrupt`], and that if the tensor has no [`Coded::pattern`].
    ///
    /// # Panics
    /// If there is no such tile.
    pub fn floats(&self, tile: usize, out: &mut Vec<u8>) -> Result<()> {
        let (bytes, entry) = self.tile(tile)?;
        let width = self.coded.pattern.map_or(0, |p| p.format.bytes());
        out.resize(self.rows(tile).len() * self.coded.cols as usize * width, 0);
        self.decoder.decode_floats(bytes, entry, out).map_err(|why| self.corrupt(tile, why))
    }

    /// Decodes the planes of the side data, as [`Coded::side_planes`] lists them. Error: [`Error::Corrupt`].
    pub fn side(&self) -> Result<Vec<Vec<u8>>> {
        let lengths = self.coded.side_planes();
        if lengths.is_empty() {
            return Ok(Vec::new());
        }
        let planes = side::decode(self.side, &lengths).and_then(|planes| {
            self.coded.values.scales.check_planes(self.coded.cols, &planes)?;
            Ok(planes)
        });
        planes.map_err(|why| self.reader.corrupt(self.name, "side data", why))
    }
}

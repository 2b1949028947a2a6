//! Read-only model sources: a GGUF file, a safetensors file, or a Hugging Face folder.
//!
//! A source is one or more memory-mapped files and a list of tensors that has been checked against them:
//! every tensor lies inside its file, none overlaps another, and no name occurs twice. Nothing is allocated
//! from a count that the file's own length has not confirmed, so a hostile file costs no more than an error.

mod error;
mod folder;
pub mod gguf;
pub mod packed;
mod safetensors;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ecq_format::Mapped;
use ecq_format::pattern::FloatFormat;

use crate::blocks::BlockType;

pub use error::SourceError;
use error::clip;
use packed::{Joined, Role};

/// Bounds on what is read from a file before its contents are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLimits {
    /// Longest header of one file (or shard index) in bytes.
    pub max_header: u64,
    /// Most tensors in the whole source.
    pub max_tensors: usize,
    /// Longest tensor name or metadata key in bytes.
    pub max_name: usize,
    /// Most dimensions of a tensor; GGUF has at most 8.
    pub max_dimensions: usize,
    /// Most metadata values of a GGUF file, each of an array counted: of those of a vocabulary there are some millions at
    /// most. Read, a value takes 32 bytes, in the file perhaps one.
    pub max_values: u64,
    /// Most files of a folder that belong to its model: shards and companions.
    pub max_files: usize,
    /// Longest companion in bytes. What is longer is data, not description, and left out; tokenizers have some tens of
    /// megabytes.
    pub max_companion: u64,
}

impl Default for SourceLimits {
    fn default() -> Self {
        Self {
            max_header: 512 << 20,
            max_tensors: 1 << 20,
            max_name: 64 << 10,
            max_dimensions: 64,
            max_values: 1 << 23,
            max_files: 1 << 14,
            max_companion: 256 << 20,
        }
    }
}

/// What a source is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// One GGUF file.
    Gguf,
    /// One safetensors file.
    Safetensors,
    /// A Hugging Face folder, or a sharded model named by its index.
    Folder,
}

/// The format of one model file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// GGUF, version 2 or 3, little-endian.
    Gguf,
    /// safetensors.
    Safetensors,
}

/// One memory-mapped model file.
#[derive(Debug)]
pub struct SourceFile {
    /// Name relative to the source: the bare file name.
    pub name: String,
    /// Where the file is.
    pub path: PathBuf,
    /// How the file is laid out.
    pub format: FileFormat,
    map: Mapped,
}

impl SourceFile {
    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Whether the file is still what it was when it was opened, and all that was read is from there; see
    /// [`Mapped::check`].
    ///
    /// # Errors
    /// [`SourceError::Changed`].
    pub fn check(&self) -> Result<(), SourceError> {
        check(&self.path, &self.map)
    }

    /// Is told how many bytes were read; see [`Mapped::used`].
    pub(crate) fn used(&self, bytes: u64) {
        self.map.used(bytes);
    }
}

/// A small file beside the weights that belongs to the model, such as its configuration or tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Companion {
    /// The bare file name.
    pub name: String,
    /// Where the file is.
    pub path: PathBuf,
    /// Its length in bytes when the source was opened.
    pub size: u64,
}

/// A tensor type that is carried through unread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OtherType {
    /// The format's own name for it, e.g. `IQ4_XS` or `I64`; `type-<id>` for a GGUF id that is not known.
    pub name: Cow<'static, str>,
    /// Whether the name is GGUF's (else safetensors').
    pub gguf: bool,
}

/// The element or block type of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SourceType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// 8 bits, 4 of them exponent.
    F8E4M3,
    /// 8 bits, 5 of them exponent.
    F8E5M2,
    /// GGUF blocks of codes and scales.
    Block(BlockType),
    /// Any other type, carried through.
    Other(OtherType),
}

impl SourceType {
    /// The type a format's name stands for.
    pub(crate) fn named(name: impl Into<Cow<'static, str>>, gguf: bool) -> Self {
        let name = name.into();
        match (&*name, gguf) {
            ("F32", _) => Self::F32,
            ("F16", _) => Self::F16,
            ("BF16", _) => Self::BF16,
            ("F8_E4M3", false) => Self::F8E4M3,
            ("F8_E5M2", false) => Self::F8E5M2,
            _ => match BlockType::named(&name).filter(|_| gguf) {
                Some(block) => Self::Block(block),
                None => Self::Other(OtherType { name, gguf }),
            },
        }
    }

    /// The format's name for the type.
    pub fn name(&self) -> &str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::Block(block) => block.name(),
            Self::Other(other) => &other.name,
        }
    }

    /// The block format, if it is one.
    pub fn block(&self) -> Option<BlockType> {
        match *self {
            Self::Block(block) => Some(block),
            _ => None,
        }
    }

    /// The format of floats that are coded by their bit patterns.
    pub fn pattern_format(&self) -> Option<FloatFormat> {
        match self {
            Self::F16 => Some(FloatFormat::F16),
            Self::BF16 => Some(FloatFormat::Bf16),
            Self::F8E4M3 => Some(FloatFormat::F8E4M3),
            Self::F8E5M2 => Some(FloatFormat::F8E5M2),
            _ => None,
        }
    }

    /// Bytes of a float of a type that [`crate::blocks::to_f32`] reads.
    pub fn float_bytes(&self) -> Option<usize> {
        match self {
            Self::F32 => Some(4),
            other => other.pattern_format().map(FloatFormat::bytes),
        }
    }
}

/// One tensor of a source: where its bytes are and how they are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTensor {
    /// Name, unique in the source.
    pub name: String,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<u64>,
    /// Element or block type.
    pub dtype: SourceType,
    /// Index into [`Source::files`].
    pub file: usize,
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// Length in bytes. For a GGUF type that is not known it reaches to the next tensor or the file's end.
    pub len: u64,
}

/// An open, checked model source.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    kind: SourceKind,
    files: Vec<SourceFile>,
    companions: Vec<Companion>,
    left_out: Vec<String>,
    tensors: Vec<SourceTensor>,
    architecture: Option<String>,
    joined: Joined,
    notes: Vec<String>,
}

impl Source {
    /// Opens a model file, a folder, or a `*.safetensors.index.json`.
    ///
    /// # Errors
    /// The first thing found wrong with the files, see [`SourceError`].
    pub fn open(path: &Path, limits: &SourceLimits) -> Result<Self, SourceError> {
        let about = std::fs::metadata(path).map_err(|source| io_error(path, source))?;
        if about.is_dir() {
            return Self::from_folder(path, folder::scan(path, limits)?, limits);
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(folder::INDEX_SUFFIX) {
            return Self::from_folder(path, folder::from_index(path, name, limits)?, limits);
        }
        Self::from_file(path, name, limits)
    }

    fn from_file(path: &Path, name: String, limits: &SourceLimits) -> Result<Self, SourceError> {
        let map = map_file(path)?;
        let unchanged = |error| check(path, &map).err().unwrap_or(error);
        let mut source = Self::empty(path, SourceKind::Safetensors);
        let mut texts = Vec::new();
        let format = if map.starts_with(gguf::MAGIC) {
            source.kind = SourceKind::Gguf;
            let model = gguf::parse(path, &map, limits).map_err(unchanged)?;
            source.tensors = model.tensors;
            source.architecture = model.architecture;
            FileFormat::Gguf
        } else if path.extension().is_some_and(|extension| extension == "gguf") {
            let found = map[..map.len().min(4)].to_vec();
            return Err(SourceError::BadMagic { path: path.into(), found, expected: "\"GGUF\"" });
        } else {
            let (tensors, found) = safetensors::parse(path, &map, 0, limits).map_err(unchanged)?;
            (source.tensors, texts) = (tensors, vec![found]);
            FileFormat::Safetensors
        };
        source.files.push(SourceFile { name, path: path.into(), format, map });
        source.join(path.parent().unwrap_or(Path::new("")), &texts);
        Ok(source)
    }

    fn from_folder(path: &Path, plan: folder::Plan, limits: &SourceLimits) -> Result<Self, SourceError> {
        let mut source = Self::empty(path, SourceKind::Folder);
        let count = plan.shards.len() + plan.companions.len();
        check_count(path, "files of a model", count as u64, limits.max_files as u64)?;
        let mut texts = Vec::new();
        for (file, name) in plan.shards.into_iter().enumerate() {
            let path = plan.folder.join(&name);
            let map = map_file(&path)?;
            let (mut tensors, found) = safetensors::parse(&path, &map, file, limits)
                .map_err(|error| check(&path, &map).err().unwrap_or(error))?;
            source.tensors.append(&mut tensors);
            texts.push(found);
            check_tensor_count(&path, source.tensors.len() as u64, limits)?;
            source.files.push(SourceFile { name, path, format: FileFormat::Safetensors, map });
        }
        let owners = check_unique(&source.tensors, |file| &source.files[file].path)?;
        if let Some(index) = &plan.index {
            index.check(&source.files, &owners)?;
        }
        source.companions = plan.companions;
        source.left_out = plan.left_out;
        source.join(&plan.folder, &texts);
        Ok(source)
    }

    /// Finds out which tensors are packed and belong together.
    fn join(&mut self, folder: &Path, texts: &[packed::Texts]) {
        // GGUF has its own types for that
        if self.kind == SourceKind::Gguf {
            self.notes = unread(&self.tensors);
        } else {
            (self.joined, self.notes) = packed::join(&self.files, &self.tensors, folder, texts);
        }
    }

    fn empty(path: &Path, kind: SourceKind) -> Self {
        Self {
            path: path.into(),
            kind,
            files: Vec::new(),
            companions: Vec::new(),
            left_out: Vec::new(),
            tensors: Vec::new(),
            architecture: None,
            joined: Joined::default(),
            notes: Vec::new(),
        }
    }

    /// What was opened: a file, a folder, or an index of shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the source is made of.
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// Whether the source, or a part of it, is quantized already: a GGUF file, or packed tensors, be it that nothing tells
    /// how they are packed.
    pub fn is_quantized(&self) -> bool {
        self.kind == SourceKind::Gguf
            || self.tensors.iter().any(|t| matches!(self.role(t), Role::Main(_) | Role::Kept))
    }

    /// The model files, sorted by name.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// Whether all files with weights are still what they were when they were opened; to be asked before anything is made of what was
    /// read from them, and when something else seems to be wrong with it.
    ///
    /// # Errors
    /// [`SourceError::Changed`].
    pub fn check(&self) -> Result<(), SourceError> {
        self.files.iter().try_for_each(SourceFile::check)
    }

    /// The small files beside the weights; none for a single model file.
    pub fn companions(&self) -> &[Companion] {
        &self.companions
    }

    /// Names of what else lies in the folder and is not part of the source.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// All tensors, sorted by file and offset.
    pub fn tensors(&self) -> &[SourceTensor] {
        &self.tensors
    }

    /// The `general.architecture` of a GGUF file.
    pub fn architecture(&self) -> Option<&str> {
        self.architecture.as_deref()
    }

    /// What one of this source's tensors is to those that are quantized already.
    pub fn role(&self, tensor: &SourceTensor) -> Role<'_> {
        self.joined.role(&tensor.name)
    }

    /// Remarks on tensors that are kept as they are because their type or packing is not read, each kind of them once.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Checks that the source says how tensors that look like GPTQ's or AWQ's are packed, unless one is `kept`.
    pub(crate) fn explained(&self, kept: impl Fn(&str) -> bool) -> Result<(), SourceError> {
        match self.joined.unexplained().filter(|name| !kept(name)) {
            None => Ok(()),
            Some(name) => {
                let tensor = self.tensors.iter().find(|t| t.name == name);
                let path = tensor.map_or(PathBuf::new(), |t| self.files[t.file].path.clone());
                let path = path.parent().map_or(path.clone(), Path::to_path_buf);
                Err(SourceError::Unexplained { path, tensor: clip(name) })
            }
        }
    }

    /// The bytes of one of this source's tensors.
    ///
    /// # Panics
    /// When the tensor is not one of [`Source::tensors`] and does not lie in this source's files.
    pub fn data(&self, tensor: &SourceTensor) -> &[u8] {
        let start = tensor.offset as usize;
        &self.files[tensor.file].map[start..start + tensor.len as usize]
    }
}

/// A remark on each GGUF type of quantized weights that is not read.
fn unread(tensors: &[SourceTensor]) -> Vec<String> {
    let mut counts: std::collections::BTreeMap<&str, usize> = Default::default();
    for tensor in tensors {
        // integers and doubles are no weights
        if let SourceType::Other(OtherType { name, .. }) = &tensor.dtype
            && !matches!(&**name, "I8" | "I16" | "I32" | "I64" | "F64")
        {
            *counts.entry(name).or_default() += 1;
        }
    }
    let note = |(name, count): (&str, usize)| match count {
        1 => format!("a tensor is of type {name}, which is not read: it is stored as it is"),
        n => format!("{n} tensors are of type {name}, which is not read: they are stored as they are"),
    };
    counts.into_iter().map(note).collect()
}

/// Maps a regular file that is not empty.
fn map_file(path: &Path) -> Result<Mapped, SourceError> {
    // Asked before opening: opening a pipe would wait for a writer.
    let about = std::fs::metadata(path).map_err(|source| io_error(path, source))?;
    if !about.is_file() {
        return Err(SourceError::NotAFile { path: path.into() });
    }
    if about.len() == 0 {
        return Err(SourceError::Empty { path: path.into() });
    }
    let file = File::open(path).map_err(|source| io_error(path, source))?;
    let map = Mapped::new(file).map_err(|source| io_error(path, source))?;
    if map.is_empty() { Err(SourceError::Empty { path: path.into() }) } else { Ok(map) }
}

fn check(path: &Path, map: &Mapped) -> Result<(), SourceError> {
    map.check().map_err(|why| SourceError::Changed { path: path.into(), why })
}

fn io_error(path: &Path, source: std::io::Error) -> SourceError {
    match source.kind() {
        ErrorKind::NotFound => SourceError::NotFound { path: path.into() },
        ErrorKind::OutOfMemory => SourceError::NoRoom { path: path.into(), source },
        _ => SourceError::Unreadable { path: path.into(), source },
    }
}

fn check_tensor_count(path: &Path, count: u64, limits: &SourceLimits) -> Result<(), SourceError> {
    check_count(path, "tensors", count, limits.max_tensors as u64)
}

fn check_count(path: &Path, what: &'static str, count: u64, limit: u64) -> Result<(), SourceError> {
    if count > limit {
        return Err(SourceError::CountLimit { path: path.into(), what, count, limit });
    }
    Ok(())
}

fn check_name(
    path: &Path,
    what: &'static str,
    name: &[u8],
    limits: &SourceLimits,
) -> Result<(), SourceError> {
    let (len, limit) = (name.len() as u64, limits.max_name as u64);
    if len > limit {
        return Err(SourceError::NameTooLong { path: path.into(), what, len, limit });
    }
    Ok(())
}

/// The file of every tensor by name; fails where a name occurs twice.
fn check_unique<'a>(
    tensors: &'a [SourceTensor],
    path_of: impl Fn(usize) -> &'a Path,
) -> Result<HashMap<&'a str, usize>, SourceError> {
    let mut owners = HashMap::with_capacity(tensors.len());
    for tensor in tensors {
        if let Some(first) = owners.insert(tensor.name.as_str(), tensor.file) {
            return Err(SourceError::DuplicateTensor {
                path: path_of(tensor.file).into(),
                tensor: clip(&tensor.name),
                other: path_of(first).into(),
            });
        }
    }
    Ok(owners)
}

//! Models that are no `.ecq` file yet: converted without loss on first use, into a folder of the user's caches.

use std::error::Error as _;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use ecq_convert::Progress;
use ecq_convert::convert::{Options, Treatment, convert_source};
use ecq_convert::source::packed::Role;
use ecq_convert::source::{Source, SourceLimits};
use ecq_format::staging;
use etcetera::BaseStrategy;
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::description::Description;
use crate::error::{Error, Result};
use crate::tensors::{self, Shapes};
use crate::tokenizer::Tokenizer;

/// The environment variable that names another folder.
pub const FOLDER: &str = "ECQ_CACHE";

/// Most letters of a source's name in that of its file.
const MOST_STEM: usize = 50;

/// A `.ecq` file to open in the place of what was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The file.
    pub path: PathBuf,
    /// Whether it was converted just now.
    pub fresh: bool,
}

/// Whether a model must be converted first: a GGUF file, a Hugging Face folder, or the index of its shards.
pub fn is_source(path: &Path) -> bool {
    let gguf = || {
        let mut magic = [0; 4];
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
        read.is_ok() && &magic == b"GGUF"
    };
    // whoever opens a pipe waits for its other end
    path.is_dir() || path.to_string_lossy().ends_with(".safetensors.index.json") || (path.is_file() && gguf())
}

/// The folder for converted models: what [`FOLDER`] names, else `ecq` in the user's folder for caches.
///
/// Error: [`Error::Cache`] if there is none.
pub fn folder() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(FOLDER).filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    let found = etcetera::base_strategy::choose_native_strategy();
    let caches = found.map_err(|e| Error::Cache { path: PathBuf::new(), why: e.to_string() })?;
    Ok(caches.cache_dir().join("ecq"))
}

/// The model as a `.ecq` file in `folder`: converted without loss, unless that was done before for the same files. They are
/// the same while their paths, lengths and times of change are.
///
/// Whether the model can be run is found out first. Several processes may do this at once; each finds a complete file.
///
/// Errors: [`Error::Convert`], [`Error::Cache`]; [`Error::Model`] and [`Error::Tokenizer`] as for
/// [`ModelFile::open`](crate::ModelFile::open).
pub fn converted(path: &Path, folder: &Path, progress: &dyn Progress) -> Result<Converted> {
    let source = Source::open(path, &SourceLimits::default()).map_err(ecq_convert::Error::from)?;
    let to = folder.join(name(path, &source)?);
    // of runs that were killed: theirs may be names that nobody asks for again
    staging::clear(folder, None);
    if to.is_file() {
        return Ok(Converted { path: to, fresh: false });
    }
    let description = Description::of_source(path, &source)?;
    let config = Config::new(path, &description)?;
    tensors::check(path, &config, shapes(&source))?;
    Tokenizer::new(path, description, config.vocabulary)?;
    std::fs::create_dir_all(folder).map_err(cannot(folder))?;
    let options = Options::new(Treatment::Lossless);
    match convert_source(&source, &to, &options, progress) {
        Ok(_) => Ok(Converted { path: to, fresh: true }),
        // another process was faster
        Err(ecq_convert::Error::Format(ecq_format::Error::Exists(path))) => {
            Ok(Converted { path, fresh: false })
        }
        Err(ecq_convert::Error::Format(error @ ecq_format::Error::Io { .. })) => {
            let why = error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
            Err(Error::Cache { path: folder.into(), why })
        }
        Err(error) => Err(error.into()),
    }
}

/// Shapes that the tensors of a source will have.
pub(crate) fn shapes(source: &Source) -> Shapes<'_> {
    let tensors = source.tensors().iter();
    tensors
        .filter_map(|tensor| match source.role(tensor) {
            Role::Member => None,
            Role::Main(packed) => Some((tensor.name.as_str(), packed.shape.as_slice())),
            Role::Free | Role::Kept => Some((tensor.name.as_str(), tensor.shape.as_slice())),
        })
        .collect()
}

/// The name of the converted file: that of the source, and a number of all that it depends on.
fn name(path: &Path, source: &Source) -> Result<OsString> {
    let real = path.canonicalize().map_err(cannot(path))?;
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(&ecq_format::VERSION.to_le_bytes());
    add(real.as_os_str().as_encoded_bytes());
    let files = source.files().iter().map(|file| &file.path);
    for file in files.chain(source.companions().iter().map(|file| &file.path)) {
        let about = file.metadata().map_err(cannot(file))?;
        let changed = about.modified().map_err(cannot(file))?;
        let since = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
        add(file.as_os_str().as_encoded_bytes());
        add(&about.len().to_le_bytes());
        add(&since.as_nanos().to_le_bytes());
    }
    let number: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    // names of files have at most 255 bytes, in which that of an unfinished one must fit
    let stem = real.file_stem().unwrap_or(real.as_os_str()).to_string_lossy();
    let short: String = stem.chars().take(MOST_STEM).collect();
    Ok(format!("{short}-{number}.ecq").into())
}

fn cannot(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |e| Error::Cache { path: path.into(), why: e.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_converted_first_is_known_by_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_source(folder.path()));
        for (name, bytes, expected) in [
            ("model.gguf", &b"GGUF\x03\0\0\0"[..], true),
            ("model.ecq", b"GGUF", true),
            ("short.gguf", b"GGU", false),
            ("model.safetensors.index.json", b"{}", true),
            ("other.ecq", b"\x08\0\0\0\0\0\0\0{}", false),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(is_source(&path), expected, "{name}");
        }
        assert!(!is_source(&folder.path().join("missing.gguf")));
    }
}

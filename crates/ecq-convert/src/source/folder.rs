//! Hugging Face folders: which files are weights, which belong beside them, and the shard index.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::clip;
use super::{Companion, SourceError, SourceFile, SourceLimits, check_tensor_count, io_error, map_file};
use crate::file_name::is_plain;

/// How the name of a shard index ends.
pub(super) const INDEX_SUFFIX: &str = ".safetensors.index.json";
const DEFAULT_INDEX: &str = "model.safetensors.index.json";
const WEIGHTS_SUFFIX: &str = ".safetensors";
const COMPANION_EXTENSIONS: [&str; 4] = ["json", "txt", "model", "jinja"];

/// What to open, before any of it has been opened.
pub(super) struct Plan {
    pub(super) folder: PathBuf,
    /// Names of the weight files, sorted.
    pub(super) shards: Vec<String>,
    pub(super) index: Option<Index>,
    pub(super) companions: Vec<Companion>,
    pub(super) left_out: Vec<String>,
}

/// Sorts the contents of a folder into weights, companions and the rest.
pub(super) fn scan(folder: &Path, limits: &SourceLimits) -> Result<Plan, SourceError> {
    let listing = list(folder, limits)?;
    let indexes: Vec<&str> =
        listing.companions.iter().map(|c| c.name.as_str()).filter(|n| is_index(n)).collect();
    let index = match indexes[..] {
        [] => None,
        _ if indexes.contains(&DEFAULT_INDEX) => Some(DEFAULT_INDEX),
        [only] => Some(only),
        _ => return Err(SourceError::SeveralIndexes { path: folder.into(), names: indexes.join(", ") }),
    };
    let index = index.map(|name| Index::read(&folder.join(name), limits)).transpose()?;
    let mut left_out = listing.rest;
    let mut shards = listing.weights;
    if let Some(index) = &index {
        let listed = index.shards();
        index.check_present(|file| shards.iter().any(|shard| shard == file))?;
        left_out.extend(shards.extract_if(.., |shard| !listed.contains(shard.as_str())));
    }
    left_out.sort_unstable();
    if shards.is_empty() {
        let hint = match left_out.iter().find(|name| name.ends_with(".gguf")) {
            Some(name) => format!("give {name} itself if it is what you mean"),
            None => "expected a Hugging Face model folder".to_owned(),
        };
        return Err(SourceError::NoModel { path: folder.into(), hint });
    }
    Ok(Plan { folder: folder.into(), shards, index, companions: listing.companions, left_out })
}

/// A sharded model named by its index: the index and the shards it lists, nothing else of the folder.
pub(super) fn from_index(path: &Path, name: String, limits: &SourceLimits) -> Result<Plan, SourceError> {
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let index = Index::read(path, limits)?;
    index.check_present(|file| folder.join(file).is_file())?;
    let shards = index.shards().into_iter().map(str::to_owned).collect();
    let about = fs::metadata(path).map_err(|source| io_error(path, source))?;
    let companions = vec![Companion { name, path: path.into(), size: about.len() }];
    Ok(Plan { folder, shards, index: Some(index), companions, left_out: Vec::new() })
}

/// The entries of a folder by role, each list sorted.
#[derive(Default)]
struct Listing {
    weights: Vec<String>,
    companions: Vec<Companion>,
    rest: Vec<String>,
}

fn list(folder: &Path, limits: &SourceLimits) -> Result<Listing, SourceError> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(folder).map_err(|source| io_error(folder, source))? {
        let entry = entry.map_err(|source| io_error(folder, source))?;
        let Ok(name) = entry.file_name().into_string() else {
            listing.rest.push(entry.file_name().to_string_lossy().into_owned());
            continue;
        };
        // Follows links: the download cache keeps a model as links into a blob store.
        let path = entry.path();
        let about = fs::metadata(&path).ok();
        let regular = about.as_ref().is_some_and(fs::Metadata::is_file) && is_plain(&name);
        let size = about.map_or(0, |about| about.len());
        let hidden = name.starts_with('.');
        let extension = Path::new(&name).extension().and_then(|extension| extension.to_str()).unwrap_or("");
        if regular && !hidden && name.ends_with(WEIGHTS_SUFFIX) {
            listing.weights.push(name);
        } else if regular
            && !hidden
            && COMPANION_EXTENSIONS.contains(&extension)
            && size <= limits.max_companion
        {
            listing.companions.push(Companion { name, path, size });
        } else {
            listing.rest.push(name);
        }
    }
    listing.weights.sort_unstable();
    listing.companions.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(listing)
}

fn is_index(name: &str) -> bool {
    name.ends_with(INDEX_SUFFIX)
}

/// A shard index: which file holds which tensor.
pub(super) struct Index {
    path: PathBuf,
    weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct IndexJson {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    fn read(path: &Path, limits: &SourceLimits) -> Result<Self, SourceError> {
        let map = map_file(path)?;
        let limit = limits.max_header;
        if map.len() as u64 > limit {
            return Err(SourceError::HeaderTooLarge { path: path.into(), len: map.len() as u64, limit });
        }
        let invalid = |detail: String| SourceError::IndexJson { path: path.into(), detail };
        let IndexJson { weight_map } =
            serde_json::from_slice(&map).map_err(|error| invalid(clip(&error.to_string())))?;
        if weight_map.is_empty() {
            return Err(invalid("its weight_map is empty".to_owned()));
        }
        check_tensor_count(path, weight_map.len() as u64, limits)?;
        if let Some((tensor, file)) =
            weight_map.iter().find(|(_, file)| !is_plain(file) || !file.ends_with(WEIGHTS_SUFFIX))
        {
            return Err(SourceError::IndexPath { path: path.into(), tensor: clip(tensor), file: clip(file) });
        }
        Ok(Self { path: path.into(), weight_map })
    }

    /// The files it lists, sorted.
    fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    fn check_present(&self, is_there: impl Fn(&str) -> bool) -> Result<(), SourceError> {
        let missing: BTreeSet<&str> = self.shards().into_iter().filter(|file| !is_there(file)).collect();
        match self.weight_map.iter().find(|(_, file)| missing.contains(file.as_str())) {
            None => Ok(()),
            Some((tensor, file)) => Err(SourceError::IndexMissingFile {
                path: self.path.clone(),
                tensor: clip(tensor),
                file: clip(file),
            }),
        }
    }

    /// Every tensor it lists is in the file it says. `owners` gives the file of each tensor that was found.
    pub(super) fn check(
        &self,
        files: &[SourceFile],
        owners: &HashMap<&str, usize>,
    ) -> Result<(), SourceError> {
        let holds =
            |tensor: &str, file: &str| owners.get(tensor).is_some_and(|&owner| files[owner].name == file);
        match self.weight_map.iter().find(|(tensor, file)| !holds(tensor, file)) {
            None => Ok(()),
            Some((tensor, file)) => Err(SourceError::IndexMissingTensor {
                path: self.path.clone(),
                tensor: clip(tensor),
                file: clip(file),
            }),
        }
    }
}

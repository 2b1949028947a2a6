//! `cargo xtask hostile`: the catalogue of hostile files in `fixtures/hostile`.
//!
//! Each case is a small file or folder, and a line of `catalogue.tsv`: how it is read, the error that it must give, and what
//! it attacks. `.ecq` files are made of the frozen ones in `fixtures/hostile/base`, all others from nothing, so that the
//! same bytes come out every time and on every machine.

mod blobs;
mod cuts;
mod directory;
mod folders;
#[allow(clippy::unwrap_used, reason = "takes apart files that are sound")]
#[path = "../../../crates/ecq-format/tests/common/forge.rs"]
mod forge;
mod gguf;
mod json;
mod packed;
mod safetensors;
mod scales;
mod tiles;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use forge::Forge;

use crate::shell;

/// Where the catalogue is.
const FOLDER: &str = "fixtures/hostile";
/// First line of the list.
const COLUMNS: &str = "file\tcommand\tfound in\terror\twords\tattacks";

/// Files by their path below a case.
type Files = BTreeMap<String, Vec<u8>>;

/// How far a reader must go to notice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Before any data: the header and what it says of itself.
    Header,
    /// Index, tables, side data, tiles, plain bytes.
    Data,
    /// Blobs when they are unpacked.
    Blobs,
    /// Sources when they are put together again.
    Sources,
    /// Only by a limit that a reader sets itself.
    Limits,
}

impl Found {
    fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Data => "data",
            Self::Blobs => "blobs",
            Self::Sources => "sources",
            Self::Limits => "limits",
        }
    }
}

/// A hostile file or folder.
struct Case {
    /// Path below the catalogue's folder.
    path: String,
    /// The command of `ecq` that must refuse it.
    command: &'static str,
    found: Found,
    /// The kind of error; see the catalogue's page.
    error: &'static str,
    /// Words of the error's text.
    words: String,
    attacks: String,
    /// One file of no name, or those of a folder.
    files: Files,
}

/// The cases so far.
#[derive(Default)]
struct Catalogue(Vec<Case>);

impl Catalogue {
    /// Adds an `.ecq` file. Its kind of error says how far a reader must go, unless it is told.
    fn ecq(
        &mut self,
        name: &str,
        bytes: Vec<u8>,
        error: &'static str,
        words: &str,
        attacks: &str,
    ) -> &mut Case {
        let in_data =
            words.starts_with("corrupt") && error == "corrupt" || words.contains("checksum is wrong");
        let found = match error {
            "limit" => Found::Limits,
            "inconsistent" | "sha256" => Found::Sources,
            "corrupt" if in_data => Found::Data,
            _ => Found::Header,
        };
        self.add(format!("ecq/{name}.ecq"), "verify", found, (error, words), attacks, lone(bytes))
    }

    /// Adds a model file to convert.
    fn model(&mut self, path: String, bytes: Vec<u8>, error: &'static str, words: &str, attacks: &str) {
        self.add(path, "convert", Found::Header, (error, words), attacks, lone(bytes));
    }

    /// Adds a folder to convert.
    fn folder(
        &mut self,
        name: &str,
        files: Files,
        error: &'static str,
        words: &str,
        attacks: &str,
    ) -> &mut Case {
        self.add(format!("folder/{name}"), "convert", Found::Header, (error, words), attacks, files)
    }

    fn add(
        &mut self,
        path: String,
        command: &'static str,
        found: Found,
        (error, words): (&'static str, &str),
        attacks: &str,
        files: Files,
    ) -> &mut Case {
        let (words, attacks) = (words.to_owned(), attacks.to_owned());
        self.0.push(Case { path, command, found, error, words, attacks, files });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
}

fn lone(bytes: Vec<u8>) -> Files {
    Files::from([(String::new(), bytes)])
}

/// The files that `.ecq` cases are made of.
struct Bases {
    v1: Forge,
    v2: Forge,
    v3: Forge,
    /// Version 4 with a prefix code, and with rANS.
    v4: [Forge; 2],
    /// Lossless: an MLX layer with its parts, and a file of shards.
    lossless: Forge,
}

impl Bases {
    fn read() -> Result<Self> {
        let read = |name: &str| {
            let path = shell::root().join(FOLDER).join("base").join(name);
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            anyhow::Ok(Forge::new(&bytes))
        };
        Ok(Self {
            v1: read("v1.ecq")?,
            v2: read("v2.ecq")?,
            v3: read("v3.ecq")?,
            v4: [read("v4-prefix.ecq")?, read("v4-rans.ecq")?],
            lossless: read("lossless.ecq")?,
        })
    }
}

/// All files of the catalogue by their paths.
fn files() -> Result<Files> {
    let (bases, mut catalogue) = (Bases::read()?, Catalogue::default());
    cuts::add(&mut catalogue, &bases);
    directory::add(&mut catalogue, &bases);
    scales::add(&mut catalogue, &bases);
    json::add(&mut catalogue, &bases);
    tiles::add(&mut catalogue, &bases);
    blobs::add(&mut catalogue, &bases);
    gguf::add(&mut catalogue);
    safetensors::add(&mut catalogue);
    folders::add(&mut catalogue);
    packed::add(&mut catalogue);
    let mut all = Files::new();
    let mut lines = vec![COLUMNS.to_owned()];
    for Case { path, command, found, error, words, attacks, files } in catalogue.0 {
        let found = found.name();
        let columns = [&path, command, found, error, &words, &attacks];
        ensure!(!columns.iter().any(|c| c.contains(['\t', '\n'])), "{path}: a column with a tab or line");
        lines.push(columns.join("\t"));
        for (name, bytes) in files {
            let at = if name.is_empty() { path.clone() } else { format!("{path}/{name}") };
            ensure!(all.insert(at.clone(), bytes).is_none(), "{at}: two cases of one name");
        }
    }
    all.insert("catalogue.tsv".into(), (lines.join("\n") + "\n").into());
    Ok(all)
}

/// Writes the catalogue, and removes what is no longer in it.
pub fn run() -> Result<()> {
    let (folder, files) = (shell::root().join(FOLDER), files()?);
    for old in there(&folder)?.into_iter().filter(|old| !files.contains_key(old)) {
        fs::remove_file(folder.join(old))?;
    }
    for (name, bytes) in &files {
        let path = folder.join(name);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let bytes: usize = files.values().map(Vec::len).sum();
    println!("{} files of {bytes} bytes in {}", files.len(), folder.display());
    Ok(())
}

/// Paths of what was generated: all but the page and the bases.
fn there(folder: &Path) -> Result<Vec<String>> {
    let mut all = vec!["catalogue.tsv".to_owned()];
    let mut open: Vec<String> =
        ["ecq", "gguf", "safetensors", "folder"].map(str::to_owned).into_iter().collect();
    while let Some(name) = open.pop() {
        let Ok(entries) = fs::read_dir(folder.join(&name)) else { continue };
        for entry in entries {
            let entry = entry?;
            let path = format!("{name}/{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() { open.push(path) } else { all.push(path) }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_catalogue_is_what_is_generated() {
        let folder = shell::root().join(FOLDER);
        let files = files().unwrap();
        let mut there = there(&folder).unwrap();
        there.sort();
        let differ = "differs: run `cargo xtask hostile`";
        assert!(there.iter().eq(files.keys()), "the list of files {differ}");
        for (name, bytes) in files {
            assert!(fs::read(folder.join(&name)).unwrap() == bytes, "{name} {differ}");
        }
    }
}

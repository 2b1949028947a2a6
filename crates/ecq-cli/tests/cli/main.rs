//! The command as a user types it: conversions that must work, and mistakes that must be explained.
#![allow(clippy::unwrap_used)]

mod analyze;
mod convert;
mod edges;
mod faults;
mod interrupt;
mod model;
mod recode;
mod refusals;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The command with these arguments, in a pipe, without the settings of whoever runs the tests.
fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ecq"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs the command to its end.
fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// Runs the command; it must succeed, without escape codes and with nothing on standard error. Returns what it prints.
fn ok(arguments: &[&str]) -> String {
    let output = run(arguments);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "ecq {arguments:?}: {err}");
    assert_eq!(err, "", "ecq {arguments:?}");
    assert!(!out.contains('\u{1b}'), "ecq {arguments:?}: escape codes in {out:?}");
    out
}

/// Runs the command, which must fail with this code and leave `folder` as it was. Returns the message.
fn fails(folder: &Path, code: i32, arguments: &[&str]) -> String {
    let before = listing(folder);
    let output = run(arguments);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "ecq {arguments:?}: {out}{err}");
    assert!(!err.is_empty() && !err.contains("panicked"), "ecq {arguments:?}: {err}");
    assert!(!err.contains('\u{1b}'), "ecq {arguments:?}: escape codes in {err:?}");
    assert!(before == listing(folder), "ecq {arguments:?} changed {}", folder.display());
    err
}

/// [`fails`] with code 1; the message must hold all of `needles`.
fn refused(folder: &Path, arguments: &[&str], needles: &[&str]) {
    let message = fails(folder, 1, arguments);
    for needle in needles {
        assert!(message.contains(needle), "ecq {arguments:?}: {needle:?} is not in: {message}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Every entry of a folder with its content; folders inside it without theirs.
fn listing(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), std::fs::read(&path).ok())).collect()
}

/// Unfinished files of a folder.
fn unfinished(folder: &Path) -> Vec<PathBuf> {
    listing(folder).into_keys().filter(|path| path.to_string_lossy().ends_with(".ecq-tmp")).collect()
}

/// A file of `fixtures/sources`.
fn fixture(name: &str) -> String {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/sources");
    let path = sources.canonicalize().unwrap().join(name);
    assert!(path.exists(), "{} is missing; `cargo xtask fixtures --generate` makes it", path.display());
    path.to_str().unwrap().to_owned()
}

/// A new folder, and the paths of names in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn at(&self, name: &str) -> String {
        self.path().join(name).to_str().unwrap().to_owned()
    }
}

/// A tensor to write: name, type, shape, bytes.
type Entry<'a> = (&'a str, &'a str, &'a [usize], Vec<u8>);

/// Writes a safetensors file by hand.
fn write_safetensors(path: &str, tensors: &[Entry<'_>]) {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        let entry = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets });
        header.insert((*name).to_owned(), entry);
        data.extend(bytes);
    }
    let mut json = serde_json::to_vec(&header).unwrap();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend(json);
    file.extend(data);
    std::fs::write(path, file).unwrap();
}

/// Bytes of `count` weights of about unit variance, the same for the same seed.
fn weights(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
    };
    (0..count).flat_map(|_| (uniform() + uniform() + uniform() + uniform()).to_le_bytes()).collect()
}

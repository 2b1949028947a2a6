//! Golden files: written once for each format version by `cargo xtask golden`, read for ever.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use ecq_convert::restore::{Float, restore};
use ecq_convert::source::{Source, SourceLimits};
use ecq_convert::verify::verify;
use ecq_convert::{Silent, inspect::inspect};
use ecq_format::{Limits, Reader};
use sha2::{Digest, Sha256};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// Files of each version with what they restore to.
fn golden() -> Vec<(u32, String, Reader)> {
    (1..=4).flat_map(|version| files(version).into_iter().map(move |(sum, r)| (version, sum, r))).collect()
}

fn files(version: u32) -> Vec<(String, Reader)> {
    let folder = fixtures().join(format!("golden/v{version}"));
    let sums = std::fs::read_to_string(folder.join("SHA256SUMS-restored-f32")).unwrap();
    let open = |line: &str| {
        let (sum, name) = line.split_once("  ").unwrap();
        (sum.to_owned(), Reader::open(&folder.join(name), Limits::default()).unwrap())
    };
    sums.lines().map(open).collect()
}

#[test]
fn every_golden_file_gives_the_weights_that_it_gave() {
    let files = golden();
    assert_eq!(files.len(), 7 + 4 + 10 + 7);
    let out = tempfile::tempdir().unwrap();
    for (_, sum, reader) in files {
        let path = out.path().join("back.safetensors");
        restore(&reader, &path, Some(Float::F32), true, &Silent).unwrap();
        let digest = Sha256::digest(std::fs::read(&path).unwrap());
        let found: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(found, sum, "{}", reader.path().display());
    }
}

#[test]
fn every_golden_file_verifies_and_lossless_ones_equal_their_sources() {
    let sources = fixtures().join("sources");
    for (version, _, reader) in golden() {
        let from = &reader.directory().sources[0].name;
        // a folder gives its name to its file
        let folder = sources.join(reader.path().file_stem().unwrap());
        let source = if folder.is_dir() { folder } else { sources.join(from) };
        let verified =
            verify(&reader, Some(&Source::open(&source, &SourceLimits::default()).unwrap()), &Silent)
                .unwrap();
        assert_eq!(
            verified.identical,
            reader.directory().lossless.then_some(true),
            "{}",
            reader.path().display()
        );
        assert!(!verified.tensors.is_empty());
        let inspection = inspect(&reader).unwrap();
        assert_eq!(inspection.version, version);
        if inspection.lossless {
            continue;
        }
        let total = verified.total.unwrap();
        assert!(
            total.sqnr_db.unwrap() > 5.0 && total.escapes < total.weights / 100,
            "{}",
            reader.path().display()
        );
    }
}

#[test]
fn golden_files_are_coded_in_every_way() {
    let codecs: Vec<String> =
        golden().iter().flat_map(|(_, _, r)| inspect(r).unwrap().tensors).map(|t| t.codec).collect();
    for codec in ["nibble x64", "byte pairs", "prefix", "pairs rans", "-"] {
        assert!(codecs.iter().any(|c| c == codec), "{codec} is in no golden file: {codecs:?}");
    }
}

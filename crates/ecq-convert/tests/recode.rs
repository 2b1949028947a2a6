//! A file moves between codecs without loss.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ecq_convert::convert::{Options, Treatment, convert};
use ecq_convert::recode::recode;
use ecq_convert::restore::restore;
use ecq_convert::source::{Source, SourceLimits};
use ecq_convert::verify::verify;
use ecq_convert::{Error, Progress, Silent};
use ecq_format::directory::Codec;
use ecq_format::encode::Profile;
use ecq_format::predict::Predictor;
use ecq_format::reader::Tensor;
use ecq_format::{Limits, Reader};
use ecq_quant::{Prediction, Scheme};

const FIXTURES: [&str; 13] = [
    "tiny.gguf",
    "tiny-align64.gguf",
    "blocks.gguf",
    "kquants.gguf",
    "tiny.safetensors",
    "floats.safetensors",
    "sharded",
    "mlx4",
    "mlx8",
    "gptq4",
    "gptq4-order",
    "awq4",
    "nf4",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/sources").join(name)
}

fn open(path: &Path) -> Reader {
    Reader::open(path, Limits::default()).unwrap()
}

/// All that a file says but codecs, tiles and splits: records, levels with their planes, plain bytes, blobs.
fn contents(path: &Path) -> String {
    let reader = open(path);
    let directory = reader.directory();
    let mut all = format!("{} {:?} {:?}\n", directory.lossless, directory.sources, directory.blobs);
    for record in &directory.tensors {
        all += &format!("{} {:?} {} {:?}", record.name, record.shape, record.dtype, record.source);
        match reader.load(record).unwrap() {
            Tensor::Plain(bytes) => {
                all += &format!(" {:?} {}", reader.plain_type(record), crc32fast::hash(bytes))
            }
            Tensor::Part(part) => all += &format!(" {part:?} {}", record.crc),
            Tensor::Coded(tensor) => {
                let coded = tensor.coded();
                let (mut levels, mut tile) = (crc32fast::Hasher::new(), Vec::new());
                for i in 0..tensor.tiles() {
                    tensor.levels(i, &mut tile).unwrap();
                    tile.iter().for_each(|q| levels.update(&q.to_le_bytes()));
                }
                let (values, pattern) = (coded.values, coded.pattern);
                all += &format!(" {} {values:?} {pattern:?} {:?}", coded.scheme, coded.predictor);
                all += &format!(" {} {:?}", levels.finalize(), tensor.side().unwrap());
            }
        }
        all += "\n";
    }
    for i in 0..directory.blobs.len() {
        all += &format!("{}\n", crc32fast::hash(&reader.blob(i).unwrap()));
    }
    all
}

/// Converts for CPUs, recodes for GPUs and back; returns the three files.
fn there_and_back(source: &Path, options: &Options, folder: &Path) -> [PathBuf; 3] {
    let paths = ["cpu", "gpu", "back"].map(|name| folder.join(format!("{name}.ecq")));
    convert(source, &paths[0], &Options { overwrite: true, ..options.clone() }, &Silent).unwrap();
    for (i, profile) in [(1, Profile::Gpu), (2, Profile::Cpu)] {
        let bytes = recode(&open(&paths[i - 1]), &paths[i], profile, true, &Silent).unwrap();
        assert_eq!(fs::metadata(&paths[i]).unwrap().len(), bytes);
    }
    paths
}

fn has_pairs(path: &Path) -> bool {
    let reader = open(path);
    let coded = reader.directory().tensors.iter().filter_map(|t| t.coded.as_ref());
    coded.into_iter().any(|c| matches!(c.codec, Codec::Pairs(_)))
}

fn check(source: &Path, options: &Options) {
    let dir = tempfile::tempdir().unwrap();
    let [cpu, gpu, back] = there_and_back(source, options, dir.path());
    let what = format!("{}: {:?}", source.display(), options.treatment);
    assert_eq!(contents(&cpu), contents(&gpu), "{what}");
    assert!(fs::read(&cpu).unwrap() == fs::read(&back).unwrap(), "{what}: not the same file");
    assert!(!has_pairs(&cpu));
    // a file for GPUs recoded for GPUs is itself
    let again = dir.path().join("again.ecq");
    recode(&open(&gpu), &again, Profile::Gpu, false, &Silent).unwrap();
    assert!(
        fs::read(&gpu).unwrap() == fs::read(&again).unwrap(),
        "{what}: recoding changes what need not change"
    );
    let verified =
        verify(&open(&gpu), Some(&Source::open(source, &SourceLimits::default()).unwrap()), &Silent).unwrap();
    assert_eq!(verified.identical, open(&gpu).directory().lossless.then_some(true), "{what}");
}

#[test]
fn lossless_files_come_back_and_restore_their_sources() {
    for name in FIXTURES {
        check(&fixture(name), &Options::new(Treatment::Lossless));
    }
}

#[test]
fn lossy_files_of_every_scheme_come_back() {
    let predicted = |p| Scheme::Int8Predicted(ecq_quant::scheme::Granularity::Row, p);
    for scheme in [
        Scheme::ecq(3.5),
        Scheme::ecq(1.0),
        Scheme::ecq(6.5),
        Scheme::named("affine4", None).unwrap(),
        Scheme::named("absmax4", None).unwrap(),
        Scheme::named("nf4", None).unwrap(),
        Scheme::named("int8", None).unwrap(),
        predicted(Prediction::By(Predictor::Planar)),
        predicted(Prediction::By(Predictor::Up)),
    ] {
        for name in ["blocks.gguf", "sharded", "tiny.safetensors"] {
            check(&fixture(name), &Options::new(Treatment::Lossy(scheme)));
        }
    }
}

#[test]
fn recoded_files_are_in_pairs_and_restore_to_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(Treatment::Lossy(Scheme::ecq(3.5)));
    let [cpu, gpu, _] = there_and_back(&fixture("blocks.gguf"), &options, dir.path());
    assert!(has_pairs(&gpu) && open(&gpu).directory().version == 4);
    let weights = [cpu, gpu].map(|path| {
        let out = dir.path().join("weights.safetensors");
        restore(&open(&path), &out, None, true, &Silent).unwrap();
        fs::read(&out).unwrap()
    });
    assert!(weights[0] == weights[1]);
}

#[test]
fn golden_files_of_every_version_recode() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden");
    let mut count = 0;
    for version in ["v1", "v2", "v3", "v4"] {
        for file in fs::read_dir(golden.join(version)).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|e| e != "ecq") {
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            for profile in [Profile::Cpu, Profile::Gpu] {
                let out = dir.path().join(format!("{profile:?}.ecq"));
                recode(&open(&path), &out, profile, false, &Silent).unwrap();
                assert_eq!(contents(&path), contents(&out), "{} for {profile:?}", path.display());
            }
            count += 1;
        }
    }
    assert_eq!(count, 7 + 4 + 10 + 7);
}

#[test]
fn damage_is_an_error_that_names_the_tensor_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (cpu, out) = (dir.path().join("cpu.ecq"), dir.path().join("out.ecq"));
    convert(&fixture("blocks.gguf"), &cpu, &Options::new(Treatment::Lossless), &Silent).unwrap();
    let mut bytes = fs::read(&cpu).unwrap();
    let reader = open(&cpu);
    let coded = reader.directory().tensors.iter().filter(|t| t.coded.is_some());
    let last = coded.max_by_key(|t| reader.position(t)).unwrap();
    let (name, at) = (last.name.clone(), reader.position(last).unwrap() as usize);
    drop(reader);
    bytes[at + 40] ^= 4;
    fs::write(&cpu, bytes).unwrap();
    for profile in [Profile::Cpu, Profile::Gpu] {
        let error = recode(&open(&cpu), &out, profile, false, &Silent).unwrap_err().to_string();
        assert!(error.contains(&format!("'{name}'")) && error.contains("cpu.ecq"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

struct Stopped(AtomicBool);

impl Progress for Stopped {
    fn advance(&self, _bytes: u64) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn names_that_are_taken_and_work_that_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (cpu, out) = (dir.path().join("cpu.ecq"), dir.path().join("out.ecq"));
    convert(&fixture("tiny.gguf"), &cpu, &Options::new(Treatment::Lossless), &Silent).unwrap();
    let reader = open(&cpu);
    let error = recode(&reader, &cpu, Profile::Gpu, true, &Silent).unwrap_err();
    assert!(matches!(error, Error::OntoInput(_)), "{error}");
    fs::write(&out, "here").unwrap();
    let error = recode(&reader, &out, Profile::Gpu, false, &Silent).unwrap_err();
    assert!(matches!(error, Error::Format(ecq_format::Error::Exists(_))), "{error}");
    let error = recode(&reader, &out, Profile::Gpu, true, &Stopped(false.into())).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert_eq!(fs::read(&out).unwrap(), b"here");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

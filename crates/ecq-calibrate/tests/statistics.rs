//! Statistics of a small model with random weights: against sums from the formulas, the same with any number of threads, and
//! conversions by them.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-llm/tests/fixture/mod.rs"]
#[allow(dead_code)]
mod fixture;
#[path = "../../ecq-llm/tests/reference/mod.rs"]
#[allow(dead_code)]
mod reference;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ecq_calibrate::gather::{self, gather, names};
use ecq_calibrate::statistics::Moments;
use ecq_calibrate::{Calibrated, Error, Statistics, Texts, text};
use ecq_convert::convert::{Options, Treatment, convert_source};
use ecq_convert::inspect::inspect;
use ecq_convert::rates::{Rules, Target};
use ecq_convert::source::{Source, SourceLimits};
use ecq_convert::{Progress, Silent};
use ecq_format::encode::Profile;
use ecq_format::{Limits, Reader};
use ecq_llm::Uncompressed;
use fixture::{Fixture, SHAPE};

const NAME: &str = "statistics";

fn source(fixture: &Fixture) -> Source {
    Source::open(&fixture.folder.path().join("model"), &SourceLimits::default()).unwrap()
}

fn texts() -> Texts {
    let token = |i: u32| (i.wrapping_mul(2_654_435_761) >> 7) % SHAPE.vocabulary as u32;
    let chunks = (0..10).map(|chunk| (0..20 + chunk).map(|i| token(1000 * chunk + i)).collect()).collect();
    Texts { chunks, seed: 7, ..Texts::default() }
}

/// Statistics, or as far as they come.
fn gathered_to(source: &Source, file: File, progress: &dyn Progress) -> Result<File, Error> {
    gather(&Uncompressed::new(source)?, &texts(), (Path::new(NAME), file), Some(Duration::ZERO), progress)
}

fn gathered(source: &Source, progress: &dyn Progress) -> Result<Statistics, Error> {
    let file = gathered_to(source, tempfile::tempfile().unwrap(), progress)?;
    Statistics::open(Path::new(NAME), file)
}

fn bytes(mut file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn inputs_of_the_first_layer_are_normed_embeddings() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let statistics = gathered(&source(&fixture), &Silent).unwrap();
    let width = SHAPE.width;
    let Moments::Triangle(found) = statistics.moments("blocks.0.attention.inputs", width).unwrap() else {
        panic!("squares alone")
    };
    let (table, norm) = (
        &fixture.weights["model.embed_tokens.weight"],
        &fixture.weights["model.layers.0.input_layernorm.weight"],
    );
    let tokens = texts().chunks.concat();
    let mut expected = vec![0.0f64; width * width];
    for &token in &tokens {
        let x: Vec<f64> = table[token as usize * width..][..width].iter().map(|&x| x.into()).collect();
        let scale = (x.iter().map(|x| x * x).sum::<f64>() / width as f64 + 1e-5).sqrt();
        let x: Vec<f64> = x.iter().zip(norm).map(|(x, &n)| x / scale * f64::from(n)).collect();
        for i in 0..width {
            for j in 0..width {
                expected[i * width + j] += x[i] * x[j] / tokens.len() as f64;
            }
        }
    }
    for (i, j) in (0..width).flat_map(|i| (i..width).map(move |j| (i, j))) {
        let (found, expected) = (found[Moments::place(width, i, j)], expected[i * width + j]);
        assert!((f64::from(found) - expected).abs() < 1e-4 * expected.abs().max(0.1), "{found} {expected}");
    }
    let counts = statistics.get(names::COUNTS, SHAPE.vocabulary).unwrap();
    assert_eq!(counts.iter().sum::<f32>(), tokens.len() as f32);
    assert_eq!((texts().tokens(), texts().gradient_tokens()), (tokens.len(), 20 + 22 + 24 + 26 + 28));
    let output = statistics.get(&names::gradients("model.embed_tokens.weight"), SHAPE.vocabulary).unwrap();
    assert!(output.iter().all(|&g| g > 0.0 && g < 0.25), "p (1 - p)");
}

#[test]
fn any_number_of_threads_gives_the_same_file() {
    let fixture = Fixture::new("Qwen3ForCausalLM");
    let source = source(&fixture);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| bytes(&gathered_to(&source, tempfile::tempfile().unwrap(), &Silent).unwrap()))
    };
    let one = with(1);
    assert!(one.len() > 50_000);
    assert!(one == with(3));
}

#[test]
fn what_was_interrupted_goes_on_and_gives_the_same_file() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let source = source(&fixture);
    let whole = bytes(&gathered_to(&source, tempfile::tempfile().unwrap(), &Silent).unwrap());
    let mut continued = 0;
    for steps in 1.. {
        let file = tempfile::tempfile().unwrap();
        let stopped = gathered_to(&source, file.try_clone().unwrap(), &Stopped::after(steps));
        let Err(error) = stopped else { break };
        assert!(matches!(error, Error::Cancelled), "{error}");
        let left = ecq_calibrate::goes_on(&mut file.try_clone().unwrap());
        let again = Counted::default();
        let done = gathered_to(&source, file, &again).unwrap();
        assert!(bytes(&done) == whole, "another file after {steps} steps");
        // what was done is not done again: it is told at once
        assert_eq!(left, again.first.load(Relaxed) > 0, "after {steps} steps");
        continued += usize::from(left);
    }
    // both ways through all blocks
    assert!(continued >= 2 * SHAPE.layers, "{continued}");
    // one that lacks its name only is complete
    let complete = file_of(&whole);
    assert!(bytes(&gathered_to(&source, complete, &Stopped::after(0)).unwrap()) == whole);
}

/// Where the weights of a tensor are in a safetensors file.
fn place(bytes: &[u8], name: &str) -> std::ops::Range<usize> {
    let (length, metadata) = safetensors::SafeTensors::read_metadata(bytes).unwrap();
    let (start, end) = metadata.info(name).unwrap().data_offsets;
    8 + length + start..8 + length + end
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    file
}

#[test]
fn what_was_left_and_damaged_is_refused() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let source = source(&fixture);
    let file = tempfile::tempfile().unwrap();
    // within the second block
    gathered_to(&source, file.try_clone().unwrap(), &Stopped::after(3)).unwrap_err();
    let left = bytes(&file);
    let refused =
        |bytes: &[u8]| gathered_to(&source, file_of(bytes), &Silent).map(drop).unwrap_err().to_string();
    let end = left.len();
    let mut steps = left.clone();
    steps[end - 8..].copy_from_slice(&1000u64.to_le_bytes());
    assert!(refused(&steps).contains("it is damaged: delete it"), "{}", refused(&steps));
    let mut numbers = left.clone();
    // the last numbers of either copy, and of what waits for the way back
    let state = 4 * texts().tokens() * SHAPE.width;
    let slopes = 4 * texts().gradient_tokens() * SHAPE.width;
    for at in [end - 20 - slopes, end - 20 - 2 * slopes - state] {
        numbers[at] ^= 1;
    }
    assert!(refused(&numbers).contains("going on is damaged: delete it"), "{}", refused(&numbers));
    // of other texts: hours of work are not thrown away
    let other = Texts { seed: 8, ..texts() };
    let model = Uncompressed::new(&source).unwrap();
    let again = gather(&model, &other, (Path::new(NAME), file_of(&left)), Some(Duration::ZERO), &Silent);
    let message = again.unwrap_err().to_string();
    assert!(message.contains("statistics: it is not of these texts"), "{message}");
    assert!(refused(b"something else").contains("it is not of these texts"));
    // but nothing is lost where no step was kept
    let file = tempfile::tempfile().unwrap();
    gathered_to(&source, file.try_clone().unwrap(), &Stopped::after(0)).unwrap_err();
    assert!(!ecq_calibrate::goes_on(&mut file.try_clone().unwrap()));
    gather(&model, &other, (Path::new(NAME), file), Some(Duration::ZERO), &Silent).unwrap();
    let none = gather(&model, &Texts::default(), (Path::new(NAME), file_of(b"")), None, &Silent);
    assert!(none.unwrap_err().to_string().contains("expected a text"));
}

#[test]
fn texts_that_no_model_reads_are_refused() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let source = source(&fixture);
    let model = Uncompressed::new(&source).unwrap();
    for held_out in [vec![1, 1_000_000], vec![], vec![1; 513]] {
        let odd = Texts { held_out: vec![held_out], ..texts() };
        let path = fixture.folder.path().join("odd.bin");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        gather(&model, &odd, (&path, file), None, &Silent).unwrap();
        let message = Statistics::of_model(&path, &model).unwrap_err().to_string();
        assert!(message.contains("odd.bin: expected texts that this model can read"), "{message}");
    }
}

#[test]
fn a_model_that_computes_no_numbers_says_where() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let path = fixture.folder.path().join("model/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let place = place(&bytes, "model.layers.1.mlp.down_proj.weight");
    bytes[place][..4].copy_from_slice(&[0xff; 4]);
    std::fs::write(&path, bytes).unwrap();
    let error = gathered(&source(&fixture), &Silent).unwrap_err();
    assert!(matches!(error, Error::NotFinite { block: 1, .. }), "{error}");
}

#[test]
fn a_conversion_takes_what_was_asked_for() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let source = source(&fixture);
    let output = fixture.folder.path().join("out.ecq");
    for (target, profile) in [
        (Target::Bits(4.0), Profile::Cpu),
        (Target::Bits(3.0), Profile::Gpu),
        (Target::Size(60_000), Profile::Cpu),
    ] {
        let statistics = gathered(&source, &Silent).unwrap();
        let made = Calibrated::measure(&source, statistics, &Rules::default(), profile, &Silent).unwrap();
        let treatment = Treatment::Calibrated(Arc::new(made), target);
        let options = Options { profile, overwrite: true, ..Options::new(treatment) };
        let bytes = convert_source(&source, &output, &options, &Silent).unwrap();
        let reader = Reader::open(&output, Limits::default()).unwrap();
        let bits = inspect(&reader).unwrap().totals.coded_bits;
        match target {
            // tables and start states of tensors so small are an eighth of a bit
            Target::Bits(asked) => assert!((bits - asked).abs() < 0.15, "{bits} for {asked}"),
            Target::Size(most) => assert!(bytes <= most && bytes > most * 9 / 10, "{bytes} of {most}"),
            Target::Sqnr(_) => unreachable!(),
        }
        ecq_convert::verify::verify(&reader, Some(&source), &Silent).unwrap();
    }
}

#[test]
fn more_than_there_is_to_be_had_is_all_there_is() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let source = source(&fixture);
    let output = fixture.folder.path().join("out.ecq");
    for target in [Target::Bits(8.0), Target::Size(1 << 30)] {
        let statistics = gathered(&source, &Silent).unwrap();
        let made =
            Calibrated::measure(&source, statistics, &Rules::default(), Profile::Cpu, &Silent).unwrap();
        let treatment = Treatment::Calibrated(Arc::new(made), target);
        let options = Options { overwrite: true, ..Options::new(treatment) };
        convert_source(&source, &output, &options, &Silent).unwrap();
        let reader = Reader::open(&output, Limits::default()).unwrap();
        let checked = ecq_convert::verify::verify(&reader, Some(&source), &Silent).unwrap();
        for tensor in checked.tensors {
            assert!(tensor.sqnr_db.is_none_or(|db| db > 30.0), "{} {:?}", tensor.name, tensor.sqnr_db);
            assert!(tensor.bits < 10.0 || tensor.scheme == "plain", "{} {}", tensor.name, tensor.bits);
        }
    }
}

#[test]
fn a_tensor_of_zeros_takes_hardly_anything() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let path = fixture.folder.path().join("model/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let place = place(&bytes, "model.layers.0.mlp.up_proj.weight");
    bytes[place].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let source = source(&fixture);
    let made = gathered(&source, &Silent).unwrap();
    let made = Calibrated::measure(&source, made, &Rules::default(), Profile::Cpu, &Silent).unwrap();
    let output = fixture.folder.path().join("out.ecq");
    let options = Options::new(Treatment::Calibrated(Arc::new(made), Target::Bits(4.0)));
    convert_source(&source, &output, &options, &Silent).unwrap();
    let reader = Reader::open(&output, Limits::default()).unwrap();
    let zero = inspect(&reader).unwrap().tensors.into_iter().find(|t| t.name.contains("0.mlp.up")).unwrap();
    assert!(zero.bits < 0.5, "{}", zero.bits);
    ecq_convert::verify::verify(&reader, Some(&source), &Silent).unwrap();
}

/// Stops after some steps.
#[derive(Debug)]
struct Stopped {
    after: u64,
    seen: AtomicU64,
}

impl Stopped {
    fn after(after: u64) -> Self {
        Self { after, seen: AtomicU64::new(0) }
    }
}

impl Progress for Stopped {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {
        self.seen.fetch_add(1, Relaxed);
    }
    fn cancelled(&self) -> bool {
        // the first is of what was done before
        self.seen.load(Relaxed) > self.after
    }
}

/// Remembers what it was told first.
#[derive(Debug, Default)]
struct Counted {
    told: AtomicBool,
    first: AtomicU64,
}

impl Progress for Counted {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, by: u64) {
        if !self.told.swap(true, Relaxed) {
            self.first.store(by, Relaxed);
        }
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let source = source(&fixture);
    assert!(matches!(gathered(&source, &Stopped::after(0)), Err(Error::Cancelled)));
    let model = Uncompressed::new(&source).unwrap();
    let short = text::chunks(Path::new("t.txt"), "too short", &model, 4096).unwrap_err().to_string();
    assert!(short.contains("t.txt: expected a text of at least 300 tokens, found 9"), "{short}");
    let other = Fixture::new("Qwen3ForCausalLM");
    let other = Source::open(&other.folder.path().join("model"), &SourceLimits::default()).unwrap();
    assert_ne!(gather::fingerprint(&model), gather::fingerprint(&Uncompressed::new(&other).unwrap()));
    let statistics = gathered(&source, &Silent).unwrap();
    let missing = statistics.get("blocks.7.mlp.inputs", 4).unwrap_err().to_string();
    assert!(missing.contains("statistics: blocks.7.mlp.inputs:") && missing.contains("make"), "{missing}");
    let size = statistics.get("blocks.0.mlp.inputs", 4).unwrap_err().to_string();
    assert!(size.contains("expected 4 values of F32, found 2080"), "{size}");
    let mut empty = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut empty, b"\x08\0\0\0\0\0\0\0{}      ").unwrap();
    let none = Statistics::open(Path::new("s.bin"), empty).unwrap_err().to_string();
    assert!(none.contains("s.bin: expected statistics written by ecq convert --statistics"), "{none}");
}

//! Statistics of a small model with random weights: against sums from the formulas, the same with any number of threads, and
//! conversions by them.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-llm/tests/fixture/mod.rs"]
#[allow(dead_code)]
mod fixture;
#[path = "../../ecq-llm/tests/reference/mod.rs"]
#[allow(dead_code)]
mod reference;

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use ecq_calibrate::gather::{self, gather, names};
use ecq_calibrate::{Calibrated, Error, Statistics, text};
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

fn chunks() -> Vec<Vec<u32>> {
    let token = |i: u32| (i.wrapping_mul(2_654_435_761) >> 7) % SHAPE.vocabulary as u32;
    (0..5).map(|chunk| (0..40 + chunk).map(|i| token(1000 * chunk + i)).collect()).collect()
}

fn gathered(source: &Source, progress: &dyn Progress) -> Result<Statistics, Error> {
    let model = Uncompressed::new(source)?;
    let file = gather(&model, &chunks(), 2, 7, (Path::new(NAME), tempfile::tempfile().unwrap()), progress)?;
    Statistics::open(Path::new(NAME), file)
}

#[test]
fn inputs_of_the_first_layer_are_normed_embeddings() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let statistics = gathered(&source(&fixture), &Silent).unwrap();
    let width = SHAPE.width;
    let found = statistics.get("blocks.0.attention.inputs", width * width).unwrap();
    let (table, norm) = (
        &fixture.weights["model.embed_tokens.weight"],
        &fixture.weights["model.layers.0.input_layernorm.weight"],
    );
    let tokens: Vec<u32> = chunks().into_iter().flatten().collect();
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
    for (found, expected) in found.iter().zip(&expected) {
        assert!((f64::from(*found) - expected).abs() < 1e-4 * expected.abs().max(0.1), "{found} {expected}");
    }
    let counts = statistics.get(names::COUNTS, SHAPE.vocabulary).unwrap();
    assert_eq!(counts.iter().sum::<f32>(), tokens.len() as f32);
    assert_eq!((statistics.about().tokens, statistics.about().gradient_tokens), (tokens.len(), 40 + 42 + 44));
    let output = statistics.get(&names::gradients("model.embed_tokens.weight"), SHAPE.vocabulary).unwrap();
    assert!(output.iter().all(|&g| g > 0.0 && g < 0.25), "p (1 - p)");
}

#[test]
fn any_number_of_threads_gives_the_same_file() {
    let fixture = Fixture::new("Qwen3ForCausalLM");
    let source = source(&fixture);
    let bytes = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let model = Uncompressed::new(&source).unwrap();
            let file = tempfile::tempfile().unwrap();
            let mut file = gather(&model, &chunks(), 2, 7, (Path::new(NAME), file), &Silent).unwrap();
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_end(&mut bytes).unwrap();
            bytes
        })
    };
    let one = bytes(1);
    assert!(one.len() > 100_000);
    assert!(one == bytes(3));
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
    let (header, at) = {
        let (n, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        (n + 8, metadata.info("model.layers.0.mlp.up_proj.weight").unwrap().data_offsets)
    };
    bytes[header + at.0..header + at.1].fill(0);
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

/// Stops at once.
#[derive(Debug)]
struct Stopped;

impl Progress for Stopped {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn cancelled(&self) -> bool {
        true
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let source = source(&fixture);
    assert!(matches!(gathered(&source, &Stopped), Err(Error::Cancelled)));
    let model = Uncompressed::new(&source).unwrap();
    let short = text::chunks(Path::new("t.txt"), "too short", &model, 4096).unwrap_err().to_string();
    assert!(short.contains("t.txt: expected a text of at least 300 tokens, found 9"), "{short}");
    let other = Fixture::new("Qwen3ForCausalLM");
    let other = Source::open(&other.folder.path().join("model"), &SourceLimits::default()).unwrap();
    assert_ne!(
        gather::fingerprint(&model).unwrap(),
        gather::fingerprint(&Uncompressed::new(&other).unwrap()).unwrap()
    );
    let statistics = gathered(&source, &Silent).unwrap();
    let missing = statistics.get("blocks.7.mlp.inputs", 4).unwrap_err().to_string();
    assert!(missing.contains("statistics: blocks.7.mlp.inputs:") && missing.contains("make"), "{missing}");
    let size = statistics.get("blocks.0.mlp.inputs", 4).unwrap_err().to_string();
    assert!(size.contains("expected 4 values of F32, found [64, 64] of F32"), "{size}");
    let mut empty = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut empty, b"\x08\0\0\0\0\0\0\0{}      ").unwrap();
    let none = Statistics::open(Path::new("s.bin"), empty).unwrap_err().to_string();
    assert!(none.contains("s.bin: expected statistics written by ecq convert --statistics"), "{none}");
}

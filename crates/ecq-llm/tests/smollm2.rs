//! A real model, converted without loss, beside what llama.cpp says of the same weights.
//!
//! `fixtures/llama.cpp/persuasion.json` is what llama.cpp says; `fixtures/README.md` tells how it was made. The model is fetched by
//! `cargo xtask fixtures`; without it these tests fail.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ecq_convert::Silent;
use ecq_convert::convert::{Options as Conversion, Treatment, convert};
use ecq_llm::{Decode, Model, Options, Precision, Sampling, most_likely};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    tokens: Vec<u32>,
    next: Vec<Next>,
}

/// The likeliest tokens behind a position, and logarithms of their probabilities.
#[derive(Deserialize)]
struct Next {
    tokens: Vec<usize>,
    logs: Vec<f64>,
}

struct Converted {
    _folder: tempfile::TempDir,
    file: PathBuf,
}

static CONVERTED: LazyLock<Converted> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cache = std::env::var_os("ECQ_CACHE").filter(|folder| !folder.is_empty());
    let cache = root.join(cache.unwrap_or_else(|| ".cache".into()));
    let source = cache.join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(source.exists(), "{} is missing: cargo xtask fixtures", source.display());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.ecq");
    convert(&source, &file, &Conversion::new(Treatment::Lossless), &Silent).unwrap();
    Converted { _folder: folder, file }
});

fn open(decode: Decode, precision: Precision) -> Model {
    Model::open(&CONVERTED.file, Options { decode, precision, ..Options::default() }).unwrap()
}

fn text() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/text/persuasion.txt"))
        .unwrap()
}

fn reference() -> Reference {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/llama.cpp/persuasion.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn logits(model: &Model, tokens: &[u32]) -> Vec<Vec<f32>> {
    let (mut all, mut cache) = (Vec::new(), model.cache(tokens.len()).unwrap());
    model.logits(tokens, &mut cache, |logits| all.push(logits.to_vec())).unwrap();
    all
}

/// KL divergence of ours from the reference in nats, all other tokens taken as one: at most the whole.
fn divergence(reference: &Next, ours: &[f32]) -> f64 {
    let total = ours.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln();
    let mut rest = [1.0, 1.0];
    let mut sum = 0.0;
    for (&token, &p) in reference.tokens.iter().zip(&reference.logs) {
        let q = f64::from(ours[token]) - total;
        sum += p.exp() * (p - q);
        rest = [rest[0] - p.exp(), rest[1] - q.exp()];
    }
    let [p, q] = rest.map(|rest: f64| rest.max(1e-12));
    sum + p * (p / q).ln()
}

/// The same first token, mean divergence.
fn agreement(reference: &Reference, ours: &[Vec<f32>]) -> (f64, f64) {
    assert_eq!(ours.len(), reference.next.len());
    let pairs = || reference.next.iter().zip(ours);
    let same = pairs().filter(|(next, ours)| next.tokens[0] == most_likely(ours) as usize).count();
    let kl: f64 = pairs().map(|(next, ours)| divergence(next, ours)).sum();
    (same as f64 / ours.len() as f64, kl / ours.len() as f64)
}

#[test]
fn tokens_are_those_of_llama_cpp() {
    let tokens = open(Decode::Fused, Precision::F32).tokenizer().encode(&text()).unwrap();
    let expected = reference().tokens;
    assert_eq!(tokens[..expected.len()], expected);
}

#[test]
fn logits_agree_with_llama_cpp() {
    let reference = reference();
    // llama.cpp's own vectors of 8 bits are 4e-3 nat from this, with the same first token in 97 %
    for (precision, least, most) in [(Precision::F32, 0.99, 1e-3), (Precision::Int8, 0.95, 5e-3)] {
        let ours = logits(&open(Decode::Cached, precision), &reference.tokens);
        let (same, kl) = agreement(&reference, &ours);
        println!("{precision:?}: the same first token in {same}, KL {kl} nat");
        assert!(same >= least && kl <= most, "{precision:?}: {same}, {kl}");
    }
}

#[test]
fn coded_and_plain_weights_give_the_same_logits() {
    let tokens = &reference().tokens[..40];
    for precision in [Precision::F32, Precision::Int8] {
        let [fused, cached] =
            [Decode::Fused, Decode::Cached].map(|how| logits(&open(how, precision), tokens));
        assert!(fused == cached, "{precision:?}");
    }
}

#[test]
fn the_capital_of_france() {
    let model = open(Decode::Fused, Precision::Int8);
    let tokens = model.tokenizer().encode("The capital of France is").unwrap();
    assert_eq!(tokens, [504, 3575, 282, 4649, 314]);
    let mut cache = model.cache(32).unwrap();
    let made = model.generate(&tokens, &mut cache, Sampling::default(), &|| false).unwrap();
    let made: Vec<u32> = made.take(2).map(Result::unwrap).collect();
    assert_eq!(model.tokenizer().decode(&made), " Paris.");
}

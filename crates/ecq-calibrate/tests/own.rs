//! Texts that a small model makes itself: the same with any number of threads, and ended when that is asked for.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-llm/tests/fixture/mod.rs"]
#[allow(dead_code)]
mod fixture;
#[path = "../../ecq-llm/tests/reference/mod.rs"]
#[allow(dead_code)]
mod reference;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use ecq_calibrate::Error;
use ecq_calibrate::text::{CONTEXT, Plan, own};
use ecq_convert::{Progress, Silent};
use ecq_llm::{Cache, Config, Decode, Model, Options, Precision};
use fixture::{CONTEXT as POSITIONS, Fixture, SHAPE};

/// Token that begins texts, if the fixture is told so.
const BEGIN: u32 = 256;

fn model(begins: bool, precision: Precision, decode: Decode) -> (Fixture, Model) {
    let fixture = Fixture::new("LlamaForCausalLM");
    if begins {
        let file = fixture.folder.path().join("model").join("tokenizer_config.json");
        std::fs::write(file, r#"{ "bos_token": "<end>" }"#).unwrap();
    }
    let file = fixture.convert();
    let model = Model::open(&file, Options { precision, decode, ..Options::default() }).unwrap();
    (fixture, model)
}

fn made(model: &Model, tokens: usize, seed: u64, threads: usize) -> Vec<Vec<u32>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| own(model, Path::new("model"), tokens, seed, &Silent).unwrap())
}

#[test]
fn any_number_of_threads_makes_the_same_texts() {
    for (precision, decode) in [(Precision::Int8, Decode::Cached), (Precision::F32, Decode::Fused)] {
        let (_fixture, model) = model(true, precision, decode);
        // in two rounds
        let count = 35;
        let texts = made(&model, count * POSITIONS + 1, 1, 1);
        assert_eq!(texts.len(), count);
        for (i, text) in texts.iter().enumerate() {
            assert!(text.len() == POSITIONS && text[0] == BEGIN);
            assert!(text.iter().all(|&token| (token as usize) < SHAPE.vocabulary));
            assert!(!texts[..i].contains(text), "each is another");
        }
        assert!(texts == made(&model, count * POSITIONS, 1, 3), "{precision:?}");
        assert!(texts == made(&model, count * POSITIONS, 1, 2), "{precision:?}");
        assert!(texts[..2] != made(&model, 2 * POSITIONS, 2, 2), "{precision:?}");
    }
}

/// Counts, and ends it at some count.
#[derive(Default)]
struct Counting {
    of: AtomicU64,
    done: AtomicU64,
    most: u64,
}

impl Progress for Counting {
    fn begin(&self, _: &str, of: u64) {
        self.of.store(of, Ordering::Relaxed);
    }

    fn advance(&self, by: u64) {
        self.done.fetch_add(by, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.done.load(Ordering::Relaxed) >= self.most
    }
}

#[test]
fn it_is_counted_and_can_be_ended() {
    let (_fixture, begins) = model(true, Precision::Int8, Decode::Fused);
    let run = |most| {
        let progress = Counting { most, ..Counting::default() };
        let result = own(&begins, Path::new("model"), 3 * POSITIONS, 0, &progress);
        (result, progress.of.into_inner(), progress.done.into_inner())
    };
    let all = 3 * (POSITIONS as u64 - 1);
    let (result, of, done) = run(u64::MAX);
    assert_eq!((result.unwrap().len(), of, done), (3, all, all));
    for most in [0, 1, 30] {
        let (result, of, done) = run(most);
        assert!(matches!(result, Err(Error::Cancelled)) && of == all && done == most.next_multiple_of(3));
    }
    let (_fixture, without) = model(false, Precision::Int8, Decode::Fused);
    let error = own(&without, Path::new("model"), 600, 0, &Silent).unwrap_err().to_string();
    assert!(error.contains("a token that begins texts"), "{error}");
}

#[test]
fn texts_side_by_side_fit_memory() {
    let (_fixture, model) = model(true, Precision::Int8, Decode::Fused);
    let small = model.config().clone();
    let plan = |config: &Config, tokens| {
        let plan = Plan::new(config, tokens);
        (plan.context, plan.count, plan.together, plan.positions())
    };
    assert_eq!(plan(&small, 0), (POSITIONS, 1, 1, POSITIONS));
    assert_eq!(plan(&small, 32 * POSITIONS), (POSITIONS, 32, 32, 32 * POSITIONS));
    // in rounds that are about as large
    assert_eq!(plan(&small, 33 * POSITIONS), (POSITIONS, 33, 17, 17 * POSITIONS));
    let large = Config { layers: 32, kv_heads: 8, head: 128, context: 1 << 17, ..small };
    assert_eq!(plan(&large, 1 << 16), (CONTEXT, 128, 8, 8 * CONTEXT));
    assert!(8 * Cache::bytes(&large, CONTEXT) <= 1 << 30);
    let vast = Config { layers: usize::MAX, ..large };
    assert_eq!(plan(&vast, 1 << 16), (CONTEXT, 128, 1, CONTEXT));
}

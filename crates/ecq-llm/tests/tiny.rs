//! A small model with random weights, converted from a folder, against a decoder in f64 that is written from the formulas.
#![allow(clippy::unwrap_used, missing_docs)]

mod fixture;
mod reference;

use ecq_convert::convert::{Options as Conversion, Treatment};
use ecq_llm::{Cache, Decode, Error, Model, Options, Precision, Sampling, most_likely};
use ecq_quant::scheme::{Granularity, Scheme};
use fixture::{CONTEXT, Fixture, SHAPE, tokenizer};
use reference::Reference;

const TOKENS: [u32; 11] = [5, 250, 17, 17, 99, 0, 256, 3, 64, 128, 200];

fn options(decode: Decode, precision: Precision) -> Options {
    Options { decode, precision, ..Options::default() }
}

fn all_logits(model: &Model, tokens: &[u32]) -> Vec<Vec<f32>> {
    let (mut all, mut cache) = (Vec::new(), model.cache(CONTEXT).unwrap());
    model.logits(tokens, &mut cache, |logits| all.push(logits.to_vec())).unwrap();
    all
}

#[test]
fn logits_are_those_of_the_formulas() {
    // of the numbers of Llama 3 such that all waves are long
    let slow = serde_json::json!({ "rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1 });
    let none = serde_json::json!({});
    for (architecture, changes, divisors, slow) in [
        ("LlamaForCausalLM", &none, None, 1.0),
        ("LlamaForCausalLM", &serde_json::json!({ "rope_scaling": slow }), None, 2.0),
        ("LlamaForCausalLM", &none, Some(3.0), 3.0),
        ("Qwen2ForCausalLM", &none, None, 1.0),
        ("Qwen3ForCausalLM", &none, None, 1.0),
    ] {
        let fixture = Fixture::with(architecture, changes, divisors);
        let expected = Reference { shape: SHAPE, slow, weights: &fixture.weights }.logits(&TOKENS);
        let file = fixture.convert();
        for (decode, precision, most) in [
            (Decode::Fused, Precision::F32, 1e-4),
            (Decode::Cached, Precision::F32, 1e-4),
            (Decode::Fused, Precision::Int8, 3e-2),
        ] {
            let model = Model::open(&file, options(decode, precision)).unwrap();
            for (found, expected) in all_logits(&model, &TOKENS).iter().zip(&expected) {
                let size = expected.iter().map(|l| l * l).sum::<f64>().sqrt();
                let off: f64 =
                    found.iter().zip(expected).map(|(&f, e)| (f64::from(f) - e).powi(2)).sum::<f64>().sqrt();
                assert!(
                    off <= most * size,
                    "{architecture}, {slow}, {decode:?}, {precision:?}: off by {off:e} of {size:e}"
                );
            }
        }
    }
}

#[test]
fn tokens_one_by_one_are_tokens_together() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let model = Model::open(&fixture.convert(), options(Decode::Fused, Precision::F32)).unwrap();
    let together = all_logits(&model, &TOKENS);
    let mut cache = model.cache(CONTEXT).unwrap();
    for (token, together) in TOKENS.iter().zip(&together) {
        let alone = model.next(&[*token], &mut cache, &|| false).unwrap();
        for (a, b) in alone.iter().zip(together) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a}, {b}");
        }
    }
    // a cache that is cut is as good as a new one
    cache.truncate(3);
    let again = model.next(&TOKENS[3..], &mut cache, &|| false).unwrap();
    assert_eq!(most_likely(&again), most_likely(&together[TOKENS.len() - 1]));
}

/// How far logits are from others, as a part of their norm.
fn off(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let square = |sum: f32, x: f32| sum + x * x;
    let off = found.iter().zip(expected).map(|(a, b)| a - b).fold(0.0, square);
    (off / expected.iter().copied().fold(0.0, square)).sqrt()
}

#[test]
fn sequences_together_are_sequences_alone() {
    let token = |i: usize| (i * 97 + i * i * 31) as u32 % 257;
    // more tokens than a batch has, so that it ends within a sequence; then one token of each
    let parts: [Vec<Vec<u32>>; 3] = [[3, 150, 1, 20], [1; 4], [1, 1, 7, 1]].map(|lens| {
        lens.iter().enumerate().map(|(s, &len)| (0..len).map(|i| token(100 * s + i)).collect()).collect()
    });
    let int4 = Treatment::Lossy(Scheme::Affine4(Granularity::Group(32)));
    for (architecture, treatment, decode, precision, most) in [
        ("LlamaForCausalLM", Treatment::Lossless, Decode::Fused, Precision::F32, 1e-5),
        ("Qwen2ForCausalLM", int4.clone(), Decode::Fused, Precision::F32, 1e-5),
        ("LlamaForCausalLM", int4.clone(), Decode::Cached, Precision::F32, 1e-5),
        // a number beside the middle of two integers is rounded to the one or the other
        ("Qwen3ForCausalLM", int4.clone(), Decode::Fused, Precision::Int8, 3e-2),
        ("LlamaForCausalLM", int4, Decode::Cached, Precision::Int8, 3e-2),
        ("Qwen2ForCausalLM", Treatment::Lossy(Scheme::ecq(3.5)), Decode::Cached, Precision::Int8, 3e-2),
    ] {
        let fixture = Fixture::new(architecture);
        let file = fixture.convert_with(Conversion::new(treatment));
        let model = Model::open(&file, options(decode, precision)).unwrap();
        let caches = |count| (0..count).map(|_| model.cache(CONTEXT).unwrap()).collect::<Vec<_>>();
        let (mut alone, mut fewer, mut all) = (caches(4), caches(3), caches(4));
        for (n, tokens) in parts.iter().enumerate() {
            let tokens: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
            let found = model.next_of_each(&tokens, &mut all, &|| false).unwrap();
            let what = format!("{architecture}, {decode:?}, {precision:?}, part {n}");
            for ((tokens, cache), found) in tokens.iter().zip(&mut alone).zip(&found) {
                let off = off(found, &model.next(tokens, cache, &|| false).unwrap());
                assert!(off <= most, "{what}: off by {off:e} of the norm");
            }
            // whoever else there is
            let again = model.next_of_each(&tokens[..3], &mut fewer, &|| false).unwrap();
            for (again, found) in again.iter().zip(&found) {
                let off = off(again, found);
                assert!(off <= most, "{what}: off by {off:e} of the norm among others");
            }
            for ((a, b), tokens) in alone.iter().zip(&all).zip(&tokens) {
                assert!(a.len() == b.len() && a.len() >= tokens.len());
            }
        }
    }
}

#[test]
fn sequences_that_cannot_pass_are_refused_together() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let file = fixture.convert();
    let [model, other] = [0; 2].map(|_| Model::open(&file, Options::default()).unwrap());
    let mut caches = [4, 2, 200].map(|positions| model.cache(positions).unwrap());
    let good: [&[u32]; 3] = [&[1, 2], &[3], &[4; 150]];
    assert_eq!(model.next_of_each(&good, &mut caches, &|| false).unwrap().len(), 3);
    let refuse = |tokens: &[&[u32]], caches: &mut [Cache], says: &str| {
        let before: Vec<usize> = caches.iter().map(|cache| cache.len()).collect();
        let error = model.next_of_each(tokens, caches, &|| false).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }) && error.to_string().contains(says), "{error}");
        assert!(caches.iter().map(|cache| cache.len()).eq(before));
    };
    refuse(&[], &mut caches, "at least one");
    refuse(&[], &mut [], "at least one");
    refuse(&good[..2], &mut caches, "expected 2, one for each sequence, got 3");
    refuse(&good, &mut caches[..2], "expected 3, one for each sequence, got 2");
    refuse(&[&[1], &[], &[1]], &mut caches, "at least one token");
    refuse(&[&[1], &[1], &[257]], &mut caches, "below 257");
    refuse(&[&[1], &[1, 2], &[1]], &mut caches, "at most 1 tokens");
    let mut mixed = [model.cache(4).unwrap(), other.cache(4).unwrap()];
    refuse(&[&[1], &[1]], &mut mixed, "another model's");
    // stopped in its second batch, of which the first has passed
    let asked = std::cell::Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) > SHAPE.layers;
    let mut caches = [200, 200].map(|positions| model.cache(positions).unwrap());
    model.next_of_each(&[&[1], &[2]], &mut caches, &|| false).unwrap();
    assert!(model.next_of_each(&[&[1; 100], &[2; 100]], &mut caches, &stop).unwrap().is_empty());
    assert_eq!((asked.get(), caches[0].len(), caches[1].len()), (SHAPE.layers + 2, 1, 1));
}

#[test]
fn texts_follow_from_their_seed() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let model = Model::open(&fixture.convert(), options(Decode::Fused, Precision::F32)).unwrap();
    let text = |sampling| {
        let mut cache = model.cache(CONTEXT).unwrap();
        let made = model.generate(&TOKENS, &mut cache, sampling, &|| false).unwrap();
        made.collect::<Result<Vec<_>, _>>().unwrap()
    };
    let sampling = |temperature, seed| Sampling { temperature, seed, ..Sampling::default() };
    let greedy = text(sampling(0.0, 1));
    assert_eq!(greedy, text(sampling(0.0, 2)));
    // the last token is made of a full cache
    assert!(greedy.len() <= CONTEXT - TOKENS.len() + 1 && !greedy.contains(&256));
    assert_eq!(text(sampling(1.0, 1)), text(sampling(1.0, 1)));
    assert!((2..9).any(|seed| text(sampling(1.5, seed)) != text(sampling(1.5, 1))));
    let mut cache = model.cache(CONTEXT).unwrap();
    assert_eq!(model.generate(&TOKENS, &mut cache, sampling(0.0, 0), &|| true).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_done_is_said() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let file = fixture.convert();
    let model = Model::open(&file, Options::default()).unwrap();
    let mut cache = model.cache(4).unwrap();
    let refused = |result: Result<Vec<f32>, Error>, says: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Argument { .. }) && error.to_string().contains(says), "{error}");
    };
    refused(model.next(&[], &mut cache, &|| false), "at least one token");
    refused(model.next(&[257], &mut cache, &|| false), "below 257");
    refused(model.next(&[1; 5], &mut cache, &|| false), "at most 4 tokens");
    assert!(model.cache(0).is_err() && model.cache(CONTEXT + 1).is_err());
    let source = fixture.folder.path().join("model");
    std::fs::remove_file(source.join("tokenizer.json")).unwrap();
    let error = Model::open(&fixture.convert(), Options::default()).err().unwrap();
    assert!(matches!(&error, Error::Tokenizer { .. }), "{error}");
    let config = std::fs::read_to_string(source.join("config.json")).unwrap();
    for (from, to, says) in [
        ("LlamaForCausalLM", "BertModel", "architectures in config.json: expected Llama"),
        ("\"hidden_size\":64", "\"hidden_size\":65", "the shape"),
        ("\"num_attention_heads\":4", "\"num_attention_heads\":0", "heads"),
    ] {
        std::fs::write(source.join("config.json"), config.replace(from, to)).unwrap();
        std::fs::write(source.join("tokenizer.json"), tokenizer()).unwrap();
        let error = Model::open(&fixture.convert(), Options::default()).err().unwrap();
        assert!(matches!(&error, Error::Model { .. }) && error.to_string().contains(says), "{error}");
    }
}

#[test]
fn text_is_the_same_after_tokens() {
    let fixture = Fixture::new("LlamaForCausalLM");
    let model = Model::open(&fixture.convert(), Options::default()).unwrap();
    for text in ["", "The capital of France is", "Grüße, 世界 🙂\n\n  x", "a\u{0}b"] {
        let tokens = model.tokenizer().encode(text).unwrap();
        assert_eq!(tokens.len(), text.len());
        assert_eq!(model.tokenizer().decode(&tokens), text);
        let mut stream = model.tokenizer().stream();
        let streamed: String = tokens.iter().filter_map(|&token| stream(token)).collect();
        assert_eq!(streamed, text);
    }
}

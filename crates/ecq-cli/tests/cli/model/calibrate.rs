//! Conversions by what texts do in a model.

use super::{prints, refused, run};
use crate::{Folder, text, unfinished};

use super::fixture::Model;

/// A folder with a model and a text of more tokens than a chunk.
fn folder() -> Folder {
    let folder = Folder::new();
    Model::default().write(&folder);
    let words: Vec<String> = (0..400).map(|i| format!("word{} ", i * i % 97)).collect();
    std::fs::write(folder.at("text.txt"), words.concat()).unwrap();
    folder
}

fn convert<'a>(model: &'a str, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["convert", model, "-o", output, "--bits", "4"], more].concat()
}

#[test]
fn statistics_that_were_saved_give_the_same_file() {
    let folder = folder();
    let [model, a, b, words, saved] =
        ["model", "a.ecq", "b.ecq", "text.txt", "saved.bin"].map(|name| folder.at(name));
    let from_text = ["--calibrate", &words, "--calibration-tokens", "1024", "--statistics", &saved];
    let [out, _] = prints(&folder, &convert(&model, &a, &from_text));
    assert!(out.contains("ecq at 4 bits a weight, calibrated"), "{out}");
    prints(&folder, &convert(&model, &b, &["--statistics", &saved, "--threads", "1"]));
    assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap(), "another file");
    prints(&folder, &["verify", &a, "--against", &model]);
    prints(&folder, &["perplexity", &a, "--text", &words, "--context", "128"]);
    // nothing else is left
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
    assert!(unfinished(folder.path()).is_empty());
    // and what stands there is not replaced unasked
    let c = folder.at("c.ecq");
    let output = run(&folder, &convert(&model, &c, &from_text));
    assert!(text(&output.stderr).contains("saved.bin"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    prints(&folder, &convert(&model, &b, &[&from_text[..], &["--force"]].concat()));
}

#[test]
fn a_size_is_kept_to() {
    let folder = folder();
    let [model, out, words] = ["model", "out.ecq", "text.txt"].map(|name| folder.at(name));
    let size = ["convert", &model, "-o", &out, "--size", "60000", "--calibrate", &words];
    prints(&folder, &size);
    let bytes = std::fs::metadata(&out).unwrap().len();
    assert!((50_000..=60_000).contains(&bytes), "{bytes}");
}

#[test]
fn a_model_calibrates_itself_if_it_knows_how_to_begin() {
    let folder = folder();
    let [model, out] = ["model", "out.ecq"].map(|name| folder.at(name));
    let own = ["--calibrate", "self", "--calibration-tokens", "512"];
    let output = run(&folder, &convert(&model, &out, &own));
    let message = text(&output.stderr);
    assert!(message.contains("expected a model with a token that begins texts"), "{message}");
    std::fs::write(folder.at("model/tokenizer_config.json"), r#"{"bos_token": "A"}"#).unwrap();
    prints(&folder, &convert(&model, &out, &own));
}

#[test]
fn what_cannot_be_calibrated_says_so() {
    let folder = folder();
    let [model, out, words, short, other, saved, missing] =
        ["model", "out.ecq", "text.txt", "short.txt", "other.bin", "saved.bin", "missing.txt"]
            .map(|name| folder.at(name));
    std::fs::write(&short, "too short").unwrap();
    std::fs::write(&other, "no statistics").unwrap();
    let saving = ["--calibrate", &words, "--statistics", &saved];
    prints(&folder, &convert(&model, &folder.at("other.ecq"), &saving));
    for (more, needles) in [
        (&["--calibrate", &short][..], &["short.txt: expected a text of at least 512 tokens, found 9"][..]),
        (&["--calibrate", &missing], &["missing.txt"]),
        (&["--statistics", &other], &["other.bin: expected statistics written by ecq convert --statistics"]),
        (&["--statistics", &missing], &["cannot read", "missing.txt"]),
    ] {
        refused(&folder, &convert(&model, &out, more), needles);
    }
    let base = ["convert", &model, "-o", &out, "--calibrate", &words];
    let weights = folder.at("model/model.safetensors");
    for (more, needle) in [
        (&["--sqnr", "20"][..], "use --bits or --size"),
        (&["--row-scales"], "--calibrate finds the scales"),
        (&["--scheme", "nf4"], "--calibrate, --statistics"),
        (&["--scheme", "lossless"], "--calibrate, --statistics"),
        (&["--statistics", &words, "--force"], "name another file"),
        (&["--statistics", &out], "name another file"),
        (&["--statistics", &weights, "--force"], "model.safetensors"),
        (&["--statistics", &saved], "saved.bin exists; use --force to replace it"),
    ] {
        refused(&folder, &[&base[..], more].concat(), &[needle]);
    }
    std::fs::remove_dir_all(folder.at("model")).unwrap();
    Model { vocabulary: 300, ..Model::default() }.write(&folder);
    let another = ["saved.bin: expected statistics of this model, found those of another"];
    refused(&folder, &convert(&model, &out, &["--statistics", &saved]), &another);
    // what stands there is seen before any work
    std::fs::write(&out, "here").unwrap();
    refused(&folder, &convert(&model, &out, &["--calibrate", &missing]), &["out.ecq"]);
}

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
    // an interruption may come behind the statistics: the same command goes on from there
    let c = folder.at("c.ecq");
    let [_, remarks] = prints(&folder, &convert(&model, &c, &from_text));
    assert!(remarks.contains("saved.bin is of this model and these texts already"), "{remarks}");
    assert!(std::fs::read(&a).unwrap() == std::fs::read(&c).unwrap(), "another file");
    // and what is of others is not replaced unasked
    let of_more = ["--calibrate", &words, "--calibration-tokens", "1536", "--statistics", &saved];
    let output = run(&folder, &convert(&model, &folder.at("d.ecq"), &of_more));
    assert!(text(&output.stderr).contains("saved.bin exists; use --force"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    prints(&folder, &convert(&model, &b, &[&of_more[..], &["--force"]].concat()));
}

#[test]
fn what_is_held_out_is_measured_and_what_is_known_is_recognized() {
    let folder = folder();
    let [model, out, words, other] =
        ["model", "out.ecq", "text.txt", "other.txt"].map(|name| folder.at(name));
    let others: Vec<String> = (0..200).map(|i| format!("{} another", 7 * i + 1000)).collect();
    std::fs::write(&other, others.concat()).unwrap();
    let learned = convert(&model, &out, &["--calibrate", &words]);
    let [told, remarks] = prints(&folder, &[&learned[..], &["--held-out", &other]].concat());
    for line in
        ["on parts of the texts that were held out (511 tokens):", "other.txt (", "KL divergence from it 0."]
    {
        assert!(told.contains(line), "{line}: {told}");
    }
    // words that come again
    assert!(!remarks.contains("other.txt"), "{remarks}");
    let json = [&learned[..], &["--held-out", &words, "--force", "--json"]].concat();
    let output = run(&folder, &json);
    let remarks = text(&output.stderr);
    assert!(remarks.contains("text.txt: ") && remarks.contains("was calibrated with"), "{remarks}");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let held_out = found["held_out"].as_array().unwrap();
    assert_eq!(held_out.len(), 2);
    for text in held_out {
        let kl = text["kl_divergence"].as_f64().unwrap();
        assert!(kl > 0.0 && kl < 0.1 && text["top1_agreement"].as_f64().unwrap() > 0.5, "{text}");
    }
    assert!(found["tensors"].is_array(), "the file itself");
    // the file itself tells, and others have nothing to tell
    let measure = |model: &str, words: &str| {
        let [_, remarks] = prints(&folder, &["perplexity", model, "--text", words, "--context", "64"]);
        remarks
    };
    assert!(measure(&out, &words).contains("% of it is in the texts"));
    assert!(!measure(&out, &other).contains("% of it is in the texts"));
    prints(&folder, &["convert", &model, "-o", &out, "--force", "--bits", "4"]);
    assert!(!measure(&out, &words).contains("% of it is in the texts"));
    refused(
        &folder,
        &["convert", &model, "-o", &out, "--force", "--held-out", &words],
        &["--held-out is for --calibrate"],
    );
}

/// An importance matrix of the older kind, for layers with so many inputs to each of the blocks' parts.
fn importance(inputs: [usize; 4]) -> Vec<u8> {
    let parts = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let mut out = 14i32.to_le_bytes().to_vec();
    for (block, (part, input)) in
        (0..2).flat_map(|b| parts.into_iter().zip([0, 0, 0, 1, 2, 2, 3]).map(move |p| (b, p)))
    {
        let name = format!("blk.{block}.{part}.weight");
        out.extend((name.len() as i32).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend([2i32, inputs[input] as i32].map(i32::to_le_bytes).concat());
        (0..inputs[input]).for_each(|i| out.extend((0.5f32 + (i % 7) as f32).to_le_bytes()));
    }
    out
}

#[test]
fn an_importance_matrix_serves_without_gradients() {
    let folder = folder();
    let [model, out, matrix] = ["model", "out.ecq", "imatrix.dat"].map(|name| folder.at(name));
    std::fs::write(&matrix, importance([64, 64, 64, 96])).unwrap();
    let [told, _] = prints(&folder, &convert(&model, &out, &["--statistics", &matrix]));
    assert!(told.contains("calibrated"), "{told}");
    prints(&folder, &["verify", &out, "--against", &model]);
    std::fs::write(&matrix, importance([64, 64, 64, 99])).unwrap();
    let another =
        ["imatrix.dat: blk.0.ffn_down.weight: expected 96 inputs, found 99: it is of another model"];
    refused(&folder, &convert(&model, &folder.at("b.ecq"), &["--statistics", &matrix]), &another);
    let mut damaged = importance([64, 64, 64, 96]);
    let at = damaged.len() - 4;
    damaged[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&matrix, damaged).unwrap();
    let none = ["blk.1.ffn_down.weight: expected squares, found numbers that are none"];
    refused(&folder, &convert(&model, &folder.at("b.ecq"), &["--statistics", &matrix]), &none);
}

#[test]
fn what_an_interruption_left_is_used_or_made_anew() {
    let folder = folder();
    let [model, a, b, words, saved, left] =
        ["model", "a.ecq", "b.ecq", "text.txt", "saved.bin", "saved.bin.unfinished"]
            .map(|name| folder.at(name));
    prints(&folder, &convert(&model, &a, &["--calibrate", &words]));
    let saving = convert(&model, &b, &["--calibrate", &words, "--statistics", &saved]);
    std::fs::write(&left, "something else").unwrap();
    refused(&folder, &saving, &["saved.bin.unfinished: it is not of these texts", "delete it"]);
    let held = std::fs::File::open(&left).unwrap();
    held.try_lock().unwrap();
    let output = run(&folder, &saving);
    assert!(text(&output.stderr).contains("another run is writing it"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read(&left).unwrap(), b"something else");
    drop(held);
    #[cfg(unix)]
    {
        // nothing is written through a link
        std::fs::remove_file(&left).unwrap();
        std::os::unix::fs::symlink(&a, &left).unwrap();
        refused(&folder, &saving, &["saved.bin.unfinished", "or a link"]);
    }
    std::fs::remove_file(&left).unwrap();
    prints(&folder, &saving);
    assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap(), "another file");
    assert!(!std::path::Path::new(&left).exists());
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
    let unfinished = folder.at("short.txt.unfinished");
    std::fs::write(&short, "too short").unwrap();
    std::fs::write(&other, "no statistics").unwrap();
    let saving = ["--calibrate", &words, "--statistics", &saved];
    prints(&folder, &convert(&model, &folder.at("other.ecq"), &saving));
    for (more, needles) in [
        (&["--calibrate", &short][..], &["short.txt: expected a text of at least 512 tokens, found 9"][..]),
        (&["--calibrate", &missing], &["missing.txt"]),
        (
            &["--statistics", &other],
            &["other.bin: expected statistics written by ecq convert --statistics, or an importance"],
        ),
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
        (&["--held-out", &out, "--force"], "name another file"),
        (&["--held-out", &unfinished, "--statistics", &short, "--force"], "name another file"),
        (&["--statistics", &out], "name another file"),
        (&["--statistics", &weights, "--force"], "model.safetensors"),
        (
            &["--statistics", &saved, "--calibration-tokens", "1024"],
            "saved.bin exists; use --force to replace it",
        ),
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

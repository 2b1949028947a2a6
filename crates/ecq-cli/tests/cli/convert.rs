//! Conversions of the committed fixtures, lossless and lossy, and back.

use std::path::Path;

use serde_json::Value;

use crate::{Entry, Folder, fixture, ok, run, text, weights, write_safetensors};

const PROFILES: [&str; 2] = ["cpu", "gpu"];

/// Schemes that quantize, as typed.
const LOSSY: [&[&str]; 10] = [
    &["--bits", "3.5"],
    &["--scheme", "ecq", "--bits", "3.5", "--row-scales"],
    &["--scheme", "ecq", "--bits", "3.5", "--column-scales"],
    &["--scheme", "ecq", "--bits", "3.5", "--row-scales", "--column-scales"],
    &["--scheme", "affine4"],
    &["--scheme", "absmax4", "--group", "32"],
    &["--scheme", "absmax4", "--group", "row"],
    &["--scheme", "absmax4", "--group", "tensor"],
    &["--scheme", "int8"],
    &["--scheme", "int8", "--group", "7", "--profile", "gpu"],
];

/// Inspects a lossless file as text and as JSON, and verifies it with and without its source.
fn look_at_lossless(file: &str, source: &str) {
    let shown = ok(&["inspect", file]);
    assert!(shown.contains("lossless") && shown.contains("bits a weight"), "{shown}");
    let json: Value = serde_json::from_str(&ok(&["inspect", file, "--json"])).unwrap();
    assert_eq!(json["lossless"], true);
    assert_eq!(json["totals"]["file_bytes"], std::fs::metadata(file).unwrap().len());
    assert!(!json["tensors"].as_array().unwrap().is_empty());
    assert!(ok(&["verify", file]).contains("all checksums right"));
    let compared = ok(&["verify", file, "--against", source]);
    assert!(compared.contains("identical to the source, byte for byte"), "{compared}");
    let json: Value = serde_json::from_str(&ok(&["verify", file, "--against", source, "--json"])).unwrap();
    assert_eq!(json["identical"], true);
}

#[test]
fn ggufs_come_back_byte_for_byte() {
    for name in ["tiny.gguf", "tiny-align64.gguf"] {
        let source = fixture(name);
        for profile in PROFILES {
            let folder = Folder::new();
            let (file, back) = (folder.at("model.ecq"), folder.at("back.gguf"));
            let said = ok(&["convert", &source, "-o", &file, "--profile", profile]);
            assert!(said.contains("lossless"), "{said}");
            look_at_lossless(&file, &source);
            assert!(ok(&["restore", &file, "-o", &back]).contains("exact, SHA-256"));
            assert!(std::fs::read(&source).unwrap() == std::fs::read(&back).unwrap(), "{name} {profile}");
        }
    }
}

/// Converts a safetensors file without loss, and restores it.
fn round_trip(source: &str, file: &str, back: &str, profile: &str) {
    ok(&["convert", source, "-o", file, "--scheme", "lossless", "--profile", profile]);
    look_at_lossless(file, source);
    ok(&["restore", file, "-o", back]);
    assert!(std::fs::read(source).unwrap() == std::fs::read(back).unwrap(), "{profile}");
}

#[test]
fn a_safetensors_file_comes_back_byte_for_byte() {
    let source = fixture("tiny.safetensors");
    for profile in PROFILES {
        let folder = Folder::new();
        let (file, back) = (folder.at("model.ecq"), folder.at("back.safetensors"));
        round_trip(&source, &file, &back, profile);
    }
}

#[test]
fn floats_are_coded_and_come_back_byte_for_byte() {
    let source = fixture("floats.safetensors");
    for profile in PROFILES {
        let folder = Folder::new();
        let (file, back) = (folder.at("model.ecq"), folder.at("back.safetensors"));
        round_trip(&source, &file, &back, profile);
        let json: Value = serde_json::from_str(&ok(&["inspect", &file, "--json"])).unwrap();
        assert_eq!(json["version"], if profile == "gpu" { 4 } else { 2 });
        let coded = |name: &str| {
            let all = json["tensors"].as_array().unwrap();
            all.iter().find(|t| t["name"] == name).unwrap()["scheme"] == "lossless"
        };
        assert!(["bf16.odd", "f16.odd", "f8.e4m3", "f8.e5m2", "bf16.equal"].into_iter().all(coded), "{json}");
        assert!(!["bf16.norm", "f8.any", "f8.small"].into_iter().any(coded), "{json}");
        for dtype in ["f32", "f16", "bf16"] {
            ok(&["restore", &file, "-o", &back, "--dtype", dtype, "--force"]);
        }
    }
}

/// File names of a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_sharded_folder_comes_back_byte_for_byte() {
    let source = fixture("sharded");
    let folder = Folder::new();
    for profile in PROFILES {
        let (file, back) = (folder.at(&format!("{profile}.ecq")), folder.at(profile));
        ok(&["convert", &source, "-o", &file, "--scheme", "lossless", "--profile", profile]);
        look_at_lossless(&file, &source);
        ok(&["restore", &file, "-o", &back]);
        assert_eq!(names(Path::new(&back)), names(Path::new(&source)));
        for name in names(Path::new(&source)) {
            let read = |folder: &str| std::fs::read(Path::new(folder).join(&name)).unwrap();
            assert!(read(&source) == read(&back), "{name}");
        }
    }
}

#[test]
fn a_lossy_folder_becomes_a_folder_or_one_file() {
    let source = fixture("sharded");
    let folder = Folder::new();
    let (file, back, lone) = (folder.at("model.ecq"), folder.at("back"), folder.at("lone.safetensors"));
    ok(&["convert", &source, "-o", &file]);
    assert!(ok(&["verify", &file, "--against", &source]).contains("SQNR dB"));
    ok(&["restore", &file, "-o", &back]);
    assert_eq!(names(Path::new(&back)), ["config.json", "model.safetensors", "tokenizer.json"]);
    ok(&["restore", &file, "-o", &lone]);
    assert!(Path::new(&lone).is_file());
    // what was restored is a model like any other
    ok(&["convert", &back, "-o", &folder.at("again.ecq")]);
    ok(&["convert", &lone, "-o", &folder.at("alone.ecq")]);
}

/// Types of the tensors of a lossy file that are coded, once it is restored and converted again.
fn types(file: &str) -> Vec<String> {
    let json: Value = serde_json::from_str(&ok(&["inspect", file, "--json"])).unwrap();
    let coded = json["tensors"].as_array().unwrap().iter().filter(|t| t["scheme"] != "plain");
    coded.map(|t| t["dtype"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_lossy_scheme_converts_compares_and_restores() {
    for source in [fixture("tiny.safetensors"), fixture("tiny.gguf")] {
        for scheme in LOSSY {
            let folder = Folder::new();
            let (file, back) = (folder.at("model.ecq"), folder.at("back.safetensors"));
            ok(&[&["convert", &source, "-o", &file][..], scheme].concat());
            let json: Value = serde_json::from_str(&ok(&["inspect", &file, "--json"])).unwrap();
            assert_eq!(json["lossless"], false);
            assert!(ok(&["inspect", &file]).contains("lossy"));
            assert!(ok(&["verify", &file]).contains("all checksums right"));
            let compared = ok(&["verify", &file, "--against", &source]);
            assert!(compared.contains("SQNR dB") && compared.contains("all coded tensors"), "{compared}");
            let json = ok(&["verify", &file, "--against", &source, "--json"]);
            let json: Value = serde_json::from_str(&json).unwrap();
            let sqnr = json["total"]["sqnr_db"].as_f64().unwrap();
            assert!(sqnr > 8.0 && sqnr < 60.0, "{source} {scheme:?}: {sqnr} dB");
            ok(&["restore", &file, "-o", &back]);
            ok(&["convert", &back, "-o", &folder.at("again.ecq")]);
        }
    }
}

#[test]
fn floats_are_restored_in_the_type_asked_for() {
    for source in [fixture("tiny.safetensors"), fixture("tiny.gguf")] {
        for scheme in [&["--scheme", "ecq"][..], &["--scheme", "lossless"]] {
            let folder = Folder::new();
            let file = folder.at("model.ecq");
            ok(&[&["convert", &source, "-o", &file][..], scheme].concat());
            for dtype in ["f32", "f16", "bf16"] {
                let back = folder.at(&format!("{dtype}.safetensors"));
                let again = folder.at(&format!("{dtype}.ecq"));
                ok(&["restore", &file, "-o", &back, "--dtype", dtype]);
                ok(&["convert", &back, "-o", &again]);
                let types = types(&again);
                let expected = dtype.to_uppercase();
                assert!(!types.is_empty() && types.iter().all(|t| *t == expected), "{dtype}: {types:?}");
            }
        }
    }
}

#[test]
fn models_and_what_was_restored_can_be_analyzed() {
    let folder = Folder::new();
    let (source, file, back) = (fixture("tiny.gguf"), folder.at("model.ecq"), folder.at("back.safetensors"));
    ok(&["convert", &source, "-o", &file, "--bits", "3.5"]);
    ok(&["restore", &file, "-o", &back]);
    for model in [&source, &back, &fixture("tiny.safetensors"), &fixture("sharded")] {
        assert!(ok(&["analyze", model]).contains("tensors pooled"));
        let json: Value = serde_json::from_str(&ok(&["analyze", model, "--json"])).unwrap();
        assert!(!json["tensors"].as_array().unwrap().is_empty());
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    for source in [fixture("tiny.safetensors"), fixture("tiny.gguf"), fixture("sharded")] {
        for scheme in ["lossless", "ecq", "int8"] {
            let folder = Folder::new();
            let files = ["1", "2"].map(|threads| {
                let file = folder.at(threads);
                ok(&["convert", &source, "-o", &file, "--scheme", scheme, "--threads", threads]);
                std::fs::read(file).unwrap()
            });
            assert!(files[0] == files[1], "{source} {scheme}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing_in_many_tiles() {
    let folder = Folder::new();
    let source = folder.at("model.safetensors");
    let floats = weights(1, 3001 * 1024);
    let halves = floats.as_chunks::<4>().0.iter().flat_map(|&[_, _, low, high]| [low, high]).collect();
    let entries: [Entry; 2] = [("a", "F32", &[3001, 1024], floats), ("b", "BF16", &[3001, 1024], halves)];
    write_safetensors(&source, &entries);
    for scheme in ["lossless", "ecq"] {
        let files = ["1", "2", "7"].map(|threads| {
            let file = folder.at(threads);
            ok(&["convert", &source, "-o", &file, "--scheme", scheme, "--threads", threads, "--force"]);
            std::fs::read(file).unwrap()
        });
        assert!(files[0] == files[1] && files[1] == files[2], "{scheme}");
        let tiles = |t: &Value| t["tiles"].as_u64().unwrap();
        let json: Value = serde_json::from_str(&ok(&["inspect", &folder.at("1"), "--json"])).unwrap();
        assert!(json["tensors"].as_array().unwrap().iter().map(tiles).max().unwrap() > 4);
    }
}

#[test]
fn quiet_commands_that_write_print_nothing() {
    let folder = Folder::new();
    let (source, file) = (fixture("tiny.gguf"), folder.at("model.ecq"));
    for arguments in [
        &["--quiet", "convert", &source, "-o", &file][..],
        &["convert", &source, "-o", &file, "--force", "-q", "--bits", "3"],
        &["restore", &file, "-o", &folder.at("back.safetensors"), "--quiet"],
    ] {
        assert_eq!(ok(arguments), "", "{arguments:?}");
    }
}

#[test]
fn json_of_a_conversion_is_what_inspect_says() {
    let folder = Folder::new();
    let file = folder.at("model.ecq");
    let converted = ok(&["convert", &fixture("tiny.gguf"), "-o", &file, "--json"]);
    assert_eq!(converted, ok(&["inspect", &file, "--json"]));
}

#[test]
fn force_replaces_an_existing_file() {
    let folder = Folder::new();
    let (source, file, back) = (fixture("tiny.gguf"), folder.at("model.ecq"), folder.at("back.gguf"));
    std::fs::write(&file, b"old").unwrap();
    std::fs::write(&back, b"old").unwrap();
    ok(&["convert", &source, "-o", &file, "--force"]);
    ok(&["restore", &file, "-o", &back, "--force"]);
    assert!(std::fs::read(&source).unwrap() == std::fs::read(&back).unwrap());
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [&["--help"][..], &["--version"], &["convert", "--help"], &["help", "restore"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("ecq"));
    }
}

#[test]
fn types_that_are_not_read_are_told_once_and_come_back() {
    let folder = Folder::new();
    let (source, file, back) = (fixture("kquants.gguf"), folder.at("k.ecq"), folder.at("back.gguf"));
    let output = run(&["convert", &source, "-o", &file]);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert_eq!(err.matches("IQ4_NL").count(), 1, "{err}");
    assert!(err.contains("stored as it is"), "{err}");
    ok(&["restore", &file, "-o", &back]);
    assert!(std::fs::read(&source).unwrap() == std::fs::read(&back).unwrap());
}

#[test]
fn a_packed_folder_is_lossless_unless_a_rate_is_asked_for() {
    let folder = Folder::new();
    let (source, exact, lossy) = (fixture("mlx4"), folder.at("exact.ecq"), folder.at("lossy.ecq"));
    assert!(ok(&["convert", &source, "-o", &exact]).contains("lossless"));
    let printed = ok(&["convert", &source, "--bits", "3", "-o", &lossy]);
    assert!(printed.contains("ecq at 3 bits a weight"), "{printed}");
    let back = folder.at("back");
    ok(&["restore", &lossy, "--dtype", "f16", "-o", &back]);
    let config = std::fs::read_to_string(Path::new(&back).join("config.json")).unwrap();
    assert!(!config.contains("quantization") && config.contains("model_type"), "{config}");
}

#[test]
fn a_rule_that_can_do_nothing_is_told() {
    let folder = Folder::new();
    let arguments = ["convert", &fixture("tiny.safetensors"), "-o", &folder.at("t.ecq"), "--tensor"];
    let err = |rule: &str| {
        let output = run(&[&arguments[..], &[rule, "--force"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    assert!(err("*=4").contains("cannot be coded"));
    assert_eq!(err("*=keep"), "");
}

//! Shapes at the edge: no weights, no dimensions, no tensors, odd numbers of rows and columns, unusual names.

use serde_json::Value;

use crate::{Folder, ok, weights, write_safetensors};

/// Converts, verifies and restores a model in every way; the lossless one must come back byte for byte.
fn round_trip(folder: &Folder, source: &str) {
    let (file, back) = (folder.at("model.ecq"), folder.at("back.safetensors"));
    for scheme in ["lossless", "ecq", "affine4", "absmax4", "int8"] {
        for profile in ["cpu", "gpu"] {
            let options = ["--scheme", scheme, "--profile", profile, "--force"];
            ok(&[&["convert", source, "-o", &file][..], &options].concat());
            ok(&["inspect", &file]);
            ok(&["verify", &file]);
            ok(&["verify", &file, "--against", source]);
            ok(&["restore", &file, "-o", &back, "--force"]);
            if scheme == "lossless" {
                assert!(std::fs::read(source).unwrap() == std::fs::read(&back).unwrap(), "{profile}");
            }
            for dtype in ["f32", "bf16"] {
                ok(&["restore", &file, "-o", &back, "--force", "--dtype", dtype]);
            }
            ok(&["convert", &back, "-o", &folder.at("again.ecq"), "--force"]);
        }
    }
    ok(&["analyze", source]);
}

#[test]
fn empty_and_odd_shapes_convert_and_come_back() {
    let folder = Folder::new();
    let source = folder.at("model.safetensors");
    write_safetensors(
        &source,
        &[
            ("empty", "F32", &[0], Vec::new()),
            ("no rows", "F32", &[0, 4096], Vec::new()),
            ("no columns", "F32", &[4096, 0], Vec::new()),
            ("scalar", "F32", &[], weights(1, 1)),
            ("one", "F32", &[1, 1], weights(2, 1)),
            ("vector", "F32", &[3001], weights(3, 3001)),
            ("row", "F32", &[1, 3001], weights(4, 3001)),
            ("column", "F32", &[3001, 1], weights(5, 3001)),
            ("odd", "F32", &[37, 41], weights(6, 37 * 41)),
            ("cube", "F32", &[3, 5, 7, 11], weights(7, 1155)),
            ("just enough", "F32", &[32, 32], weights(8, 1024)),
            ("just too few", "F32", &[31, 33], weights(9, 1023)),
            ("half", "F16", &[37, 41], vec![0x3c; 2 * 37 * 41]),
            ("brain", "BF16", &[37, 41], vec![0x3f; 2 * 37 * 41]),
            ("whole", "I64", &[40, 40], vec![7; 8 * 1600]),
            ("truth", "BOOL", &[3], vec![1, 0, 1]),
        ],
    );
    round_trip(&folder, &source);
}

#[test]
fn a_model_of_no_tensors_converts_and_comes_back() {
    let folder = Folder::new();
    let source = folder.at("model.safetensors");
    write_safetensors(&source, &[]);
    round_trip(&folder, &source);
}

#[test]
fn a_model_of_one_empty_tensor_converts_and_comes_back() {
    let folder = Folder::new();
    let source = folder.at("model.safetensors");
    write_safetensors(&source, &[("nothing", "BF16", &[7, 0, 3], Vec::new())]);
    round_trip(&folder, &source);
}

#[test]
fn names_are_kept_but_control_characters_are_not_printed() {
    let folder = Folder::new();
    let (source, file) = (folder.at("größe 模型.safetensors"), folder.at("größe 模型.ecq"));
    let (hostile, plain) = ("w\u{1b}[31m\u{7}é", "ü/..\\模");
    write_safetensors(
        &source,
        &[(hostile, "F32", &[40, 40], weights(1, 1600)), (plain, "F32", &[40, 40], weights(2, 1600))],
    );
    ok(&["convert", &source, "-o", &file]);
    ok(&["inspect", &file]);
    ok(&["verify", &file, "--against", &source]);
    ok(&["analyze", &source]);
    let json: Value = serde_json::from_str(&ok(&["inspect", &file, "--json"])).unwrap();
    let names: Vec<_> = json["tensors"].as_array().unwrap().iter().map(|t| t["name"].clone()).collect();
    assert_eq!(names, [hostile, plain]);
}

//! Mistakes and damage: exit code 1 or 2, a message that names the file, and nothing left behind.

use crate::{Folder, fails, fixture, ok, refused, run, text, unfinished, weights, write_safetensors};

#[test]
fn what_is_there_is_not_replaced() {
    let folder = Folder::new();
    let (source, file) = (fixture("tiny.gguf"), folder.at("model.ecq"));
    ok(&["convert", &source, "-o", &file]);
    refused(folder.path(), &["convert", &source, "-o", &file], &["model.ecq", "exists already", "--force"]);
    let there = folder.at("there.gguf");
    std::fs::write(&there, b"precious").unwrap();
    refused(folder.path(), &["restore", &file, "-o", &there], &["there.gguf", "exists already", "--force"]);
    // an .ecq file is no source
    let again = folder.at("again.ecq");
    refused(folder.path(), &["analyze", &file], &["model.ecq", "is an .ecq file already", "ecq inspect"]);
    refused(folder.path(), &["convert", &file, "-o", &again], &["model.ecq", "is an .ecq file already"]);
    std::fs::create_dir(folder.at("full")).unwrap();
    std::fs::write(folder.at("full/note"), b"precious").unwrap();
    let full = folder.at("full");
    for force in [&[][..], &["--force"]] {
        refused(folder.path(), &[&["restore", &file, "-o", &full][..], force].concat(), &["full"]);
        refused(folder.path(), &[&["convert", &source, "-o", &full][..], force].concat(), &["full"]);
    }
    assert_eq!(std::fs::read(folder.at("full/note")).unwrap(), b"precious");
}

#[test]
fn an_input_is_never_its_own_output() {
    let folder = Folder::new();
    let (model, file) = (folder.at("model.gguf"), folder.at("model.ecq"));
    std::fs::copy(fixture("tiny.gguf"), &model).unwrap();
    for force in [&[][..], &["--force"]] {
        let arguments = [&["convert", &model, "-o", &model][..], force].concat();
        refused(folder.path(), &arguments, &["model.gguf", "input and output at once", "choose another"]);
    }
    ok(&["convert", &model, "-o", &file]);
    refused(folder.path(), &["restore", &file, "-o", &file, "--force"], &["model.ecq", "input and output"]);
}

#[test]
fn a_shard_or_companion_is_never_the_output() {
    let folder = Folder::new();
    for entry in std::fs::read_dir(fixture("sharded")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let source = folder.at("");
    for name in ["config.json", "model-00002-of-00002.safetensors"] {
        let output = folder.at(name);
        refused(folder.path(), &["convert", &source, "-o", &output, "--force"], &[name, "at once"]);
    }
}

#[test]
fn what_is_no_model_is_refused() {
    let folder = Folder::new();
    let file = folder.at("out.ecq");
    let missing = folder.at("missing.gguf");
    refused(folder.path(), &["convert", &missing, "-o", &file], &["missing.gguf", "check the path"]);
    refused(folder.path(), &["analyze", &missing], &["missing.gguf", "check the path"]);
    let empty = folder.at("empty");
    std::fs::create_dir(&empty).unwrap();
    refused(folder.path(), &["convert", &empty, "-o", &file], &["empty", "expected a Hugging Face model"]);
    std::fs::write(folder.at("empty/a.gguf"), b"GGUF").unwrap();
    refused(folder.path(), &["convert", &empty, "-o", &file], &["empty", "give a.gguf itself"]);
    let noise = folder.at("noise.gguf");
    std::fs::write(&noise, [0xa5; 4096]).unwrap();
    refused(folder.path(), &["convert", &noise, "-o", &file], &["noise.gguf", "convert the model"]);
    std::fs::write(&noise, b"").unwrap();
    refused(folder.path(), &["convert", &noise, "-o", &file], &["noise.gguf", "is empty"]);
    let nowhere = folder.at("no/such/out.ecq");
    refused(folder.path(), &["convert", &fixture("tiny.gguf"), "-o", &nowhere], &["no/such/out.ecq"]);
}

#[test]
fn a_model_cut_short_is_refused() {
    let folder = Folder::new();
    let (file, cut) = (folder.at("out.ecq"), folder.at("cut.bin"));
    for name in ["tiny.gguf", "tiny.safetensors"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        for len in [3, 20, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&cut, &bytes[..len]).unwrap();
            refused(folder.path(), &["convert", &cut, "-o", &file], &["cut.bin"]);
        }
    }
}

#[test]
fn what_is_no_ecq_file_is_refused() {
    let folder = Folder::new();
    let back = folder.at("back");
    for name in ["tiny.gguf", "tiny.safetensors", "sharded/config.json", "sharded"] {
        let source = fixture(name);
        refused(folder.path(), &["inspect", &source], &[&source]);
        refused(folder.path(), &["verify", &source], &[&source]);
        refused(folder.path(), &["restore", &source, "-o", &back], &[&source]);
    }
    refused(folder.path(), &["inspect", &fixture("tiny.safetensors")], &["not an .ecq file"]);
    let missing = folder.at("missing.ecq");
    refused(folder.path(), &["verify", &missing], &["missing.ecq"]);
}

#[test]
fn a_file_cut_short_is_refused() {
    let folder = Folder::new();
    let (file, cut, back) = (folder.at("model.ecq"), folder.at("cut.ecq"), folder.at("back.gguf"));
    ok(&["convert", &fixture("tiny.gguf"), "-o", &file]);
    let bytes = std::fs::read(&file).unwrap();
    for len in [0, 4, 8, 100, 4096, bytes.len() / 2, bytes.len() - 8, bytes.len() - 1] {
        std::fs::write(&cut, &bytes[..len]).unwrap();
        refused(folder.path(), &["inspect", &cut], &["cut.ecq"]);
        refused(folder.path(), &["verify", &cut], &["cut.ecq"]);
        refused(folder.path(), &["restore", &cut, "-o", &back], &["cut.ecq"]);
    }
    std::fs::write(&cut, [&bytes[..], &[0]].concat()).unwrap();
    refused(folder.path(), &["verify", &cut], &["cut.ecq"]);
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let folder = Folder::new();
    let (file, bad) = (folder.at("model.ecq"), folder.at("bad.ecq"));
    for (source, scheme) in [("tiny.gguf", "lossless"), ("tiny.safetensors", "ecq")] {
        ok(&["convert", &fixture(source), "-o", &file, "--scheme", scheme, "--force"]);
        let good = restored(&folder, &file).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        let step = (bytes.len() / 60).max(1);
        for at in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            std::fs::write(&bad, damaged).unwrap();
            refused(folder.path(), &["verify", &bad], &["bad.ecq"]);
            // a lossy file's source header is not needed to restore it: there, damage has no effect
            match restored(&folder, &bad) {
                Ok(bytes) => assert!(scheme == "ecq" && bytes == good, "byte {at}"),
                Err(message) => assert!(message.contains("bad.ecq"), "byte {at}: {message}"),
            }
        }
    }
}

/// What a file restores to, or the message; nothing else is left in the folder.
fn restored(folder: &Folder, file: &str) -> Result<Vec<u8>, String> {
    let back = folder.at("back.bin");
    let output = run(&["restore", file, "-o", &back]);
    let bytes = std::fs::read(&back);
    assert!(unfinished(folder.path()).is_empty());
    assert_eq!(output.status.success(), bytes.is_ok());
    let Ok(bytes) = bytes else {
        assert_eq!(output.status.code(), Some(1));
        return Err(text(&output.stderr));
    };
    std::fs::remove_file(&back).unwrap();
    Ok(bytes)
}

#[test]
fn damage_is_named_with_its_tensor_and_tile() {
    let folder = Folder::new();
    let (source, file) = (folder.at("model.safetensors"), folder.at("model.ecq"));
    let shape = [256, 256];
    write_safetensors(&source, &[("blk.0.weight", "F32", &shape, weights(1, 1 << 16))]);
    ok(&["convert", &source, "-o", &file, "--bits", "4"]);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&file, bytes).unwrap();
    let needles = ["model.ecq", "'blk.0.weight'", "corrupt tile", "convert the file again"];
    refused(folder.path(), &["verify", &file], &needles);
}

#[test]
fn another_model_is_not_the_source() {
    let folder = Folder::new();
    let (file, other) = (folder.at("model.ecq"), fixture("tiny-align64.gguf"));
    for scheme in ["lossless", "ecq"] {
        ok(&["convert", &fixture("tiny.gguf"), "-o", &file, "--scheme", scheme, "--force"]);
        let needles = ["tiny-align64.gguf", "is this the model that", "model.ecq"];
        refused(folder.path(), &["verify", &file, "--against", &other], &needles);
        let missing = folder.at("missing.gguf");
        refused(folder.path(), &["verify", &file, "--against", &missing], &["missing.gguf"]);
    }
}

#[test]
fn changed_tensors_differ_from_the_source() {
    let folder = Folder::new();
    let (source, file) = (folder.at("model.safetensors"), folder.at("model.ecq"));
    let write = |norm: f32| {
        let norm = [norm; 8].iter().flat_map(|w| w.to_le_bytes()).collect();
        let matrix = weights(2, 64 * 64);
        write_safetensors(&source, &[("norm", "F32", &[8], norm), ("w", "F32", &[64, 64], matrix)]);
    };
    write(1.0);
    ok(&["convert", &source, "-o", &file]);
    write(1.5);
    refused(folder.path(), &["verify", &file, "--against", &source], &["model.ecq", "differ"]);
}

#[test]
fn weights_that_are_not_finite_are_named() {
    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let folder = Folder::new();
        let (source, file) = (folder.at("model.safetensors"), folder.at("model.ecq"));
        let mut bytes = weights(3, 32 * 48);
        let at = 4 * (17 * 48 + 5);
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        write_safetensors(
            &source,
            &[("good", "F32", &[48], weights(4, 48)), ("bad", "F32", &[32, 48], bytes)],
        );
        for scheme in ["ecq", "affine4", "absmax4", "int8"] {
            let arguments = ["convert", &source, "-o", &file, "--scheme", scheme];
            let needles = ["model.safetensors", "'bad'", "row 17, column 5", shown, "--scheme lossless"];
            refused(folder.path(), &arguments, &needles);
        }
        let back = folder.at("back.safetensors");
        ok(&["convert", &source, "-o", &file, "--scheme", "lossless"]);
        ok(&["restore", &file, "-o", &back]);
        assert!(std::fs::read(&source).unwrap() == std::fs::read(&back).unwrap());
    }
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let folder = Folder::new();
    let (source, file) = (fixture("tiny.gguf"), folder.at("out.ecq"));
    for (options, needle) in [
        (&["--bits", "0.1"][..], "--bits 0.1: expected 1 to 8 bits"),
        (&["--bits", "8.5"], "expected 1 to 8"),
        (&["--bits", "nan"], "expected 1 to 8"),
        (&["--bits", "inf"], "expected 1 to 8"),
        (&["--bits", "4", "--scheme", "int8"], "are for --scheme ecq"),
        (&["--bits", "4", "--scheme", "lossless"], "are for --scheme ecq"),
        (&["--sqnr", "80"], "expected 1 to 50 dB"),
        (&["--size", "1kB"], "too few"),
        (&["--size", "90kB", "--scheme", "int8"], "are for --scheme ecq"),
        (&["--predictor", "left"], "--predictor is for --scheme int8"),
        (&["--table", "global", "--scheme", "nf4"], "--table is for --scheme int8"),
        (&["--table", "global", "--scheme", "int8", "--profile", "gpu"], "--profile cpu"),
        (&["--tensor", "no.such.*=keep"], "no tensor of the model has such a name"),
        (&["--tensor", "a[=keep"], "pattern 'a['"),
        (&["--sensitivities", "no-such.json"], "no-such.json"),
        (&["--group", "32"], "--group is for --scheme affine4"),
        (&["--group", "row", "--scheme", "ecq"], "--group is for --scheme affine4"),
        (&["--row-scales", "--scheme", "lossless"], "are for --scheme ecq"),
        (&["--column-scales", "--scheme", "int8"], "are for --scheme ecq"),
    ] {
        refused(folder.path(), &[&["convert", &source, "-o", &file][..], options].concat(), &[needle]);
    }
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    let folder = Folder::new();
    let (source, file) = (fixture("tiny.gguf"), folder.at("out.ecq"));
    for options in [
        &["--scheme", "q5"][..],
        &["--scheme", "absmax4", "--group", "0"],
        &["--scheme", "absmax4", "--group", "-1"],
        &["--scheme", "absmax4", "--group", "column"],
        &["--bits", "many"],
        &["--sqnr", "20", "--bits", "4"],
        &["--size", "80XB"],
        &["--tensor", "*.weight"],
        &["--tensor", "*.weight=fine"],
        &["--profile", "tpu"],
        &["--threads", "0"],
        &["--threads", "100000"],
        &["--no-such-option"],
    ] {
        fails(folder.path(), 2, &[&["convert", &source, "-o", &file][..], options].concat());
    }
    for arguments in [&[][..], &["convert"], &["convert", &source], &["explode"], &["restore", &file]] {
        fails(folder.path(), 2, arguments);
    }
}

#[test]
fn quiet_failures_still_say_why() {
    let folder = Folder::new();
    let missing = folder.at("missing.ecq");
    let output = run(&["--quiet", "inspect", &missing]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("missing.ecq"));
}

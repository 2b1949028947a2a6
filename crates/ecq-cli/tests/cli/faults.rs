//! Limits of the system, places that cannot be written, and what killed runs leave.
#![cfg(unix)]

use std::path::Path;
use std::process::{Command, Output};

use crate::{Folder, command, ok, text, unfinished, weights, write_safetensors};

/// Two megabytes of weights.
fn model(folder: &Folder) -> String {
    let path = folder.at("model.safetensors");
    let weights = |seed| weights(seed, 512 * 512);
    let tensors = [("a", "F32", &[512, 512][..], weights(1)), ("b", "F32", &[512, 512][..], weights(2))];
    write_safetensors(&path, &tensors);
    path
}

/// Runs the command under a limit of the shell.
fn limited(limit: &str, arguments: &[&str]) -> Output {
    let ecq = command(arguments);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{limit}; exec \"$@\""), "sh"]).arg(ecq.get_program()).args(arguments);
    shell.output().unwrap()
}

/// It failed with code 1 and this in its message, and left nothing.
fn assert_failed(output: &Output, folder: &Folder, file: &str, needle: &str) {
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{}: {err}", output.status);
    assert!(err.contains(needle) && !err.contains("panicked"), "{err}");
    assert!(!Path::new(file).exists());
    assert_eq!(unfinished(folder.path()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_file_that_outgrows_its_limit_is_an_error() {
    let folder = Folder::new();
    let (model, file) = (model(&folder), folder.at("out.ecq"));
    for blocks in [0, 1, 100, 300] {
        let output =
            limited(&format!("ulimit -f {blocks}"), &["convert", &model, "-o", &file, "--scheme", "int8"]);
        assert_failed(&output, &folder, &file, "out.ecq: cannot write: File too large");
    }
}

#[cfg(target_os = "linux")] // elsewhere the limit is not kept to
#[test]
fn memory_that_the_system_refuses_is_an_error() {
    let folder = Folder::new();
    let (model, file) = (model(&folder), folder.at("out.ecq"));
    let limit = |kib: u64| format!("ulimit -v {kib}");
    let starts = |kib: &u64| limited(&limit(*kib), &["--version"]).status.success();
    let least = (1..).map(|i| i << 12).find(starts).unwrap();
    let mut failed = 0;
    for i in 0..10 {
        let arguments = ["convert", &model, "-o", &file, "--scheme", "int8", "--force"];
        let output = limited(&limit(least + i * 1000), &arguments);
        let err = text(&output.stderr);
        match output.status.code() {
            Some(0) => std::fs::remove_file(&file).unwrap(),
            Some(1) => failed += 1,
            _ => panic!("{}: {err}", output.status),
        }
        assert!(!err.contains("panicked") && !Path::new(&file).exists(), "{err}");
        assert_eq!(err.is_empty(), output.status.success());
    }
    assert!(failed > 0);
}

#[test]
fn the_next_run_removes_what_a_killed_one_left() {
    let folder = Folder::new();
    let (model, file) = (model(&folder), folder.at("out.ecq"));
    let other = folder.at(".other.ecq.abcdef.ecq-tmp");
    std::fs::write(&other, "").unwrap();
    std::fs::write(folder.at(".out.ecq.abcdef.ecq-tmp"), "left").unwrap();
    ok(&["convert", &model, "-o", &file, "--scheme", "int8"]);
    assert_eq!(unfinished(folder.path()), [Path::new(&other)]);
    std::fs::create_dir(folder.at(".back.safetensors.abcdef.ecq-tmp")).unwrap();
    ok(&["restore", &file, "-o", &folder.at("back.safetensors")]);
    assert_eq!(unfinished(folder.path()), [Path::new(&other)]);
}

#[test]
fn several_at_once_to_one_name_leave_one_file() {
    let folder = Folder::new();
    let (model, file) = (model(&folder), folder.at("out.ecq"));
    let start = || {
        let mut command = command(["convert", &model, "-o", &file, "--scheme", "int8", "--force", "--quiet"]);
        command.spawn().unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| start()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    ok(&["verify", &file]);
    assert_eq!(unfinished(folder.path()), Vec::<std::path::PathBuf>::new());
}

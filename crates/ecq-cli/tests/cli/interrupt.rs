//! Killed or stopped in the middle: what stands under the final name is complete, or there is nothing.
#![cfg(unix)]

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::{Folder, command, ok, unfinished, weights, write_safetensors};

/// Milliseconds after the start at which the work is interrupted: from before its first write to after its end.
const DELAYS: [u64; 8] = [5, 30, 60, 120, 250, 500, 1000, 2000];

/// About 40 MB of weights.
fn model(folder: &Folder) -> String {
    let path = folder.at("model.safetensors");
    let names: Vec<String> = (0..10).map(|i| format!("blk.{i}.weight")).collect();
    let tensors: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(i, name)| (name.as_str(), "F32", &[1024, 1024][..], weights(i as u64, 1 << 20)))
        .collect();
    write_safetensors(&path, &tensors);
    path
}

fn start(model: &str, file: &str) -> Child {
    let mut command = command(["convert", model, "-o", file, "--bits", "3.5", "--force", "--quiet"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Starts a conversion, sends a signal after some time, waits for the end.
fn interrupted(model: &str, file: &str, signal: &str, delay: u64) -> ExitStatus {
    let mut child = start(model, file);
    std::thread::sleep(Duration::from_millis(delay));
    // a child that has ended is not yet waited for, so that its number belongs to nobody else
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    child.wait().unwrap()
}

#[test]
fn a_killed_conversion_leaves_no_half_file_under_its_name() {
    let folder = Folder::new();
    let (model, file) = (model(&folder), folder.at("out.ecq"));
    for delay in DELAYS {
        let status = interrupted(&model, &file, "-KILL", delay);
        if Path::new(&file).exists() {
            ok(&["verify", &file]);
            std::fs::remove_file(&file).unwrap();
        } else {
            assert!(!status.success(), "{delay} ms");
        }
    }
    // what the killed ones left is in nobody's way
    ok(&["convert", &model, "-o", &file, "--bits", "3.5"]);
    ok(&["verify", &file]);
}

#[test]
fn a_killed_conversion_leaves_the_file_that_was_there() {
    let folder = Folder::new();
    let (model, file) = (model(&folder), folder.at("out.ecq"));
    for delay in [60, 250] {
        std::fs::write(&file, b"old").unwrap();
        interrupted(&model, &file, "-KILL", delay);
        if std::fs::read(&file).unwrap() != b"old" {
            ok(&["verify", &file]);
        }
    }
}

#[test]
fn a_stopped_conversion_cleans_up() {
    let folder = Folder::new();
    let (model, file) = (model(&folder), folder.at("out.ecq"));
    for signal in ["-INT", "-TERM"] {
        for delay in DELAYS {
            let status = interrupted(&model, &file, signal, delay);
            assert_eq!(unfinished(folder.path()), Vec::<std::path::PathBuf>::new(), "{signal} {delay} ms");
            assert_eq!(status.success(), Path::new(&file).exists(), "{signal} {delay} ms: {status}");
            if status.success() {
                ok(&["verify", &file]);
                std::fs::remove_file(&file).unwrap();
            }
        }
    }
}

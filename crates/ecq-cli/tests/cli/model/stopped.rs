//! Work that is stopped from outside: by Ctrl-C at any time, by a reader that has seen enough, by bytes that are no text.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::fixture::Model;
use crate::{Folder, command, text};

/// Most time until a process that is told to stop has ended; other tests run beside it.
const PATIENCE: Duration = Duration::from_secs(3);

fn start(arguments: &[&str]) -> Child {
    command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Sends a signal, and waits for the end, which must come soon.
fn stop(child: Child, signal: &str) -> Output {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let start = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(start.elapsed() < PATIENCE, "ended after {:?}", start.elapsed());
    output
}

/// Stopped cleanly: the exit code of Ctrl-C, and one line that says so.
fn assert_stopped(output: &Output, what: &str) {
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{what}: {} {err}", output.status);
    assert!(err.ends_with("ecq: stopped\n") && !err.contains("panicked"), "{what}: {err}");
}

#[test]
fn a_text_stops_at_its_next_token() {
    let folder = Folder::new();
    let file = Model::default().convert(&folder);
    for signal in ["-INT", "-TERM"] {
        let mut child = start(&["generate", &file, "--prompt", "Well", "--max-tokens", "30000"]);
        // until some of the text is there
        let mut begun = [0; 20];
        child.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
        assert!(begun.starts_with(b"Well"));
        let output = stop(child, signal);
        assert_stopped(&output, signal);
        assert!(output.stdout.ends_with(b"\n"));
    }
}

#[test]
fn a_prompt_stops_before_its_end() {
    let folder = Folder::new();
    let file = Model::default().convert(&folder);
    let prompt = "word ".repeat(7000);
    let mut child = start(&["generate", &file, "--prompt", &prompt, "--max-tokens", "1"]);
    // the prompt is repeated before it is passed through
    let mut begun = vec![0; prompt.len()];
    child.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    let output = stop(child, "-INT");
    assert_stopped(&output, "prompt");
    assert_eq!(text(&output.stdout), "\n", "a token was made");
}

#[test]
fn measurements_stop() {
    let folder = Folder::new();
    let (file, book) = (Model::default().convert(&folder), folder.at("book.txt"));
    std::fs::write(&book, "word ".repeat(100_000)).unwrap();
    for arguments in [
        &["perplexity", &file, "--text", &book, "--context", "30000"][..],
        &["bench", &file, "--prompt-tokens", "10", "--tokens", "39000"],
    ] {
        let child = start(arguments);
        std::thread::sleep(Duration::from_millis(700));
        assert_stopped(&stop(child, "-INT"), arguments[0]);
    }
}

#[test]
fn ctrl_c_ends_it_at_any_time() {
    let folder = Folder::new();
    let file = Model::default().convert(&folder);
    for delay in [1, 3, 6, 10, 15, 20, 30, 50, 100, 200] {
        let child =
            start(&["generate", &file, "--prompt", "Well", "--max-tokens", "30000", "--decode", "cached"]);
        std::thread::sleep(Duration::from_millis(delay));
        // as Ctrl-C, which shells let what they start in the background ignore until it listens
        let output = stop(child, "-TERM");
        // before anybody listens, the system ends it
        if output.status.signal() != Some(15) {
            assert_stopped(&output, &format!("{delay} ms"));
        }
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let folder = Folder::new();
    let file = Model::default().convert(&folder);
    let mut child = start(&["generate", &file, "--prompt", "Well", "--max-tokens", "30000", "--quiet"]);
    let mut begun = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut begun).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn remarks_that_nobody_reads_are_no_failure() {
    let folder = Folder::new();
    let file = Model::default().convert(&folder);
    let run = ["generate", &file, "--prompt", "Well", "--max-tokens", "9"];
    let expected = command(run).output().unwrap().stdout;
    let mut child = start(&run);
    drop(child.stderr.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(0), expected));
}

#[test]
fn a_pipe_that_nothing_comes_from_is_no_trap() {
    let folder = Folder::new();
    let (file, pipe) = (Model::default().convert(&folder), folder.at("pipe"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let output = start(&["generate", &pipe, "--prompt", "Well"]).wait_with_output().unwrap();
    let err = text(&output.stderr);
    assert!(output.status.code() == Some(1) && err.contains("it is no regular file"), "{err}");
    let child = start(&["perplexity", &file, "--text", &pipe]);
    std::thread::sleep(Duration::from_millis(300));
    assert_stopped(&stop(child, "-INT"), "pipe");
}

#[test]
fn a_prompt_that_is_no_text_is_refused() {
    let folder = Folder::new();
    let file = Model::default().convert(&folder);
    let arguments = ["generate", &file, "--prompt"].map(OsStr::new);
    let prompt = OsStr::from_bytes(b"caf\xe9");
    let output = command(arguments.into_iter().chain([prompt])).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("UTF-8"), "{}", text(&output.stderr));
}

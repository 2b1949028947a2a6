//! Every file of the hostile catalogue, as a user would meet it: a process that ends with an error that says what is wrong, in
//! little memory and little time.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// Most memory of a process.
const MOST_MEMORY: i64 = 64 << 20;
/// What a case may take on a machine that has much else to do. Alone each takes a hundredth of it.
const MOST_TIME: Duration = Duration::from_secs(10);
/// Fewest cases; there are more.
const FEWEST: usize = 800;

/// What messages of each kind of error have in common.
const KINDS: [(&str, &[&str]); 16] = [
    ("not-ecq", &["not an .ecq file: "]),
    ("version", &["this program reads versions 1 to 4"]),
    ("header", &["corrupt header: "]),
    ("corrupt", &["': corrupt "]),
    ("inconsistent", &["fetch or convert the file again"]),
    ("sha256", &["comes back with SHA-256"]),
    ("name", &["is no plain file name or occurs twice"]),
    ("limit", &["the limit of "]),
    ("damaged", &["the file is damaged", "download it again"]),
    ("twice", &["is given twice"]),
    ("unsupported", &["is not supported"]),
    ("not-a-model", &["neither GGUF nor safetensors", "no .safetensors file", "is an .ecq file already"]),
    (
        "index",
        &[
            "the shard index is not valid",
            "next to the index",
            "the missing shard",
            "index and shards",
            "several shard indexes",
        ],
    ),
    ("unstorable", &["cannot store '"]),
    ("unexplained", &["nothing says how"]),
    ("kept", &["kept as "]),
];

fn catalogue() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/hostile").canonicalize().unwrap()
}

/// A line of the catalogue by its columns.
struct Case {
    file: String,
    command: String,
    error: String,
    words: String,
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(catalogue().join("catalogue.tsv")).unwrap();
    let mut lines = text.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
    let columns = lines.next().unwrap();
    assert_eq!(columns, ["file", "command", "found in", "error", "words", "attacks"]);
    let case = |line: Vec<String>| {
        let [file, command, _, error, words, _] = line.try_into().unwrap();
        Case { file, command, error, words }
    };
    lines.map(case).collect()
}

/// Runs the command of a case.
fn run(case: &Case, folder: &Path) -> Output {
    let file = catalogue().join(&case.file);
    let mut words = case.command.split(' ');
    let mut command = Command::new(env!("CARGO_BIN_EXE_ecq"));
    command.arg(words.next().unwrap()).arg(&file).args(words);
    if case.command.starts_with("convert") || case.command == "restore" {
        command.arg("-o").arg(folder.join("out"));
    }
    command.env_remove("RUST_LOG").env("ECQ_CACHE", folder.join("cache")).stdin(Stdio::null());
    command.output().unwrap()
}

/// What is wrong with how a case ended.
fn wrong(case: &Case, output: &Output, folder: &Path) -> Option<String> {
    let message = String::from_utf8_lossy(&output.stderr);
    let kept = case.error == "kept";
    if output.status.code() != Some(if kept { 0 } else { 1 }) || message.contains("panicked") {
        return Some(format!("{}: {message}", output.status));
    }
    if !is_plain(&output.stdout) || !is_plain(&output.stderr) {
        return Some(format!("control characters: {message:?}"));
    }
    let phrases = KINDS
        .iter()
        .find(|kind| kind.0 == case.error)
        .unwrap_or_else(|| panic!("{}: {}", case.file, case.error))
        .1;
    // a folder's error may be in one of its files, a remark names the tensor
    let name = Path::new(&case.file).file_name().unwrap().to_string_lossy();
    if !kept && !message.contains(&*name) {
        return Some(format!("does not name the file: {message}"));
    }
    if !phrases.iter().any(|phrase| message.contains(phrase)) || !message.contains(&case.words) {
        return Some(format!("expected '{}' with '{}', found: {message}", case.error, case.words));
    }
    if message.len() > 4096 {
        return Some(format!("a message of {} bytes", message.len()));
    }
    let left: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    match (kept, left.len()) {
        (true, 1) | (false, 0) => None,
        _ => Some(format!("left behind: {left:?}")),
    }
}

/// Whether a terminal shows it and does nothing else.
fn is_plain(said: &[u8]) -> bool {
    String::from_utf8_lossy(said).chars().all(|c| c == '\n' || !c.is_control())
}

/// What is wrong with how `ecq inspect` ends, which may take a file whose tensors are damaged.
fn wrong_inspected(case: &Case) -> Option<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ecq"));
    let output =
        command.arg("inspect").arg(catalogue().join(&case.file)).env_remove("RUST_LOG").output().unwrap();
    let said = [&output.stdout[..], &output.stderr].concat();
    let fine = matches!(output.status.code(), Some(0 | 1)) && is_plain(&said) && said.len() < 1 << 16;
    (!fine).then(|| format!("inspect: {}: {}", output.status, String::from_utf8_lossy(&said)))
}

/// The most memory that a process had which has ended, in bytes.
fn most_memory() -> i64 {
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() * unit
}

/// What the cases took.
#[derive(Default)]
struct Taken {
    slowest: (Duration, String),
    largest: (i64, String),
    failed: Vec<String>,
}

#[test]
fn every_case_is_its_error_in_little_memory_and_time() {
    let cases = cases();
    let (next, taken) = (AtomicUsize::new(0), Mutex::new(Taken::default()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let folder = tempfile::tempdir().unwrap();
            let start = Instant::now();
            let output = run(case, folder.path());
            let (time, wrong) = (start.elapsed(), wrong(case, &output, folder.path()));
            let wrong = wrong.or_else(|| wrong_inspected(case));
            let mut taken = taken.lock().unwrap();
            taken.failed.extend(wrong.map(|why| format!("{}: {why}", case.file)));
            if time > taken.slowest.0 {
                taken.slowest = (time, case.file.clone());
            }
            // of cases that run at once the one that ends first is named
            if most_memory() > taken.largest.0 {
                taken.largest = (most_memory(), case.file.clone());
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let Taken { slowest, largest, failed } = taken.into_inner().unwrap();
    println!(
        "{} cases, slowest {} ms ({}), most memory {:.1} MB ({})",
        cases.len(),
        slowest.0.as_millis(),
        slowest.1,
        largest.0 as f64 / 1e6,
        largest.1
    );
    assert!(failed.is_empty(), "{} cases:\n{}", failed.len(), failed.join("\n"));
    assert!(cases.len() >= FEWEST);
    assert!(slowest.0 < MOST_TIME && largest.0 < MOST_MEMORY);
}

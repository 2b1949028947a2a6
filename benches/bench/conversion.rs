//! The converter on a large model, as a process of its own, so that its memory can be seen.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ecq_format::{Limits, Reader};

use crate::report::Report;
use crate::timing::Rate;

const SECTION: &str = "Conversion of a BF16 model with the shapes of an 8B model";

/// Converts, restores and opens a synthetic model of `gib` GiB, which is made if it is not there yet.
pub fn conversion(report: &mut Report, gib: &str) -> Result<()> {
    let cache = std::env::var_os("ECQ_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache").into());
    let source = cache.join(format!("synthetic-{gib}-gib"));
    if !source.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let made =
            Command::new(cargo).args(["xtask", "synthetic"]).arg(&source).args(["--gib", gib]).status();
        ensure!(made.context("cannot start cargo")?.success(), "cargo xtask synthetic failed");
    }
    let ecq = std::env::current_exe()?.with_file_name("ecq");
    ensure!(ecq.exists(), "{} is missing: cargo build --release -p ecq-cli", ecq.display());
    let size = folder_size(&source)? as f64;
    for (name, arguments) in [("lossless", &["--scheme", "lossless"]), ("--bits 3.5", &["--bits", "3.5"])] {
        let output = cache.join("synthetic.ecq");
        let mut convert = Command::new(&ecq);
        convert.args(["convert", "--quiet", "--force", "-o"]).arg(&output).args(arguments).arg(&source);
        let memory = rate(report, &format!("convert, {name}"), size, &mut convert, &output)?;
        report.figure(SECTION, &format!("convert, {name}: peak memory"), memory / 1048576.0, "MiB", None);
        let coded = output.metadata()?.len() as f64;
        report.figure(SECTION, &format!("convert, {name}: file size"), coded / size, "of the source", None);
        if name == "lossless" {
            let alone = (0..3)
                .map(|_| write_and_sync(&cache.join("synthetic-zeros"), coded))
                .collect::<Result<_>>()?;
            let alone = Rate::new("the file system alone: write and sync the output", alone);
            report.rates(SECTION, "GB/s", &[alone], None);
            let back = cache.join("synthetic-restored");
            let mut restore = Command::new(&ecq);
            restore.args(["restore", "--quiet", "--force", "-o"]).arg(&back).arg(&output);
            let memory = rate(report, "restore, byte for byte", size, &mut restore, &back)?;
            same(&source, &back)?;
            report.figure(SECTION, "restore: peak memory", memory / 1048576.0, "MiB", None);
            remove(&back)?;
        }
        let open = (0..20).map(|_| {
            let start = Instant::now();
            Reader::open(&output, Limits::default()).map(|_| start.elapsed().as_secs_f64())
        });
        let best = open.collect::<Result<Vec<_>, _>>()?.into_iter().fold(f64::INFINITY, f64::min);
        report.figure(SECTION, &format!("open the file, {name}"), best * 1e3, "ms", None);
        remove(&output)?;
    }
    Ok(())
}

fn folder_size(path: &Path) -> Result<u64> {
    let meta = path.metadata().with_context(|| format!("cannot read {}", path.display()))?;
    if meta.is_file() {
        return Ok(meta.len());
    }
    path.read_dir()?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

/// Restoring gives the model's files back: each must have the bytes that it had.
fn same(source: &Path, back: &Path) -> Result<()> {
    let pairs: Vec<_> = if source.is_dir() {
        let names = source.read_dir()?.map(|e| Ok(e?.file_name())).collect::<Result<Vec<_>>>()?;
        names
            .iter()
            .map(|n| (source.join(n), if back.is_dir() { back.join(n) } else { back.to_owned() }))
            .collect()
    } else {
        vec![(source.to_owned(), back.to_owned())]
    };
    for (a, b) in pairs.iter().filter(|(a, _)| a.extension().is_some_and(|e| e == "safetensors")) {
        let compared = Command::new("cmp").arg(a).arg(b).status().context("cannot start cmp")?;
        ensure!(compared.success(), "{} is not what {} was", b.display(), a.display());
    }
    Ok(())
}

/// Bytes a second that the file system takes.
fn write_and_sync(path: &Path, size: f64) -> Result<f64> {
    let start = Instant::now();
    let mut file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let zeros = vec![0; 1 << 20];
    let pieces = (size / zeros.len() as f64).ceil();
    (0..pieces as usize).try_for_each(|_| file.write_all(&zeros))?;
    file.sync_all()?;
    let rate = size / start.elapsed().as_secs_f64();
    remove(path)?;
    Ok(rate)
}

/// Removes a file or a folder, if there is one.
fn remove(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let done = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    done.with_context(|| format!("cannot remove {}", path.display()))
}

/// Runs a command three times; returns the most memory that it took. The first run makes the system find memory for the
/// output, which on virtual machines can take longer than everything else.
fn rate(report: &mut Report, name: &str, size: f64, command: &mut Command, output: &Path) -> Result<f64> {
    let again = |_| {
        remove(output)?;
        run(command)
    };
    let runs = (0..3).map(again).collect::<Result<Vec<_>>>()?;
    let rounds = runs.iter().map(|(time, _)| size / time).collect();
    report.rates(SECTION, "GB/s of BF16", &[Rate::new(name, rounds)], None);
    Ok(runs.iter().fold(0.0, |most, run| run.1.max(most)))
}

/// Seconds, and the most memory that was resident, in bytes (0 where the system does not tell).
fn run(command: &mut Command) -> Result<(f64, f64)> {
    let start = Instant::now();
    let mut child =
        command.stdout(Stdio::null()).spawn().with_context(|| format!("cannot start {command:?}"))?;
    let mut most = 0.0;
    let status = loop {
        most = resident(&child).unwrap_or(most);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    if !status.success() {
        bail!("{command:?} failed");
    }
    Ok((start.elapsed().as_secs_f64(), most))
}

/// The high-water mark of a process's resident memory, mapped files included.
fn resident(child: &Child) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(1024.0 * line.split_whitespace().nth(1)?.parse::<f64>().ok()?)
}

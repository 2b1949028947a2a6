//! `cargo xtask fuzz`: the targets of `fuzz/` under the address sanitizer, by cargo-fuzz and libFuzzer.
//!
//! What libFuzzer finds worth keeping goes to the cache; `--minimise` puts the least that covers as much into
//! `fuzz/corpus`, which is committed and what every run begins with.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};

use crate::shell;
use crate::test::Outcome;

/// The version of cargo-fuzz that is installed into the cache.
const CARGO_FUZZ: &str = "0.13.2";
/// Where cargo-fuzz builds for: it asks for the name, so that build scripts are built without the sanitizer.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// The folder of targets' programs.
const FOLDER: &str = "fuzz";

/// Targets, and the longest input that each gets.
const TARGETS: [(&str, usize); 6] = [
    ("ecq", 16 << 10),
    ("gguf", 8 << 10),
    ("safetensors", 8 << 10),
    ("streams", 4 << 10),
    ("round_trip", 256),
    ("tokenizer", 4 << 10),
];
/// Seconds that an input may take, and MiB of memory, the sanitizer's own among them.
const LIMITS: [&str; 3] = ["-timeout=20", "-rss_limit_mb=2048", "-malloc_limit_mb=512"];
/// Seconds for each target in `cargo xtask test`.
const SHORT: u64 = 5;

/// Files that read what strangers wrote: of these, coverage is reported.
const PARSERS: [&str; 8] = [
    "ecq-format/src/",
    "ecq-convert/src/source/",
    "ecq-convert/src/blocks/",
    "ecq-quant/src/groups.rs",
    "ecq-llm/src/tokenizer.rs",
    "ecq-llm/src/config.rs",
    "rans-core/src/",
    "prefix-core/src/",
];

#[derive(clap::Args)]
pub struct Args {
    /// CPU minutes for each target
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// This target alone
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Targets that run side by side
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Afterwards, reduce what was found to the least that covers as much, in fuzz/corpus
    #[arg(long)]
    minimise: bool,
    /// Afterwards, print how much of the parsers the corpora cover
    #[arg(long)]
    coverage: bool,
}

/// `cargo xtask fuzz`.
pub fn run(args: &Args) -> Result<()> {
    let targets: Vec<_> = TARGETS
        .into_iter()
        .filter(|(name, _)| args.target.as_deref().is_none_or(|wanted| wanted == *name))
        .collect();
    if targets.is_empty() {
        bail!("no such target; the targets are {}", TARGETS.map(|(name, _)| name).join(", "));
    }
    if let Some(why) = elsewhere() {
        bail!("{why}");
    }
    build()?;
    let seconds = (60.0 * args.minutes).ceil() as u64;
    side_by_side(&targets, args.jobs, seconds)?;
    if args.minimise {
        targets.iter().try_for_each(|(name, longest)| minimise(name, *longest))?;
    }
    if args.coverage {
        coverage(&targets)?;
    }
    Ok(())
}

/// The step of `cargo xtask test`: all that was found before, then a few seconds of new inputs.
pub fn short() -> Result<Outcome> {
    if let Some(why) = elsewhere() {
        return Ok(Outcome::NotRun(why));
    }
    build()?;
    side_by_side(&TARGETS, 2, SHORT)?;
    Ok(Outcome::Done)
}

/// Why there is no fuzzing on this machine.
fn elsewhere() -> Option<String> {
    let here = cfg!(all(target_os = "linux", target_arch = "x86_64"));
    (!here).then(|| format!("fuzzing: the sanitizer's library is there for {HOST} only"))
}

/// cargo-fuzz, installed if need be: the registry has its source.
fn cargo_fuzz() -> Result<PathBuf> {
    let root = shell::cache().join(format!("cargo-fuzz-{CARGO_FUZZ}"));
    let program = root.join("bin/cargo-fuzz");
    if !program.is_file() {
        let install = ["install", "--quiet", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ, "--root"];
        shell::run(shell::cargo().args(install).arg(&root))?;
    }
    Ok(program)
}

/// `cargo fuzz` with a subcommand. The sanitizer is a feature of nightly compilers, which this one has all the same.
fn fuzz(subcommand: &str, folder: &str) -> Result<Command> {
    let mut fuzz = shell::command(cargo_fuzz()?);
    fuzz.arg(subcommand).arg("--target-dir").arg(shell::target_dir(folder)?);
    fuzz.env("RUSTC_BOOTSTRAP", "1");
    // gcc 12 takes zstd's constants for variables on a stack that is gone
    fuzz.env(format!("CFLAGS_{}", HOST.replace('-', "_")), "-fno-sanitize-address-use-after-scope");
    Ok(fuzz)
}

fn build() -> Result<()> {
    shell::run(&mut fuzz("build", FOLDER)?)
}

/// The program of a target.
fn program(target: &str) -> Result<PathBuf> {
    Ok(shell::target_dir(FOLDER)?.join(HOST).join("release").join(target))
}

/// Where new inputs of a target go, and where the committed ones are.
fn corpora(target: &str) -> Result<[PathBuf; 2]> {
    let all = [shell::cache().join("fuzz"), shell::root().join("fuzz/corpus")].map(|all| all.join(target));
    for folder in &all {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    Ok(all)
}

/// Runs targets, some at once, and prints a line for each.
fn side_by_side(targets: &[(&str, usize)], jobs: usize, seconds: u64) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some((target, longest)) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            println!("{target:<12}{}", search(target, *longest, seconds)?);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread died")))
    })
}

/// Runs a target on its corpora and beyond until it has had so many seconds of a CPU, which others may use, too; what came of
/// it in a line. Error: a finding, and how to see it again.
fn search(target: &str, longest: usize, seconds: u64) -> Result<String> {
    let mut all = Round::default();
    while all.seconds < seconds as f64 {
        let left = (seconds as f64 - all.seconds).ceil() as u64;
        let round = round(target, longest, left)?;
        all = Round {
            seconds: all.seconds + round.seconds,
            inputs: all.inputs + round.inputs,
            new: all.new + round.new,
            ..round
        };
    }
    let Round { seconds, inputs, new, edges, megabytes } = all;
    Ok(format!(
        "no finding in {inputs} inputs, {seconds:.0} s of CPU; {new} of them new, {edges} edges, {megabytes} MB"
    ))
}

/// What a run of libFuzzer says at its end.
#[derive(Default)]
struct Round {
    /// Of a CPU.
    seconds: f64,
    inputs: u64,
    /// Inputs that were kept.
    new: u64,
    edges: u64,
    megabytes: u64,
}

/// A run of so many seconds by the clock.
fn round(target: &str, longest: usize, seconds: u64) -> Result<Round> {
    let log_path = shell::cache().join("fuzz").join(format!("{target}.log"));
    let artifacts = shell::root().join("fuzz/artifacts").join(target);
    let corpora = corpora(target)?;
    fs::create_dir_all(&artifacts).with_context(|| format!("cannot create {}", artifacts.display()))?;
    let log = fs::File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    // the shell tells what CPU time its children took
    let mut run = shell::command("sh");
    run.args(["-c", "\"$0\" \"$@\"; code=$?; times >&2; exit $code"]).arg(program(target)?);
    run.args(&corpora).args(LIMITS).args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={longest}"),
        format!("-artifact_prefix={}/", artifacts.display()),
        "-print_final_stats=1".to_owned(),
    ]);
    let status = run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).status()?;
    let text = fs::read_to_string(&log_path).unwrap_or_default();
    if status.success() {
        return Round::of(&text).with_context(|| format!("{} does not end as expected", log_path.display()));
    }
    let found = text.lines().filter_map(|line| line.split_once("Test unit written to ")).next_back();
    let Some((_, input)) = found else {
        bail!("{target} ended ({status}) and wrote no input; see {}", log_path.display());
    };
    let what = text.lines().find(|line| line.contains("panicked at") || line.starts_with("==")).unwrap_or("");
    bail!(
        "{target}: a finding: {what}\n{input}\nsee {}; again: {} {input}",
        log_path.display(),
        program(target)?.display()
    );
}

impl Round {
    /// From what was printed.
    fn of(text: &str) -> Option<Self> {
        let statistic = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("stat::{name}:")))?;
            line.trim().parse().ok()
        };
        let edges = text.lines().filter_map(|line| line.split_once(" cov: ")).next_back();
        // minutes and seconds for users, and for the system
        let times = text.lines().next_back()?.split_whitespace().map(|time| {
            let (minutes, seconds) = time.strip_suffix('s')?.split_once('m')?;
            Some(60.0 * minutes.parse::<f64>().ok()? + seconds.parse::<f64>().ok()?)
        });
        Some(Self {
            seconds: times.sum::<Option<f64>>()?,
            inputs: statistic("number_of_executed_units")?,
            new: statistic("new_units_added")?,
            edges: edges?.1.split(' ').next()?.parse().ok()?,
            megabytes: statistic("peak_rss_mb")?,
        })
    }
}

/// The least inputs of both corpora that cover as much, as the committed one.
fn minimise(target: &str, longest: usize) -> Result<()> {
    let [own, committed] = corpora(target)?;
    let merged = shell::Scratch::new(&shell::cache().join("fuzz"))?;
    let mut merge = shell::command(program(target)?);
    // how often an edge is passed does not count: that would be ten times as many inputs
    merge.args(["-merge=1", "-use_counters=0", &format!("-max_len={longest}")]).args(LIMITS);
    merge.arg(merged.path()).args([&committed, &own]);
    merge.stdout(Stdio::null()).stderr(Stdio::null());
    shell::run(&mut merge)?;
    fs::remove_dir_all(&committed).with_context(|| format!("cannot clear {}", committed.display()))?;
    fs::create_dir_all(&committed)?;
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(merged.path())? {
        let entry = entry?;
        (files, bytes) = (files + 1, bytes + fs::copy(entry.path(), committed.join(entry.file_name()))?);
    }
    println!("{target:<12}{files} inputs of {bytes} bytes in fuzz/corpus/{target}");
    Ok(())
}

/// Prints, for each file of a parser, how many of its lines the corpora of the targets pass together. cargo-fuzz builds the
/// targets once more for that.
fn coverage(targets: &[(&str, usize)]) -> Result<()> {
    let (merged, folder) =
        (shell::cache().join("fuzz/coverage.profdata"), shell::target_dir("fuzz-coverage")?);
    let (mut profiles, mut programs) = (Vec::new(), Vec::new());
    for (target, _) in targets {
        println!("{target}: building and running …");
        let mut run = fuzz("coverage", "fuzz-coverage")?;
        run.arg(target).args(corpora(target)?);
        // it names each input
        shell::run(run.stdout(Stdio::null()).stderr(Stdio::null()))?;
        profiles.push(shell::root().join("fuzz/coverage").join(target).join("coverage.profdata"));
        programs.push(folder.join(HOST).join("release").join(target));
    }
    shell::run(llvm("llvm-profdata")?.args(["merge", "-sparse", "-o"]).arg(&merged).args(&profiles))?;
    let mut export = llvm("llvm-cov")?;
    export.args(["export", "-summary-only", "-instr-profile"]).arg(&merged).arg(&programs[0]);
    export.args(programs[1..].iter().flat_map(|program| ["-object".as_ref(), program.as_os_str()]));
    let report = export.output().context("cannot run llvm-cov")?;
    let report: serde_json::Value =
        serde_json::from_slice(&report.stdout).context("llvm-cov says nothing")?;
    println!("{:>8}{:>8}  file", "lines", "passed");
    let mut sums = [0, 0];
    for file in report["data"][0]["files"].as_array().into_iter().flatten() {
        let Some((_, name)) = file["filename"].as_str().and_then(|name| name.split_once("/crates/")) else {
            continue;
        };
        let [passed, lines] =
            ["covered", "count"].map(|what| file["summary"]["lines"][what].as_u64().unwrap_or(0));
        if PARSERS.iter().any(|parser| name.starts_with(parser)) {
            println!("{lines:>8}{:>7.0}%  {name}", percent(passed, lines));
            sums = [sums[0] + passed, sums[1] + lines];
        }
    }
    println!("{:>8}{:>7.0}%  all of them", sums[1], percent(sums[0], sums[1]));
    Ok(())
}

/// A tool of the compiler's LLVM.
fn llvm(tool: &str) -> Result<Command> {
    let output =
        shell::command("rustc").args(["--print", "target-libdir"]).output().context("cannot run rustc")?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).with_file_name("bin").join(tool);
    if !path.is_file() {
        bail!("{} is missing: rustup component add llvm-tools", path.display());
    }
    Ok(shell::command(path))
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_end_of_a_run_is_read() {
        let text = "#8\tREDUCE cov: 5 ft: 9\n#9\tDONE   cov: 71 ft: 140 corp: 3/9b\nstat::number_of_executed_units: 1200\n\
            stat::average_exec_per_sec:     600\nstat::new_units_added:          3\nstat::peak_rss_mb:  81\n\
            0m0.00s 0m0.00s\n1m2.50s 0m1.25s\n";
        let Round { seconds, inputs, new, edges, megabytes } = Round::of(text).unwrap();
        assert_eq!((seconds, inputs, new, edges, megabytes), (63.75, 1200, 3, 71, 81));
        assert!(Round::of("stat::peak_rss_mb: 81\n").is_none());
    }

    #[test]
    fn every_target_has_a_program() {
        let names = fs::read_dir(shell::root().join("fuzz/fuzz_targets")).unwrap();
        let mut found: Vec<_> = names
            .map(|entry| Path::new(&entry.unwrap().file_name()).file_stem().unwrap().to_owned())
            .collect();
        let mut listed: Vec<_> = TARGETS.iter().map(|(name, _)| std::ffi::OsString::from(name)).collect();
        found.sort();
        listed.sort();
        assert_eq!(found, listed);
    }
}

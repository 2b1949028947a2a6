//! `cargo xtask test`: the project's whole test command.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::demo::{self, Profile};
use crate::{bare_metal, faults, fixtures, fuzz, gpu, miri, neon, shell, tidy};

#[derive(clap::Args)]
pub struct Args {
    /// Print the steps and run nothing
    #[arg(long, conflicts_with = "only")]
    list: bool,
    /// Run this step alone
    #[arg(long, value_name = "STEP")]
    only: Option<String>,
}

/// How a step that did not fail ended.
pub enum Outcome {
    /// All of it ran.
    Done,
    /// Part of it could not run here: what, and what to install.
    NotRun(String),
}

impl Outcome {
    /// A tool is missing. In CI, where nothing may be left out, that is an error.
    pub fn not_run(advice: String) -> Result<Self> {
        if shell::in_ci() {
            bail!("{advice}");
        }
        Ok(Self::NotRun(advice))
    }
}

struct Step {
    name: &'static str,
    about: &'static str,
    run: fn() -> Result<Outcome>,
}

const STEPS: [Step; 13] = [
    Step {
        name: "fixtures",
        about: "fetch the pinned models into the cache",
        run: || done(fixtures::fetch()),
    },
    Step { name: "fmt", about: "cargo fmt --all --check", run: || cargo("fmt --all --check") },
    Step {
        name: "clippy",
        about: "cargo clippy --workspace --all-targets -- -D warnings",
        run: || cargo("clippy --workspace --all-targets -- -D warnings"),
    },
    Step { name: "test", about: "cargo test --workspace", run: || cargo("test --workspace") },
    Step { name: "doc", about: "cargo doc --workspace --no-deps, warnings denied", run: doc },
    Step {
        name: "bare-metal",
        about: "the firmware of rans-core and prefix-core: built for two ARM cores, run in an emulator",
        run: bare_metal::run,
    },
    Step {
        name: "neon",
        about: "rans-core's and ecq-cpu's tests on 64-bit ARM, in an emulator",
        run: neon::run,
    },
    Step {
        name: "miri",
        about: "tests of rans-core and prefix-core on the scalar paths, under Miri",
        run: miri::run,
    },
    Step {
        name: "gpu",
        about: "ecq-gpu's kernels on drivers that compute on the CPU, with subgroups of 4, 8 and 16",
        run: gpu::run,
    },
    Step {
        name: "fuzz",
        about: "each target of fuzz/ on all that was found before, then some seconds of new inputs",
        run: fuzz::short,
    },
    Step {
        name: "demo",
        about: "two real models through the whole pipeline, every promise checked",
        run: || done(demo::run(Profile::Dev)),
    },
    Step {
        name: "faults",
        about: "conversions killed, stopped, without disk, memory or permission, from inputs that change",
        run: faults::run,
    },
    Step { name: "tidy", about: "rules about files, dependencies and documents", run: || done(tidy::run()) },
];

/// `cargo xtask test`.
pub fn run(args: &Args) -> Result<()> {
    if args.list {
        STEPS.iter().for_each(|step| println!("{:<12}{}", step.name, step.about));
        return Ok(());
    }
    match &args.only {
        Some(name) => run_alone(name),
        None => run_steps(&STEPS.iter().collect::<Vec<_>>()),
    }
}

/// Runs the step of this name.
pub fn run_alone(name: &str) -> Result<()> {
    let Some(step) = STEPS.iter().find(|step| step.name == name) else {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        bail!("there is no step {name}; the steps are {}", names.join(", "));
    };
    run_steps(&[step])
}

fn run_steps(steps: &[&Step]) -> Result<()> {
    let start = Instant::now();
    let mut summary = Vec::new();
    let mut not_run = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        println!("\n==> {}/{} {}: {}", i + 1, steps.len(), step.name, step.about);
        let begun = Instant::now();
        let outcome = (step.run)().with_context(|| {
            format!("step {} failed; to repeat it: cargo xtask test --only {}", step.name, step.name)
        })?;
        println!("<== {}: {}", step.name, seconds(begun.elapsed()));
        summary.push(format!("{} {}", step.name, seconds(begun.elapsed())));
        if let Outcome::NotRun(what) = outcome {
            println!("not run: {what}");
            not_run.push(what);
        }
    }
    println!("\npassed in {}: {}", seconds(start.elapsed()), summary.join(", "));
    not_run.iter().for_each(|what| println!("not run: {what}"));
    Ok(())
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn done(result: Result<()>) -> Result<Outcome> {
    result.map(|()| Outcome::Done)
}

fn cargo(arguments: &str) -> Result<Outcome> {
    done(shell::run(shell::cargo().args(arguments.split(' '))))
}

fn doc() -> Result<Outcome> {
    let mut doc = shell::cargo();
    doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    done(shell::run(&mut doc))
}

//! The project's chores. Run as `cargo xtask COMMAND`.

mod bare_metal;
mod blocks;
mod debian_rust;
mod demo;
mod faults;
mod fixtures;
mod fuzz;
mod generate;
mod golden;
mod gpu;
mod hostile;
mod miri;
mod neon;
mod python;
mod shell;
mod synthetic;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's chores")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch the pinned models that the tests use, into .cache/models (another folder for .cache: ECQ_CACHE)
    Fixtures(fixtures::Args),
    /// Take two real models through the whole pipeline and print what came out
    Demo,
    /// Write the golden files of a new format version
    Golden,
    /// Write the catalogue of hostile files
    Hostile,
    /// Write a synthetic model of a given size, to measure with
    Synthetic(synthetic::Args),
    /// Run everything that CI runs, and stop at the first failure
    Test(test::Args),
    /// Measure codecs, products and conversion with their rivals (see `cargo xtask bench --help`)
    #[command(disable_help_flag = true)]
    Bench {
        /// What to measure, and how
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Count the instructions of a kernel's inner loop on an AMD chip that need not be there (see `cargo xtask ops --help`)
    #[command(disable_help_flag = true)]
    Ops {
        /// Kernels in WGSL, and how
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Look for inputs that break readers and codecs, with the address sanitizer
    Fuzz(fuzz::Args),
    /// Build the firmware of rans-core and prefix-core for bare ARM cores and run it in an emulator
    BareMetal,
    /// Build the tests of rans-core and ecq-cpu for 64-bit ARM and run them in an emulator
    Neon,
    /// Run the codecs' scalar paths under Miri, which finds undefined behaviour; a nightly toolchain has it
    Miri,
}

/// The benchmarks have dependencies that chores do not need, so they are a program of their own.
fn bench(arguments: &[std::ffi::OsString]) -> anyhow::Result<()> {
    let is = |name| arguments.first().is_some_and(|what| what == name);
    // where nothing is timed, what tests have built will do
    let (profile, folder) = if is("quality") { ("dev", "debug") } else { ("release", "release") };
    // both at once: apart they would be built with other features of what they share, and everything twice
    let mut build = shell::cargo();
    build.args(["build", "--quiet", "--profile", profile, "--package", "ecq-benches"]);
    if !is("gpu") {
        // the converter and models are measured as processes of their own
        build.args(["--package", "ecq-cli"]);
    }
    shell::run(&mut build)?;
    let mut run = shell::command(&shell::built(folder, "ecq-bench")?);
    run.args(arguments);
    if (is("e2e") || is("quality")) && !arguments.iter().any(|argument| argument == "--help") {
        fixtures::fetch()?;
        let python = python::environment("venv-llama.cpp", "benches/llama_cpp/requirements.txt")?;
        run.arg("--python").arg(python);
    }
    shell::run(&mut run)
}

/// Vulkan and shader compilers are dependencies that chores do not need, either.
fn ops(arguments: &[std::ffi::OsString]) -> anyhow::Result<()> {
    let run = ["run", "--quiet", "--package", "ecq-benches", "--bin", "ecq-ops", "--"];
    shell::run(shell::cargo().args(run).args(arguments))
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Fixtures(args) => fixtures::run(&args),
        Command::Demo => demo::run(demo::Profile::Release),
        Command::Golden => golden::run(),
        Command::Hostile => hostile::run(),
        Command::Synthetic(args) => synthetic::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench { arguments } => bench(&arguments),
        Command::Ops { arguments } => ops(&arguments),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::BareMetal => test::run_alone("bare-metal"),
        Command::Neon => test::run_alone("neon"),
        Command::Miri => test::run_alone("miri"),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}"); // the chain of causes, without a backtrace
            ExitCode::FAILURE
        }
    }
}

//! The project's chores. Run as `cargo xtask COMMAND`.

mod bare_metal;
mod blocks;
mod debian_rust;
mod demo;
mod fixtures;
mod generate;
mod golden;
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
    /// Write a synthetic model of a given size, to measure with
    Synthetic(synthetic::Args),
    /// Run everything that CI runs, and stop at the first failure
    Test(test::Args),
    /// Build rans-core's firmware for bare ARM cores and run it in an emulator
    BareMetal,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Fixtures(args) => fixtures::run(&args),
        Command::Demo => demo::run(),
        Command::Golden => golden::run(),
        Command::Synthetic(args) => synthetic::run(&args),
        Command::Test(args) => test::run(&args),
        Command::BareMetal => test::run_alone("bare-metal"),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}"); // the chain of causes, without a backtrace
            ExitCode::FAILURE
        }
    }
}

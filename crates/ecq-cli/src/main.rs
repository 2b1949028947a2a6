//! The `ecq` command: parses arguments, calls the library, prints. Exit codes: 0 done, 1 failed, 2 wrong usage,
//! 130 stopped by Ctrl-C or a signal that asks for it.
#![deny(unsafe_code)] // but for the allocator

mod args;
mod calibrate;
mod doctor;
#[cfg(unix)]
mod memory;
mod model;
mod output;
mod progress;
mod report;
mod run;

use clap::Parser;
use ecq_convert::Progress;

/// The exit code of shells for a program that Ctrl-C ended.
const STOPPED: u8 = 130;

fn main() -> std::process::ExitCode {
    #[cfg(unix)]
    memory::begin();
    let args = args::Args::parse();
    let level = if args.quiet { "error" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    if let Err(e) = ecq_format::signals::into_errors() {
        tracing::warn!("a file that is cut short while it is being read will end the program: {e}");
    }
    let bar = progress::Bar::new(args.quiet);
    match run::run(args, &bar) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        // a closed pipe (`ecq inspect … | head`) is no failure
        Err(e) if broken_pipe(&e) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ecq: {e:#}");
            if bar.cancelled() { STOPPED.into() } else { std::process::ExitCode::FAILURE }
        }
    }
}

fn broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|e| e.downcast_ref::<std::io::Error>());
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

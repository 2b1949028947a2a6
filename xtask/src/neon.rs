//! `cargo xtask neon`: the NEON paths of rans-core and ecq-cpu, built for 64-bit ARM and tested in an emulator.
//!
//! Without rustup's libraries for the target, the compiler is Debian's.

use std::process::Command;

use anyhow::Result;

use crate::test::Outcome;
use crate::{debian_rust, shell};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";
/// The packages of both.
const PACKAGES: &str = "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user";
/// Where the linker's packages put the system's libraries.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";

const TESTS: [&str; 3] = [
    "--package rans-core --lib --test isa",
    "--package rans-core --test guarded -- nibbles a_byte_too_many",
    // how threads share a product out does not depend on instructions, and takes the emulator a minute
    "--package ecq-cpu --test products --test floats -- --skip threads_do_not_change_a_bit",
];

/// Builds and runs the tests.
pub fn run() -> Result<Outcome> {
    if cfg!(target_arch = "aarch64") {
        println!("this machine is one: `cargo test` has run them");
        return Ok(Outcome::Done);
    }
    for tool in [LINKER, EMULATOR] {
        if !shell::works(shell::command(tool).arg("--version")) {
            let advice = format!("tests on ARM: {tool} is missing (Debian: apt-get install {PACKAGES})");
            return Outcome::not_run(advice);
        }
    }
    if let Err(error) = cargo() {
        let advice = format!(
            "tests on ARM: no compiler for {TARGET}; `rustup target add {TARGET}` installs one (Debian 12's package \
             rustc-web would serve too, but {error:#})"
        );
        return Outcome::not_run(advice);
    }
    TESTS.into_iter().try_for_each(test)?;
    Ok(Outcome::Done)
}

/// `cargo test` for the target, in the emulator.
fn test(arguments: &str) -> Result<()> {
    let mut cargo = cargo()?;
    cargo.args(["test", "--target", TARGET]).args(arguments.split(' ')).env("ECQ_EMULATED", "1");
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", format!("{EMULATOR} -L {LIBRARIES}"));
    shell::run(&mut cargo)
}

/// cargo with a compiler that has `std` for the target.
fn cargo() -> Result<Command> {
    if shell::has_target(TARGET) { Ok(shell::cargo()) } else { debian_rust::cargo_arm64() }
}

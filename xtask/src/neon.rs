//! `cargo xtask neon`: the NEON paths of rans-core and ecq-cpu, built for 64-bit ARM and tested in an emulator.
//!
//! rans-core's tests are those without other crates: the library's own, and the suite that compares instruction sets. So
//! they need no cargo, only a compiler with `std` for the target. Its guard pages and ecq-cpu's tests need cargo, and so
//! rustup's target.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::test::Outcome;
use crate::{debian_rust, shell};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";
/// The packages of both.
const PACKAGES: &str = "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user";
/// Where the linker's packages put the system's libraries.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";

const CRATE: &str = "crates/rans-core";

/// Builds and runs the tests.
pub fn run() -> Result<Outcome> {
    if cfg!(target_arch = "aarch64") {
        println!("this machine is one: `cargo test` has run them");
        return Ok(Outcome::Done);
    }
    for tool in [LINKER, EMULATOR] {
        if !shell::works(shell::command(tool).arg("--version")) {
            let advice =
                format!("rans-core's tests on ARM: {tool} is missing (Debian: apt-get install {PACKAGES})");
            return Outcome::not_run(advice);
        }
    }
    if let Err(error) = compiler() {
        let advice = format!(
            "rans-core's tests on ARM: no compiler for {TARGET}; `rustup target add {TARGET}` installs one (Debian \
             12's package rustc-web would serve too, but {error:#})"
        );
        return Outcome::not_run(advice);
    }
    let folder = shell::target_dir("neon")?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let library = folder.join("librans_core.rlib");
    build("rans_core", "src/lib.rs", &folder, &["--crate-type", "rlib"])?;
    build("unit", "src/lib.rs", &folder, &["--test"])?;
    build(
        "isa",
        "tests/isa/main.rs",
        &folder,
        &["--test", "--extern", &format!("rans_core={}", library.display())],
    )?;
    for test in ["unit", "isa"] {
        let mut run = shell::command(EMULATOR);
        run.args(["-L", LIBRARIES]).arg(folder.join(test)).arg("--quiet").env("ECQ_ISA", "neon");
        shell::run(&mut run)?;
    }
    with_cargo()
}

/// rans-core between guard pages, and ecq-cpu's products. How threads share a product out does not depend on instructions,
/// and takes the emulator a minute.
fn with_cargo() -> Result<Outcome> {
    if !shell::has_target(TARGET) {
        let advice = format!(
            "rans-core between guard pages and ecq-cpu's tests on ARM: `rustup target add {TARGET}` installs a compiler \
             for cargo"
        );
        return Outcome::not_run(advice);
    }
    cargo_test("--package rans-core --test guarded -- nibbles a_byte_too_many")?;
    cargo_test("--package ecq-cpu --test products --test floats -- --skip threads_do_not_change_a_bit")?;
    Ok(Outcome::Done)
}

/// `cargo test` for the target, in the emulator.
fn cargo_test(arguments: &str) -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(["test", "--target", TARGET]).args(arguments.split(' ')).env("ECQ_EMULATED", "1");
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", format!("{EMULATOR} -L {LIBRARIES}"));
    shell::run(&mut cargo)
}

/// A compiler with `std` for the target.
fn compiler() -> Result<Command> {
    if shell::has_target(TARGET) { Ok(shell::command("rustc")) } else { debian_rust::rustc_arm64() }
}

/// Builds a part of the crate as cargo would.
fn build(name: &str, root: &str, folder: &Path, arguments: &[&str]) -> Result<()> {
    let mut rustc = compiler()?;
    rustc.args(["--edition", "2024", "--target", TARGET, "--cfg", "feature=\"std\"", "--crate-name", name]);
    rustc.args(["-O", "-C", "debug-assertions", "-C", &format!("linker={LINKER}"), "--out-dir"]).arg(folder);
    shell::run(rustc.args(arguments).arg(Path::new(CRATE).join(root)))
}

//! `cargo xtask bare-metal`: the codecs' firmware, built for bare ARM cores and run in an emulator.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;
use crate::test::Outcome;

/// A core we build for, and the emulated board that runs the result.
struct Core {
    target: &'static str,
    board: &'static str,
    cpu: &'static str,
}

const CORES: [Core; 2] = [
    Core { target: "thumbv7em-none-eabi", board: "mps2-an386", cpu: "cortex-m4" },
    // No atomics in this instruction set. QEMU's one Cortex-M0 board has as little RAM as byte's table takes,
    // 16 KiB; a Cortex-M3 runs the same instructions.
    Core { target: "thumbv6m-none-eabi", board: "mps2-an385", cpu: "cortex-m3" },
];

const FIRMWARE: &str = "crates/rans-core/bare-metal";
const EMULATOR: &str = "qemu-system-arm";
/// The run takes well below a second; more means that the firmware hangs.
const SECONDS: &str = "60";

/// Builds and runs the firmware on every core.
pub fn run() -> Result<Outcome> {
    let manifest = shell::root().join(FIRMWARE).join("Cargo.toml");
    shell::run(shell::cargo().args(["fmt", "--check", "--manifest-path"]).arg(&manifest))?;
    let target_dir = shell::target_dir("bare-metal")?;
    let mut lacking = None;
    for core in &CORES {
        let Some(mut build) = compiler(core.target, &mut lacking)? else { continue };
        build.args(["--release", "--target", core.target, "--manifest-path"]).arg(&manifest);
        build.arg("--target-dir").arg(&target_dir);
        println!("{}: building", core.target);
        shell::run(&mut build)?;
        let image = target_dir.join(core.target).join("release/rans-core-bare-metal");
        emulate(core, &image, &mut lacking)?;
    }
    Ok(lacking.map_or(Outcome::Done, Outcome::NotRun))
}

/// `cargo build` with a compiler for the target. Without one, says in `lacking` what to install; in CI, fails.
fn compiler(target: &str, lacking: &mut Option<String>) -> Result<Option<Command>> {
    if shell::has_target(target) {
        let mut build = shell::cargo();
        build.arg("build");
        return Ok(Some(build));
    }
    match crate::debian_rust::cargo_build() {
        Ok(build) => Ok(Some(build)),
        Err(error) => {
            let advice = format!(
                "the bare-metal firmware was not built: no compiler for {target}; `rustup target add {target}` \
                 installs one (Debian 12's package rustc-web would serve too, but {error:#})"
            );
            lack(advice, lacking)?;
            Ok(None)
        }
    }
}

/// Runs an image. Its exit status is the emulator's.
fn emulate(core: &Core, image: &Path, lacking: &mut Option<String>) -> Result<()> {
    if !shell::works(shell::command(EMULATOR).arg("--version")) {
        let advice = format!(
            "the bare-metal images were built but not run: {EMULATOR} is missing (Debian: apt-get install {EMULATOR})"
        );
        return lack(advice, lacking);
    }
    println!("{}: running on {} ({})", core.target, core.board, core.cpu);
    let mut run = shell::command("timeout");
    run.args([SECONDS, EMULATOR, "-M", core.board, "-cpu", core.cpu, "-nographic", "-monitor", "none"]);
    run.args(["-serial", "none", "-semihosting-config", "enable=on,target=native", "-kernel"]).arg(image);
    shell::run(run.stdin(std::process::Stdio::null()))
        .with_context(|| format!("the firmware does not decode its blocks on {}", core.target))
}

/// Notes a missing tool, the first one; in CI that is an error.
fn lack(advice: String, lacking: &mut Option<String>) -> Result<()> {
    Outcome::not_run(advice.clone())?;
    lacking.get_or_insert(advice);
    Ok(())
}

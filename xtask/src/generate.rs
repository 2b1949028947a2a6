//! `cargo xtask fixtures --generate`: the small committed fixtures.
//!
//! Source models come from a Python script that uses the source formats' own libraries, so that our readers are
//! tested against somebody else's writers. The blocks of `fixtures/rans` and
//! `fixtures/prefix` come from `rans-core` and `prefix-core`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{blocks, fixtures, shell};

/// Writes `fixtures/sources`, `fixtures/rans` and `fixtures/prefix`.
pub fn run() -> Result<()> {
    let sources = shell::root().join("fixtures/sources");
    fs::create_dir_all(&sources)?;
    let script = shell::root().join("xtask/python/make_fixtures.py");
    // without -B, Python would leave compiled files beside the script
    shell::run(shell::command(python()?).arg("-B").arg(script).arg(&sources).arg(fixtures::llama_cpp()?))?;
    blocks::write(&shell::root().join("fixtures"))
}

/// The interpreter of a virtual environment that holds the pinned packages; made if it is not there.
fn python() -> Result<PathBuf> {
    let pins = shell::root().join("xtask/python/requirements.txt");
    let venv = shell::cache().join("venv");
    let python = venv.join("bin/python3");
    let installed = venv.join("requirements.txt"); // written last: a venv without it is unfinished
    let wanted = fs::read(&pins).with_context(|| format!("cannot read {}", pins.display()))?;
    if fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    println!("making a Python environment in {}", venv.display());
    shell::run(shell::command("python3").args(["-m", "venv", "--clear"]).arg(&venv)).context(
        "no Python environment: install Python 3 with venv (Debian: apt-get install python3-venv)",
    )?;
    let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"];
    shell::run(shell::command(&python).args(quiet).arg(&pins))?;
    fs::write(installed, wanted)?;
    Ok(python)
}

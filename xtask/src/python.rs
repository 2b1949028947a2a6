//! Python with pinned packages, for what only it has.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::shell;

/// The interpreter of a virtual environment in the cache that holds what a file pins; made if it is not there.
pub fn environment(name: &str, pins: &str) -> Result<PathBuf> {
    let pins = shell::root().join(pins);
    let venv = shell::cache().join(name);
    let python = venv.join("bin/python3");
    let installed = venv.join("requirements.txt"); // written last: a venv without it is unfinished
    let wanted = fs::read(&pins).with_context(|| format!("cannot read {}", pins.display()))?;
    if fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    println!("making a Python environment in {}; what must be compiled takes minutes", venv.display());
    shell::run(shell::command("python3").args(["-m", "venv", "--clear"]).arg(&venv)).context(
        "no Python environment: install Python 3 with venv (Debian: apt-get install python3-venv)",
    )?;
    let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"];
    shell::run(shell::command(&python).args(quiet).arg(&pins))?;
    fs::write(installed, wanted)?;
    Ok(python)
}

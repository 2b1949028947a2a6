//! `cargo xtask fixtures --generate`: the small committed fixtures.
//!
//! Source models come from a Python script that uses the source formats' own libraries, so that our readers are
//! tested against somebody else's writers. The blocks of `fixtures/rans` and
//! `fixtures/prefix` come from `rans-core` and `prefix-core`.

use std::fs;

use anyhow::Result;

use crate::{blocks, fixtures, python, shell};

/// Writes `fixtures/sources`, `fixtures/rans` and `fixtures/prefix`.
pub fn run() -> Result<()> {
    let sources = shell::root().join("fixtures/sources");
    fs::create_dir_all(&sources)?;
    let script = shell::root().join("xtask/python/make_fixtures.py");
    // without -B, Python would leave compiled files beside the script
    let python = python::environment("venv", "xtask/python/requirements.txt")?;
    shell::run(shell::command(python).arg("-B").arg(script).arg(&sources).arg(fixtures::llama_cpp()?))?;
    blocks::write(&shell::root().join("fixtures"))
}

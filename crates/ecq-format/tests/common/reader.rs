//! The second reader, in Python.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/reader.py");

/// What the second reader prints for a file, or what it finds corrupt.
pub fn second_reader(path: &Path) -> Result<Vec<Value>, String> {
    // no bytecode: nothing shall be left in the repository
    let output = Command::new("python3").args(["-B", READER]).arg(path).output();
    let output = output.expect("python3 is needed to build ECQ");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    Ok(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

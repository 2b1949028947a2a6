//! `cargo xtask golden`: the golden files of the present format version. Written once, read by tests for ever.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

use crate::demo::{self, Profile};
use crate::shell;

/// Folder of the present format version.
const FOLDER: &str = "fixtures/golden/v4";

/// Source, name of the golden file, how it is converted. Each must need the present version: what an older one says is in
/// the older one's folder.
const FILES: [(&str, &str, &[&str]); 7] = [
    ("blocks.gguf", "gguf.ecq", &["--profile", "gpu"]),
    ("kquants.gguf", "kquants.ecq", &["--profile", "gpu"]),
    ("floats.safetensors", "floats.ecq", &["--profile", "gpu", "--scheme", "lossless"]),
    ("mlx4", "mlx4.ecq", &["--profile", "gpu"]),
    ("blocks.gguf", "ecq-3.5.ecq", &["--profile", "gpu", "--bits", "3.5"]),
    ("blocks.gguf", "ecq-1.ecq", &["--profile", "gpu", "--bits", "1"]),
    ("blocks.gguf", "int8-up.ecq", &["--profile", "gpu", "--scheme", "int8", "--predictor", "up"]),
];

/// Writes the files, and the SHA-256 of what each restores to as F32 safetensors. Refuses if they exist.
pub fn run() -> Result<()> {
    let folder = shell::root().join(FOLDER);
    ensure!(
        !folder.exists(),
        "{} exists: golden files are written once for a format version and never again",
        folder.display()
    );
    let ecq = demo::ecq(Profile::Release)?;
    fs::create_dir_all(&folder)?;
    let scratch = shell::Scratch::new(&folder)?;
    let mut sums = String::new();
    for (source, name, options) in FILES {
        let source = Path::new("fixtures/sources").join(source);
        let golden = folder.join(name);
        shell::run(
            shell::command(&ecq)
                .args(["--quiet", "convert"])
                .arg(source)
                .arg("-o")
                .arg(&golden)
                .args(options),
        )?;
        let back = scratch.path().join("back.safetensors");
        let restore = ["--quiet", "restore", "--force", "--dtype", "f32"];
        shell::run(shell::command(&ecq).args(restore).arg(&golden).arg("-o").arg(&back))?;
        let digest = Sha256::digest(fs::read(&back)?);
        let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        sums += &format!("{hex}  {name}\n");
    }
    fs::write(folder.join("SHA256SUMS-restored-f32"), sums)?;
    println!("written to {}", folder.display());
    Ok(())
}

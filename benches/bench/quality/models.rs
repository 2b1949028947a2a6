//! The models that are measured: what `ecq` makes of the base, and what llama.cpp's quantizers do.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/llama_cpp/formats.py");
/// Kept the same everywhere, so that linear layers alone are seen.
const EMBEDDING: &str = "token_embd.weight=lossless";

/// The program `ecq`.
pub struct Ecq {
    program: PathBuf,
    base: PathBuf,
}

/// What linear layers take.
#[derive(Clone, Copy, Debug)]
pub struct Layers {
    /// Bytes in the file, everything included.
    pub bytes: u64,
    /// Bytes in the file that it was made of.
    pub source_bytes: u64,
    /// Weights.
    pub weights: u64,
}

impl Layers {
    /// Bits a weight.
    pub fn bits(&self) -> f64 {
        8.0 * self.bytes as f64 / self.weights as f64
    }
}

/// What `ecq inspect` says.
#[derive(Deserialize)]
struct Inspected {
    tensors: Vec<Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    weights: u64,
    source_bytes: u64,
    stored_bytes: u64,
}

impl Ecq {
    /// The program beside this one, and the model that it converts.
    pub fn new(base: &Path) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name(format!("ecq{}", std::env::consts::EXE_SUFFIX));
        ensure!(program.exists(), "{} is missing: cargo build -p ecq-cli", program.display());
        Ok(Self { program, base: base.into() })
    }

    /// Converts the base without loss, or at a rate with some more arguments.
    pub fn convert(&self, rate: Option<f64>, more: &[&OsStr], to: &Path) -> Result<()> {
        let mut convert = Command::new(&self.program);
        convert.args(["convert", "--quiet", "--force", "--output"]).arg(to).arg(&self.base);
        match rate {
            None => convert.args(["--scheme", "lossless"]),
            Some(rate) => convert.args(["--bits", &rate.to_string(), "--tensor", EMBEDDING]),
        };
        read(convert.args(more)).map(drop)
    }

    /// Writes a file's weights in f32.
    pub fn restore(&self, file: &Path, to: &Path) -> Result<()> {
        let mut restore = Command::new(&self.program);
        restore.args(["restore", "--quiet", "--force", "--dtype", "f32", "--output"]);
        read(restore.arg(to).arg(file)).map(drop)
    }

    /// What some layers take in a file.
    pub fn layers(&self, file: &Path, names: &[String]) -> Result<Layers> {
        let inspected = read(Command::new(&self.program).args(["inspect", "--json"]).arg(file))?;
        let Inspected { tensors } = serde_json::from_slice(&inspected)?;
        let mut sum = Layers { bytes: 0, source_bytes: 0, weights: 0 };
        for name in names {
            let found = tensors.iter().find(|tensor| tensor.name == *name);
            let found = found.with_context(|| format!("{}: no {name}", file.display()))?;
            sum.bytes += found.stored_bytes;
            sum.source_bytes += found.source_bytes;
            sum.weights += found.weights;
        }
        Ok(sum)
    }
}

/// llama.cpp's quantizers in a Python environment.
pub struct Quantizers {
    python: PathBuf,
}

/// What a format takes.
#[derive(Debug, Deserialize)]
pub struct Format {
    /// Bytes of all linear layers.
    pub bytes: u64,
    /// Their weights.
    pub weights: u64,
}

impl Quantizers {
    /// With this interpreter.
    pub fn new(python: &Path) -> Result<Self> {
        let quantizers = Self { python: python.into() };
        let mut check = Command::new(python);
        check.args(["-c", "import llama_cpp, numpy"]);
        read(&mut check).with_context(|| {
            format!(
                "{} is no Python with llama-cpp-python: let cargo xtask bench quality make one",
                python.display()
            )
        })?;
        Ok(quantizers)
    }

    /// Writes weights as a format has them, with an importance matrix of statistics or without one.
    pub fn apply(&self, name: &str, base: &Path, statistics: Option<&Path>, to: &Path) -> Result<Format> {
        let mut python = Command::new(&self.python);
        python.arg("-B").arg(SCRIPT).arg(name).arg(base).arg(to).args(statistics);
        Ok(serde_json::from_slice(&read(&mut python)?)?)
    }
}

/// Runs a command for its standard output.
fn read(command: &mut Command) -> Result<Vec<u8>> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}: {}", output.status, said.trim());
    Ok(output.stdout)
}

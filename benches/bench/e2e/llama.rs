//! llama.cpp, in a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::speed::Speed;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/llama_cpp/rival.py");

/// llama.cpp in a Python environment.
pub struct Llama {
    python: PathBuf,
}

impl Llama {
    /// With this interpreter.
    pub fn new(python: &Path) -> Self {
        Self { python: python.into() }
    }

    /// Quantizes a whole model again.
    pub fn quantize(&self, source: &Path, target: &Path, ftype: u32) -> Result<()> {
        eprintln!("making {}", target.display());
        let partial = target.with_extension("partial");
        self.run("quantize", &[source.as_os_str(), partial.as_os_str(), ftype.to_string().as_ref()])?;
        std::fs::rename(&partial, target).with_context(|| format!("cannot make {}", target.display()))
    }

    /// Tokens of a text.
    pub fn tokens(&self, model: &Path, text: &Path) -> Result<Vec<u32>> {
        Ok(serde_json::from_slice(&self.run("tokens", &[model.as_os_str(), text.as_os_str()])?)?)
    }

    /// Logits behind each of the tokens that a file lists, one after another.
    pub fn logits(&self, model: &Path, tokens: &Path) -> Result<Vec<f32>> {
        let output = tempfile::NamedTempFile::new()?;
        self.run("logits", &[model.as_os_str(), tokens.as_os_str(), output.path().as_os_str()])?;
        let bytes = std::fs::read(output.path())?;
        Ok(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// A run with the tokens that a file lists as its prompt.
    pub fn speed(&self, model: &Path, tokens: &Path, threads: usize, count: usize) -> Result<Speed> {
        let [threads, count] = [threads, count].map(|n| n.to_string());
        let arguments = [model.as_os_str(), tokens.as_os_str(), threads.as_ref(), count.as_ref()];
        Ok(serde_json::from_slice(&self.run("speed", &arguments)?)?)
    }

    fn run(&self, what: &str, arguments: &[&std::ffi::OsStr]) -> Result<Vec<u8>> {
        let mut python = Command::new(&self.python);
        python.arg("-B").arg(SCRIPT).arg(what).args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = python.output().with_context(|| format!("cannot start {}", self.python.display()))?;
        ensure!(output.status.success(), "llama.cpp: {what} failed ({})", output.status);
        Ok(output.stdout)
    }
}

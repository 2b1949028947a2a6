//! The models that are run: one base, as llama.cpp and as ecq make them smaller.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::llama::Llama;

/// What everything is made of.
pub const BASE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// Types that llama.cpp quantizes the base to, and their numbers in `enum llama_ftype`.
const TYPES: [(&str, u32); 3] = [("Q4_0", 2), ("Q4_K_M", 15), ("Q3_K_M", 12)];
/// Bits a weight that ecq quantizes the base to.
const RATES: [&str; 4] = ["4.5", "4.0", "3.5", "3.0"];

/// A model.
pub struct File {
    /// What the table calls its weights.
    pub name: String,
    /// As llama.cpp runs it; none for weights that only ecq has.
    pub gguf: Option<PathBuf>,
    /// As ecq runs it.
    pub ecq: PathBuf,
}

/// All of them, made in a folder unless they are there; the base, without loss, is the first one.
pub fn all(ecq: &Path, base: &Path, folder: &Path, llama: &Llama) -> Result<Vec<File>> {
    let lossless = |name: &str, gguf: PathBuf| -> Result<File> {
        let to = folder.join(format!("{name}.ecq"));
        convert(ecq, &gguf, &["--scheme", "lossless"], &to)?;
        Ok(File { name: format!("{name}, lossless"), gguf: Some(gguf), ecq: to })
    };
    let mut files = vec![lossless("Q4_1", base.into())?];
    for rate in RATES {
        let to = folder.join(format!("ecq-{rate}.ecq"));
        convert(ecq, base, &["--bits", rate], &to)?;
        files.push(File { name: format!("ecq {rate}"), gguf: None, ecq: to });
    }
    for (name, number) in TYPES {
        let gguf = folder.join(format!("{name}.gguf"));
        llama.quantize(base, &gguf, number)?;
        files.push(lossless(name, gguf)?);
    }
    Ok(files)
}

/// Always anew: the converter may have changed since.
fn convert(ecq: &Path, source: &Path, how: &[&str], to: &Path) -> Result<()> {
    eprintln!("making {}", to.display());
    let mut convert = Command::new(ecq);
    convert.args(["convert", "--quiet", "--force"]).args(how).arg("--output").arg(to).arg(source);
    let status = convert.status().with_context(|| format!("cannot start {}", ecq.display()))?;
    ensure!(status.success(), "{}: cannot be converted with {}", source.display(), how.join(" "));
    Ok(())
}

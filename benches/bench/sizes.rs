//! What quantized models take without loss, beside general-purpose compressors at their strongest.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::report::{Ratio, Report};

const SECTION: &str = "Quantized models without loss: size of the whole file";

/// Files that `cargo xtask fixtures` brings.
const MODELS: [&str; 2] = ["SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_K_M.gguf"];

/// Sizes of each model coded, and compressed by zstd -19 and xz -9; the coded one must come back byte for byte.
pub fn sizes(report: &mut Report, quick: bool) -> Result<()> {
    let cache = std::env::var_os("ECQ_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache").into());
    let ecq = std::env::current_exe()?.with_file_name("ecq");
    for model in MODELS.into_iter().take(if quick { 1 } else { MODELS.len() }) {
        let source = cache.join("models").join(model);
        let bytes = std::fs::read(&source)
            .with_context(|| format!("cannot read {}: cargo xtask fixtures", source.display()))?;
        let mut figure = |name: &str, size: u64| {
            let of = Ratio { value: size as f64 / bytes.len() as f64, to: "the file".into() };
            report.figure(SECTION, &format!("{model}, {name}"), size as f64 / 1e6, "MB", Some(of));
        };
        figure("as it is", bytes.len() as u64);
        figure("ecq, lossless", coded(&ecq, &source)?);
        let level = if quick { 3 } else { 19 };
        figure(&format!("zstd -{level}"), zstd::bulk::compress(&bytes, level)?.len() as u64);
        let level = if quick { "-0" } else { "-9" };
        figure(&format!("xz {level}"), xz(&source, level)?);
    }
    Ok(())
}

/// Bytes of the coded file, which is restored and compared.
fn coded(ecq: &Path, source: &Path) -> Result<u64> {
    let folder = tempfile::tempdir()?;
    let (file, back) = (folder.path().join("model.ecq"), folder.path().join("back"));
    let run = |command: &str, from: &Path, to: &Path| {
        let status = Command::new(ecq).args([command, "--quiet", "-o"]).arg(to).arg(from).status();
        ensure!(status.context("cannot start ecq")?.success(), "ecq {command} failed");
        Ok(())
    };
    run("convert", source, &file)?;
    run("restore", &file, &back)?;
    let same = Command::new("cmp").arg(source).arg(&back).status().context("cannot start cmp")?;
    ensure!(same.success(), "{} does not come back as it was", source.display());
    Ok(file.metadata()?.len())
}

fn xz(source: &Path, level: &str) -> Result<u64> {
    let mut xz = Command::new("xz");
    let mut child = xz.args([level, "--threads=1", "--stdout"]).arg(source).stdout(Stdio::piped()).spawn();
    let child = child.as_mut().map_err(|e| anyhow::anyhow!("cannot start xz: {e}; install xz-utils"))?;
    let mut out = child.stdout.take().context("xz has no output")?;
    let size = std::io::copy(&mut out, &mut std::io::sink())?;
    ensure!(child.wait()?.success(), "xz failed");
    Ok(size)
}

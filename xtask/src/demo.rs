//! `cargo xtask demo`: two real models through the whole pipeline, every promise checked, one screen of output.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{fixtures, shell};

/// Most bytes of SmolLM2's tensors, of 96.6 million; a coder without contexts can reach 85.6 million.
const SMOLLM2_TENSORS: f64 = 86.5e6;

/// A line of the table.
struct Row {
    model: &'static str,
    scheme: String,
    bytes: u64,
    of: u64,
    bits: f64,
    sqnr: String,
    seconds: f64,
}

/// Fetches the models, converts, verifies, restores, compares; prints a table.
pub fn run() -> Result<()> {
    fixtures::fetch()?;
    println!("building ecq …");
    shell::run(shell::cargo().args(["build", "--quiet", "--release", "--package", "ecq-cli"]))?;
    let ecq = ecq()?;
    let models = shell::cache().join("models");
    let out = shell::Scratch::new(&shell::cache())?;
    let mut rows = vec![lossless(&ecq, &models.join("SmolLM2-135M-Instruct.Q4_1.gguf"), out.path())?];
    for bits in ["3.0", "3.5", "4.5"] {
        rows.push(lossy(&ecq, &models.join("all-MiniLM-L6-v2"), bits, out.path())?);
    }
    println!(
        "\n{:<10} {:<12} {:>9} {:>9} {:>7} {:>12} {:>9} {:>7}",
        "model", "scheme", "file MB", "of MB", "", "bits/weight", "SQNR dB", "time s"
    );
    for r in &rows {
        println!(
            "{:<10} {:<12} {:>9.2} {:>9.2} {:>5.1} % {:>12.4} {:>9} {:>7.1}",
            r.model,
            r.scheme,
            r.bytes as f64 / 1e6,
            r.of as f64 / 1e6,
            100.0 * r.bytes as f64 / r.of as f64,
            r.bits,
            r.sqnr,
            r.seconds
        );
    }
    println!(
        "\nbits/weight: coded tensors, scales, tables and start states included; SQNR: of those tensors, pooled."
    );
    println!(
        "The rest of a file is metadata, tokenizer and what is stored as it was. Every figure was checked."
    );
    Ok(())
}

/// The `ecq` program that cargo has built.
pub fn ecq() -> Result<PathBuf> {
    let target = shell::metadata()?["target_directory"].as_str().map(PathBuf::from);
    let path = target.context("cargo metadata names no target directory")?.join("release");
    Ok(path.join(format!("ecq{}", std::env::consts::EXE_SUFFIX)))
}

fn json(ecq: &Path, args: &[&str]) -> Result<Value> {
    let text = shell::read(shell::command(ecq).args(args).arg("--json"))?;
    serde_json::from_str(&text).with_context(|| format!("ecq {} does not print JSON", args.join(" ")))
}

fn number(value: &Value, what: &str) -> Result<f64> {
    value.as_f64().with_context(|| format!("ecq prints no {what}"))
}

fn lossless(ecq: &Path, source: &Path, out: &Path) -> Result<Row> {
    let (coded, back) = (out.join("smollm2.ecq"), out.join("back.gguf"));
    let (source_text, coded_text, back_text) = (text(source)?, text(&coded)?, text(&back)?);
    let start = Instant::now();
    let inspection = json(ecq, &["convert", source_text, "--scheme", "lossless", "--output", coded_text])?;
    let seconds = start.elapsed().as_secs_f64();
    let verified = json(ecq, &["verify", coded_text, "--against", source_text])?;
    ensure!(verified["identical"] == true, "SmolLM2 does not verify as identical to its source");
    coder_is_tight(&verified, "SmolLM2")?;
    shell::run(shell::command(ecq).args(["restore", coded_text, "--output", back_text, "--quiet"]))?;
    let (before, after) = (sha256(source)?, sha256(&back)?);
    ensure!(before == after, "SmolLM2 comes back with SHA-256 {after}, it was {before}");
    println!("SmolLM2: restored, SHA-256 {after} as before");
    let tensors = number(&inspection["totals"]["tensor_bytes"], "tensor bytes")?;
    ensure!(
        tensors <= SMOLLM2_TENSORS,
        "SmolLM2's tensors take {tensors} bytes, at most {SMOLLM2_TENSORS} are promised"
    );
    let (bytes, of) = (fs::metadata(&coded)?.len(), fs::metadata(source)?.len());
    let bits = number(&inspection["totals"]["coded_bits"], "rate")?;
    Ok(Row { model: "SmolLM2", scheme: "lossless".into(), bytes, of, bits, sqnr: "exact".into(), seconds })
}

fn lossy(ecq: &Path, folder: &Path, bits: &str, out: &Path) -> Result<Row> {
    let source = folder.join("model.safetensors");
    let coded = out.join(format!("minilm-{bits}.ecq"));
    let (source_text, coded_text) = (text(&source)?, text(&coded)?);
    let start = Instant::now();
    json(ecq, &["convert", source_text, "--bits", bits, "--output", coded_text])?;
    let seconds = start.elapsed().as_secs_f64();
    let verified = json(ecq, &["verify", coded_text, "--against", source_text])?;
    coder_is_tight(&verified, "MiniLM")?;
    let total = &verified["total"];
    let (rate, sqnr) = (number(&total["bits"], "rate")?, number(&total["sqnr_db"], "SQNR")?);
    let asked: f64 = bits.parse()?;
    ensure!((rate - asked).abs() <= 0.01, "MiniLM takes {rate} bits a weight, {asked} were asked for");
    let (bytes, of) = (fs::metadata(&coded)?.len(), fs::metadata(&source)?.len());
    Ok(Row {
        model: "MiniLM",
        scheme: format!("ecq {bits}"),
        bytes,
        of,
        bits: rate,
        sqnr: format!("{sqnr:.2}"),
        seconds,
    })
}

/// Everything counted, a tensor takes at most 1 % more than the entropy of its planes, 3 % if it is below 1 M weights.
fn coder_is_tight(verified: &Value, model: &str) -> Result<()> {
    let tensors = verified["tensors"].as_array().context("ecq verify lists no tensors")?;
    let mut checked = 0;
    for tensor in tensors {
        let weights = number(&tensor["weights"], "weights")?;
        let Some(entropy) = tensor["entropy"].as_f64().filter(|_| weights > 100_000.0) else { continue };
        let (bits, most) = (number(&tensor["bits"], "rate")?, if weights > 1e6 { 1.01 } else { 1.03 });
        if bits > entropy * most {
            bail!("{model}: {} takes {bits} bits a weight, its planes' entropy is {entropy}", tensor["name"]);
        }
        checked += 1;
    }
    ensure!(checked > 0, "{model} has no coded tensor of 100,000 weights");
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))
}

fn sha256(path: &Path) -> Result<String> {
    let digest = Sha256::digest(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
    Ok(digest.iter().map(|b| format!("{b:02x}")).collect())
}

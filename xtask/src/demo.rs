//! `cargo xtask demo`: two real models through the whole pipeline, every promise checked, one screen of output.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{fixtures, shell};

/// Quantized models, what the table calls them, and the most bytes that they may take without loss.
///
/// Of the first, tensors are 96.6 million bytes; a coder without contexts can reach 85.6 million.
const QUANTIZED: [(&str, &str, u64); 2] = [
    ("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2 Q4_1", 87_000_000),
    ("SmolLM2-135M-Instruct.Q4_K_M.gguf", "SmolLM2 Q4_K_M", 97_017_000),
];

/// A size that MiniLM is asked for, in bytes.
const SIZE: u64 = 10_000_000;

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
pub fn run(profile: Profile) -> Result<()> {
    fixtures::fetch()?;
    println!("building ecq …");
    let ecq = ecq(profile)?;
    let models = shell::cache().join("models");
    let out = shell::Scratch::new(&shell::cache())?;
    let mut rows = Vec::new();
    for (file, name, most) in QUANTIZED {
        let source = models.join(file);
        if source.exists() {
            rows.push(lossless(&ecq, &source, name, most, out.path())?);
        }
    }
    let minilm = models.join("all-MiniLM-L6-v2");
    for (option, value) in [("--bits", "2.0"), ("--bits", "3.5"), ("--bits", "4.5"), ("--size", "10MB")] {
        rows.push(lossy(&ecq, &minilm, (option, value), out.path())?);
    }
    println!(
        "\n{:<15} {:<12} {:>9} {:>9} {:>7} {:>12} {:>9} {:>7}",
        "model", "scheme", "file MB", "of MB", "", "bits/weight", "SQNR dB", "time s"
    );
    for r in &rows {
        println!(
            "{:<15} {:<12} {:>9.2} {:>9.2} {:>5.1} % {:>12.4} {:>9} {:>7.1}",
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
    println!("\n{} continues a text, its weights decoded for each product:", QUANTIZED[0].1);
    println!("  {}", generated(&ecq, &coded(out.path(), QUANTIZED[0].1))?);
    Ok(())
}

/// How cargo builds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As users run it.
    Release,
    /// As tests run it, and so built already after them.
    Dev,
}

/// Builds the `ecq` program, and says where it is.
pub fn ecq(profile: Profile) -> Result<PathBuf> {
    let mut build = shell::cargo();
    build.args(["build", "--quiet", "--bin", "ecq"]);
    let folder = match profile {
        Profile::Release => {
            build.args(["--release", "--package", "ecq-cli"]);
            "release"
        }
        // with the features of dependencies that tests have
        Profile::Dev => {
            build.arg("--workspace");
            "debug"
        }
    };
    shell::run(&mut build)?;
    shell::built(folder, "ecq")
}

fn json(ecq: &Path, args: &[&str]) -> Result<Value> {
    let text = shell::read(shell::command(ecq).args(args).arg("--json"))?;
    serde_json::from_str(&text).with_context(|| format!("ecq {} does not print JSON", args.join(" ")))
}

fn number(value: &Value, what: &str) -> Result<f64> {
    value.as_f64().with_context(|| format!("ecq prints no {what}"))
}

fn lossless(ecq: &Path, source: &Path, model: &'static str, most: u64, out: &Path) -> Result<Row> {
    let (coded, back) = (coded(out, model), out.join(format!("{model}.gguf")));
    let (source_text, coded_text, back_text) = (text(source)?, text(&coded)?, text(&back)?);
    let start = Instant::now();
    let inspection = json(ecq, &["convert", source_text, "--scheme", "lossless", "--output", coded_text])?;
    let seconds = start.elapsed().as_secs_f64();
    let verified = json(ecq, &["verify", coded_text, "--against", source_text])?;
    ensure!(verified["identical"] == true, "{model} does not verify as identical to its source");
    coder_is_tight(&verified, model)?;
    shell::run(shell::command(ecq).args(["restore", coded_text, "--output", back_text, "--quiet"]))?;
    let (before, after) = (sha256(source)?, sha256(&back)?);
    ensure!(before == after, "{model} comes back with SHA-256 {after}, it was {before}");
    println!("{model}: restored, SHA-256 {after} as before");
    let (bytes, of) = (fs::metadata(&coded)?.len(), fs::metadata(source)?.len());
    ensure!(bytes <= most, "{model} takes {bytes} bytes, at most {most} are promised");
    let bits = number(&inspection["totals"]["coded_bits"], "rate")?;
    Ok(Row { model, scheme: "lossless".into(), bytes, of, bits, sqnr: "exact".into(), seconds })
}

fn lossy(ecq: &Path, folder: &Path, (option, value): (&str, &str), out: &Path) -> Result<Row> {
    let source = folder.join("model.safetensors");
    let coded = out.join(format!("minilm-{value}.ecq"));
    let (source_text, coded_text) = (text(&source)?, text(&coded)?);
    let start = Instant::now();
    json(ecq, &["convert", source_text, option, value, "--output", coded_text])?;
    let seconds = start.elapsed().as_secs_f64();
    let verified = json(ecq, &["verify", coded_text, "--against", source_text])?;
    coder_is_tight(&verified, "MiniLM")?;
    let total = &verified["total"];
    let (rate, sqnr) = (number(&total["bits"], "rate")?, number(&total["sqnr_db"], "SQNR")?);
    let (bytes, of) = (fs::metadata(&coded)?.len(), fs::metadata(&source)?.len());
    if option == "--bits" {
        let asked: f64 = value.parse()?;
        ensure!((rate - asked).abs() <= 0.01, "MiniLM takes {rate} bits a weight, {asked} were asked for");
    } else {
        let met = bytes <= SIZE && bytes as f64 >= 0.998 * SIZE as f64;
        ensure!(met, "MiniLM takes {bytes} bytes, {SIZE} were asked for");
    }
    Ok(Row {
        model: "MiniLM",
        scheme: format!("ecq {value}"),
        bytes,
        of,
        bits: rate,
        sqnr: format!("{sqnr:.2}"),
        seconds,
    })
}

/// Where a model without loss is.
fn coded(out: &Path, model: &str) -> PathBuf {
    out.join(format!("{model}.ecq"))
}

/// A text that the model makes, the most likely token each time; llama.cpp's model of the same weights continues it alike.
fn generated(ecq: &Path, model: &Path) -> Result<String> {
    let prompt = "The capital of France is";
    let arguments = ["--prompt", prompt, "--max-tokens", "8", "--quiet"];
    let text = shell::read(shell::command(ecq).args(["generate", text(model)?]).args(arguments))?;
    ensure!(text.starts_with(&format!("{prompt} Paris")), "the model says: {text}");
    Ok(text.trim().to_owned())
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

//! What is printed.

use std::io::{Write, stdout};
use std::path::Path;

use anyhow::Result;
use ecq_convert::convert::{Options, Treatment};
use ecq_convert::inspect::{Inspection, Totals};
use ecq_convert::rates::{RateControl, Target};
use ecq_convert::restore::Restored;
use ecq_convert::verify::{TensorCheck, Verification};
use serde::Serialize;

use crate::calibrate::HeldOut;

/// One JSON document.
pub fn json(value: &impl Serialize) -> Result<()> {
    let mut out = stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Megabytes (10^6), as disks and downloads count.
pub fn mb(bytes: u64) -> String {
    if bytes < 100_000 {
        format!("{:.1} kB", bytes as f64 / 1e3)
    } else {
        format!("{:.2} MB", bytes as f64 / 1e6)
    }
}

/// A ratio of signal to noise in dB; there is none where nothing is lost.
pub fn sqnr(db: Option<f64>) -> String {
    db.map_or("exact".into(), |db| format!("{db:.2}"))
}

pub fn shape(shape: &[u64]) -> String {
    if shape.is_empty() {
        return "scalar".into();
    }
    shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ")
}

/// Names come from files: control characters must not reach the terminal.
pub fn clean(name: &str, width: usize) -> String {
    let name: String = name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let count = name.chars().count();
    if count <= width {
        name
    } else {
        format!("…{}", name.chars().skip(count - width + 1).collect::<String>())
    }
}

/// Bits a weight below which a conversion without calibration says so.
const CALIBRATED_BELOW: f64 = 3.5;

fn aim(target: &Target) -> String {
    match *target {
        Target::Bits(bits) => format!("at {bits} bits a weight"),
        Target::Sqnr(db) => format!("at {db} dB"),
        Target::Size(bytes) => format!("within {}", mb(bytes)),
    }
}

/// A converted file for programs.
#[derive(Serialize)]
pub struct Converted<'a> {
    /// The file.
    #[serde(flatten)]
    pub inspection: &'a Inspection,
    /// What it is worth on texts that it was not calibrated with.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub held_out: &'a [HeldOut],
}

pub fn converted(
    path: &Path,
    options: &Options,
    i: &Inspection,
    held_out: &[HeldOut],
    seconds: f64,
) -> Result<()> {
    let t = &i.totals;
    let what = match &options.treatment {
        Treatment::Lossless => "lossless".to_owned(),
        Treatment::Lossy(scheme) => scheme.to_string(),
        Treatment::Shared(RateControl { target, .. }) => format!("ecq {}", aim(target)),
        Treatment::Calibrated(_, target) => format!("ecq {}, calibrated", aim(target)),
    };
    let coded = i.tensors.iter().filter(|t| t.table_entropy.is_some()).count();
    let parts = i.tensors.iter().filter(|t| t.part_of.is_some()).count();
    let mut out = stdout().lock();
    writeln!(out, "{}: {what}, {} of {}", path.display(), mb(t.file_bytes), mb(t.source_bytes))?;
    write!(out, "  {coded} tensors coded at {:.3} bits a weight, ", t.coded_bits)?;
    writeln!(out, "{} stored as they are; {seconds:.1} s", i.tensors.len() - coded - parts)?;
    if i.lossless && coded == 0 {
        writeln!(out, "  no tensor is of a type that lossless coding makes smaller; --scheme ecq quantizes")?;
    }
    if matches!(options.treatment, Treatment::Shared(_)) && (0.1..CALIBRATED_BELOW).contains(&t.coded_bits) {
        writeln!(
            out,
            "  below {CALIBRATED_BELOW} bits a language model loses much less with --calibrate TEXT"
        )?;
    }
    for found in held_out {
        let HeldOut { text, tokens, perplexity, standard_error, source_perplexity, .. } = found;
        writeln!(out, "on {} ({tokens} tokens):", clean(text, 80))?;
        writeln!(
            out,
            "  perplexity {perplexity:.2} ± {standard_error:.2}, the source's {source_perplexity:.2}"
        )?;
        writeln!(
            out,
            "  KL divergence from it {:.4} ± {:.4} nats a token; the same most likely token behind {:.1} %",
            found.kl_divergence,
            found.kl_standard_error,
            100.0 * found.top1_agreement
        )?;
    }
    if !i.lossless {
        writeln!(out, "  `ecq verify {} --against INPUT` shows the error", path.display())?;
    }
    Ok(())
}

pub fn recoded(path: &Path, before: u64, i: &Inspection, seconds: f64) -> Result<()> {
    let mut out = stdout().lock();
    let (after, bits) = (mb(i.totals.file_bytes), i.totals.coded_bits);
    writeln!(
        out,
        "{}: {after}, it was {}; coded at {bits:.3} bits a weight; {seconds:.1} s",
        path.display(),
        mb(before)
    )?;
    Ok(())
}

pub fn inspection(path: &Path, i: &Inspection) -> Result<()> {
    let mut out = stdout().lock();
    let kind = if i.lossless { "lossless" } else { "lossy" };
    writeln!(out, "{}: format {}, {kind}, written by {}", path.display(), i.version, clean(&i.writer, 40))?;
    for source in &i.sources {
        writeln!(
            out,
            "from {} ({}, {}), SHA-256 {}",
            clean(&source.name, 60),
            clean(&source.format, 12),
            mb(source.bytes),
            clean(&source.sha256, 64)
        )?;
    }
    if !i.companions.is_empty() {
        let names: Vec<_> = i.companions.iter().map(|n| clean(n, 40)).collect();
        writeln!(out, "with {}", names.join(", "))?;
    }
    writeln!(
        out,
        "\n{:<44} {:>16} {:<5} {:<9} {:<11} {:>7} {:>7} {:>10}",
        "tensor", "shape", "type", "scheme", "codec", "bits/w", "table", "size"
    )?;
    for t in &i.tensors {
        let table = t.table_entropy.map_or("-".into(), |e| format!("{e:.3}"));
        let coding = match &t.part_of {
            Some(of) => format!("in {}", clean(of, 18)),
            None => format!("{:<9} {}", clean(&t.scheme, 9), t.codec),
        };
        writeln!(
            out,
            "{:<44} {:>16} {:<5} {coding:<21} {:>7.3} {table:>7} {:>10}",
            clean(&t.name, 44),
            shape(&t.shape),
            clean(&t.dtype, 5),
            t.bits,
            mb(t.stored_bytes)
        )?;
    }
    totals(&mut out, &i.totals)?;
    writeln!(
        out,
        "bits/w counts scales, tables, start states and filling; table is the entropy of the levels' coding table"
    )?;
    Ok(())
}

fn totals(out: &mut impl Write, t: &Totals) -> Result<()> {
    writeln!(
        out,
        "\nfile {} of {} ({:.1} %)",
        mb(t.file_bytes),
        mb(t.source_bytes),
        percent(t.file_bytes, t.source_bytes)
    )?;
    let tensors = percent(t.tensor_bytes, t.source_tensor_bytes);
    writeln!(out, "  tensors    {} of {} ({tensors:.1} %)", mb(t.tensor_bytes), mb(t.source_tensor_bytes))?;
    writeln!(
        out,
        "  coded      {}, {:.4} bits a weight, everything counted",
        mb(t.coded_bytes),
        t.coded_bits
    )?;
    writeln!(out, "  metadata   {} (source headers, tokenizer, configuration)", mb(t.blob_bytes))?;
    writeln!(out, "  directory  {}", mb(t.header_bytes))?;
    Ok(())
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

pub fn verification(path: &Path, against: Option<&Path>, v: &Verification) -> Result<()> {
    let mut out = stdout().lock();
    let compared = against.is_some() && !v.lossless;
    if compared {
        writeln!(
            out,
            "{:<48} {:<9} {:>8} {:>8} {:>9} {:>10}",
            "tensor", "scheme", "bits/w", "entropy", "SQNR dB", "max error"
        )?;
        for t in v.tensors.iter().filter(|t| t.entropy.is_some()).chain(&v.total) {
            line(&mut out, t)?;
        }
    } else if let Some(total) = &v.total {
        let entropy = total.entropy.unwrap_or(0.0);
        writeln!(
            out,
            "coded tensors: {:.4} bits a weight, order-0 entropy of the planes {entropy:.4}",
            total.bits
        )?;
    }
    for (name, sum) in &v.sources {
        writeln!(out, "{}: comes back with SHA-256 {sum}, as it was", clean(name, 60))?;
    }
    if v.identical == Some(true) {
        writeln!(out, "identical to the source, byte for byte")?;
    }
    let changed: Vec<_> =
        v.tensors.iter().filter(|t| t.entropy.is_none() && t.exact == Some(false)).collect();
    for tensor in &changed {
        writeln!(out, "{}: differs from the source", clean(&tensor.name, 60))?;
    }
    if !changed.is_empty() {
        anyhow::bail!(
            "{}: {} tensors stored as they were differ from the source",
            path.display(),
            changed.len()
        );
    }
    writeln!(out, "{}: all checksums right, all {} tensors decode", path.display(), v.tensors.len())?;
    Ok(())
}

fn line(out: &mut impl Write, t: &TensorCheck) -> Result<()> {
    let sqnr = sqnr(t.sqnr_db);
    writeln!(
        out,
        "{:<48} {:<9} {:>8.4} {:>8.4} {sqnr:>9} {:>10.2e}",
        clean(&t.name, 48),
        clean(&t.scheme, 9),
        t.bits,
        t.entropy.unwrap_or(0.0),
        t.max_error.unwrap_or(0.0)
    )?;
    Ok(())
}

pub fn restored(restored: &Restored) -> Result<()> {
    let mut out = stdout().lock();
    for (name, sum) in &restored.exact {
        writeln!(out, "{}: exact, SHA-256 {sum}", clean(name, 60))?;
    }
    writeln!(out, "written to {}", restored.path.display())?;
    Ok(())
}

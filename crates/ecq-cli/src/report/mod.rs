//! `ecq analyze`: as tables on a terminal, as JSON, CSV, and as a page for browsers.

mod csv;
mod html;
pub mod memory;
mod svg;
mod tensors;
mod terminal;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use ecq_convert::Error;
use ecq_convert::analyze::projection::Projection;
use ecq_convert::analyze::schemes::COMMON;
use ecq_convert::analyze::{Analysis, Pooled, TensorAnalysis, analyze};
use ecq_convert::convert::refuse_input;
use ecq_convert::source::{Source, SourceLimits};
use ecq_format::staging;
use globset::{Glob, GlobSet};
use serde::Serialize;

use crate::args;
use crate::output;
use crate::progress::Bar;
use memory::Memory;

/// All that is reported.
#[derive(Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub analysis: Analysis,
    /// Tokens a second, if a bandwidth was given.
    pub projection: Option<Projection>,
}

pub fn run(args: &args::Analyze, bar: &Bar) -> Result<()> {
    let memory = args.chip.as_ref().or(args.bandwidth.as_ref());
    if memory == Some(&Memory::List) {
        print!("{}", Memory::list());
        return Ok(());
    }
    let Some(input) = &args.input else {
        bail!("--chip NAME needs a model to project for; --chip list is the table")
    };
    let printed = args.csv.as_deref() == Some(Path::new("-"));
    if printed && args.json {
        bail!("--json and --csv - both print; give --csv a file name");
    }
    let source = Source::open(input, &SourceLimits::default())?;
    // files are begun before the work: what cannot be written is told at once
    let csv = args.csv.as_deref().filter(|_| !printed).map(|path| Output::new(path, &source, args.force));
    let html = args.html.as_deref().map(|path| Output::new(path, &source, args.force));
    let (csv, html) = (csv.transpose()?, html.transpose()?);
    if let (Some(a), Some(b)) = (&csv, &html)
        && a.path == b.path
    {
        bail!("{}: --csv and --html name the same file", a.path.display());
    }
    let (only, except) = (set(&args.only)?, set(&args.except)?);
    let wanted = |name: &str| (args.only.is_empty() || only.is_match(name)) && !except.is_match(name);
    let analysis = analyze(&source, input, &wanted, bar);
    source.check()?; // of a file that changed, any other error is a consequence, and success is none
    let analysis = analysis.map_err(|e| match e {
        Error::Quantize { .. } => anyhow::Error::from(e).context("--except NAME leaves a tensor out"),
        other => other.into(),
    })?;
    bar.finish();
    let projection = memory.and_then(|memory| match memory {
        Memory::Rate { of, bytes_per_second } => Some(Projection::new(&analysis, of, *bytes_per_second)),
        Memory::List => None,
    });
    let report = Report { analysis, projection };
    let mut written = Vec::new();
    if let Some(csv) = csv {
        written.push(csv.finish(|out| csv::write(out, &report.analysis))?);
    }
    if let Some(html) = html {
        written.push(html.finish(|out| Ok(out.write_all(html::page(&report).as_bytes())?))?);
    }
    if printed {
        return csv::write(&mut std::io::stdout().lock(), &report.analysis);
    }
    if args.json { output::json(&report) } else { terminal::print(&report, &written) }
}

/// A file that gets its name when it is complete.
struct Output {
    path: PathBuf,
    file: tempfile::NamedTempFile,
    force: bool,
}

impl Output {
    fn new(path: &Path, source: &Source, force: bool) -> Result<Self> {
        refuse_input(source, path)?;
        if !force && path.exists() {
            return Err(ecq_format::Error::Exists(path.to_owned()).into());
        }
        Ok(Self { path: path.to_owned(), file: staging::file(path)?, force })
    }

    fn finish(mut self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<PathBuf> {
        let mut buffer = std::io::BufWriter::new(&mut self.file);
        write(&mut buffer)?;
        buffer.flush()?;
        drop(buffer);
        staging::finish(self.file, &self.path, self.force)?;
        Ok(self.path)
    }
}

fn set(patterns: &[Glob]) -> Result<GlobSet> {
    let mut builder = GlobSet::builder();
    patterns.iter().for_each(|p| {
        builder.add(p.clone());
    });
    Ok(builder.build()?)
}

/// Tensors of one kind: names that differ in the number of a layer only.
struct Kind<'a> {
    name: String,
    tensors: Vec<&'a TensorAnalysis>,
    pooled: Pooled,
}

/// The kinds of tensors, the largest first.
fn kinds(analysis: &Analysis) -> Vec<Kind<'_>> {
    let mut kinds: Vec<(String, Vec<&TensorAnalysis>)> = Vec::new();
    for tensor in &analysis.tensors {
        let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let parts: Vec<_> = tensor.name.split('.').map(|p| if number(p) { "*" } else { p }).collect();
        let name = parts.join(".");
        match kinds.iter_mut().find(|k| k.0 == name) {
            Some(kind) => kind.1.push(tensor),
            None => kinds.push((name, vec![tensor])),
        }
    }
    let kind = |(name, tensors): (String, Vec<_>)| Kind {
        name,
        pooled: Pooled::new(tensors.iter().copied()),
        tensors,
    };
    let mut kinds: Vec<_> = kinds.into_iter().map(kind).collect();
    kinds.sort_by_key(|k| std::cmp::Reverse(k.pooled.weights));
    kinds
}

/// What this model makes of a single minimum and maximum, in words; `None` without tensors.
fn verdict(pooled: &Pooled) -> Option<String> {
    let (coarse, common) = (pooled.scheme("affine4 tensor")?, pooled.scheme(&COMMON.to_string())?);
    let Some(sqnr) = coarse.sqnr_db else {
        return Some("4 bits from one minimum and maximum per tensor lose nothing here.".into());
    };
    let share = 100.0 * coarse.error_share;
    let mut text = format!(
        "4 bits from one minimum and maximum per tensor code to {:.2} bits a weight, at {sqnr:.1} dB: the error has \
         {share:.0} % of the weights' energy",
        coarse.bits
    );
    if let (Some(db), Some(ecq)) = (common.sqnr_db, common.ecq_bits) {
        text += match sqnr {
            ..10.0 => ". That rate is low because the model is destroyed, not because it is compressed: ",
            _ => ". For comparison: ",
        };
        text += &format!(
            "{} keeps {db:.1} dB and codes to {:.2} bits, and ecq has those {db:.1} dB at {ecq:.2} bits",
            common.scheme, common.bits
        );
    }
    Some(text + ".")
}

/// What prediction does to 8-bit levels, in words.
fn prediction(pooled: &Pooled) -> String {
    let p = pooled.prediction;
    let best = p.left.min(p.up).min(p.planar) - p.none;
    let says = if best > 0.0 { "the best predictor costs" } else { "the best predictor saves" };
    format!(
        "Neighbours: 8-bit levels a row have {:.3} bits of entropy; their differences to the left {:.3}, to the row \
         above {:.3}, planar {:.3}: {says} {:.3} bit.",
        p.none,
        p.left,
        p.up,
        p.planar,
        best.abs()
    )
}

/// How near lossless coding comes to the entropies, in words; one sentence for each kind of source.
fn lossless(pooled: &Pooled) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(f) = &pooled.floats {
        all.push(format!(
            "Without loss: exponents have {:.3} bits of entropy, sign and mantissa {:.3}; coded {:.3} of {:.0} bits.",
            f.exponent_entropy, f.rest_entropy, f.bits, f.source_bits
        ));
    }
    if let Some(b) = &pooled.blocks {
        all.push(format!(
            "Without loss: levels have {:.3} bits of entropy, coded {:.3}; a scale or minimum has {:.3} bits of \
             order-0 entropy, coded {:.3} ({:+.3}).",
            b.level_entropy, b.level_bits, b.number_entropy, b.number_bits, b.number_excess
        ));
    }
    all
}

/// A count of weights, short.
fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..1_000_000 => format!("{:.0} K", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.2} G", n as f64 / 1e9),
    }
}

/// Tokens a second, in at least three digits.
fn tokens(rate: f64) -> String {
    if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

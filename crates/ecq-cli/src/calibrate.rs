//! `ecq convert --calibrate`: statistics of texts, what they give for a rate, and what came of it on other texts.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ecq_calibrate::texts::HELD_OUT;
use ecq_calibrate::{Calibrated, Error, Record, Statistics, Texts, gather, goes_on, quality, text};
use ecq_convert::convert::refuse_input;
use ecq_convert::rates::Rules;
use ecq_convert::source::Source;
use ecq_format::staging;
use ecq_llm::{Decode, Model, ModelFile, Options, Precision, Uncompressed};
use serde::Serialize;

use crate::model::perplexity::read;
use crate::progress::Bar;
use crate::{args, model};

const SEED: u64 = 1;
/// Stands for a text that the model makes.
const OWN: &str = "self";
/// How much work an interruption costs.
const EVERY: Duration = Duration::from_secs(10);
/// The share of a text that may be in the calibration's without a word: phrases and headers.
const OVERLAP: f64 = 0.02;

/// A calibration: who quantizes, and on what the result is measured.
pub struct Calibration {
    /// What quantizes tensors.
    pub by: Arc<Calibrated>,
    record: Record,
    /// Names of texts, and their chunks.
    held_out: Vec<(String, Vec<Vec<u32>>)>,
}

/// What a calibrated model is worth on a text, beside its source.
#[derive(Debug, Serialize)]
pub struct HeldOut {
    /// Which text.
    pub text: String,
    /// Tokens that were foreseen.
    pub tokens: usize,
    /// Perplexity of the model.
    pub perplexity: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Perplexity of the source.
    pub source_perplexity: f64,
    /// Mean KL divergence from the source, in nats a token.
    pub kl_divergence: f64,
    /// Its standard error.
    pub kl_standard_error: f64,
    /// Share of tokens behind which both have the same most likely one.
    pub top1_agreement: f64,
}

/// Prepares what quantizes a source's tensors, by the texts that were asked for or by statistics that were saved.
pub fn calibration(args: &args::Convert, source: &Source, rules: &Rules, bar: &Bar) -> Result<Calibration> {
    let uncompressed = Uncompressed::new(source)?;
    let given = args.held_out.as_ref().map(|path| -> Result<_> {
        let chunks = text::chunks(path, &read(path)?, &uncompressed, HELD_OUT * text::CONTEXT)?;
        Ok((path.display().to_string(), chunks))
    });
    let given = given.transpose()?;
    let statistics = statistics(args, source, &uncompressed, bar)?;
    bar.finish();
    let texts = &statistics.about().texts;
    let record = Record::of(texts);
    let own = ("parts of the texts that were held out".to_owned(), texts.held_out.clone());
    let held_out = [own].into_iter().chain(given).filter(|(_, chunks)| !chunks.is_empty()).collect();
    let by = Arc::new(Calibrated::measure(source, statistics, rules, args.profile.into(), bar)?);
    Ok(Calibration { by, record, held_out })
}

/// Measures what came of a calibration, where there is a text for that. The file stands, whatever comes of this.
pub fn measured(calibration: &Calibration, source: &Source, output: &Path, bar: &Bar) -> Vec<HeldOut> {
    measure(calibration, source, output, bar).unwrap_or_else(|why| {
        tracing::warn!("{} is complete, but was not measured on held-out text: {why:#}", output.display());
        Vec::new()
    })
}

fn measure(calibration: &Calibration, source: &Source, output: &Path, bar: &Bar) -> Result<Vec<HeldOut>> {
    let source = Uncompressed::new(source)?;
    let mut all = Vec::new();
    for (name, chunks) in &calibration.held_out {
        warn_overlap(Some(&calibration.record), &chunks.concat(), name);
        // f32: of the weights alone, without the rounding of what they are multiplied with
        let options = Options { precision: Precision::F32, positions: text::CONTEXT, ..Options::default() };
        let file = ModelFile::open(output)?;
        let decode = file.sizes(options.positions).choose(&options)?.decode;
        let found = model::in_pool(|| {
            let model = Model::load(file, Options { decode, ..options })?;
            Ok(quality::compare(&source, &model, chunks, bar)?)
        })?;
        bar.finish();
        let (perplexity, standard_error) = found.surprise.perplexity();
        all.push(HeldOut {
            text: name.clone(),
            tokens: found.tokens(),
            perplexity,
            standard_error,
            source_perplexity: found.other_surprise.perplexity().0,
            kl_divergence: found.divergence.mean(),
            kl_standard_error: found.divergence.error(),
            top1_agreement: found.agreement(),
        });
    }
    Ok(all)
}

/// Tells of a text that a model was calibrated with, of which figures say little.
pub fn warn_overlap(record: Option<&Record>, tokens: &[u32], name: &dyn Display) {
    let overlap = record.map_or(0.0, |record| record.overlap(tokens));
    if overlap > OVERLAP {
        tracing::warn!(
            "{name}: {:.0} % of it is in the texts that the model was calibrated with; figures on it are too good",
            100.0 * overlap
        );
    }
}

fn statistics(
    args: &args::Convert,
    source: &Source,
    model: &Uncompressed<'_>,
    bar: &Bar,
) -> Result<Statistics> {
    let Some(path) = &args.statistics else {
        let texts = texts(args, model, bar)?;
        let folder = args.output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // it has no name: nothing of it is left, whatever happens
        let file = tempfile::tempfile_in(folder);
        let file = file.with_context(|| format!("cannot write to {}", folder.display()))?;
        return Ok(Statistics::open(folder, gather(model, &texts, (folder, file), None, bar)?)?);
    };
    if args.calibrate.is_empty() {
        return Ok(Statistics::of_model(path, model)?);
    }
    refuse_input(source, path)?;
    let others = args.calibrate.iter().chain([&args.output]).chain(&args.held_out);
    if let Some(other) = others.into_iter().find(|other| same(other, path)) {
        bail!("--statistics {}: that is {}, too; name another file", path.display(), other.display());
    }
    if path.exists() && !args.force {
        bail!("{} exists; use --force to replace it, or leave --calibrate out to use it", path.display());
    }
    let texts = texts(args, model, bar)?;
    let staged = staging::unfinished(path)?;
    let cannot = || format!("cannot write {}", path.display());
    let mut file = staged.as_file().try_clone().with_context(cannot)?;
    let own = file.try_clone().with_context(cannot)?;
    match gather(model, &texts, (staged.path(), own), Some(EVERY), bar) {
        Ok(file) => {
            staging::finish(staged, path, args.force)?;
            Ok(Statistics::open(path, file)?)
        }
        Err(error @ (Error::Cancelled | Error::Statistics { .. })) if goes_on(&mut file) => {
            let (_, left) = staged.keep().with_context(cannot)?;
            bar.finish();
            bail!("{error}; the same command goes on with {}", left.display())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether two names are of one file.
fn same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// The texts, in equal shares; some chunks of each are not learned from.
fn texts(args: &args::Convert, model: &Uncompressed<'_>, bar: &Bar) -> Result<Texts> {
    let count = args.calibrate.len().max(1);
    let held_out = HELD_OUT.div_ceil(count);
    let tokens =
        args.calibration_tokens as usize / count + held_out * text::CONTEXT.min(model.config().context);
    let mut texts = Texts { seed: SEED, ..Texts::default() };
    for path in &args.calibrate {
        let chunks = match path.to_str() {
            Some(OWN) => own(&args.input, tokens, bar)?,
            _ => text::chunks(path, &read(path)?, model, tokens)?,
        };
        // of a short text most is learned from
        let held_out = held_out.min(chunks.len() / 4);
        texts.add(chunks, held_out);
    }
    let (found, inputs) = (texts.tokens(), model.config().hidden);
    if found < inputs {
        tracing::warn!(
            "{found} tokens say little of layers with {inputs} inputs: give a longer text, or --calibration-tokens"
        );
    }
    Ok(texts)
}

/// A text that the model makes itself.
fn own(input: &Path, tokens: usize, bar: &Bar) -> Result<Vec<Vec<u32>>> {
    let file = model::open(input, bar, true)?;
    bar.leaves_nothing(false);
    let positions = text::Plan::new(file.config(), tokens).positions();
    let options = Options { decode: Decode::Auto, positions, ..Options::default() };
    let decode = file.sizes(options.positions).choose(&options)?.decode;
    model::in_pool(|| {
        let loaded = Model::load(file, Options { decode, ..options })?;
        let chunks = text::own(&loaded, input, tokens, SEED, bar)?;
        bar.finish();
        Ok(chunks)
    })
}

//! `ecq convert --calibrate`: statistics of texts, what they give for a rate, and what came of it on other texts.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ecq_calibrate::quality::Judge;
use ecq_calibrate::texts::HELD_OUT;
use ecq_calibrate::{Calibrated, Decoder, Error, Record, Statistics, Texts, gather, goes_on, text};
use ecq_convert::Progress;
use ecq_convert::convert::refuse_input;
use ecq_convert::rates::Rules;
use ecq_convert::source::Source;
use ecq_format::{Limits, Reader, staging};
use ecq_llm::{Decode, Model, Options, Uncompressed};
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
    check_names(args, source)?;
    let given = args.held_out.as_ref().map(|path| -> Result<_> {
        let chunks = text::chunks(path, &read(path)?, &uncompressed, HELD_OUT * text::CONTEXT)?;
        Ok((path.display().to_string(), chunks))
    });
    let given = given.transpose()?;
    let statistics = statistics(args, &uncompressed, bar)?;
    bar.finish();
    let texts = &statistics.about().texts;
    let own = ("parts of the texts that were held out".to_owned(), texts.held_out.clone());
    let held_out = [own].into_iter().chain(given).filter(|(_, chunks)| !chunks.is_empty()).collect();
    let by = Arc::new(Calibrated::measure(source, statistics, rules, args.profile.into(), bar)?);
    Ok(Calibration { by, held_out })
}

/// Measures what came of a calibration, where there is a text for that. The file stands, whatever comes of this: only a person
/// who stops it is told by an error.
pub fn measured(
    calibration: &Calibration,
    source: &Source,
    output: &Path,
    bar: &Bar,
) -> Result<Vec<HeldOut>> {
    measure(calibration, source, output, bar).or_else(|why| {
        let whole = format!("{} is complete, but was not measured on held-out text", output.display());
        if bar.cancelled() {
            bail!("stopped: {whole}");
        }
        tracing::warn!("{whole}: {why:#}");
        Ok(Vec::new())
    })
}

fn measure(calibration: &Calibration, source: &Source, output: &Path, bar: &Bar) -> Result<Vec<HeldOut>> {
    let source = Uncompressed::new(source)?;
    let coded = Reader::open(output, Limits::default())?;
    let mut all = Vec::new();
    for (name, chunks) in &calibration.held_out {
        warn_overlap(Some(calibration.by.recorded()), &chunks.concat(), name);
        let tokens: usize = chunks.iter().map(Vec::len).sum();
        bar.begin("held-out text", (2 * tokens * source.config().layers) as u64);
        let judge = Judge::new(Decoder::new(&source)?, chunks, bar)?;
        let found = judge.compare(&coded, bar)?;
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
    coded.check()?; // of another file, success is none
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

fn statistics(args: &args::Convert, model: &Uncompressed<'_>, bar: &Bar) -> Result<Statistics> {
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
    let texts = texts(args, model, bar)?;
    if path.symlink_metadata().is_ok() {
        // an interruption may have come behind the statistics
        if let Some(found) =
            Statistics::of_model(path, model).ok().filter(|found| found.about().texts == texts)
        {
            tracing::warn!("{} is of this model and these texts already, and is used", path.display());
            return Ok(found);
        }
        ensure!(
            args.force,
            "{} exists; use --force to replace it, or leave --calibrate out to use it",
            path.display()
        );
    }
    let staged = staging::unfinished(path)?;
    let cannot = || format!("cannot write {}", path.display());
    let mut file = staged.as_file().try_clone().with_context(cannot)?;
    let own = file.try_clone().with_context(cannot)?;
    let done = gather(model, &texts, (staged.path(), own), Some(EVERY), bar);
    let (staged, error) = match done {
        Ok(file) => match staging::finish_or_return(staged, path, args.force) {
            Ok(()) => return Ok(Statistics::open(path, file)?),
            Err(both) => (both.0, both.1.to_string()),
        },
        Err(error @ Error::NotFinite { .. }) => return Err(error.into()),
        Err(error @ Error::Other { .. }) => {
            staged.keep().with_context(cannot)?; // it is somebody's
            return Err(error.into());
        }
        Err(error) if goes_on(&mut file) => (staged, error.to_string()),
        Err(error) => return Err(error.into()),
    };
    let (_, left) = staged.keep().with_context(cannot)?;
    bar.finish();
    bail!("{error}; the same command goes on with {}", left.display())
}

/// Error if what is written would replace what is read, or other things that are written.
fn check_names(args: &args::Convert, source: &Source) -> Result<()> {
    let saves = !args.calibrate.is_empty();
    let statistics = args.statistics.iter().filter(|_| saves);
    let unfinished = statistics.clone().map(|path| staging::unfinished_path(path));
    let written: Vec<PathBuf> =
        [args.output.clone()].into_iter().chain(statistics.cloned()).chain(unfinished).collect();
    let read = args.calibrate.iter().chain(&args.held_out).chain(args.statistics.iter().filter(|_| !saves));
    let read: Vec<&PathBuf> = read.collect();
    for (i, path) in written.iter().enumerate() {
        refuse_input(source, path)?;
        let others = written[..i].iter().chain(read.iter().copied());
        if let Some(other) = others.into_iter().find(|other| same(other, path)) {
            bail!("{} would be written over {}: name another file", path.display(), other.display());
        }
    }
    Ok(())
}

/// Whether two names are of one file.
fn same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// The texts, in equal shares; some chunks of each are not learned from.
fn texts(args: &args::Convert, model: &Uncompressed<'_>, bar: &Bar) -> Result<Texts> {
    let count = args.calibrate.len().max(1);
    let context = text::CONTEXT.min(model.config().context).max(1);
    let held_out = HELD_OUT.div_ceil(count);
    let wanted = (args.calibration_tokens as usize / count / context).max(1);
    let mut texts = Texts { seed: SEED, ..Texts::default() };
    for path in &args.calibrate {
        let tokens = (wanted + held_out) * context;
        let chunks = match path.to_str() {
            Some(OWN) => own(&args.input, tokens, bar)?,
            _ => text::chunks(path, &read(path)?, model, tokens)?,
        };
        // what is more than was asked for; of a short text most is learned from
        let held_out = held_out.min(chunks.len().saturating_sub(wanted).max(chunks.len() / 4));
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

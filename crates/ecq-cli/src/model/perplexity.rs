//! `ecq perplexity`: how well a model foresees a text, and how far it is from another.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ecq_calibrate::Record;
use ecq_convert::Progress;
use ecq_llm::comparison::Comparison;
use ecq_llm::{Cache, Model, ModelFile, Options};
use serde::Serialize;

use super::args::Perplexity;
use super::peak::peak;
use crate::calibrate;
use crate::output;
use crate::progress::Bar;

/// Tokens of which the logits of another model are held at a time.
const PIECE: usize = 128;

/// Most bytes of a text: some tokens, and much more than anyone waits for.
const MOST_TEXT: u64 = 1 << 28;

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    perplexity: f64,
    standard_error: f64,
    tokens: usize,
    context: usize,
    device: String,
    decode: &'static str,
    tokens_per_second: f64,
    /// Bytes; `None` where the system does not tell.
    peak_memory: Option<u64>,
    against: Option<Compared>,
}

/// Beside another model, over the same tokens.
#[derive(Debug, Serialize)]
struct Compared {
    model: String,
    perplexity: f64,
    standard_error: f64,
    /// Mean nats by which the model's probabilities are from the other's.
    kl_divergence: f64,
    kl_standard_error: f64,
    /// Share of tokens behind which both have the same most likely one.
    top1_agreement: f64,
}

/// Measures in windows of `--context` tokens, each token but the first of a window.
pub fn perplexity(args: &Perplexity, bar: &Bar, quiet: bool) -> Result<()> {
    bar.leaves_nothing(true);
    let text = read(&args.text)?;
    let quiet = quiet || args.json;
    let file = super::open(&args.run.model, bar, quiet)?;
    let other = args.against.as_deref().map(|path| super::open(path, bar, quiet)).transpose()?;
    let mut tokens = file.tokenizer().encode(&text)?;
    if let (Some(path), Some(other)) = (&args.against, &other) {
        alike(&args.run.model, &file, path, other)?;
        ensure!(
            other.tokenizer().encode(&text)? == tokens,
            "{} and {} take {} apart in different ways",
            args.run.model.display(),
            path.display(),
            args.text.display()
        );
    }
    let seen = args.tokens.unwrap_or(u64::MAX).try_into().unwrap_or(usize::MAX).min(tokens.len());
    calibrate::warn_overlap(Record::read(file.reader()).as_ref(), &tokens[..seen], &args.text.display());
    tokens.truncate(seen);
    ensure!(
        tokens.len() > 1,
        "{}: expected at least two tokens, found {}",
        args.text.display(),
        tokens.len()
    );
    // a short text needs no room for a long one
    let context = (args.context as usize).min(tokens.len());
    let mut options = super::options(&args.run, context);
    let mut files = Vec::new();
    for file in [Some(file), other].into_iter().flatten() {
        file.check_context(args.context as usize)?;
        let choice = file.sizes(context).choose(&options)?;
        files.push((file, Options { decode: choice.decode, ..options }));
        // what the first one leaves is for the second
        options.memory = options.memory.map(|memory| memory.saturating_sub(choice.bytes));
    }
    let measured = super::in_pool(|| {
        let models = files.into_iter().map(|(file, options)| super::load(file, options, quiet));
        let models = models.collect::<Result<Vec<_>>>()?;
        let Some(model) = models.first() else { bail!("no model") };
        bar.begin("perplexity", tokens.len() as u64);
        let mut run = Sums { model, other: models.get(1), found: Found::default() };
        run.all(&tokens, context, bar)?;
        bar.finish();
        Ok(measured(args, model, run.found))
    })?;
    if args.json { output::json(&measured) } else { print(&measured) }
}

/// A text. Error: it is too long, or no UTF-8.
pub(crate) fn read(path: &Path) -> Result<String> {
    let mut text = Vec::new();
    // a device may have no end
    let read = File::open(path).and_then(|file| file.take(MOST_TEXT + 1).read_to_end(&mut text));
    read.with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(text.len() as u64 <= MOST_TEXT, "{}: expected at most {MOST_TEXT} bytes: cut it", path.display());
    String::from_utf8(text).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        anyhow::anyhow!("{}: expected UTF-8, byte {at} is none", path.display())
    })
}

/// Error unless both models speak of the same tokens.
fn alike(path: &Path, file: &ModelFile, other_path: &Path, other: &ModelFile) -> Result<()> {
    let [own, its] = [file, other].map(|file| file.config().vocabulary);
    let [path, other_path] = [path.display(), other_path.display()];
    ensure!(
        own == its,
        "{path} has {own} tokens and {other_path} {its}: they can only be compared with one vocabulary"
    );
    if let Some((token, names)) = file.tokenizer().differs(other.tokenizer()) {
        let [own, its] = names.map(|name| name.map_or("none".into(), |name| format!("{name:?}")));
        bail!(
            "token {token} is {own} in {path} and {its} in {other_path}: they can only be compared with one tokenizer"
        );
    }
    Ok(())
}

#[derive(Default)]
struct Found {
    means: Comparison,
    time: Duration,
}

struct Sums<'a> {
    model: &'a Model,
    other: Option<&'a Model>,
    found: Found,
}

impl Sums<'_> {
    fn all(&mut self, tokens: &[u32], context: usize, bar: &Bar) -> Result<()> {
        let mut cache = self.model.cache(context)?;
        let mut other = self.other.map(|other| other.cache(context)).transpose()?;
        for window in tokens.chunks(context).filter(|window| window.len() > 1) {
            cache.truncate(0);
            other.iter_mut().for_each(|cache| cache.truncate(0));
            // logits behind the last token say nothing of the window
            let (seen, next) = (&window[..window.len() - 1], &window[1..]);
            for (seen, next) in seen.chunks(PIECE).zip(next.chunks(PIECE)) {
                if bar.cancelled() {
                    bail!("stopped");
                }
                self.piece(seen, next, &mut cache, other.as_mut())?;
                bar.advance(seen.len() as u64);
            }
            bar.advance(1);
        }
        Ok(())
    }

    fn piece(
        &mut self,
        seen: &[u32],
        next: &[u32],
        cache: &mut Cache,
        other_cache: Option<&mut Cache>,
    ) -> Result<()> {
        let found = &mut self.found;
        let mut reference = Vec::new();
        if let (Some(other), Some(cache)) = (self.other, other_cache) {
            other.logits(seen, cache, |logits| reference.push(logits.to_vec()))?;
        }
        let (mut at, start) = (0, Instant::now());
        self.model.logits(seen, cache, |logits| {
            found.means.add(logits, reference.get(at).map(Vec::as_slice), next[at]);
            at += 1;
        })?;
        let end = found.means.tokens();
        ensure!(
            found.means.is_finite(),
            "among tokens {} to {end} logits are no numbers: weights of the model are damaged, or not for its architecture",
            end - seen.len()
        );
        found.time += start.elapsed();
        Ok(())
    }
}

fn measured(args: &Perplexity, model: &Model, Found { means, time }: Found) -> Measured {
    let (perplexity, standard_error) = means.surprise.perplexity();
    let against = args.against.as_deref().map(|path| {
        let (perplexity, standard_error) = means.other_surprise.perplexity();
        Compared {
            model: path.display().to_string(),
            perplexity,
            standard_error,
            kl_divergence: means.divergence.mean(),
            kl_standard_error: means.divergence.error(),
            top1_agreement: means.agreement(),
        }
    });
    Measured {
        perplexity,
        standard_error,
        tokens: means.tokens(),
        context: args.context as usize,
        device: super::device(model),
        decode: model.choice().decode.name(),
        tokens_per_second: means.tokens() as f64 / time.as_secs_f64(),
        peak_memory: peak(),
        against,
    }
}

fn print(measured: &Measured) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let Measured { perplexity, standard_error, tokens, context, .. } = measured;
    writeln!(
        out,
        "perplexity {perplexity:.3} ± {standard_error:.3} over {tokens} tokens, context {context}; {:.1} tokens a second, \
         peak memory {}",
        measured.tokens_per_second,
        measured.peak_memory.map_or("unknown".into(), output::mb),
    )?;
    if let Some(against) = &measured.against {
        let Compared { model, perplexity, standard_error, .. } = against;
        writeln!(out, "{model}: perplexity {perplexity:.3} ± {standard_error:.3}")?;
        writeln!(
            out,
            "KL divergence from it {:.6} ± {:.6} nats; the same most likely token behind {:.2} % of them",
            against.kl_divergence,
            against.kl_standard_error,
            100.0 * against.top1_agreement
        )?;
    }
    Ok(())
}

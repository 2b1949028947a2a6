//! `ecq convert --calibrate`: statistics of texts, and what they give for a rate.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use ecq_calibrate::{Calibrated, Statistics, gather, text};
use ecq_convert::convert::{Calibrator, refuse_input};
use ecq_convert::rates::Rules;
use ecq_convert::source::Source;
use ecq_format::staging;
use ecq_llm::{Decode, Model, Options, Uncompressed};

use crate::model::perplexity::read;
use crate::progress::Bar;
use crate::{args, model};

/// Chunks that are passed backward, too: mean gradients need less of a text than second moments.
const BACKWARD: usize = 8;
const SEED: u64 = 1;
/// Stands for a text that the model makes.
const OWN: &str = "self";

/// What quantizes a source's tensors, by the texts that were asked for or by statistics that were saved.
pub fn calibrated(
    args: &args::Convert,
    source: &Source,
    rules: &Rules,
    bar: &Bar,
) -> Result<Arc<dyn Calibrator>> {
    let statistics = statistics(args, source, bar)?;
    bar.finish();
    Ok(Arc::new(Calibrated::measure(source, statistics, rules, args.profile.into(), bar)?))
}

fn statistics(args: &args::Convert, source: &Source, bar: &Bar) -> Result<Statistics> {
    let uncompressed = Uncompressed::new(source)?;
    if let (Some(path), true) = (&args.statistics, args.calibrate.is_empty()) {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let statistics = Statistics::open(path, file)?;
        let (own, its) = (gather::fingerprint(&uncompressed)?, &statistics.about().model);
        ensure!(
            own == *its,
            "{}: expected statistics of this model, found those of another: make them anew with --calibrate",
            path.display()
        );
        return Ok(statistics);
    }
    if let Some(path) = &args.statistics {
        refuse_input(source, path)?;
        let others = args.calibrate.iter().chain([&args.output]);
        if let Some(other) = others.into_iter().find(|other| same(other, path)) {
            bail!("--statistics {}: that is {}, too; name another file", path.display(), other.display());
        }
        if path.exists() && !args.force {
            bail!("{} exists; use --force to replace it, or leave --calibrate out to use it", path.display());
        }
    }
    let chunks = chunks(args, &uncompressed, bar)?;
    let gather = |path: &Path, file| {
        gather(&uncompressed, &chunks, chunks.len().div_ceil(BACKWARD), SEED, (path, file), bar)
    };
    let Some(path) = &args.statistics else {
        let folder = args.output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // it has no name: nothing of it is left, whatever happens
        let file = tempfile::tempfile_in(folder);
        let file = file.with_context(|| format!("cannot write to {}", folder.display()))?;
        return Ok(Statistics::open(folder, gather(folder, file)?)?);
    };
    let staged = staging::file(path)?;
    let cannot = || format!("cannot write {}", path.display());
    let file = gather(path, staged.as_file().try_clone().with_context(cannot)?)?;
    staging::finish(staged, path, args.force)?;
    Ok(Statistics::open(path, file)?)
}

/// Whether two names are of one file.
fn same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// The texts, in equal shares.
fn chunks(args: &args::Convert, model: &Uncompressed<'_>, bar: &Bar) -> Result<Vec<Vec<u32>>> {
    let tokens = args.calibration_tokens as usize / args.calibrate.len().max(1);
    let mut chunks = Vec::new();
    for path in &args.calibrate {
        chunks.extend(match path.to_str() {
            Some(OWN) => own(&args.input, tokens, bar)?,
            _ => text::chunks(path, &read(path)?, model, tokens)?,
        });
    }
    let (found, inputs) = (chunks.iter().map(Vec::len).sum::<usize>(), model.config().hidden);
    if found < inputs {
        tracing::warn!(
            "{found} tokens say little of layers with {inputs} inputs: give a longer text, or --calibration-tokens"
        );
    }
    Ok(chunks)
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

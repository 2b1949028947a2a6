//! `ecq generate`, `perplexity` and `bench`: models that run.

pub mod args;
pub mod bench;
pub mod generate;
mod peak;
pub mod perplexity;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use ecq_llm::{Model, ModelFile, Options, source};

use crate::output;
use crate::progress::Bar;
use args::Run;

/// Loads models and runs them, on a thread of rayon's pool: a product then wakes nobody up but those that help with it.
pub fn in_pool<T: Send>(run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    rayon::scope(|_| run())
}

/// Opens a model's file; one that is not converted yet is. Says where that file is.
pub fn open(path: &Path, bar: &Bar, quiet: bool) -> Result<ModelFile> {
    // only a conversion has files to remove
    bar.leaves_nothing(true);
    if !source::is_source(path) {
        return Ok(ModelFile::open(path)?);
    }
    bar.leaves_nothing(false);
    let found = source::converted(path, &source::folder()?, bar)?;
    bar.finish();
    bar.leaves_nothing(true);
    let file = ModelFile::open(&found.path);
    if found.fresh {
        said(quiet, || {
            format!("converted without loss into {}, which is used from now on", found.path.display())
        });
        return Ok(file?);
    }
    file.with_context(|| {
        let [own, path] = [found.path.as_path(), path].map(Path::display);
        format!("{own} was made of {path} before; delete it, and it is made again")
    })
}

/// Remarks for a person. Whoever has closed standard error wants none.
fn said(quiet: bool, remark: impl FnOnce() -> String) {
    if !quiet {
        let _ = writeln!(std::io::stderr(), "{}", remark());
    }
}

fn options(run: &Run, positions: usize) -> Options {
    Options {
        device: run.device.into(),
        decode: run.decode.into(),
        precision: run.precision.into(),
        memory: run.memory,
        positions,
    }
}

/// Loads a model, and says how it will run.
fn load(file: ModelFile, options: Options, quiet: bool) -> Result<Model> {
    let model = Model::load(file, options)?;
    said(quiet, || described(&model));
    Ok(model)
}

fn described(model: &Model) -> String {
    let choice = model.choice();
    format!("on {}; weights {}: {}", device(model), choice.decode.name(), output::mb(choice.bytes))
}

fn device(model: &Model) -> String {
    match (model.adapter(), rayon::current_num_threads()) {
        (Some(adapter), _) => output::clean(adapter, 80),
        (None, 1) => "the CPU, 1 thread".to_owned(),
        (None, threads) => format!("the CPU, {threads} threads"),
    }
}

//! `cargo xtask bench e2e`: a language model from prompt to text, beside llama.cpp on the same weights.

pub mod agreement;
pub mod files;
mod llama;
mod speed;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ecq_llm::Precision;
use serde::Deserialize;

use agreement::{Agreement, agreement, logits};
use files::{BASE, File};
use llama::Llama;
use speed::{Contestant, STRATEGIES, race};
use table::Table;

/// What models are measured with: the beginning of a novel.
const TEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/text/persuasion.txt");
/// Tokens of the prompt.
const PROMPT: usize = 512;
/// Positions whose logits are compared.
const COMPARED: usize = 200;
/// In `enum llama_ftype`.
const F32: u32 = 0;

#[derive(clap::Args)]
pub struct Args {
    /// Python with llama-cpp-python; `cargo xtask bench` makes one
    #[arg(long, hide = true)]
    python: PathBuf,
    /// Print the table as JSON on standard output
    #[arg(long)]
    json: bool,
    /// One round, a shorter text: a look, not a figure; nothing is recorded
    #[arg(long)]
    quick: bool,
    /// Write no record
    #[arg(long)]
    no_record: bool,
    /// Rounds in which each runs once
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Threads that models run with
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_name = "N")]
    threads: Vec<usize>,
    /// Tokens of the text that perplexity is measured with
    #[arg(long, default_value_t = 8192, value_name = "N")]
    tokens: usize,
}

/// How well a model foresees the text, as `ecq perplexity` says.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Perplexity {
    perplexity: f64,
    standard_error: f64,
}

/// Makes the models, compares, measures, prints and records.
pub fn run(args: &Args) -> Result<()> {
    let ecq = std::env::current_exe()?.with_file_name("ecq");
    ensure!(ecq.exists(), "{} is missing: cargo build --release -p ecq-cli", ecq.display());
    let cache = std::env::var_os("ECQ_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache").into());
    let base = cache.join("models").join(BASE);
    ensure!(base.exists(), "{} is missing: cargo xtask fixtures", base.display());
    let folder = cache.join("e2e");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;

    let llama = Llama::new(&args.python);
    let files = files::all(&ecq, &base, &folder, &llama)?;
    let tokens = llama.tokens(&base, TEXT.as_ref())?;
    let tokens = tokens.get(..PROMPT).context("the text is shorter than the prompt")?;
    let mut table = Table::new(base.metadata()?.len(), agreements(&files[0], &folder, tokens, &llama)?);

    let text = if args.quick { args.tokens.min(1024) } else { args.tokens };
    for file in &files {
        table.foreseen(file, perplexity(&ecq, &file.ecq, text)?)?;
    }
    let prompt = listed(&folder.join("prompt.json"), tokens)?;
    let mut all = contestants(&files, &args.threads);
    let rounds = if args.quick { 1 } else { args.rounds as usize };
    race(&mut all, rounds, &ecq, &llama, (&prompt, PROMPT))?;
    table.speeds(&all)?;

    if args.json {
        println!("{}", serde_json::to_string_pretty(&table)?);
    } else {
        println!("{}", table.text());
    }
    if !args.quick && !args.no_record {
        table.record(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks").as_ref())?;
    }
    Ok(())
}

/// How near ecq and llama.cpp are to the weights of a file without loss as f32.
fn agreements(file: &File, folder: &Path, tokens: &[u32], llama: &Llama) -> Result<Vec<Agreement>> {
    let tokens = &tokens[..COMPARED];
    let listed = listed(&folder.join("compared.json"), tokens)?;
    let [gguf, exact] = [file.gguf.clone().context("the base is a GGUF")?, folder.join("F32.gguf")];
    llama.quantize(&gguf, &exact, F32)?;
    let exact = llama.logits(&exact, &listed)?;
    let near = |of, logits: Vec<f32>| agreement(of, &exact, &logits, COMPARED);
    Ok(vec![
        near("ecq, f32", logits(&file.ecq, tokens, Precision::F32)?)?,
        near("ecq, int8", logits(&file.ecq, tokens, Precision::Int8)?)?,
        near("llama.cpp", llama.logits(&gguf, &listed)?)?,
    ])
}

/// For each number of threads: what llama.cpp runs, and what ecq runs with each strategy.
fn contestants<'a>(files: &'a [File], threads: &[usize]) -> Vec<Contestant<'a>> {
    let mut all = Vec::new();
    for &threads in threads {
        for file in files {
            let ways = STRATEGIES.map(Some).into_iter();
            for decode in file.gguf.is_some().then_some(None).into_iter().chain(ways) {
                all.push(Contestant { file, decode, threads, runs: Vec::new() });
            }
        }
    }
    all
}

/// A file that lists tokens.
fn listed(path: &Path, tokens: &[u32]) -> Result<PathBuf> {
    let text = serde_json::to_string(tokens)?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.into())
}

fn perplexity(ecq: &Path, file: &Path, tokens: usize) -> Result<Perplexity> {
    eprintln!("perplexity of {}", file.display());
    let mut command = Command::new(ecq);
    command.args(["perplexity", "--quiet", "--json", "--device", "cpu", "--text", TEXT]);
    command.args(["--tokens", &tokens.to_string()]).arg(file);
    let output = command.output().with_context(|| format!("cannot start {}", ecq.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ecq perplexity: {}: {}", output.status, said.trim());
    Ok(serde_json::from_slice(&output.stdout)?)
}

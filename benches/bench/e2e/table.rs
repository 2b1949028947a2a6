//! The table of models: on the terminal, as JSON, and as a record.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::agreement::Agreement;
use super::files::File;
use super::speed::{Contestant, Speed, TOKENS};
use super::{PROMPT, Perplexity};
use crate::report::{Report, digits, record};

/// A model.
#[derive(Debug, Serialize)]
struct Model {
    name: String,
    /// Bytes of the .ecq file.
    bytes: u64,
    /// Of the GGUF that everything was made of.
    of_base: f64,
    /// Bytes of the GGUF with the same weights.
    gguf_bytes: Option<u64>,
    perplexity: f64,
    standard_error: f64,
}

/// Medians of a way to run a model.
#[derive(Debug, Serialize)]
struct Row {
    model: String,
    threads: usize,
    runner: String,
    #[serde(flatten)]
    speed: Speed,
    /// Beside llama.cpp on the base with as many threads, in the same rounds.
    prompt_ratio: f64,
    text_ratio: f64,
}

/// All of it, and where it was measured.
#[derive(Debug, Serialize)]
pub struct Table {
    machine: String,
    commit: String,
    date: String,
    rounds: usize,
    base_bytes: u64,
    agreements: Vec<Agreement>,
    models: Vec<Model>,
    rows: Vec<Row>,
}

impl Table {
    /// Without models.
    pub fn new(base_bytes: u64, agreements: Vec<Agreement>) -> Self {
        let Report { machine, commit, date, .. } = Report::new();
        let (models, rows) = (Vec::new(), Vec::new());
        Self { machine, commit, date, rounds: 0, base_bytes, agreements, models, rows }
    }

    /// Adds a model.
    pub fn foreseen(&mut self, file: &File, measured: Perplexity) -> Result<()> {
        let size = |path: &Path| Ok::<_, std::io::Error>(path.metadata()?.len());
        let bytes = size(&file.ecq)?;
        self.models.push(Model {
            name: file.name.clone(),
            bytes,
            of_base: bytes as f64 / self.base_bytes as f64,
            gguf_bytes: file.gguf.as_deref().map(size).transpose()?,
            perplexity: measured.perplexity,
            standard_error: measured.standard_error,
        });
        Ok(())
    }

    /// Adds what was measured of all.
    pub fn speeds(&mut self, all: &[Contestant<'_>]) -> Result<()> {
        self.rounds = all.first().map_or(0, |one| one.runs.len());
        for one in all {
            let base = all.iter().find(|other| other.decode.is_none() && other.threads == one.threads);
            let base = base.context("llama.cpp is in every race")?;
            self.rows.push(Row {
                model: one.file.name.clone(),
                threads: one.threads,
                runner: one.decode.map_or("llama.cpp".into(), |decode| format!("ecq, {decode}")),
                speed: one.medians(),
                prompt_ratio: one.ratio(base, |run| run.prompt_tokens_per_second),
                text_ratio: one.ratio(base, |run| run.tokens_per_second),
            });
        }
        Ok(())
    }

    /// The table as text. Writing to a String cannot fail.
    pub fn text(&self) -> String {
        let mut text =
            format!("{}\ncommit {}, {}, {} rounds\n\n", self.machine, self.commit, self.date, self.rounds);
        text += "logits of Q4_1   positions  same first token      KL, nat\n";
        for Agreement { of, positions, top_1, kl } in &self.agreements {
            let part = 100.0 * top_1;
            let _ = writeln!(text, "{of:<16} {positions:>9} {part:>15.1} % {kl:>12.1e}");
        }
        text += "\n";
        text += "model                file MB  of the base   GGUF MB           perplexity\n";
        for model in &self.models {
            let gguf = model.gguf_bytes.map_or(String::new(), |bytes| format!("{:.2}", bytes as f64 / 1e6));
            let found = format!("{:.3} ± {:.3}", model.perplexity, model.standard_error);
            let (bytes, part) = (model.bytes as f64 / 1e6, model.of_base);
            let _ = writeln!(text, "{:<18} {bytes:>9.2} {part:>12.3} {gguf:>9} {found:>20}", model.name);
        }
        text += "\nmodel              threads  run by         prompt t/s       x    text t/s       x   load s  first s  peak MB\n";
        for row in &self.rows {
            let Speed { load_seconds, first_token_seconds, prompt_tokens_per_second, .. } = row.speed;
            let [prompt, prompt_ratio, made, made_ratio, load, first] = [
                prompt_tokens_per_second,
                row.prompt_ratio,
                row.speed.tokens_per_second,
                row.text_ratio,
                load_seconds,
                first_token_seconds,
            ]
            .map(digits);
            let peak = row.speed.peak_memory as f64 / 1e6;
            let _ = writeln!(
                text,
                "{:<18} {:>7}  {:<13} {prompt:>11} {prompt_ratio:>7} {made:>11} {made_ratio:>7} {load:>8} {first:>8} {peak:>8.1}",
                row.model, row.threads, row.runner
            );
        }
        text
    }

    /// Writes the record: a page for people.
    pub fn record(&self, folder: &Path) -> Result<()> {
        let page = format!(
            "# e2e\n\nMade by `cargo xtask bench e2e`. SmolLM2-135M-Instruct, a prompt of {PROMPT} tokens and {TOKENS} tokens of \
             text; each run is a process of its own, medians of rounds in which each runs once. `x` is beside llama.cpp on Q4_1 \
             with as many threads, in the same rounds. Everything is made of the same Q4_1 file; perplexity is `ecq \
             perplexity` on the beginning of Persuasion, of llama.cpp's types after converting them without loss. Logits are beside llama.cpp's with the same weights as F32. `first s` \
             is until the first token behind the prompt, from a start without anything loaded; for llama.cpp without the \
             start of Python, whose memory is not in `peak MB` either. Peaks count the mapped file.\n\n```text\n{}```\n",
            self.text()
        );
        record(folder, "e2e", &self.machine, &page).map(drop)
    }
}

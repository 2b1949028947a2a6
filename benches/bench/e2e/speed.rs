//! Runs that take turns, each in a process of its own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::files::File;
use super::llama::Llama;
use crate::timing::median;

/// Tokens that are made.
pub const TOKENS: usize = 64;
/// How ecq keeps weights.
pub const STRATEGIES: [&str; 2] = ["fused", "cached"];

/// What a run reached, or the medians of several.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Speed {
    /// Seconds until the model is loaded.
    pub load_seconds: f64,
    /// Seconds from the start until the first token, the prompt included.
    pub first_token_seconds: f64,
    /// Tokens of the prompt a second.
    pub prompt_tokens_per_second: f64,
    /// New tokens a second.
    pub tokens_per_second: f64,
    /// The most bytes that were in memory, pages of the mapped file included.
    pub peak_memory: u64,
}

/// What is measured.
pub struct Contestant<'a> {
    /// The model.
    pub file: &'a File,
    /// How weights are kept; llama.cpp if none.
    pub decode: Option<&'static str>,
    /// Threads.
    pub threads: usize,
    /// One for each round.
    pub runs: Vec<Speed>,
}

impl Contestant<'_> {
    /// Medians of all rounds.
    pub fn medians(&self) -> Speed {
        let of = |number: fn(&Speed) -> f64| median(self.runs.iter().map(number).collect());
        Speed {
            load_seconds: of(|run| run.load_seconds),
            first_token_seconds: of(|run| run.first_token_seconds),
            prompt_tokens_per_second: of(|run| run.prompt_tokens_per_second),
            tokens_per_second: of(|run| run.tokens_per_second),
            peak_memory: of(|run| run.peak_memory as f64) as u64,
        }
    }

    /// The median of what rounds have more than the same rounds of another one.
    pub fn ratio(&self, other: &Self, number: fn(&Speed) -> f64) -> f64 {
        median(self.runs.iter().zip(&other.runs).map(|(a, b)| number(a) / number(b)).collect())
    }

    /// Runs once.
    fn run(&self, ecq: &Path, llama: &Llama, prompt: &Path, tokens: usize) -> Result<Speed> {
        let Some(decode) = self.decode else {
            let gguf = self.file.gguf.as_deref().context("llama.cpp has no such weights")?;
            return llama.speed(gguf, prompt, self.threads, TOKENS);
        };
        let [threads, tokens, made] = [self.threads, tokens, TOKENS].map(|n| n.to_string());
        let mut command = Command::new(ecq);
        command.args(["bench", "--quiet", "--json", "--device", "cpu", "--runs", "1"]).arg(&self.file.ecq);
        command.args(["--decode", decode, "--threads", &threads, "--prompt-tokens", &tokens]);
        let output = command.args(["--tokens", &made]).output();
        let output = output.with_context(|| format!("cannot start {}", ecq.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ecq bench: {}: {}", output.status, said.trim());
        let table: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let own = &table["strategies"][0];
        ensure!(own["decode"] == decode, "ecq bench did not run {decode}");
        Ok(Speed::deserialize(own)?)
    }
}

/// So many rounds in which each runs once, with a file that lists so many tokens as the prompt.
pub fn race(
    all: &mut [Contestant<'_>],
    rounds: usize,
    ecq: &Path,
    llama: &Llama,
    (prompt, tokens): (&Path, usize),
) -> Result<()> {
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for one in &mut *all {
            let run = one.run(ecq, llama, prompt, tokens)?;
            one.runs.push(run);
        }
    }
    Ok(())
}

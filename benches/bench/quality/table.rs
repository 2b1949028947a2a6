//! All rows, and where they were measured: on the terminal, as JSON, and as a record.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ecq_benches::quality::{At, By, Row, savings, table};
use ecq_calibrate::text::CONTEXT;
use serde::{Deserialize, Serialize};

use super::{Args, name};
use crate::report::{Report, record};

/// What rows can be compared by: the same texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Setup {
    calibration: Vec<String>,
    calibration_tokens: u64,
    texts: Vec<String>,
    tokens: u64,
}

/// All of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Table {
    machine: String,
    commit: String,
    date: String,
    #[serde(flatten)]
    setup: Setup,
    /// Commit and date of llama.cpp's rows, where those are of an earlier run.
    earlier: Option<String>,
    rows: Vec<Row>,
}

impl Table {
    /// Without rows.
    pub fn new(args: &Args) -> Self {
        let Report { machine, commit, date, .. } = Report::new();
        let names = |paths: &[std::path::PathBuf]| paths.iter().map(|path| name(path)).collect();
        let setup = Setup {
            calibration: names(&args.calibrate),
            calibration_tokens: args.calibration_tokens,
            texts: names(&args.text),
            tokens: args.tokens,
        };
        Self { machine, commit, date, setup, earlier: None, rows: Vec::new() }
    }

    /// What an earlier run printed. Error: it was one with other texts.
    pub fn earlier(&self, path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let found: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{}: expected what --json prints", path.display()))?;
        let (theirs, own) = (&found.setup, &self.setup);
        ensure!(theirs == own, "{}: expected {own:?}, found {theirs:?}", path.display());
        Ok(found)
    }

    /// Takes llama.cpp's rows of an earlier run. Error: the base did not foresee the texts as it does now.
    pub fn take(&mut self, earlier: Self) -> Result<()> {
        let of = |rows: &[Row]| rows.iter().find(|row| row.by == By::Base).map(|row| row.texts.clone());
        let (own, theirs) = (of(&self.rows).unwrap_or_default(), of(&earlier.rows).unwrap_or_default());
        let same = own.len() == theirs.len()
            && own.iter().zip(&theirs).all(|(a, b)| (a.perplexity / b.perplexity - 1.0).abs() < 1e-5);
        ensure!(
            same,
            "the earlier run had another base or other texts: perplexities {theirs:?}, now {own:?}"
        );
        let Self { commit, date, .. } = &earlier;
        self.earlier = earlier.earlier.clone().or(Some(format!("commit {commit}, {date}")));
        self.rows.extend(earlier.rows.into_iter().filter(|row| row.by == By::Llama));
        Ok(())
    }

    /// Whether one of llama.cpp's rows is there.
    pub fn has(&self, name: &str, matrix: bool) -> bool {
        let same = |row: &Row| row.by == By::Llama && row.name == name && row.calibrated == matrix;
        self.rows.iter().any(same)
    }

    /// Adds a row, which is shown on standard error, so that one sees the benchmark work.
    pub fn add(&mut self, row: Row) {
        let kl = row.texts.iter().map(|text| format!("{:.5}", text.kl_divergence));
        eprintln!("{:<22} {:>6.3} bits   KL {}", row.title(), row.bits, kl.collect::<Vec<_>>().join("  "));
        self.rows.push(row);
    }

    /// The table as text. Writing to a String cannot fail.
    pub fn text(&self) -> String {
        let Self { machine, commit, date, setup, earlier, rows } = self;
        let mut text = format!("{machine}\ncommit {commit}, {date}\n");
        if let Some(earlier) = earlier {
            let _ = writeln!(text, "llama.cpp's formats: {earlier}");
        }
        let Setup { calibration, calibration_tokens, texts, tokens } = setup;
        let _ = writeln!(text, "calibration: {calibration_tokens} tokens of {}", calibration.join(", "));
        for (i, name) in texts.iter().enumerate() {
            let _ = write!(text, "\n{name}, {tokens} tokens\n{}", table(rows, i));
        }
        text += &self.savings();
        text
    }

    /// What our rates save at the same KL divergence.
    fn savings(&self) -> String {
        let all: Vec<_> = (0..self.setup.texts.len()).map(|text| savings(&self.rows, text)).collect();
        let Some(first) = all.first().filter(|first| !first.is_empty()) else { return String::new() };
        let mut text = String::from("\nbits of ecq, calibrated, at the KL divergence of\n");
        for (i, (title, bits, _)) in first.iter().enumerate() {
            let ours = all.iter().map(|text| match text[i].2 {
                Some(At::Bits(ours)) => format!("{ours:.2} ({:+.2})", ours - bits),
                Some(At::Under(ours)) => format!("under {ours:.2}"),
                Some(At::Over(ours)) => format!("over {ours:.2}"),
                None => String::new(),
            });
            let ours: Vec<_> = ours.map(|ours| format!("{ours:>18}")).collect();
            let _ = writeln!(text, "{title:<22} {bits:>6.3} {}", ours.join(""));
        }
        text
    }

    /// Writes the record: a page for people, and JSON beside it for `--llama`.
    pub fn record(&self, folder: &Path, args: &Args) -> Result<()> {
        let page = format!(
            "# quality\n\nMade by `{}`; texts are the user's own. SmolLM2-135M-Instruct in Q4_1, taken as numbers, is what \
             all rows are made of; its embedding, which is the output layer too, is kept without loss, so that the 210 linear \
             layers alone are seen. Bits are those a weight of them takes, scales, tables and start states included. All \
             weights are run by the same code, in f32, in windows of {CONTEXT} tokens; KL divergence is from the base's \
             probabilities, with standard errors.\n\nllama.cpp's formats are made by ggml's quantizers, in the mixtures that \
             llama.cpp would choose; `matrix` is with an importance matrix of the same calibration texts: mean squared inputs \
             of columns. Rows of 576 weights are no multiple of its super-blocks of 256, where llama.cpp itself would fall \
             back to wider types; here four rows make nine super-blocks, so that formats are seen at their own size (errors differ \
             by less than half a percent from those of rows with super-blocks of their own, Q4_K's by 8 %). The levels of the \
             base are 4-bit ones themselves, which flatters what can hit them: our rates near 4 bits, and Q4_K_M and Q5_K_M, \
             which have steps and offsets for 32 weights as the base has.\n\nBits at the same KL divergence are between our \
             neighbouring rates, ln KL taken as linear in bits, one column a text; `under` and `over` where no \
             two of them enclose it.\n\n```text\n{}```\n",
            command(args),
            self.text()
        );
        let path = record(folder, "quality", &self.machine, &page)?.with_extension("json");
        let json = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The command that made a table, with names of texts instead of paths.
fn command(args: &Args) -> String {
    let mut command = String::from("cargo xtask bench quality");
    for (option, paths) in [("--calibrate", &args.calibrate), ("--text", &args.text)] {
        paths.iter().for_each(|path| {
            let _ = write!(command, " {option} {}", name(path));
        });
    }
    let bits: Vec<_> = args.bits.iter().map(f64::to_string).collect();
    let _ = write!(command, " --tokens {} --calibration-tokens {}", args.tokens, args.calibration_tokens);
    let _ = write!(command, " --bits {}", bits.join(","));
    if !args.formats.is_empty() {
        let _ = write!(command, " --formats {}", args.formats.join(","));
    }
    command
}

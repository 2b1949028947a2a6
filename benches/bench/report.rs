//! The table: on the terminal, as JSON, and as a record in `docs/benchmarks`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::timing::Rate;

/// A line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which part of the benchmark.
    pub section: String,
    /// What was measured.
    pub name: String,
    /// Median.
    pub value: f64,
    /// Best, where there are rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<f64>,
    /// Unit of both.
    pub unit: String,
    /// How many times as much as something else in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Ratio>,
}

/// A ratio to something in the same run.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// How many times as much.
    pub value: f64,
    /// As what.
    pub to: String,
}

/// All lines, and where they were measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// CPU, cores and instruction sets.
    pub machine: String,
    /// Commit, with "+" if the tree has changes.
    pub commit: String,
    /// Day, UTC.
    pub date: String,
    /// The table.
    pub rows: Vec<Row>,
}

impl Report {
    /// An empty table.
    pub fn new() -> Self {
        let sets: Vec<_> = rans_core::Isa::all().map(|isa| isa.set().name()).collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let machine = format!("{}, {cores} cores, {}", cpu(), sets.join(" "));
        let change = output("git", &["status", "--porcelain"]).is_some_and(|s| !s.is_empty());
        let commit = output("git", &["rev-parse", "--short=10", "HEAD"]).unwrap_or_else(|| "unknown".into());
        let commit = commit + if change { "+" } else { "" };
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        Self { machine, commit, date, rows: Vec::new() }
    }

    /// Adds the rates of a race in units of 10^9, each with its ratio to the rate called `to`. What comes in is shown on
    /// standard error, so that one sees the benchmark work.
    pub fn rates(&mut self, section: &str, unit: &str, rates: &[Rate], to: Option<&str>) {
        let first = self.rows.len();
        let base = to.and_then(|to| rates.iter().find(|r| r.name == to));
        for rate in rates {
            let other = base.filter(|b| b.name != rate.name);
            self.rows.push(Row {
                section: section.into(),
                name: rate.name.clone(),
                value: rate.median * 1e-9,
                best: Some(rate.best * 1e-9),
                unit: unit.into(),
                ratio: other.map(|b| Ratio { value: rate.ratio(b), to: b.name.clone() }),
            });
        }
        if self.rows[..first].last().is_none_or(|row| row.section != section) {
            eprintln!("\n{section}");
        }
        self.rows[first..].iter().for_each(|row| eprintln!("{}", line(row)));
    }

    /// Adds a figure without rounds.
    pub fn figure(&mut self, section: &str, name: &str, value: f64, unit: &str, ratio: Option<Ratio>) {
        let (section, name, unit) = (section.into(), name.into(), unit.into());
        self.rows.push(Row { section, name, value, best: None, unit, ratio });
        if let Some(row) = self.rows.last() {
            eprintln!("{}", line(row));
        }
    }

    /// The table as text.
    pub fn text(&self) -> String {
        let mut text = format!("{}\ncommit {}, {}\n", self.machine, self.commit, self.date);
        let mut section = "";
        for row in &self.rows {
            if row.section != section {
                section = &row.section;
                let _ = write!(text, "\n{section}\n"); // writing to a String cannot fail
            }
            let _ = writeln!(text, "{}", line(row));
        }
        text
    }

    /// Writes the record: a page for people with the command that made it.
    pub fn record(&self, folder: &Path, what: &str, command: &str) -> Result<()> {
        let page = format!(
            "# {what}\n\nMade by `{command}`. Medians, and the best round; a ratio compares rounds next to each other.\n\n```text\n{}```\n",
            self.text()
        );
        record(folder, what, &self.machine, &page).map(drop)
    }
}

/// Writes a page for people, named after what was measured and the CPU, and says where it is.
pub fn record(folder: &Path, what: &str, machine: &str, page: &str) -> Result<PathBuf> {
    let path = folder.join(format!("{what}-{}.md", slug(machine.split(',').next().unwrap_or(""))));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("\nrecorded in {}", path.display());
    Ok(path)
}

fn line(row: &Row) -> String {
    let best = row.best.map_or(String::new(), |b| format!("(best {})", digits(b)));
    let ratio = row.ratio.as_ref().map_or(String::new(), |r| format!("{}x {}", digits(r.value), r.to));
    let value = format!("{} {}", digits(row.value), row.unit);
    format!("  {:<46} {value:>18} {best:<14} {ratio}", row.name).trim_end().to_owned()
}

/// A name as a part of a file's name.
pub fn slug(name: &str) -> String {
    let lower = name.to_lowercase();
    let parts: Vec<_> = lower.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

/// Three significant digits or so.
pub fn digits(v: f64) -> String {
    match v.abs() {
        a if a >= 100.0 => format!("{v:.0}"),
        a if a >= 10.0 => format!("{v:.1}"),
        a if a >= 1.0 => format!("{v:.2}"),
        _ => format!("{v:.3}"),
    }
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The CPU's name for itself.
fn cpu() -> String {
    let linux = || {
        let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
        let field = |name: &str| {
            let line = info.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == name))?;
            Some(line.split(':').nth(1)?.trim().to_owned())
        };
        let name = field("model name")?;
        Some(match (field("cpu family"), field("model")) {
            (Some(family), Some(model)) => format!("{name} family {family} model {model}"),
            _ => name,
        })
    };
    let mac = || output("sysctl", &["-n", "machdep.cpu.brand_string"]);
    linux().or_else(mac).unwrap_or_else(|| format!("unknown {} CPU", std::env::consts::ARCH))
}

//! The step `faults`: conversions that are killed, run out of disk or memory, or read what changes under them.
//!
//! Whatever happens, what stands under the final name is complete or what it was before; what fails says why; and the next
//! run finds nothing in its way. Moments and places are random, from one seed.

mod inputs;
mod kills;
mod system;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::demo::{self, Profile};
use crate::shell;
use crate::test::Outcome;

/// Tensors of the model, and their rows and columns: enough that a conversion takes some hundred milliseconds.
const TENSORS: usize = 4;
const SIDE: usize = 512;

/// Runs everything; what cannot be run here is told at the end.
pub fn run() -> Result<Outcome> {
    println!("building ecq …");
    let place = Place::new(demo::ecq(Profile::Dev)?)?;
    println!("a conversion takes {} ms and makes {} bytes", place.time.as_millis(), place.good.len());
    let mut missing = Vec::new();
    for part in [kills::killed, kills::stopped, inputs::sources, inputs::coded, system::file_sizes] {
        println!("{}", part(&place)?);
    }
    for part in [system::disks, system::memory, system::places] {
        match part(&place)? {
            Part::Done(line) => println!("{line}"),
            Part::Missing(what) => missing.push(what),
        }
    }
    let bad = match system::bad_sector(&place)? {
        Part::Done(line) => {
            println!("{line}");
            Outcome::Done
        }
        // few machines let anybody make disks
        Part::Missing(what) => Outcome::NotRun(what),
    };
    if missing.is_empty() { Ok(bad) } else { Outcome::not_run(missing.join("; ")) }
}

/// How a part that did not fail ended.
enum Part {
    /// What was done, in a line.
    Done(String),
    /// What it needs that is not here.
    Missing(String),
}

/// A folder with a model in it, what converts it, and what comes of it.
struct Place {
    ecq: PathBuf,
    folder: shell::Scratch,
    model: PathBuf,
    /// The output: the same bytes each time.
    good: Vec<u8>,
    /// How long a conversion takes.
    time: Duration,
    random: Cell<u64>,
}

impl Place {
    fn new(ecq: PathBuf) -> Result<Self> {
        let folder = shell::Scratch::new(&shell::target_dir("faults")?)?;
        let model = folder.path().join("model.safetensors");
        fs::write(&model, safetensors())?;
        let mut place =
            Self { ecq, folder, model, good: Vec::new(), time: Duration::MAX, random: Cell::new(7) };
        let out = place.path("good.ecq");
        for _ in 0..3 {
            let start = Instant::now();
            shell::run(&mut place.convert(&place.model, &out))?;
            place.time = place.time.min(start.elapsed());
        }
        place.good = fs::read(&out)?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder of this name with nothing in it.
    fn empty(&self, name: &str) -> Result<PathBuf> {
        let folder = self.path(name);
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    fn convert(&self, model: &Path, output: &Path) -> Command {
        let mut command = shell::command(&self.ecq);
        command.arg("convert").arg(model).arg("--output").arg(output);
        command.args(["--scheme", "int8", "--force", "--quiet"]).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// A number below `end`.
    fn below(&self, end: u64) -> u64 {
        let next =
            self.random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random.set(next);
        ((u128::from(next) * u128::from(end)) >> 64) as u64
    }

    /// Sleeps for a while, until a conversion that was started just now is not yet begun, under way, or done.
    fn wait(&self) {
        std::thread::sleep(Duration::from_micros(self.below(self.time.as_micros() as u64 * 5 / 4)));
    }

    /// Whether the output is complete; else it must be what was there before.
    fn complete(&self, output: &Path, before: Option<&[u8]>) -> Result<bool> {
        let found = fs::read(output).ok();
        match found.as_deref() {
            Some(bytes) if bytes == self.good => Ok(true),
            other if other == before => Ok(false),
            None => bail!("{}: what was there before is gone", output.display()),
            Some(bytes) => bail!("{}: {} bytes that are neither old nor new", output.display(), bytes.len()),
        }
    }
}

/// It failed, with code 1 and a message that has all of this in it, and no panic. Returns the message.
fn failed(output: &Output, needles: &[&str]) -> Result<String> {
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(output.status.code() == Some(1), "{}, expected exit code 1: {message}", output.status);
    ensure!(!message.contains("panicked"), "a panic: {message}");
    for needle in needles {
        ensure!(message.contains(needle), "'{needle}' is not in the message: {message}");
    }
    Ok(message)
}

/// Unfinished files of a folder.
fn unfinished(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<Result<_>>()?;
    Ok(names.into_iter().filter(|name| name.ends_with(".ecq-tmp")).collect())
}

fn nothing_left(folder: &Path) -> Result<()> {
    let left = unfinished(folder)?;
    ensure!(left.is_empty(), "{} is left in {}", left.join(", "), folder.display());
    Ok(())
}

/// A model of noise.
fn safetensors() -> Vec<u8> {
    let bytes = 4 * SIDE * SIDE;
    let mut header = serde_json::Map::new();
    let mut data = Vec::with_capacity(TENSORS * bytes);
    let mut state = 1u64;
    for i in 0..TENSORS {
        let entry = serde_json::json!({
            "dtype": "F32", "shape": [SIDE, SIDE], "data_offsets": [i * bytes, (i + 1) * bytes]
        });
        header.insert(format!("blk.{i}.weight"), entry);
        for _ in 0..SIDE * SIDE {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let weight: f32 =
                [48, 32, 16, 0].iter().map(|s| (state >> s & 0xffff) as f32 / 65536.0 - 0.5).sum();
            data.extend(weight.to_le_bytes());
        }
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

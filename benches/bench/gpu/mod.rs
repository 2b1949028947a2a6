//! `cargo xtask bench gpu`: products from coded weights on a GPU, beside products with plain ones.

mod contest;
mod copies;
mod flat;
mod table;
mod tensors;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ecq_gpu::wgpu::DeviceType;
use ecq_gpu::{Clock, Engine, Gpu, Options};

use contest::{Contest, Nibbles, Room};
use copies::copy_bandwidth;
use flat::flat;
use table::{Section, Table};
use tensors::{BLOCK, Kind, Shape, bits, coded, files};

/// The projections of small and large models.
const SHAPES: [Shape; 5] = [
    Shape { rows: 576, cols: 1536 },
    Shape { rows: 2048, cols: 2048 },
    Shape { rows: 4096, cols: 4096 },
    Shape { rows: 4096, cols: 14336 },
    Shape { rows: 8192, cols: 28672 },
];
/// Most weights that an adapter without a GPU is given, unless it is to do all.
const MOST_ON_CPU: usize = 4096 * 4096;
/// The weights with which other choices of kernels are measured.
const TUNED: &str = "3.6";
const RATES: [&str; 5] = ["2.2", "3.0", "3.6", "int8", "bf16"];

/// What the GPU shall be measured with.
#[derive(clap::Args)]
pub struct Args {
    /// Print the table as JSON on standard output
    #[arg(long)]
    json: bool,
    /// Fewer rounds: a look, not a figure; nothing is recorded
    #[arg(long)]
    quick: bool,
    /// Write no record
    #[arg(long)]
    no_record: bool,
    /// All shapes, on adapters without a GPU, too
    #[arg(long)]
    all: bool,
    /// The adapter whose name contains this, instead of the fastest
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Only these shapes (nothing is recorded)
    #[arg(long, value_delimiter = ',', value_name = "ROWSxCOLS")]
    shape: Vec<Shape>,
    /// Only these rates: bits a weight, int8 or bf16 (nothing is recorded)
    #[arg(long, value_delimiter = ',', value_name = "RATE")]
    rate: Vec<Kind>,
    /// Vectors that weights are multiplied with at once (other than these, nothing is recorded)
    #[arg(long, value_delimiter = ',', default_value = "1,4,8", value_name = "N", value_parser = vectors)]
    vectors: Vec<usize>,
    /// GPU memory for all copies of matrices, in MiB
    #[arg(long, default_value_t = 2048, value_name = "MIB", value_parser = clap::value_parser!(u64).range(16..1 << 20))]
    memory: u64,
    /// What a cache of the device may hold, in MiB: copies of a matrix that take turns are four times as large together
    /// [default: 64; 8 on adapters without a GPU]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..1 << 16))]
    cache: Option<u64>,
}

/// Most vectors: a long prompt.
const MOST_VECTORS: usize = 4096;

fn vectors(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=MOST_VECTORS).contains(n));
    number.ok_or_else(|| format!("expected a number from 1 to {MOST_VECTORS}"))
}

impl Args {
    fn shapes(&self, software: bool) -> Vec<Shape> {
        match self.shape.as_slice() {
            [] => {
                SHAPES.into_iter().filter(|s| !software || self.all || s.weights() <= MOST_ON_CPU).collect()
            }
            shapes => shapes.to_vec(),
        }
    }

    fn rates(&self) -> Result<Vec<Kind>> {
        match self.rate.as_slice() {
            [] => RATES.iter().map(|rate| rate.parse().map_err(anyhow::Error::msg)).collect(),
            rates => Ok(rates.to_vec()),
        }
    }

    /// Whether everything is measured as it is meant to be.
    fn is_whole(&self) -> bool {
        !self.quick && self.shape.is_empty() && self.rate.is_empty() && self.vectors == [1, 4, 8]
    }
}

/// Measures, prints and records.
pub fn run(args: &Args) -> Result<()> {
    let gpu = Gpu::open(args.adapter.as_deref())?;
    let engine = Engine::new(&gpu.device, &gpu.queue, Options::default())?;
    let software = gpu.adapter.get_info().device_type == DeviceType::Cpu;
    let clock = Clock::new(&engine)?;
    let cache = args.cache.unwrap_or(if software { 8 } else { 64 });
    let room = Room { cache: cache << 20, memory: args.memory << 20 };
    let (time, target) = if args.quick { (0.05, 0.002) } else { (2.0, 0.02) };
    let time = Duration::from_secs_f64(time);

    let mut table = Table::new(&gpu, &engine, &clock);
    if software {
        let shapes =
            if args.shape.is_empty() && !args.all { "; shapes to 4096x4096 (more: --all)" } else { "" };
        table.note(&format!("This adapter is software on the CPU: its figures say nothing of a GPU{shapes}"));
    }
    table.note(&format!(
        "Copies of a matrix take turns: {} MiB of them or more, where {} MiB of memory for all allow it",
        4 * cache,
        args.memory
    ));
    // four buffers in half the memory
    let most = if software { 64 << 20 } else { 256 << 20 };
    let size = most.min(room.memory / 8).min(engine.limits().max_storage_buffer_binding_size) & !0xfff;
    table.copies(copy_bandwidth(&engine, &clock, size, target)?, size);

    let block = ecq_benches::student(BLOCK);
    // with one scale for all, far weights would leave hardly any level but 0
    let near: Vec<f32> = block.iter().map(|w| w.clamp(-3.0, 3.0)).collect();
    let setup = Setup { engine: &engine, clock: &clock, room, time, target, vectors: &args.vectors };
    for shape in args.shapes(software) {
        setup.measure(&mut table, shape, &args.rates()?, [&block, &near])?;
    }
    finish(args, &table)
}

/// What races of all shapes have in common.
struct Setup<'a> {
    engine: &'a Engine,
    clock: &'a Clock,
    room: Room,
    /// Of a race.
    time: Duration,
    /// Seconds of a round of one way.
    target: f64,
    vectors: &'a [usize],
}

impl Setup<'_> {
    /// Races of one shape. `blocks` are the weights, and those of plain nibbles.
    fn measure(
        &self,
        table: &mut Table,
        shape: Shape,
        kinds: &[Kind],
        [block, near]: [&[f32]; 2],
    ) -> Result<()> {
        let (engine, clock) = (self.engine, self.clock);
        let folder = tempfile::tempdir().context("cannot make a folder")?;
        // the plain kernel does not see the code
        let [file, _] = files(folder.path(), shape, Kind::NIBBLES, near)?;
        let plain = coded(&file)?;
        let nibbles = Nibbles::new(engine, clock, &plain, self.room)?;
        let mut single = match shape.weights() {
            0..=flat::MOST => Some(flat(engine, clock, &plain)?),
            _ => None,
        };
        for &kind in kinds {
            let folder = tempfile::tempdir().context("cannot make a folder")?;
            let readers = files(folder.path(), shape, kind, block)?;
            let tensors = [coded(&readers[0])?, coded(&readers[1])?];
            let contest = Contest::new(
                engine,
                clock,
                &nibbles,
                &tensors,
                self.vectors,
                self.room,
                TUNED.parse() == Ok(kind),
            )?;
            let Some(contest) = contest else {
                table.note(&format!("{shape}, {kind}: left out, for it needs more than --memory"));
                continue;
            };
            let error = contest
                .check(&tensors[0], &plain)
                .with_context(|| format!("{shape}, {kind}: no times, for an answer is wrong"))?;
            let runners = contest.race(self.time, self.target)?;
            let bits = [bits(&readers[0])?, bits(&readers[1])?];
            let section = Section { shape, kind, bits, error, flat: single.take() };
            table.add(section, &contest, &runners)?;
        }
        Ok(())
    }
}

fn finish(args: &Args, table: &Table) -> Result<()> {
    if table.is_empty() {
        bail!("nothing was measured: give --memory more");
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(table)?);
    } else {
        println!("{}", table.text());
    }
    if args.is_whole() && !args.no_record {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks"));
        let path = table.record(&folder)?;
        eprintln!("recorded; to tell us how fast your machine is, send us the file {}", path.display());
    } else {
        eprintln!(
            "not recorded; to tell us how fast your machine is, run `cargo xtask bench gpu` without options \
             and send us the file docs/benchmarks/gpu-….md that it names at its end"
        );
    }
    Ok(())
}

//! `cargo xtask bench`: figures with their rivals in the same run, every answer checked before it is timed.

mod codecs;
mod conversion;
mod e2e;
mod floats;
mod gpu;
mod products;
mod quality;
mod report;
mod sizes;
mod timing;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask bench", about = "Measures, with rivals in the same run")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Codecs, products and conversion on this CPU
    Cpu(Args),
    /// Products from coded weights on a GPU, beside products with plain ones
    Gpu(gpu::Args),
    /// A language model from prompt to text, beside llama.cpp on the same weights
    E2e(e2e::Args),
    /// What quantization costs a language model, beside llama.cpp's formats with and without importance matrix
    Quality(quality::Args),
}

#[derive(clap::Args)]
struct Args {
    /// Print the table as JSON on standard output
    #[arg(long)]
    json: bool,
    /// Smaller inputs and fewer rounds: a look, not a figure; nothing is recorded
    #[arg(long)]
    quick: bool,
    /// Write no record
    #[arg(long)]
    no_record: bool,
    /// Run only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The nibble codec, and rivals
    Nibbles,
    /// The byte codec, on pairs of nibbles
    Pairs,
    /// BF16 without loss
    Floats,
    /// Matrix products from the coded form
    Products,
    /// `ecq convert` and `restore` on a synthetic model of 4 GiB (kept in .cache; 12 GiB of disk)
    Conversion,
    /// Sizes of quantized models without loss, beside zstd -19 and xz -9 (minutes)
    Sizes,
}

/// Bytes that a decoder writes where it is said to stream: more than second-level caches hold.
const STREAMING: usize = 1 << 24;

fn main() -> std::process::ExitCode {
    let outcome = match Cli::parse().what {
        What::Cpu(args) => cpu(&args),
        What::Gpu(args) => gpu::run(&args),
        What::E2e(args) => e2e::run(&args),
        What::Quality(args) => quality::run(args),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}"); // the chain of causes, without a backtrace
            std::process::ExitCode::FAILURE
        }
    }
}

fn cpu(args: &Args) -> Result<()> {
    let mut report = report::Report::new();
    let wanted = |part: Part| args.only.is_empty() || args.only.contains(&part);
    let time = Duration::from_millis(if args.quick { 200 } else { 3000 });
    if wanted(Part::Nibbles) {
        codecs::nibbles(&mut report, if args.quick { 1 << 22 } else { STREAMING }, time);
    }
    if wanted(Part::Pairs) {
        codecs::pairs(&mut report, if args.quick { 1 << 22 } else { STREAMING }, time);
    }
    if wanted(Part::Floats) {
        floats::bf16(&mut report, if args.quick { 1024 } else { STREAMING / 4096 / 2 }, time)?;
    }
    if wanted(Part::Products) {
        let (rows, cols) = if args.quick { (1024, 4096) } else { (4096, 14336) };
        products::products(&mut report, rows, cols, time)?;
    }
    if wanted(Part::Conversion) {
        conversion::conversion(&mut report, if args.quick { "1" } else { "4" })?;
    }
    if wanted(Part::Sizes) {
        sizes::sizes(&mut report, args.quick)?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report.text());
    }
    if !args.quick && !args.no_record && args.only.is_empty() {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks"));
        let cache = std::env::var("ECQ_CACHE").map_or(String::new(), |cache| format!("ECQ_CACHE={cache} "));
        report.record(&folder, "cpu", &format!("{cache}cargo xtask bench cpu"))?;
    }
    Ok(())
}

//! What can be typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::report::memory::Memory;

/// Models at their entropy: smaller at equal quality, or exactly as they were.
#[derive(Parser)]
#[command(name = "ecq", version, about, propagate_version = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// No progress bars, no remarks; errors still show
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Worker threads [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Convert a model (GGUF, safetensors or a Hugging Face folder) to .ecq
    Convert(Convert),
    /// Show what is inside an .ecq file
    Inspect {
        /// The .ecq file
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check every checksum and decode every tile; with a source, compare with it
    Verify {
        /// The .ecq file
        file: PathBuf,
        /// The model that it was made from: exact, or SQNR for each tensor
        #[arg(long, value_name = "INPUT")]
        against: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Restore a model: the exact source from a lossless file, safetensors from a lossy one
    Restore {
        /// The .ecq file
        file: PathBuf,
        /// File or folder to write
        #[arg(long, short)]
        output: PathBuf,
        /// Write floats of this type to safetensors, from a lossless file too [default for lossy: the source's type]
        #[arg(long, value_name = "TYPE")]
        dtype: Option<Float>,
        /// Replace an existing file
        #[arg(long)]
        force: bool,
    },
    /// Show what entropy coding is worth for a model: rate and distortion of every scheme
    Analyze(Analyze),
}

#[derive(clap::Args)]
pub struct Convert {
    /// A .gguf or .safetensors file, an index of shards, or a Hugging Face folder
    pub input: PathBuf,
    /// The .ecq file to write
    #[arg(long, short)]
    pub output: PathBuf,
    /// What to do with the weights [default: ecq with --bits, else lossless for GGUF, ecq for others]
    #[arg(long)]
    pub scheme: Option<SchemeName>,
    /// Bits a weight of the ecq scheme, all costs of the tensors included [default: 4.5]
    #[arg(long, value_name = "RATE")]
    pub bits: Option<f64>,
    /// Weights that share a scale, for affine4, absmax4 and int8: a number of columns, "row" or "tensor"
    /// [default: tensor for affine4, 32 for absmax4, row for int8]
    #[arg(long, value_name = "N|row|tensor", value_parser = group)]
    pub group: Option<ecq_quant::Granularity>,
    /// ecq: scale the step of each row by its rms
    #[arg(long)]
    pub row_scales: bool,
    /// ecq: scale the step of each column by its rms
    #[arg(long)]
    pub column_scales: bool,
    /// What the result shall be decoded on
    #[arg(long, default_value = "cpu")]
    pub profile: Profile,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct Analyze {
    /// A .gguf or .safetensors file, an index of shards, or a Hugging Face folder
    #[arg(required_unless_present = "chip")]
    pub input: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// Write a row for each tensor and scheme; - prints them instead of tables
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write a report as a page for browsers, complete in one file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Replace existing files
    #[arg(long)]
    pub force: bool,
    /// Only tensors whose whole name matches; * stands for anything. Can be given several times
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    pub only: Vec<globset::Glob>,
    /// No tensors whose whole name matches; takes precedence over --only
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    pub except: Vec<globset::Glob>,
    /// Project tokens a second at a memory bandwidth, such as 150GB/s
    #[arg(long, value_name = "RATE", value_parser = Memory::bandwidth, conflicts_with = "chip")]
    pub bandwidth: Option<Memory>,
    /// Project tokens a second at a chip's published bandwidth; "list" shows the names
    #[arg(long, value_name = "NAME", value_parser = Memory::chip)]
    pub chip: Option<Memory>,
}

fn pattern(text: &str) -> Result<globset::Glob, String> {
    globset::Glob::new(text).map_err(|e| e.kind().to_string())
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemeName {
    /// Nothing is lost: the source comes back byte for byte
    Lossless,
    /// The native scheme: a uniform step, any rate
    Ecq,
    /// 16 levels from minimum to maximum
    Affine4,
    /// 15 levels around zero
    Absmax4,
    /// 255 levels around zero
    Int8,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// SIMD units
    Cpu,
    /// Graphics processors
    Gpu,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Float {
    /// Single precision
    F32,
    /// Half precision
    F16,
    /// bfloat16
    Bf16,
}

fn group(text: &str) -> Result<ecq_quant::Granularity, String> {
    match text {
        "row" => Ok(ecq_quant::Granularity::Row),
        "tensor" => Ok(ecq_quant::Granularity::Tensor),
        n => match n.parse() {
            Ok(n) if n > 0 => Ok(ecq_quant::Granularity::Group(n)),
            _ => Err("expected a positive number of columns, \"row\" or \"tensor\"".into()),
        },
    }
}

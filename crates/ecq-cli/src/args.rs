//! What can be typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use ecq_convert::rates::Choice;

use crate::model::args::{Bench, Generate, Perplexity};
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
    /// Move an .ecq file to the codecs of other machines, without loss and without its source
    Recode {
        /// The .ecq file
        file: PathBuf,
        /// The .ecq file to write
        output: PathBuf,
        /// What the result shall be decoded on
        #[arg(long)]
        profile: Profile,
        /// Replace an existing file
        #[arg(long)]
        force: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what entropy coding is worth for a model: rate and distortion of every scheme
    Analyze(Analyze),
    /// Continue a text with a language model, from its coded weights
    Generate(Generate),
    /// Measure how well a language model foresees a text
    Perplexity(Perplexity),
    /// Measure how fast a language model runs, and in how much memory, with each strategy for its weights
    ///
    /// Every run is a process of its own, and passes a prompt and generates tokens, the most likely one each time. Medians of several
    /// runs. The file itself is in the system's cache after the first one.
    ///
    /// Columns:
    ///   load       seconds until the model is ready to run
    ///   first      seconds from opening the file until the first token, the prompt included
    ///   prompt     tokens of the prompt a second
    ///   text       tokens made a second
    ///   planned    memory for weights and for what the model remembers of the text, as --memory counts it
    ///   peak       the most memory that the process had at once, the file's mapped pages included
    ///
    /// Below it says whether all runs made the same tokens.
    #[command(verbatim_doc_comment)]
    Bench(Bench),
    /// Show what this machine has to run models with, and what is missing
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
pub struct Convert {
    /// A .gguf or .safetensors file, an index of shards, or a Hugging Face folder
    pub input: PathBuf,
    /// The .ecq file to write
    #[arg(long, short)]
    pub output: PathBuf,
    /// What to do with the weights [default: ecq with --bits, --sqnr or --size, else lossless for GGUF and other
    /// quantized models, ecq for floats]
    #[arg(long)]
    pub scheme: Option<SchemeName>,
    /// ecq: bits a weight of all tensors together, all their costs included [default: 4.5]
    #[arg(long, value_name = "RATE", group = "target")]
    pub bits: Option<f64>,
    /// ecq: signal to quantization noise of all weights together, in dB
    #[arg(long, value_name = "DB", group = "target")]
    pub sqnr: Option<f64>,
    /// ecq: size of the whole file, as 80MB, 1.5GB, 900MiB or bytes; never more
    #[arg(long, value_name = "SIZE", group = "target", value_parser = size)]
    pub size: Option<u64>,
    /// ecq: a JSON file of tensor names and factors by which their errors count
    #[arg(long, value_name = "FILE")]
    pub sensitivities: Option<PathBuf>,
    /// ecq: quantize by what a text does in the model, a UTF-8 file; `self`: a text that the model makes itself. Several texts:
    /// give it again
    #[arg(long, value_name = "TEXT|self", conflicts_with = "sensitivities")]
    pub calibrate: Vec<PathBuf>,
    /// With --calibrate: save what was learned of the texts; the same command goes on where one was interrupted. Alone: use
    /// what was saved, which takes no texts and less time, or an importance matrix of llama.cpp (imatrix.gguf or .dat)
    #[arg(long, value_name = "FILE", conflicts_with = "sensitivities")]
    pub statistics: Option<PathBuf>,
    /// With --calibrate or --statistics: a text to measure the result on, beside parts of the calibration's texts that are
    /// held out anyway
    #[arg(long, value_name = "TEXT", conflicts_with = "sensitivities")]
    pub held_out: Option<PathBuf>,
    /// Tokens of all calibration texts together
    #[arg(long, value_name = "N", default_value_t = 65536, requires = "calibrate", value_parser = clap::value_parser!(u64).range(512..=1 << 23))]
    pub calibration_tokens: u64,
    /// Treat tensors whose names match a glob differently: PATTERN=keep, =lossless, =4.5 (bits), =25dB, =absmax4:32 …;
    /// may be given several times, the last that matches counts
    #[arg(long = "tensor", value_name = "PATTERN=WHAT", value_parser = rule)]
    pub tensors: Vec<(String, Choice)>,
    /// Weights that share a scale, for affine4, absmax4, nf4 and int8: a number of columns, "row" or "tensor"
    /// [default: tensor for affine4, 32 for absmax4, 64 for nf4, row for int8]
    #[arg(long, value_name = "N|row|tensor")]
    pub group: Option<ecq_quant::Granularity>,
    /// int8: code differences from a prediction by neighbours; auto measures and keeps the cheapest [default: none]
    #[arg(long)]
    pub predictor: Option<PredictorName>,
    /// int8: one table of frequencies for each tensor, or one for all [default: tensor]
    #[arg(long)]
    pub table: Option<TableName>,
    /// ecq: scale the step of each row by the root of its rms, whether it pays or not [default: where it pays]
    #[arg(long)]
    pub row_scales: bool,
    /// ecq: the same for each column
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
    /// The 16 values of NF4
    Nf4,
    /// 255 levels around zero
    Int8,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TableName {
    /// Each tensor has its own
    Tensor,
    /// One for all of them
    Global,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PredictorName {
    /// The cheapest of all, by measurement
    Auto,
    /// No prediction
    None,
    /// The level to the left
    Left,
    /// The level above
    Up,
    /// Left plus above less above left
    Planar,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// SIMD units: rANS of nibbles
    Cpu,
    /// Graphics processors: a prefix code of pairs of nibbles, about 1 % larger
    Gpu,
}

impl From<Profile> for ecq_format::encode::Profile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Cpu => Self::Cpu,
            Profile::Gpu => Self::Gpu,
        }
    }
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

fn rule(text: &str) -> Result<(String, Choice), String> {
    // a pattern may have an equals sign, what is done may not
    let (pattern, choice) = text.rsplit_once('=').ok_or("expected PATTERN=WHAT, such as '*embed*=keep'")?;
    Ok((pattern.into(), choice.parse()?))
}

/// Bytes: a number, and a unit of a thousand or 1,024.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("'{text}' is no size; expected one such as 80MB, 1.5GB, 900MiB or a number of bytes");
    // a power of ten is part of the number: 1e9
    let at = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c.is_whitespace()).len();
    let (number, unit) = text.split_at(at);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "tb" | "t" => 1e12,
        "kib" => 1024.0,
        "mib" => 1048576.0,
        "gib" => 1073741824.0,
        "tib" => 1099511627776.0,
        _ => return Err(wrong()),
    };
    let bytes = (number * unit).round();
    if (1.0..9e15).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("80MB"), Ok(80_000_000));
        assert_eq!(size("1.5 GiB"), Ok(1_610_612_736));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("1e9"), Ok(1_000_000_000));
        assert_eq!(size("1.5e3 MB"), Ok(1_500_000_000));
        for wrong in ["", "MB", "80XB", "-3MB", "0", "1.2.3MB", "1e30", "inf", "nan", "infMB", "e9"] {
            assert!(size(wrong).unwrap_err().contains("expected"), "{wrong}");
        }
    }
}

//! What can be typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use ecq_convert::rates::Choice;

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
}

/// How a model is run.
#[derive(clap::Args)]
pub struct Run {
    /// An .ecq file converted from GGUF or a Hugging Face folder
    pub model: PathBuf,
    /// Keep weights coded, or decode them once to plain integers: more memory
    #[arg(long, default_value = "fused")]
    pub decode: DecodeName,
    /// Vectors in products: rounded to 8 bits, or as they are
    #[arg(long, default_value = "int8")]
    pub precision: PrecisionName,
}

#[derive(clap::Args)]
pub struct Generate {
    #[command(flatten)]
    pub run: Run,
    /// Text to continue
    #[arg(long)]
    pub prompt: String,
    /// The prompt is a message to an assistant, put into the model's template for chats
    #[arg(long)]
    pub chat: bool,
    /// Most tokens to make
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub max_tokens: u32,
    /// Of the random numbers that tokens are drawn by
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// 0 takes the most likely token each time, 1 draws tokens as likely as the model says
    #[arg(long, default_value_t = 0.0, value_name = "T", value_parser = not_negative)]
    pub temperature: f32,
    /// Draw from so many of the most likely tokens; 0 for all
    #[arg(long, default_value_t = 40, value_name = "N")]
    pub top_k: u32,
    /// Draw from the most likely tokens that together have this probability
    #[arg(long, default_value_t = 0.95, value_name = "P", value_parser = probability)]
    pub top_p: f32,
}

#[derive(clap::Args)]
pub struct Perplexity {
    #[command(flatten)]
    pub run: Run,
    /// The text, in UTF-8
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Tokens that the model sees together
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub context: u32,
    /// Only the first tokens of the text
    #[arg(long, value_name = "N")]
    pub tokens: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DecodeName {
    Fused,
    Cached,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionName {
    Int8,
    F32,
}

fn not_negative(text: &str) -> Result<f32, String> {
    let number: Option<f32> = text.parse().ok();
    number.filter(|n| *n >= 0.0 && n.is_finite()).ok_or_else(|| "expected a number, 0 or more".into())
}

fn probability(text: &str) -> Result<f32, String> {
    let number: Option<f32> = text.parse().ok();
    number.filter(|n| *n > 0.0 && *n <= 1.0).ok_or_else(|| "expected a number above 0, at most 1".into())
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
fn size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("'{text}' is no size; expected one such as 80MB, 1.5GB, 900MiB or a number of bytes");
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
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
        for wrong in ["", "MB", "80XB", "-3MB", "0", "1.2.3MB", "1e30"] {
            assert!(size(wrong).unwrap_err().contains("expected"), "{wrong}");
        }
    }
}

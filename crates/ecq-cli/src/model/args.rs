//! What can be typed behind the commands that run models.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ecq_llm::{Decode, Device, Precision};

use crate::args::size;

/// How a model is run.
#[derive(Args)]
pub struct Run {
    /// An .ecq file; a GGUF file or a Hugging Face folder is converted without loss on first use, into a folder of caches
    /// (ECQ_CACHE names another one)
    pub model: PathBuf,
    /// What computes; auto takes a GPU if there is one that is no CPU itself
    #[arg(long, default_value = "auto")]
    pub device: DeviceName,
    /// How weights are kept; auto takes the fastest that fits into --memory, or into half of the memory that
    /// is available
    #[arg(long, default_value = "auto")]
    pub decode: DecodeName,
    /// Most memory for weights and for what the model remembers of the text: 2GiB, 500MB, 1e9
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory: Option<u64>,
    /// Vectors in products on the CPU: rounded to 8 bits, or as they are
    #[arg(long, default_value = "int8")]
    pub precision: PrecisionName,
}

#[derive(Args)]
pub struct Generate {
    #[command(flatten)]
    pub run: Run,
    /// Text to continue
    #[arg(long)]
    pub prompt: String,
    /// The prompt is a message to an assistant, put into the model's template for chats
    #[arg(long)]
    pub chat: bool,
    /// Most tokens to make [default: 256, or as many as the model has room for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// Of the random numbers that tokens are drawn by
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// 0 takes the most likely token each time, 1 draws tokens as likely as the model says
    #[arg(long, default_value_t = 0.0, value_name = "T", value_parser = not_negative, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Draw from so many of the most likely tokens; 0 for all
    #[arg(long, default_value_t = 40, value_name = "N")]
    pub top_k: u32,
    /// Draw from the most likely tokens that together have this probability
    #[arg(long, default_value_t = 0.95, value_name = "P", value_parser = probability)]
    pub top_p: f32,
}

#[derive(Args)]
pub struct Perplexity {
    #[command(flatten)]
    pub run: Run,
    /// The text, in UTF-8
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Compare with another model of the same tokenizer: how far the probabilities are from its own (KL divergence), and how
    /// often both have the same most likely token
    #[arg(long, value_name = "OTHER")]
    pub against: Option<PathBuf>,
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

#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    pub run: Run,
    /// Tokens of the prompt
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt_tokens: u32,
    /// Tokens to make
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens: u32,
    /// Runs of each strategy
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Run once in this process, and print what was measured
    #[arg(long, hide = true)]
    pub once: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceName {
    Cpu,
    Gpu,
    Auto,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DecodeName {
    /// Coded as in the file, and decoded in every product: the least memory
    Fused,
    /// Decoded once, to plain integers: the most memory
    Cached,
    /// On GPUs: decoded into one of two rooms while the other is computed with
    Prefetch,
    /// On GPUs: decoded, and kept until memory is needed for others
    Lru,
    /// The fastest that fits into --memory, or into half of what is available
    Auto,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrecisionName {
    Int8,
    F32,
}

impl From<DeviceName> for Device {
    fn from(name: DeviceName) -> Self {
        match name {
            DeviceName::Cpu => Self::Cpu,
            DeviceName::Gpu => Self::Gpu,
            DeviceName::Auto => Self::Auto,
        }
    }
}

impl From<DecodeName> for Decode {
    fn from(name: DecodeName) -> Self {
        match name {
            DecodeName::Fused => Self::Fused,
            DecodeName::Cached => Self::Cached,
            DecodeName::Prefetch => Self::Prefetch,
            DecodeName::Lru => Self::Lru,
            DecodeName::Auto => Self::Auto,
        }
    }
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::Int8 => Self::Int8,
            PrecisionName::F32 => Self::F32,
        }
    }
}

fn not_negative(text: &str) -> Result<f32, String> {
    let number: Option<f32> = text.parse().ok();
    number.filter(|n| *n >= 0.0 && n.is_finite()).ok_or_else(|| "expected a number, 0 or more".into())
}

fn probability(text: &str) -> Result<f32, String> {
    let number: Option<f32> = text.parse().ok();
    number.filter(|n| *n > 0.0 && *n <= 1.0).ok_or_else(|| "expected a number above 0, at most 1".into())
}

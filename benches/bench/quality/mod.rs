//! `cargo xtask bench quality`: what quantization costs a model, beside llama.cpp's formats with and without importance matrix.

mod measure;
mod models;
mod table;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ecq_benches::quality::{By, Measured, Row};
use ecq_convert::source::{Source, SourceLimits};
use ecq_llm::{Precision, Uncompressed};

use crate::e2e::agreement::{agreement, logits};
use crate::e2e::files::BASE;
use measure::Bench;
use models::{Ecq, Layers, Quantizers};
use table::Table;

/// Formats of llama.cpp, and whether they are tried without an importance matrix and with one.
const FORMATS: [(&str, bool, bool); 9] = [
    ("Q8_0", true, false), // does not look at one
    ("Q6_K", true, true),
    ("Q5_K_M", true, true),
    ("Q4_K_M", true, true),
    ("IQ4_XS", true, true),
    ("Q4_0", true, true),
    ("Q3_K_M", true, true),
    ("IQ3_XXS", false, true), // needs one
    ("Q2_K", true, true),
];
/// Of them with `--quick`.
const QUICK: [&str; 3] = ["Q4_K_M", "Q3_K_M", "Q2_K"];
/// Most nats by which the same weights may differ, on their way through files and in another order of sums.
const SAME: f64 = 1e-5;
/// Tokens with which the model run here is compared with the one that `ecq perplexity` runs.
const COMPARED: usize = 64;

#[derive(clap::Args)]
pub struct Args {
    /// Python with llama-cpp-python; `cargo xtask bench` makes one
    #[arg(long, hide = true)]
    python: PathBuf,
    /// Calibrate with this text, a UTF-8 file of your own: none comes with the program. Several texts: give it again
    #[arg(long, required = true, value_name = "TEXT")]
    calibrate: Vec<PathBuf>,
    /// Measure with the beginning of this text, which must not be among the others. Several texts: give it again
    #[arg(long, required = true, value_name = "TEXT")]
    text: Vec<PathBuf>,
    /// Tokens of each text that models are measured with
    #[arg(long, default_value_t = 4096, value_name = "N", value_parser = clap::value_parser!(u64).range(COMPARED as u64..))]
    tokens: u64,
    /// Tokens of all calibration texts together
    #[arg(long, default_value_t = 65536, value_name = "N")]
    calibration_tokens: u64,
    /// Our rates, in bits a weight
    #[arg(long, value_delimiter = ',', default_value = "4,3.5,3,2.5,2", value_name = "BITS")]
    bits: Vec<f64>,
    /// llama.cpp's formats
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = FORMATS.map(|format| format.0))]
    formats: Vec<String>,
    /// Use what `ecq convert --statistics` saved of the calibration texts, instead of learning it again
    #[arg(long, value_name = "FILE")]
    statistics: Option<PathBuf>,
    /// Take llama.cpp's rows from what an earlier run with the same texts printed with --json; formats that are not there are measured
    #[arg(long, value_name = "FILE")]
    llama: Option<PathBuf>,
    /// Print the table as JSON on standard output
    #[arg(long)]
    json: bool,
    /// Fewer tokens, rates and formats: a look, not a figure; nothing is recorded
    #[arg(long)]
    quick: bool,
    /// Write no record
    #[arg(long)]
    no_record: bool,
}

impl Args {
    fn quick(&mut self) {
        self.tokens = self.tokens.min(1024);
        self.calibration_tokens = self.calibration_tokens.min(8192);
        self.bits.truncate(2);
        if self.formats.is_empty() {
            self.formats = QUICK.map(str::to_owned).into();
        }
    }

    /// Formats that are tried, each without a matrix, with one, or both.
    fn ways(&self) -> Vec<(&'static str, bool)> {
        let wanted = |name: &str| self.formats.is_empty() || self.formats.iter().any(|own| own == name);
        let own = FORMATS.into_iter().filter(|(name, ..)| wanted(name));
        own.flat_map(|(name, without, with)| {
            [(name, false, without), (name, true, with)].into_iter().filter(|way| way.2)
        })
        .map(|(name, matrix, _)| (name, matrix))
        .collect()
    }
}

/// Makes the models one after another, measures, prints and records.
pub fn run(mut args: Args) -> Result<()> {
    if args.quick {
        args.quick();
    }
    let texts = args.text.iter().map(|path| Ok((name(path), read(path)?))).collect::<Result<Vec<_>>>()?;
    for path in &args.calibrate {
        let own = read(path)?;
        ensure!(
            texts.iter().all(|(_, text)| *text != own),
            "{}: expected texts to measure with that models are not calibrated with",
            path.display()
        );
    }
    let mut table = Table::new(&args);
    let earlier = args.llama.as_deref().map(|path| table.earlier(path)).transpose()?;
    let quantizers = Quantizers::new(&args.python)?;
    let cache = std::env::var_os("ECQ_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache").into());
    let base = cache.join("models").join(BASE);
    ensure!(base.exists(), "{} is missing: cargo xtask fixtures", base.display());

    let ecq = Ecq::new(&base)?;
    let source = Source::open(&base, &SourceLimits::default())?;
    let model = Uncompressed::new(&source)?;
    let tokens = |(name, text): (String, String)| tokens(&model, &name, &text, args.tokens);
    let texts = texts.into_iter().map(tokens).collect::<Result<Vec<_>>>()?;
    eprintln!("the base, on {} tokens of each text", args.tokens);
    let bench = Bench::new(&model, &texts)?;
    let run = Run::new(&args, &ecq, &quantizers, &bench)?;
    run.check(&texts[0][..COMPARED])?;
    table.add(run.base()?);
    if let Some(earlier) = earlier {
        table.take(earlier)?;
    }
    run.ours(&mut table)?;
    run.theirs(&mut table)?;

    if args.json {
        println!("{}", serde_json::to_string_pretty(&table)?);
    } else {
        println!("{}", table.text());
    }
    if !args.quick && !args.no_record {
        table.record(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks").as_ref(), &args)?;
    }
    Ok(())
}

/// What all models are made with.
struct Run<'a> {
    args: &'a Args,
    ecq: &'a Ecq,
    quantizers: &'a Quantizers,
    bench: &'a Bench<'a>,
    /// Names of linear layers.
    names: Vec<String>,
    folder: tempfile::TempDir,
    /// Of the GGUF, but of its linear layers, for llama.cpp's files.
    rest: u64,
}

impl<'a> Run<'a> {
    fn new(args: &'a Args, ecq: &'a Ecq, quantizers: &'a Quantizers, bench: &'a Bench<'a>) -> Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let names = bench.layers();
        let mut run = Self { args, ecq, quantizers, bench, names, folder, rest: 0 };
        run.ecq.convert(None, &[], &run.file("base.ecq"))?;
        run.ecq.restore(&run.file("base.ecq"), &run.file("base.safetensors"))?;
        let gguf = bench.model().path().metadata()?.len();
        run.rest = gguf - run.ecq.layers(&run.file("base.ecq"), &run.names)?.source_bytes;
        Ok(run)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// That the same weights are the same model: run here and by `ecq perplexity`, and after all that llama.cpp's go through.
    fn check(&self, tokens: &[u32]) -> Result<()> {
        let theirs = logits(&self.file("base.ecq"), tokens, Precision::F32)?;
        let own = self.bench.logits(tokens)?;
        let kl = agreement("the base", &theirs, &own, tokens.len())?.kl;
        ensure!(
            kl.abs() <= SAME,
            "the base: {kl:.1e} nats from what ecq perplexity runs, expected less than {SAME}"
        );
        let target = self.file("model.safetensors");
        self.quantizers.apply("F32", &self.file("base.safetensors"), None, &target)?;
        for found in self.measure(&target)? {
            let kl = found.kl_divergence;
            ensure!(
                kl.abs() <= SAME,
                "the base, written and read again: {kl:.1e} nats from itself, expected 0"
            );
        }
        Ok(())
    }

    fn measure(&self, weights: &Path) -> Result<Vec<Measured>> {
        self.bench.measure(Some(&Source::open(weights, &SourceLimits::default())?))
    }

    fn base(&self) -> Result<Row> {
        let file = self.file("base.ecq");
        let (layers, bytes) = (self.ecq.layers(&file, &self.names)?, file.metadata()?.len());
        let texts = self.bench.measure(None)?;
        Ok(Row {
            name: "Q4_1, ecq lossless".into(),
            by: By::Base,
            calibrated: false,
            bits: layers.bits(),
            bytes,
            texts,
        })
    }

    /// Our rates, calibrated and not.
    fn ours(&self, table: &mut Table) -> Result<()> {
        let saved = self.statistics()?;
        for calibrated in [true, false] {
            for &rate in &self.args.bits {
                let (file, weights) = (self.file("model.ecq"), self.file("model.safetensors"));
                let more = ["--statistics".as_ref(), saved.as_os_str()];
                self.ecq.convert(Some(rate), if calibrated { &more } else { &[] }, &file)?;
                self.ecq.restore(&file, &weights)?;
                let (layers, bytes) = (self.ecq.layers(&file, &self.names)?, file.metadata()?.len());
                let (name, bits) = (rate.to_string(), layers.bits());
                let texts = self.measure(&weights)?;
                table.add(Row { name, by: By::Ecq, calibrated, bits, bytes, texts });
            }
        }
        Ok(())
    }

    /// A file of statistics of the calibration texts.
    fn statistics(&self) -> Result<PathBuf> {
        if let Some(saved) = &self.args.statistics {
            ensure!(saved.exists(), "{} is missing: leave --statistics out", saved.display());
            return Ok(saved.clone());
        }
        let saved = self.file("statistics.bin");
        if !saved.exists() {
            eprintln!("statistics of {} tokens", self.args.calibration_tokens);
            let tokens = self.args.calibration_tokens.to_string();
            let mut more: Vec<&OsStr> = vec!["--calibration-tokens".as_ref(), tokens.as_ref()];
            self.args
                .calibrate
                .iter()
                .for_each(|text| more.extend(["--calibrate".as_ref(), text.as_os_str()]));
            more.extend(["--statistics".as_ref(), saved.as_os_str()]);
            self.ecq.convert(self.args.bits.first().copied(), &more, &self.file("model.ecq"))?;
        }
        Ok(saved)
    }

    /// llama.cpp's formats that are not there yet.
    fn theirs(&self, table: &mut Table) -> Result<()> {
        let saved = self.statistics()?;
        let (base, weights) = (self.file("base.safetensors"), self.file("model.safetensors"));
        for (name, matrix) in self.args.ways() {
            if table.has(name, matrix) {
                continue;
            }
            let found = self.quantizers.apply(name, &base, matrix.then_some(saved.as_path()), &weights)?;
            let layers = Layers { bytes: found.bytes, source_bytes: 0, weights: found.weights };
            let bytes = self.rest + found.bytes;
            let texts = self.measure(&weights)?;
            let (name, bits) = (name.to_owned(), layers.bits());
            table.add(Row { name, by: By::Llama, calibrated: matrix, bits, bytes, texts });
        }
        Ok(())
    }
}

/// The name of a text's file.
fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read the text {}", path.display()))
}

/// The first tokens of a text.
fn tokens(model: &Uncompressed<'_>, name: &str, text: &str, wanted: u64) -> Result<Vec<u32>> {
    let mut tokens = model.tokenizer().encode(text)?;
    let found = tokens.len();
    ensure!(
        found as u64 >= wanted,
        "{name}: expected a text of at least {wanted} tokens, found {found}: use a longer one, or --tokens"
    );
    tokens.truncate(wanted as usize);
    Ok(tokens)
}

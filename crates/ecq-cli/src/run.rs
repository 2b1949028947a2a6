//! The commands.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use ecq_convert::convert::{Options, Treatment};
use ecq_convert::rates::rules::SQNR;
use ecq_convert::rates::{RateControl, Rules, Sensitivities, Target};
use ecq_convert::source::{Source, SourceLimits};
use ecq_convert::{convert, inspect, recode, restore, verify};
use ecq_format::predict::Predictor;
use ecq_format::{Limits, Reader};
use ecq_quant::scheme::BITS;
use ecq_quant::{Prediction, Scheme};

use crate::args::{self, Args, Command, PredictorName, SchemeName, TableName};
use crate::calibrate;
use crate::doctor;
use crate::model;
use crate::output;
use crate::progress::Bar;
use crate::report;

/// Rate of the native scheme when none is asked for: what absmax int4 with groups of 32 stores, at 5 dB less error.
const DEFAULT_BITS: f64 = 4.5;

pub fn run(args: Args, bar: &Bar) -> Result<()> {
    start(args.threads.map(usize::from))?;
    match args.command {
        Command::Convert(convert) => run_convert(&convert, bar, args.quiet),
        Command::Inspect { file, json } => {
            let inspection = inspect::inspect(&open(&file)?)?;
            if json { output::json(&inspection) } else { output::inspection(&file, &inspection) }
        }
        Command::Verify { file, against, json } => {
            let reader = open(&file)?;
            let source = against.as_deref().map(|path| Source::open(path, &SourceLimits::default()));
            let verified = verify::verify(&reader, source.transpose()?.as_ref(), bar)?;
            bar.finish();
            if json {
                output::json(&verified)
            } else {
                output::verification(&file, against.as_deref(), &verified)
            }
        }
        Command::Restore { file, output, dtype, force } => {
            let float = dtype.map(|d| match d {
                args::Float::F32 => restore::Float::F32,
                args::Float::F16 => restore::Float::F16,
                args::Float::Bf16 => restore::Float::BF16,
            });
            let restored = restore::restore(&open(&file)?, &output, float, force, bar)?;
            bar.finish();
            if args.quiet { Ok(()) } else { output::restored(&restored) }
        }
        Command::Recode { file, output, profile, force, json } => {
            let input = open(&file)?;
            let start = Instant::now();
            recode::recode(&input, &output, profile.into(), force, bar)?;
            bar.finish();
            let seconds = start.elapsed().as_secs_f64();
            let inspection = inspect::inspect(&open(&output)?)?;
            match (json, args.quiet) {
                (true, _) => output::json(&inspection),
                (false, true) => Ok(()),
                (false, false) => output::recoded(&output, input.file_size(), &inspection, seconds),
            }
        }
        Command::Analyze(analyze) => report::run(&analyze, bar),
        Command::Generate(generate) => model::generate::generate(&generate, bar, args.quiet),
        Command::Perplexity(perplexity) => model::perplexity::perplexity(&perplexity, bar, args.quiet),
        Command::Bench(bench) => model::bench::bench(&bench, bar, args.quiet),
        Command::Doctor { json } => doctor::doctor(json),
    }
}

/// Starts all threads: so many, or one for each core. Here, where it is an error if the system has no room for them.
fn start(threads: Option<usize>) -> Result<()> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let refused = |e: &dyn std::fmt::Display| {
        anyhow!("cannot start threads: {e}; use fewer --threads, or raise the limit of memory")
    };
    #[cfg(unix)] // elsewhere the system has no such limits
    crate::memory::room_for(threads.unwrap_or_else(cores)).map_err(|e| refused(&e))?;
    rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build_global().map_err(|e| refused(&e))
}

fn open(path: &Path) -> Result<Reader> {
    Ok(Reader::open(path, Limits::default())?)
}

fn run_convert(args: &args::Convert, bar: &Bar, quiet: bool) -> Result<()> {
    check(args)?;
    let source = Source::open(&args.input, &SourceLimits::default())?;
    for name in source.left_out() {
        tracing::warn!("'{name}' is not part of the model and is left out");
    }
    let rules = Rules::new(args.tensors.iter().cloned())?;
    let start = Instant::now();
    // before any work
    convert::check(&source, &args.output, &rules, args.force)?;
    let calibration =
        calibrates(args).then(|| calibrate::calibration(args, &source, &rules, bar)).transpose()?;
    let treatment = match &calibration {
        None => treatment(args, source.is_quantized())?,
        Some(calibration) => {
            let target = args.size.map_or(Target::Bits(args.bits.unwrap_or(DEFAULT_BITS)), Target::Size);
            Treatment::Calibrated(calibration.by.clone(), target)
        }
    };
    let global_table = args.table == Some(TableName::Global);
    let profile = args.profile.into();
    let options = Options { treatment, rules, global_table, profile, overwrite: args.force };
    convert::convert_source(&source, &args.output, &options, bar)?;
    bar.finish();
    let seconds = start.elapsed().as_secs_f64();
    let inspection = inspect::inspect(&open(&args.output)?)?;
    let held_out = match &calibration {
        Some(calibration) if args.json || !quiet => {
            calibrate::measured(calibration, &source, &args.output, bar)?
        }
        _ => Vec::new(),
    };
    if args.json {
        return output::json(&output::Converted { inspection: &inspection, held_out: &held_out });
    }
    if quiet { Ok(()) } else { output::converted(&args.output, &options, &inspection, &held_out, seconds) }
}

/// Options that do not go together are refused before any work.
fn check(args: &args::Convert) -> Result<()> {
    let grouped = !matches!(args.scheme, None | Some(SchemeName::Ecq | SchemeName::Lossless));
    if args.scheme.is_some_and(|s| s != SchemeName::Ecq) && native_options(args) {
        bail!(
            "--bits, --sqnr, --size, --sensitivities, --calibrate, --statistics, --row-scales and --column-scales are for \
             --scheme ecq; the other schemes have the rate that they have"
        );
    }
    if calibrates(args) && (args.row_scales || args.column_scales || args.sqnr.is_some()) {
        bail!(
            "--calibrate finds the scales, and errors count by what they do to the model: no --row-scales, --column-scales \
             or --sqnr; use --bits or --size"
        );
    }
    if args.held_out.is_some() && !calibrates(args) {
        bail!("--held-out is for --calibrate and --statistics; `ecq perplexity` measures any model");
    }
    if args.group.is_some() && !grouped {
        bail!("--group is for --scheme affine4, absmax4, nf4 and int8");
    }
    if args.predictor.is_some() && args.scheme != Some(SchemeName::Int8) {
        bail!("--predictor is for --scheme int8");
    }
    if args.table.is_some() && args.scheme != Some(SchemeName::Int8) {
        bail!("--table is for --scheme int8");
    }
    if args.table == Some(TableName::Global) && args.profile != args::Profile::Cpu {
        bail!("--table global is for --profile cpu: tables of pairs belong to their tensors");
    }
    if let Some(bits) = args.bits.filter(|bits| !BITS.contains(bits)) {
        bail!("--bits {bits}: expected {} to {} bits a weight", BITS.start(), BITS.end());
    }
    if let Some(db) = args.sqnr.filter(|db| !SQNR.contains(db)) {
        bail!("--sqnr {db}: expected {} to {} dB", SQNR.start(), SQNR.end());
    }
    Ok(())
}

/// Whether tensors are quantized by what is known of their inputs and outputs.
fn calibrates(args: &args::Convert) -> bool {
    !args.calibrate.is_empty() || args.statistics.is_some()
}

/// Whether an option is given that only the native scheme has.
fn native_options(args: &args::Convert) -> bool {
    let target = args.bits.is_some() || args.sqnr.is_some() || args.size.is_some();
    target || calibrates(args) || args.sensitivities.is_some() || args.row_scales || args.column_scales
}

fn treatment(args: &args::Convert, quantized: bool) -> Result<Treatment> {
    let default = if quantized && !native_options(args) { SchemeName::Lossless } else { SchemeName::Ecq };
    let name = args.scheme.unwrap_or(default);
    let scheme = match name {
        SchemeName::Lossless => return Ok(Treatment::Lossless),
        SchemeName::Ecq => {
            let (sqnr, size) = (args.sqnr.map(Target::Sqnr), args.size.map(Target::Size));
            let target = sqnr.or(size).unwrap_or(Target::Bits(args.bits.unwrap_or(DEFAULT_BITS)));
            let sensitivities = args.sensitivities.as_deref().map(Sensitivities::read).transpose()?;
            let (row_scales, column_scales) = (args.row_scales, args.column_scales);
            let sensitivities = sensitivities.unwrap_or_default();
            return Ok(Treatment::Shared(RateControl { target, sensitivities, row_scales, column_scales }));
        }
        SchemeName::Affine4 => Scheme::named("affine4", args.group),
        SchemeName::Absmax4 => Scheme::named("absmax4", args.group),
        SchemeName::Nf4 => Scheme::named("nf4", args.group),
        SchemeName::Int8 => Scheme::named("int8", args.group).map(|s| predicted(s, args.predictor)),
    };
    let scheme = scheme.context("a scheme without a name")?;
    scheme.check()?;
    Ok(Treatment::Lossy(scheme))
}

/// int8 with the prediction that is asked for.
fn predicted(scheme: Scheme, predictor: Option<PredictorName>) -> Scheme {
    let prediction = match predictor {
        None | Some(PredictorName::None) => return scheme,
        Some(PredictorName::Auto) => Prediction::Auto,
        Some(PredictorName::Left) => Prediction::By(Predictor::Left),
        Some(PredictorName::Up) => Prediction::By(Predictor::Up),
        Some(PredictorName::Planar) => Prediction::By(Predictor::Planar),
    };
    match scheme {
        Scheme::Int8(granularity) => Scheme::Int8Predicted(granularity, prediction),
        other => other,
    }
}

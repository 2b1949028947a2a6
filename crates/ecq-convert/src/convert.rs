//! Source to `.ecq`.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ecq_format::directory::{Extent, Part};
use ecq_format::encode::{Encoder, Profile};
use ecq_format::plan::{Histogram, Plan};
use ecq_format::side::Side;
use ecq_format::writer::{Sealed, TensorHead, Writer, blob_bytes, check_name};
use ecq_format::{Dtype, pattern};
use ecq_quant::measure::Distortion;
use ecq_quant::quantize::Quantized;
use ecq_quant::scheme::BITS;
use ecq_quant::weights::Weights;
use ecq_quant::{Curve, Scheme};

pub use crate::calibrator::{Calibrator, RECORD};
use crate::progress::step;
use crate::rates::share::{Shares, quantize_error};
use crate::rates::size::{SizeControl, Verdict};
use crate::rates::{Allocation, Choice, RateControl, Rules, Target};
use crate::source::packed::{Packed, Role};
use crate::source::{Source, SourceLimits, SourceTensor, SourceType};
use crate::tensors::{BlockTensor, SourceMatrix};
use crate::verbatim::{blobs, sha256, verbatim};
use crate::{Error, Progress, Result};

/// Scheme of floats that are coded without loss.
const FLOATS: &str = "lossless";

/// Fewest weights of a tensor that is coded in pairs.
const SMALLEST_PAIRED: u64 = 8192;

/// What is done with the weights that no rule names.
#[derive(Clone, Debug)]
pub enum Treatment {
    /// Nothing is lost: the source files can be restored byte for byte.
    Lossless,
    /// Every tensor is quantized in the same way.
    Lossy(Scheme),
    /// The native scheme; tensors share bits.
    Shared(RateControl),
    /// The native scheme, by what is known of each tensor's inputs and outputs.
    /// The ratio of signal to noise says nothing of it, and is no target.
    Calibrated(Arc<dyn Calibrator>, Target),
}

/// How to convert.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is done with the weights.
    pub treatment: Treatment,
    /// What is done with tensors of certain names instead.
    pub rules: Rules,
    /// Whether tensors of one scheme share a table of frequencies, counted over all of them. Tables of pairs are always of
    /// one tensor.
    pub global_table: bool,
    /// What the result shall be decoded on.
    pub profile: Profile,
    /// Whether an existing output is replaced.
    pub overwrite: bool,
}

impl Options {
    /// Without rules, for SIMD units, replacing nothing.
    pub fn new(treatment: Treatment) -> Self {
        let (rules, profile) = (Rules::default(), Profile::Cpu);
        Self { treatment, rules, global_table: false, profile, overwrite: false }
    }

    fn lossless(&self) -> bool {
        matches!(self.treatment, Treatment::Lossless) && self.rules.exact()
    }
}

/// Converts a model, which is opened with the default limits: for others, open it and use [`convert_source`]. Returns the
/// length of the file written.
///
/// Tensors that do not gain are stored as they are; `Reader` tells which. Memory holds a batch of tiles and the scales of
/// one tensor; calibrated, its levels and what its [`Calibrator`] knows of it, too. The output stands under its name only when it is complete.
///
/// Errors: all of [`Error`] that concern sources and writing; [`SourceError::Changed`](crate::source::SourceError::Changed)
/// if a source did not stay as it was.
pub fn convert(input: &Path, output: &Path, options: &Options, progress: &dyn Progress) -> Result<u64> {
    let source = Source::open(input, &SourceLimits::default())?;
    convert_source(&source, output, options, progress)
}

/// [`convert`](fn@convert) for a source that is open.
pub fn convert_source(
    source: &Source,
    output: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<u64> {
    check(source, output, &options.rules, options.overwrite)?;
    check_packed(source, options)?;
    idle_rules(source, &options.rules);
    let sealed = seal(source, output, options, progress);
    // of a file that changed, any other error is a consequence, and success is none
    source.check()?;
    Ok(sealed?.publish()?)
}

/// Whether a conversion could begin: before any work, for whoever does some of it before. Errors as for [`convert_source`].
pub fn check(source: &Source, output: &Path, rules: &Rules, overwrite: bool) -> Result<()> {
    refuse_input(source, output)?;
    check_names(source)?;
    rules.check(source)?;
    // the name may be taken
    drop(Writer::create(output, overwrite, 0)?);
    Ok(())
}

/// The whole output, without its name.
fn seal(source: &Source, output: &Path, options: &Options, progress: &dyn Progress) -> Result<Sealed> {
    let mut job = Job { source, output, options, progress, table: None, sums: None, measured: None };
    let control = match &options.treatment {
        Treatment::Lossless => return job.write(&mut |_| Choice::Lossless, &mut |_| ()),
        Treatment::Lossy(scheme) => {
            job.table = if options.global_table { job.count(*scheme)? } else { None };
            return job.write(&mut |_| Choice::Scheme(*scheme), &mut |_| ());
        }
        Treatment::Calibrated(shares, Target::Size(limit)) => return job.within(shares.as_ref(), *limit),
        Treatment::Calibrated(shares, Target::Bits(bits)) => return job.at_rate(shares.as_ref(), *bits),
        Treatment::Calibrated(_, Target::Sqnr(_)) => {
            let why = "errors count by what is known of a tensor: ask for bits or a size".into();
            return Err(Error::Target { path: source.path().into(), why });
        }
        Treatment::Shared(control) => control,
    };
    control.sensitivities.check(source)?;
    let shares = Shares::measure(source, control, &options.rules, options.profile, progress)?;
    // what does not share has a rule, or cannot be coded
    let or_keep = |choice: Option<Choice>| choice.unwrap_or(Choice::Keep);
    match control.target {
        Target::Size(limit) => return job.within(&shares, limit),
        Target::Sqnr(db) => return job.at_ratio(&shares, db),
        Target::Bits(_) => {}
    }
    let multiplier = shares.multiplier(control.target);
    job.write(&mut |index| or_keep(shares.choice(index, multiplier)), &mut |_| ())
}

/// A conversion.
struct Job<'a> {
    source: &'a Source,
    output: &'a Path,
    options: &'a Options,
    progress: &'a dyn Progress,
    /// The table that all tensors of a scheme share.
    table: Option<(Scheme, Plan)>,
    /// SHA-256 of the source files, once they are known.
    sums: Option<Vec<String>>,
    /// The errors of what was quantized so far, if they are wanted.
    measured: Option<RefCell<Distortion>>,
}

/// By how many bits a weight a rate may be missed without a word.
const RATE_MET: f64 = 0.05;
/// How near a ratio of signal to noise must come, in dB, and how often it is tried.
const RATIO_MET: f64 = 0.1;
const RATIO_TRIES: u32 = 8;

impl Job<'_> {
    /// The plan for the levels of all tensors together that no rule names.
    fn count(&self, scheme: Scheme) -> Result<Option<(Scheme, Plan)>> {
        let mut all: Option<Histogram> = None;
        for tensor in self.source.tensors().iter().filter(|t| self.options.rules.of(&t.name).is_none()) {
            let Some(matrix) = SourceMatrix::new(self.source, tensor) else { continue };
            let quantized = Quantized::new(scheme, &matrix, self.options.profile);
            let quantized = quantized.map_err(quantize_error(self.source, tensor))?;
            let own = quantized.histogram();
            all = Some(all.map_or_else(|| own.clone(), |all| all.merge(own)));
            self.source.files()[tensor.file].check()?;
            step(self.progress, 0)?;
        }
        Ok(all.and_then(|all| Plan::cheapest(&all, 0..=8)).map(|plan| (scheme, plan)))
    }

    /// Writes files until one has its ratio of signal to noise: curves are estimates, and where weights take few values the
    /// error falls off a cliff that no curve shows. Of ratios that cannot be met the one above is taken, if there is one.
    fn at_ratio(&mut self, shares: &Shares, db: f64) -> Result<Sealed> {
        let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
        let mut aim = db;
        for tries in 1.. {
            let multiplier = shares.multiplier(Target::Sqnr(aim));
            self.measured = Some(RefCell::default());
            let choice = |index| shares.choice(index, multiplier);
            let sealed = self.write(&mut |index| choice(index).unwrap_or(Choice::Keep), &mut |_| ())?;
            let measured = self.measured.take().unwrap_or_default().into_inner();
            let reached = if measured.weights == 0 { db } else { measured.sqnr() };
            tracing::debug!(aim, reached, db, "signal to quantization noise");
            let met = (reached - db).abs() <= RATIO_MET;
            // the last try is one whose ratio is enough, if such an aim was found
            let last = tries > RATIO_TRIES || (tries == RATIO_TRIES && (reached >= db || high.is_infinite()));
            if met || last {
                if !met {
                    tracing::warn!("{reached:.2} dB instead of {db}: these weights have nothing in between");
                }
                return Ok(sealed);
            }
            if reached < db {
                low = aim
            } else {
                high = aim
            }
            aim = match (tries + 1 > RATIO_TRIES, low.is_finite() && high.is_finite()) {
                (true, _) => high,
                (false, true) => (low + high) / 2.0,
                (false, false) => aim + (f64::from(tries) * (db - reached)).clamp(-20.0, 20.0),
            };
        }
        unreachable!("the loop ends by its number of tries")
    }

    /// Writes a file whose sharing tensors take so many bits a weight: each gets its share of what those before it have left.
    fn at_rate(&mut self, shares: &dyn Allocation, bits: f64) -> Result<Sealed> {
        let all = (bits * shares.weights() as f64 / 8.0) as u64;
        let taken = Cell::new(0);
        let choice = |index| shares.within(index, all.saturating_sub(taken.get()));
        let sealed = self.write(&mut |index| choice(index).unwrap_or(Choice::Keep), &mut |bytes| {
            taken.set(taken.get() + bytes)
        })?;
        let reached = 8.0 * taken.get() as f64 / shares.weights().max(1) as f64;
        if (reached - bits).abs() > RATE_MET {
            tracing::warn!(
                "{reached:.2} bits a weight instead of {bits}: these tensors take no more and no less"
            );
        }
        Ok(sealed)
    }

    /// Writes files until one has its size.
    fn within(&mut self, shares: &dyn Allocation, limit: u64) -> Result<Sealed> {
        let path = self.source.files().first().map_or(self.output, |f| &f.path);
        // the header is counted generously; whether a size cannot be had for its sake, the first try tells
        let (rest, unsure) = (self.rest(shares)?, header_bytes(self.source));
        let control = RefCell::new(SizeControl::new(shares, limit, rest, unsure, path)?);
        loop {
            let sealed = self
                .write(&mut |index| control.borrow().choice(index).unwrap_or(Choice::Keep), &mut |bytes| {
                    control.borrow_mut().took(bytes)
                })?;
            if control.borrow_mut().judge(sealed.bytes(), path)? == Verdict::Keep {
                return Ok(sealed);
            }
        }
    }

    /// About how many bytes of a file are no sharing tensor; rather too few where a rule decides.
    fn rest(&self, shares: &dyn Allocation) -> Result<u64> {
        let blob = |bytes: &[u8]| blob_bytes(bytes).map_err(Error::io(self.output, "compress for"));
        let mut rest = header_bytes(self.source);
        for tensor in self.source.tensors().iter().enumerate().filter(|(i, _)| !shares.has(*i)).map(|t| t.1) {
            let shape = match self.source.role(tensor) {
                Role::Member => continue, // goes with its tensor
                Role::Main(packed) => &packed.shape,
                Role::Free | Role::Kept => &tensor.shape,
            };
            let weights = shape.iter().fold(1.0, |a, &d| a * d as f64);
            let bits = match self.options.rules.of(&tensor.name) {
                Some(Choice::Scheme(Scheme::Ecq { bits, .. })) => bits,
                Some(Choice::Scheme(_) | Choice::Lossless | Choice::Calibrated(_)) => 2.0,
                Some(Choice::Sqnr(db)) => db / 6.0 - 1.0,
                Some(Choice::Keep) | None => f64::INFINITY,
            };
            rest += ((bits.max(1.0) * weights / 8.0) as u64).min(tensor.len);
        }
        let record = self.record();
        for companion in self.source.companions().iter().filter(|c| record.is_none() || c.name != RECORD) {
            rest += blob(&std::fs::read(&companion.path).map_err(Error::io(&companion.path, "read"))?)?;
        }
        rest += record.map_or(Ok(0), |record| blob(&record))?;
        for i in 0..self.source.files().len() {
            rest += blob(&verbatim(self.source, i)?)?;
        }
        Ok(rest)
    }

    /// What the file tells of its calibration.
    fn record(&self) -> Option<Vec<u8>> {
        match &self.options.treatment {
            Treatment::Calibrated(by, _) => Some(by.record()),
            _ => None,
        }
    }

    /// Writes a whole file, with a choice for each tensor that no rule names; `took` is told what these took.
    fn write(
        &mut self,
        choice: &mut dyn FnMut(usize) -> Choice,
        took: &mut dyn FnMut(u64),
    ) -> Result<Sealed> {
        let Self { source, output, options, progress, .. } = *self;
        let total = source.tensors().iter().map(|t| t.len).sum();
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        let mut writer = Writer::create(output, options.overwrite, header_bytes(source))?;
        progress.begin(&format!("converting to {name}"), total);
        let failed = &AtomicBool::new(false);
        let mut sums = self.sums.take();
        let (known, hashed) = (sums.is_some(), &mut sums);
        // on this thread: the choice is its own
        let mut sources = rayon::in_place_scope(|scope| {
            // SHA-256 takes about as long as coding; it has nothing to wait for, but nobody waits for it after an error
            let stop = move || failed.load(Ordering::Relaxed) || progress.cancelled();
            if !known {
                let hash = move || source.files().iter().map(|f| sha256(f, stop)).collect::<Vec<_>>();
                scope.spawn(move |_| *hashed = Some(hash()));
            }
            let written = self.tensors(&mut writer, choice, took);
            let written = written.and_then(|()| blobs(source, self.record().as_deref(), &mut writer));
            failed.store(written.is_err(), Ordering::Relaxed);
            written
        })?;
        let sums = sums.expect("the scope waits for what it spawned");
        sources.iter_mut().zip(&sums).for_each(|(file, sum)| file.sha256.clone_from(sum));
        self.sums = Some(sums);
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(writer.seal(sources, options.lossless())?)
    }

    /// Codes all tensors that gain; then stores the others, wide types first, so that all are aligned.
    fn tensors(
        &self,
        writer: &mut Writer,
        choice: &mut dyn FnMut(usize) -> Choice,
        took: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let (source, progress) = (self.source, self.progress);
        let mut plain = Vec::new();
        for (index, tensor) in source.tensors().iter().enumerate() {
            let role = source.role(tensor);
            if let Role::Member = role {
                continue; // goes with its tensor
            }
            let rule = self.options.rules.of(&tensor.name);
            let before = writer.position();
            let choice = rule.unwrap_or_else(|| choice(index));
            let coded = self.code(tensor, choice, writer)?;
            if !coded {
                plain.push(tensor);
            }
            if rule.is_none() && SourceMatrix::new(source, tensor).is_some() {
                took(if coded { writer.position() - before } else { tensor.len });
            }
            if let Role::Main(packed) = role {
                self.members(packed, &tensor.name, coded, choice, writer, &mut plain)?;
            }
            source.files()[tensor.file].check()?; // nobody waits for the end of what is in vain
            step(progress, 0)?;
        }
        let mut plain: Vec<_> = plain.into_iter().map(|tensor| (tensor, plain_type(tensor))).collect();
        plain.sort_by_key(|(_, dtype)| std::cmp::Reverse(dtype.map_or(8, |d| d.bitsize())));
        for (tensor, dtype) in plain {
            writer.plain(head(tensor, &tensor.shape), dtype, source.data(tensor))?;
            source.files()[tensor.file].used(tensor.len);
            source.files()[tensor.file].check()?;
            step(progress, tensor.len)?;
        }
        Ok(())
    }

    /// What belongs to a packed tensor: recorded with it where it was coded without loss, left out where it was quantized
    /// anew, kept where it was not coded.
    fn members<'s>(
        &'s self,
        packed: &Packed,
        main: &str,
        coded: bool,
        choice: Choice,
        writer: &mut Writer,
        plain: &mut Vec<&'s SourceTensor>,
    ) -> Result<()> {
        let tensors = self.source.tensors();
        let lossless = choice == Choice::Lossless;
        let mut rest: Vec<usize> = packed.beside.clone();
        match (coded, lossless) {
            (true, true) => {
                for (index, &part) in (0..).zip(&packed.parts) {
                    let (tensor, part) = (&tensors[part], Part { of: main.into(), index });
                    let crc = crc32fast::hash(self.source.data(tensor));
                    writer.part(head(tensor, &tensor.shape), part, crc)?;
                    step(self.progress, tensor.len)?;
                }
            }
            (true, false) => {
                let gone = packed.parts.iter().chain(&packed.beside);
                return step(self.progress, gone.map(|&i| tensors[i].len).sum());
            }
            (false, _) => rest.extend(&packed.parts),
        }
        for tensor in rest.into_iter().map(|i| &tensors[i]) {
            if !self.code(tensor, choice, writer)? {
                plain.push(tensor);
            }
        }
        Ok(())
    }

    /// Adds the error of a tensor that no rule names, if errors are wanted.
    fn measure(&self, tensor: &SourceTensor, of: impl FnOnce() -> Distortion) {
        if let Some(measured) =
            self.measured.as_ref().filter(|_| self.options.rules.of(&tensor.name).is_none())
        {
            let own = of();
            measured.replace_with(|all| all.and(own));
        }
    }

    /// Codes a tensor if it can be and gains by it.
    fn code(&self, tensor: &SourceTensor, choice: Choice, writer: &mut Writer) -> Result<bool> {
        let matrix = match choice {
            Choice::Keep => None,
            Choice::Lossless => SourceMatrix::any(self.source, tensor),
            Choice::Scheme(_) | Choice::Sqnr(_) | Choice::Calibrated(_) => {
                SourceMatrix::new(self.source, tensor)
            }
        };
        let Some(matrix) = matrix else { return Ok(false) };
        let go_on = |rows| {
            self.progress.advance(matrix.used(rows));
            !self.progress.cancelled()
        };
        let profile = profile_for(matrix.rows() as u64 * matrix.cols() as u64, self.options.profile);
        let failed = quantize_error(self.source, tensor);
        let quantized = match (choice, &self.options.treatment) {
            (Choice::Keep, _) => return Ok(false),
            (Choice::Lossless, _) => {
                self.measure(tensor, || Distortion::of(&matrix, |rows, out| matrix.fill(rows, out)));
                return exact(tensor, &matrix, profile, writer, &failed, go_on);
            }
            (Choice::Scheme(scheme), _) => Quantized::new(scheme, &matrix, profile),
            (Choice::Sqnr(db), _) => {
                let curve = Curve::of(&matrix, false, false, profile).map_err(&failed)?;
                let bits = curve.bits_for_error(curve.signal() / 10f64.powf(db / 10.0));
                Quantized::new(Scheme::ecq(bits.clamp(*BITS.start(), *BITS.end())), &matrix, profile)
            }
            (Choice::Calibrated(rate), Treatment::Calibrated(by, _)) => {
                by.quantize(&tensor.name, rate, &matrix, profile)
            }
            (Choice::Calibrated(_), _) => return Ok(false), // no rule says so
        };
        let mut quantized = quantized.map_err(&failed)?;
        let table = self.table.as_ref().filter(|table| table.0 == quantized.scheme());
        if let Some((_, plan)) = table {
            quantized = quantized.with_table(plan);
        }
        self.measure(tensor, || Distortion::of_quantized(&matrix, &quantized));
        let encoder = quantized.encoder(matrix.shape(), profile).map_err(&failed)?;
        store(tensor, &matrix, writer, &encoder, quantized.plan().bits, quantized.planes(), go_on)
    }
}

/// The profile for a tensor of so many weights: the table of a few thousand pairs would take more than the pairs.
pub fn profile_for(weights: u64, profile: Profile) -> Profile {
    if weights < SMALLEST_PAIRED { Profile::Cpu } else { profile }
}

/// A guess of the length of the header.
fn header_bytes(source: &Source) -> u64 {
    header_for(source.tensors().iter().map(|t| t.name.len()))
}

/// A guess of the length of a header for tensors with names of these lengths.
pub(crate) fn header_for(names: impl Iterator<Item = usize>) -> u64 {
    names.map(|len| 8 * len as u64 + 1200).sum::<u64>() + 4096
}

/// Tells of rules for tensors that cannot be coded at all: norms, other types.
fn idle_rules(source: &Source, rules: &Rules) {
    let named = |t: &&SourceTensor| rules.of(&t.name).is_some_and(|choice| choice != Choice::Keep);
    let idle =
        |t: &&SourceTensor| SourceMatrix::any(source, t).is_none() && !matches!(source.role(t), Role::Member);
    let names: Vec<_> = source.tensors().iter().filter(named).filter(idle).map(|t| &t.name).collect();
    if let Some(first) = names.first() {
        tracing::warn!(
            "--tensor: {} of the tensors named cannot be coded, the first is '{first}'",
            names.len()
        );
    }
}

/// Names that no `.ecq` file can hold are refused before any work.
fn check_names(source: &Source) -> Result<()> {
    for tensor in source.tensors() {
        check_name(&tensor.name).map_err(|why| Error::TensorName {
            path: source.files()[tensor.file].path.clone(),
            tensor: tensor.name.clone(),
            why,
        })?;
    }
    Ok(())
}

/// Tells which packed tensors are kept; refuses to quantize a model of which nobody knows how it is packed.
fn check_packed(source: &Source, options: &Options) -> Result<()> {
    let kept = |name: &str| match options.rules.of(name) {
        Some(choice) => matches!(choice, Choice::Keep | Choice::Lossless),
        None => matches!(options.treatment, Treatment::Lossless),
    };
    source.explained(kept)?;
    source.notes().iter().for_each(|note| tracing::warn!("{note}"));
    Ok(())
}

/// An input that is memory-mapped must not be replaced. Error: [`Error::OntoInput`] if `output` is a file of the source.
pub fn refuse_input(source: &Source, output: &Path) -> Result<()> {
    let Ok(real) = output.canonicalize() else { return Ok(()) };
    let paths = source.files().iter().map(|f| &f.path).chain(source.companions().iter().map(|c| &c.path));
    match paths.into_iter().find(|p| p.canonicalize().is_ok_and(|p| p == real)) {
        Some(_) => Err(Error::OntoInput(output.into())),
        None => Ok(()),
    }
}

fn head<'a>(tensor: &'a SourceTensor, shape: &'a [u64]) -> TensorHead<'a> {
    let &SourceTensor { file, offset, len, .. } = tensor;
    let source = Extent { file, offset, len };
    TensorHead { name: &tensor.name, shape, dtype: tensor.dtype.name(), source }
}

/// Codes a tensor without loss if it is of a type that can be and gains by it.
fn exact(
    tensor: &SourceTensor,
    matrix: &SourceMatrix<'_>,
    profile: Profile,
    writer: &mut Writer,
    failed: &impl Fn(ecq_quant::Error) -> Error,
    go_on: impl FnMut(Range<usize>) -> bool,
) -> Result<bool> {
    let unstorable = |why| failed(ecq_quant::Error::Unstorable(why));
    if let Some(blocks) = BlockTensor::new(matrix) {
        let (scheme, values, plan) = (blocks.scheme, blocks.values, &blocks.plan);
        let encoder = Encoder::new(scheme, matrix.shape(), values, profile, plan, &blocks);
        let encoder = encoder.map_err(unstorable)?;
        return store(tensor, matrix, writer, &encoder, plan.bits, &blocks.planes, go_on);
    }
    let planned = matrix.floats().and_then(|(f, b)| Some((pattern::plan(f, b, matrix.cols())?, b)));
    let Some(((pattern, plan), bytes)) = planned else { return Ok(false) };
    let encoder = Encoder::floats(FLOATS, matrix.shape(), profile, &plan, pattern, bytes);
    store(tensor, matrix, writer, &encoder.map_err(unstorable)?, plan.bits, &[], go_on)
}

/// Writes a coded tensor unless it would take more than the source does.
fn store(
    tensor: &SourceTensor,
    matrix: &SourceMatrix<'_>,
    writer: &mut Writer,
    encoder: &Encoder<'_>,
    bits: f64,
    planes: &[Vec<u8>],
    go_on: impl FnMut(Range<usize>) -> bool,
) -> Result<bool> {
    // states, tables, index and directory come on top of the levels
    let side = Side::new(planes);
    let about = bits / 8.0 + side.bytes() as f64 + 256.0;
    if about >= matrix.source_bytes() as f64 {
        tracing::debug!(tensor = tensor.name, "coding does not make it smaller");
        return Ok(false);
    }
    writer.coded(head(tensor, matrix.shape()), encoder, &side, go_on)?;
    Ok(true)
}

/// The safetensors type under which a tensor is stored as it is; `None` for bytes.
pub(crate) fn plain_type(tensor: &SourceTensor) -> Option<Dtype> {
    let dtype = match &tensor.dtype {
        SourceType::F32 => Dtype::F32,
        SourceType::F16 => Dtype::F16,
        SourceType::BF16 => Dtype::BF16,
        SourceType::F8E4M3 => Dtype::F8_E4M3,
        SourceType::F8E5M2 => Dtype::F8_E5M2,
        SourceType::Other(other) => {
            serde_json::from_value(serde_json::Value::String(other.name.to_string())).ok()?
        }
        _ => return None,
    };
    let weights = tensor.shape.iter().try_fold(1u64, |a, &d| a.checked_mul(d))?;
    (weights.checked_mul(dtype.bitsize() as u64)? == tensor.len.checked_mul(8)?).then_some(dtype)
}

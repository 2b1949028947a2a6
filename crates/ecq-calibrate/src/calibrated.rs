//! Bits for all tensors from one multiplier, and their levels.
//!
//! An error of a weight counts the product of its output's mean squared gradient and what later columns cannot make up for of
//! its input's second moment; steps are such that a step counts the same everywhere, but that rows follow their gradients by
//! the root only: rows of one tensor share its table of frequencies. So one number, the multiplier, sets the rate of all.

use ecq_convert::Progress;
use ecq_convert::convert::{Calibrator, profile_for};
use ecq_convert::rates::sensitivity::Defaults;
use ecq_convert::rates::share::lossless_bits;
use ecq_convert::rates::{Allocation, Choice, Rules};
use ecq_convert::source::Source;
use ecq_convert::tensors::SourceMatrix;
use ecq_format::encode::Profile;
use ecq_quant::grid::{Grid, Scaled};
use ecq_quant::quantize::Quantized;
use ecq_quant::scheme::BITS;
use ecq_quant::weights::Weights;

use crate::error::{Error, Result};
use crate::factor::Factor;
use crate::feedback;
use crate::gather::names;
use crate::record::Record;
use crate::statistics::{Moments, Statistics};

/// What is added to the second moments, as a part of the mean of their diagonal.
const DAMPING: f64 = 0.05;
/// Power of the gradients by which the steps of rows differ.
const ROW_POWER: f64 = 0.5;
/// A part of the matrix that is quantized for curves.
const SAMPLE: usize = 8;
/// Rates near which a tensor is tried, in bits a weight.
const TRIED: [f64; 8] = [0.6, 1.3, 2.0, 2.75, 3.5, 4.5, 6.0, 8.0];
/// Error in squared steps that a bit is worth.
const BIT: f64 = 0.12;
/// Fewest bits a weight that are expected of any tensor.
const LEAST_BITS: f64 = 0.1;
/// Smallest gradient of a row, as a part of the mean: no row is lost.
const LEAST: f64 = 1e-4;

/// Levels that are looked at: steps from 2^-60 to 2^60.
const LEVELS: std::ops::RangeInclusive<f64> = -60.0..=60.0;

/// Statistics of a model, and what they give for a rate.
#[derive(Debug)]
pub struct Calibrated {
    statistics: Statistics,
    record: Record,
    /// What tensors count of which no gradients are known.
    defaults: Defaults,
    /// In the order of the source.
    curves: Vec<Curve>,
}

/// A tensor at some levels: log2 of the multiplier's root, which is the step where an error of 1 counts 1.
#[derive(Debug)]
struct Curve {
    /// Index in the source.
    tensor: usize,
    name: String,
    weights: u64,
    /// Bits a weight without loss, where the source is quantized already.
    lossless: Option<f64>,
    /// log2 of the step at level 0.
    zero: f64,
    /// Levels, bits a weight, and whether values lie between the multiples; ascending levels.
    points: Vec<(f64, f64, bool)>,
}

impl Curve {
    /// Bits a weight, and whether that is the tensor without loss.
    fn bits(&self, level: f64) -> (f64, bool) {
        let bits = self.lossy(level);
        match self.lossless {
            Some(exact) if exact <= bits => (exact, true),
            _ => (bits, false),
        }
    }

    fn lossy(&self, level: f64) -> f64 {
        let level = self.possible(level);
        let after = self.points.partition_point(|p| p.0 < level).clamp(1, self.points.len() - 1);
        let (a, b) = (self.points[after - 1], self.points[after]);
        let slope = (b.1 - a.1) / (b.0 - a.0).max(1e-9);
        (a.1 + slope * (level - a.0)).clamp(LEAST_BITS, *BITS.end())
    }

    /// The nearest level that was tried or lies between two.
    fn possible(&self, level: f64) -> f64 {
        let (first, last) = (self.points[0].0, self.points[self.points.len() - 1].0);
        level.clamp(first, last.max(first))
    }

    fn between(&self, level: f64) -> bool {
        let far = |p: &&(f64, f64, bool)| (p.0 - level).abs();
        self.points.iter().min_by(|a, b| far(a).total_cmp(&far(b))).is_some_and(|p| p.2)
    }
}

/// A tensor's scales, and how errors are carried on.
struct Prepared {
    factor: Factor,
    scaled: Scaled,
    zero: f64,
}

impl Calibrated {
    /// Tries all tensors of a source that no rule names, at some steps each.
    ///
    /// Errors: [`Error::Statistics`], [`Error::Quantize`], [`Error::Cancelled`].
    pub fn measure(
        source: &Source,
        statistics: Statistics,
        rules: &Rules,
        profile: Profile,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let record = Record::of(&statistics.about().texts);
        let mut made =
            Self { statistics, record, defaults: Defaults::of(source.tensors()), curves: Vec::new() };
        progress.begin("rates", source.tensors().len() as u64);
        for (tensor, known) in source.tensors().iter().enumerate() {
            let matrix = SourceMatrix::new(source, known).filter(|_| rules.of(&known.name).is_none());
            if let Some(matrix) = matrix {
                if !made.statistics.about().inputs.contains_key(&known.name) {
                    return Err(made.statistics.wrong(&known.name, "nothing is known of it".into()));
                }
                let profile = profile_for((matrix.rows() * matrix.cols()) as u64, profile);
                let curve = made.curve(tensor, known.name.clone(), &matrix, profile)?;
                made.curves.push(curve);
            }
            progress.advance(1);
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
        }
        Ok(made)
    }

    /// What a file will tell of the texts.
    pub fn recorded(&self) -> &Record {
        &self.record
    }

    fn since(&self, first: usize) -> impl Iterator<Item = &Curve> {
        self.curves.iter().filter(move |c| c.tensor >= first)
    }

    /// Bits of all tensors from the `first` on.
    fn total(&self, first: usize, level: f64) -> f64 {
        self.since(first).map(|c| c.weights as f64 * c.bits(level).0).sum()
    }

    fn curve(
        &self,
        tensor: usize,
        name: String,
        weights: &SourceMatrix<'_>,
        profile: Profile,
    ) -> Result<Curve> {
        let Prepared { factor, scaled, zero } = self.prepare(&name, weights, profile)?;
        let n = (weights.rows() * weights.cols()) as u64;
        let lossless = lossless_bits(weights);
        if !scaled.octave_for(1.0).is_finite() {
            // zeros, whatever the step
            let points = [-1.0, 1.0].map(|level| (level, LEAST_BITS, false)).to_vec();
            return Ok(Curve { tensor, name, weights: n, lossless, zero: 0.0, points });
        }
        let mut points = Vec::new();
        for bits in TRIED.into_iter().rev() {
            let octave = scaled.octave_for(bits);
            let families: &[bool] = if bits < 2.1 {
                &[false]
            } else if bits > 5.0 {
                &[true]
            } else {
                &[false, true]
            };
            let tried = families.iter().map(|&between| {
                let grid = scaled.grid(octave, between);
                let rows = feedback::sample(weights, &factor, &grid, SAMPLE);
                let n = rows.levels.len() as f64;
                let rate = grid.rate(&rows.histogram);
                (rows.error / n + BIT * rate, rate, between)
            });
            let Some((_, rate, between)) = tried.min_by(|a, b| a.0.total_cmp(&b.0)) else { continue };
            points.push((octave - zero, rate, between));
        }
        Ok(Curve { tensor, name, weights: n, lossless, zero, points })
    }

    fn prepare(&self, name: &str, weights: &dyn Weights, profile: Profile) -> Result<Prepared> {
        let (rows, cols) = (weights.rows(), weights.cols());
        let inputs = self.statistics.about().inputs.get(name).cloned().flatten();
        let moments = match &inputs {
            Some(inputs) => Some(self.statistics.moments(inputs, cols)?),
            None => None,
        };
        let factor = moments.as_ref().and_then(|moments| Factor::new(moments, cols, DAMPING));
        let factor = factor.unwrap_or_else(|| {
            match moments.as_ref().map(|moments| moments.squares(cols).all(|square| square == 0.0)) {
                None => {}
                Some(true) => {
                    tracing::warn!("{name}: its inputs were all zero in the texts; they count the same");
                }
                Some(false) => tracing::warn!(
                    "{name}: the second moments of its inputs have no factor: they are damaged, and not used"
                ),
            }
            Factor::independent(cols)
        });
        let gradients = match self.statistics.has(names::EMBEDDING) {
            true => self.gradients(name, rows, &factor)?,
            false => vec![self.without_gradients(name, weights, moments.as_ref()); rows],
        };
        // with a step as for this mean, the gradients of rows times the squares of their steps have the multiplier as their mean
        let mean = gradients.iter().map(|g| g.powf(1.0 - ROW_POWER)).sum::<f64>() / rows as f64;
        let mean = mean.powf(1.0 / (1.0 - ROW_POWER));
        let row: Vec<f64> = gradients.iter().map(|g| -0.5 * ROW_POWER * (g / mean).log2()).collect();
        let column: Vec<f64> = factor.diagonal.iter().map(|d| -d.log2()).collect();
        let (row, by_rows) = octaves(&row);
        let (column, by_columns) = octaves(&column);
        let scaled = Scaled::new(weights, row, column, profile);
        let scaled = scaled.map_err(|why| Error::Quantize { tensor: name.into(), why })?;
        Ok(Prepared { factor, scaled, zero: by_rows + by_columns - 0.5 * mean.log2() })
    }

    /// What an error of any row counts where gradients are not known: errors against the power of the layer's outputs, by the
    /// sensitivity of its role, as without calibration.
    fn without_gradients(&self, name: &str, weights: &dyn Weights, moments: Option<&Moments>) -> f64 {
        let (rows, cols) = (weights.rows(), weights.cols());
        let squares = moments.map_or_else(|| vec![1.0; cols], |moments| moments.squares(cols).collect());
        let mut own = vec![0.0; cols];
        let mut power = 0.0;
        for row in 0..rows {
            weights.fill(row..row + 1, &mut own);
            power +=
                own.iter().zip(&squares).map(|(&w, &s)| f64::from(w).powi(2) * f64::from(s)).sum::<f64>();
        }
        let sensitivity = self.defaults.sensitivity(name, rows, cols);
        if power > 0.0 { sensitivity * (rows * cols) as f64 / power } else { 1e-12 }
    }

    /// What an error of each row counts.
    fn gradients(&self, name: &str, rows: usize, factor: &Factor) -> Result<Vec<f64>> {
        let about = self.statistics.about();
        let known = about.inputs.get(name).is_some_and(Option::is_some);
        let mut all = vec![0.0; rows];
        if known {
            let own = self.statistics.get(&names::gradients(name), rows)?;
            all.iter_mut().zip(own).for_each(|(all, own)| *all += f64::from(own));
        }
        let embedding = about.inputs.iter().find(|(_, inputs)| inputs.is_none());
        let tied = about.inputs.get(name).is_some_and(|i| i.as_deref() == Some(names::OUTPUT))
            && embedding.is_none();
        if !known || tied {
            // a row is read when its token occurs
            let counts = self.statistics.get(names::COUNTS, rows)?;
            let square = f64::from(self.statistics.get(names::EMBEDDING, 1)?[0]);
            let each = factor.diagonal.iter().map(|d| d * d).sum::<f64>() / factor.size() as f64;
            let total = counts.iter().map(|&c| f64::from(c) + 1.0).sum::<f64>();
            all.iter_mut()
                .zip(counts)
                .for_each(|(all, c)| *all += square / each * (f64::from(c) + 1.0) / total);
        }
        let mean = all.iter().sum::<f64>() / rows as f64;
        if !(mean > 0.0 && mean.is_finite()) {
            tracing::warn!("{name}: what it gives made no difference in the texts; it gets the fewest bits");
            return Ok(vec![1e-12; rows]);
        }
        Ok(all.into_iter().map(|g| g.max(LEAST * mean)).collect())
    }
}

impl Allocation for Calibrated {
    fn has(&self, index: usize) -> bool {
        self.curves.iter().any(|c| c.tensor == index)
    }

    fn weights(&self) -> u64 {
        self.curves.iter().map(|c| c.weights).sum()
    }

    fn bytes(&self, first: usize) -> (u64, u64) {
        let [least, most] = [LEVELS.end(), LEVELS.start()].map(|level| self.total(first, *level) / 8.0);
        (least as u64, most as u64)
    }

    fn within(&self, index: usize, bytes: u64) -> Option<Choice> {
        let curve = self.curves.iter().find(|c| c.tensor == index)?;
        let (mut low, mut high) = (*LEVELS.start(), *LEVELS.end());
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if self.total(index, middle) > 8.0 * bytes as f64 { low = middle } else { high = middle }
        }
        Some(if curve.bits(high).1 { Choice::Lossless } else { Choice::Calibrated(high) })
    }
}

impl Calibrator for Calibrated {
    fn quantize<'a>(
        &self,
        name: &str,
        level: f64,
        weights: &'a dyn Weights,
        profile: Profile,
    ) -> std::result::Result<Quantized<'a>, ecq_quant::Error> {
        let unstorable = |e: Error| ecq_quant::Error::Unstorable(e.to_string());
        let curve = self.curves.iter().find(|c| c.name == name);
        let curve = curve.ok_or_else(|| ecq_quant::Error::Unstorable("nothing is known of it".into()))?;
        let Prepared { factor, scaled, .. } = self.prepare(name, weights, profile).map_err(unstorable)?;
        let level = curve.possible(level);
        let grid = scaled.grid(curve.zero + level, curve.between(level));
        let first = feedback::sample(weights, &factor, &grid, SAMPLE);
        let grid: Grid<'_> = grid.weighed(&first.histogram);
        let rows = feedback::quantize(weights, &factor, &grid);
        grid.quantized(weights, rows.levels)
    }

    fn record(&self) -> Vec<u8> {
        self.record.bytes()
    }
}

/// Numbers as eighths of an octave around their mean, and the mean.
fn octaves(log2: &[f64]) -> (Vec<u8>, f64) {
    let mean = log2.iter().sum::<f64>() / log2.len().max(1) as f64;
    let byte = |&x: &f64| (128.0 + 8.0 * (x - mean)).round().clamp(0.0, 255.0) as u8;
    (log2.iter().map(byte).collect(), mean)
}

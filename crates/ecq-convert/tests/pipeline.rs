//! Rates, errors and degenerate weights through the whole pipeline.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ecq_convert::Silent;
use ecq_convert::convert::{Options, Treatment, convert};
use ecq_convert::inspect::inspect;
use ecq_convert::restore::{Float, restore};
use ecq_convert::source::{Source, SourceLimits};
use ecq_convert::verify::{Verification, verify};
use ecq_format::encode::Profile;
use ecq_format::predict::Predictor;
use ecq_format::{Limits, Reader};
use ecq_quant::grouped::NF4;
use ecq_quant::{Granularity, Prediction, Scheme};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tempfile::TempDir;

const PROFILES: [Profile; 2] = [Profile::Cpu, Profile::Gpu];
const RATES: [f64; 7] = [1.5, 2.0, 2.5, 3.0, 3.5, 4.5, 6.0];

/// Every scheme at its extremes.
fn schemes() -> Vec<Scheme> {
    let scaled = |row_scales, column_scales| Scheme::Ecq { bits: 3.5, row_scales, column_scales };
    let mut schemes = vec![scaled(true, false), scaled(false, true), scaled(true, true)];
    schemes.extend([1.0, 2.0, 3.5, 8.0].map(Scheme::ecq));
    for granularity in [Granularity::Tensor, Granularity::Row, Granularity::Group(32), Granularity::Group(1)]
    {
        schemes.extend([
            Scheme::Affine4(granularity),
            Scheme::Absmax4(granularity),
            Scheme::Nf4(granularity),
            Scheme::Int8(granularity),
            Scheme::Int8Predicted(granularity, Prediction::By(Predictor::Planar)),
        ]);
    }
    schemes
}

/// A seeded linear congruential generator.
struct Lcg(u64);

impl Lcg {
    /// Uniform in (0, 1].
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Student's t of 5 degrees of freedom: heavy tails, as weights have.
    fn student(&mut self) -> f64 {
        let square: f64 = (0..5).map(|_| self.normal().powi(2)).sum();
        self.normal() / (square / 5.0).sqrt()
    }
}

fn gaussian(count: usize) -> Vec<f32> {
    let mut lcg = Lcg(1);
    (0..count).map(|_| 0.02 * lcg.normal() as f32).collect()
}

fn student(count: usize) -> Vec<f32> {
    let mut lcg = Lcg(2);
    (0..count).map(|_| 0.02 * lcg.student() as f32).collect()
}

/// A model of one matrix in a folder of its own.
struct Model {
    folder: TempDir,
    source: PathBuf,
}

impl Model {
    fn new(rows: usize, cols: usize, weights: &[f32]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("model.safetensors");
        let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![rows, cols], &bytes).unwrap();
        let file = safetensors::serialize([("weight", view)], None).unwrap();
        std::fs::write(&source, file).unwrap();
        Self { folder, source }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn convert(&self, treatment: Treatment, profile: Profile) -> Reader {
        let file = self.at("model.ecq");
        let options = Options { profile, overwrite: true, ..Options::new(treatment) };
        let len = convert(&self.source, &file, &options, &Silent).unwrap();
        assert_eq!(len, std::fs::metadata(&file).unwrap().len());
        open(&file)
    }

    fn verify(&self, reader: &Reader) -> Verification {
        verify(reader, Some(&Source::open(&self.source, &SourceLimits::default()).unwrap()), &Silent).unwrap()
    }

    /// The weights of a file, restored in single precision.
    fn restored(&self, reader: &Reader) -> Vec<f32> {
        let back = self.at("back.safetensors");
        restore(reader, &back, Some(Float::F32), true, &Silent).unwrap();
        let bytes = std::fs::read(back).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let data = tensors.tensor("weight").unwrap().data().to_vec();
        data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

fn open(file: &Path) -> Reader {
    Reader::open(file, Limits::default()).unwrap()
}

/// Converts at every rate: each is met, and each is better than the one before. Returns the SQNR of each, in dB.
fn rates_are_met(model: &Model, profile: Profile) -> HashMap<u64, f64> {
    let mut found: Vec<f64> = Vec::new();
    for rate in RATES {
        let reader = model.convert(Treatment::Lossy(Scheme::ecq(rate)), profile);
        let bits = inspect(&reader).unwrap().totals.coded_bits;
        // where a prefix code gives way to rANS the rate falls by up to 2.5 %, and there is nothing in between
        let below = if profile == Profile::Gpu { 0.01 + 0.025 * rate } else { 0.01 };
        assert!(bits < rate + 0.01 && bits > rate - below, "{profile:?}: {bits} bits, asked {rate}");
        let verified = model.verify(&reader);
        let total = verified.total.unwrap();
        assert!((total.bits - bits).abs() < 1e-9);
        assert!(total.entropy.unwrap() <= bits, "{profile:?} {rate}: coded in less than the entropy");
        let sqnr = total.sqnr_db.unwrap();
        assert!(
            found.last().is_none_or(|&last| sqnr > last),
            "{profile:?} {rate}: {sqnr} dB after {found:?}"
        );
        found.push(sqnr);
    }
    RATES.iter().map(|r| (r * 10.0) as u64).zip(found).collect()
}

#[test]
fn the_asked_rate_is_met_on_heavy_tails() {
    for (rows, cols) in [(1024, 1024), (384, 384)] {
        let model = Model::new(rows, cols, &student(rows * cols));
        for profile in PROFILES {
            rates_are_met(&model, profile);
        }
    }
}

#[test]
fn the_asked_rate_is_met_on_a_gaussian_with_the_quality_it_buys() {
    for (rows, cols) in [(1024, 1024), (384, 384)] {
        let model = Model::new(rows, cols, &gaussian(rows * cols));
        for profile in PROFILES {
            let sqnr = rates_are_met(&model, profile)[&35];
            // Shannon's bound is 21.07 dB, an ideal entropy-coded scalar quantizer reaches 19.54; short streams of a prefix
            // code take 1.3 % of the rate
            let least = if profile == Profile::Gpu { 18.8 } else { 19.0 };
            assert!((least..21.07).contains(&sqnr), "{rows}x{cols} {profile:?}: {sqnr} dB at 3.5 bits");
        }
    }
}

#[test]
fn the_asked_rate_is_met_with_row_and_column_scales() {
    let model = Model::new(1024, 1024, &student(1 << 20));
    for (row_scales, column_scales) in [(true, false), (false, true), (true, true)] {
        for profile in PROFILES {
            let scheme = Scheme::Ecq { bits: 3.5, row_scales, column_scales };
            let reader = model.convert(Treatment::Lossy(scheme), profile);
            let bits = inspect(&reader).unwrap().totals.coded_bits;
            assert!((bits - 3.5).abs() < 0.01, "{scheme:?} {profile:?}: {bits} bits");
        }
    }
}

/// Converts in every scheme; each result must verify and hold finite weights. `check` sees original and restored.
fn survives(name: &str, cols: usize, weights: &[f32], check: impl Fn(&str, &[f32], &[f32])) {
    let model = Model::new(weights.len() / cols, cols, weights);
    for scheme in schemes() {
        for profile in PROFILES {
            let about = format!("{name}, {scheme}, {profile:?}");
            let reader = model.convert(Treatment::Lossy(scheme), profile);
            let verified = model.verify(&reader);
            assert!(!verified.lossless && verified.tensors.len() == 1, "{about}");
            let back = model.restored(&reader);
            assert_eq!(back.len(), weights.len(), "{about}");
            let broken = back.iter().position(|w| !w.is_finite());
            assert_eq!(broken, None, "{about}: a weight that is not finite");
            check(&about, weights, &back);
        }
    }
    let reader = model.convert(Treatment::Lossless, Profile::Cpu);
    assert_eq!(model.verify(&reader).identical, Some(true), "{name}");
}

/// No weight is further off than the largest magnitude that there is.
fn within_range(about: &str, weights: &[f32], back: &[f32]) {
    let largest = weights.iter().fold(0.0f64, |a, &w| a.max(f64::from(w).abs()));
    for (i, (&w, &b)) in weights.iter().zip(back).enumerate() {
        let error = (f64::from(w) - f64::from(b)).abs();
        assert!(error <= largest, "{about}: weight {i} is {b}, was {w}; the largest is {largest}");
    }
}

#[test]
fn zeros_stay_zeros() {
    let check = |about: &str, _: &[f32], back: &[f32]| {
        assert!(back.iter().all(|&w| w == 0.0), "{about}: {} instead of 0", back[0]);
    };
    survives("zeros", 96, &[0.0; 64 * 96], check);
    survives("negative zeros", 96, &[-0.0; 64 * 96], check);
}

#[test]
fn constant_tensors_convert() {
    for value in [1.0, -0.02, 1e-30, 65504.0] {
        survives(&format!("all {value}"), 96, &[value; 64 * 96], within_range);
    }
}

#[test]
fn ternary_tensors_convert() {
    let mut lcg = Lcg(3);
    let weights: Vec<f32> =
        (0..64 * 96).map(|_| (lcg.uniform() * 3.0).floor().min(2.0) as f32 - 1.0).collect();
    survives("ternary", 96, &weights, within_range);
}

#[test]
fn one_huge_outlier_converts() {
    for outlier in [1e30, -1e30] {
        let mut weights = student(64 * 96);
        weights[1234] = outlier;
        survives(&format!("outlier {outlier}"), 96, &weights, within_range);
    }
}

#[test]
fn subnormal_weights_convert() {
    let weights: Vec<f32> = student(64 * 96).iter().map(|w| w * 1e-38).collect();
    assert!(weights.iter().all(|w| !w.is_normal()));
    survives("subnormal", 96, &weights, within_range);
    let smallest: Vec<f32> = (0..64 * 96).map(|i| f32::from_bits(i % 3)).collect();
    survives("smallest subnormal", 96, &smallest, within_range);
}

#[test]
fn an_empty_row_or_column_converts() {
    let mut weights = student(64 * 96);
    weights[7 * 96..8 * 96].fill(0.0);
    weights.iter_mut().skip(5).step_by(96).for_each(|w| *w = 0.0);
    survives("a row and a column of zeros", 96, &weights, within_range);
}

#[test]
fn narrow_and_wide_matrices_convert() {
    for cols in [1, 2, 3, 31, 4096] {
        survives(&format!("{cols} columns"), cols, &student(8192 / cols * cols), within_range);
    }
}

#[test]
fn a_source_opens_as_what_it_is() {
    let model = Model::new(32, 32, &gaussian(1024));
    let opened = Source::open(&model.source, &SourceLimits::default()).unwrap();
    assert_eq!(opened.tensors().len(), 1);
    assert_eq!(opened.tensors()[0].shape, [32, 32]);
}

#[test]
fn small_tensors_are_not_wiped_out() {
    for n in [32, 48, 64] {
        for profile in [Profile::Cpu, Profile::Gpu] {
            let model = Model::new(n, n, &gaussian(n * n));
            let reader = model.convert(Treatment::Lossy(Scheme::ecq(3.5)), profile);
            let total = model.verify(&reader).total.unwrap();
            assert!(total.sqnr_db.unwrap() > 12.0, "{n}: {:?}", total.sqnr_db);
        }
    }
}

#[test]
fn few_distinct_weights_keep_to_the_rate() {
    let mut lcg = Lcg(9);
    let ternary: Vec<f32> =
        (0..256 * 256).map(|_| ((lcg.uniform() * 3.0).floor() - 1.0) as f32 * 0.5).collect();
    let binary: Vec<f32> = ternary.iter().map(|w| if *w > 0.0 { 1.0 } else { -1.0 }).collect();
    for (weights, bits) in [(&ternary, 2.0), (&ternary, 3.5), (&binary, 1.5), (&binary, 4.0)] {
        for profile in [Profile::Cpu, Profile::Gpu] {
            let model = Model::new(256, 256, weights);
            let total =
                model.verify(&model.convert(Treatment::Lossy(Scheme::ecq(bits)), profile)).total.unwrap();
            assert!(total.bits < bits + 0.01, "{bits}: {}", total.bits);
            assert!(total.sqnr_db.is_none_or(|d| d > 10.0), "{bits} {profile:?}: {:?}", total.sqnr_db);
        }
    }
}

#[test]
fn an_outlier_does_not_take_the_rest_with_it() {
    let mut weights: Vec<f32> = gaussian(64 * 96).iter().map(|w| w * 0.02).collect();
    weights[1234] = 1e5;
    let model = Model::new(64, 96, &weights);
    let back = model.restored(&model.convert(Treatment::Lossy(Scheme::ecq(3.5)), Profile::Cpu));
    let pairs = weights.iter().zip(&back).filter(|(w, _)| w.abs() < 1.0);
    let (signal, noise) = pairs.fold((0.0, 0.0), |(s, n), (w, b)| (s + w * w, n + (w - b) * (w - b)));
    assert!(signal / noise > 10.0, "{signal} {noise}");
}

#[test]
fn weights_that_would_overflow_are_refused() {
    let model = Model::new(64, 96, &[f32::MAX; 64 * 96]);
    let options = Options { overwrite: true, ..Options::new(Treatment::Lossy(Scheme::ecq(3.5))) };
    let refused = convert(&model.at("model.safetensors"), &model.at("x.ecq"), &options, &Silent).unwrap_err();
    assert!(refused.to_string().contains("2^120"), "{refused}");
}

/// Bits a weight with this scheme; the weights that come back must be those of int8 without a prediction.
fn int8_bits(model: &Model, scheme: Scheme, expected: &[f32]) -> f64 {
    let reader = model.convert(Treatment::Lossy(scheme), Profile::Cpu);
    assert!(model.restored(&reader) == expected, "{scheme}: other weights than without a prediction");
    model.verify(&reader).total.unwrap().bits
}

#[test]
fn a_prediction_changes_the_rate_and_nothing_else_and_auto_takes_the_cheapest() {
    let (rows, cols) = (600, 520);
    let smooth: Vec<f32> = (0..rows * cols)
        .map(|i| ((i / cols) as f32 / 90.0).sin() + ((i % cols) as f32 / 70.0).cos())
        .collect();
    let constant_columns: Vec<f32> = gaussian(cols).repeat(rows);
    let cases = [
        ("white", gaussian(rows * cols), None),
        ("smooth", smooth, Some(Predictor::Planar)),
        ("columns", constant_columns, Some(Predictor::Up)),
    ];
    for (name, weights, best) in cases {
        let model = Model::new(rows, cols, &weights);
        let plain = model.convert(Treatment::Lossy(Scheme::Int8(Granularity::Tensor)), Profile::Cpu);
        let expected = model.restored(&plain);
        let none = model.verify(&plain).total.unwrap().bits;
        let by = |prediction| Scheme::Int8Predicted(Granularity::Tensor, prediction);
        let bits = Predictor::ALL.map(|p| int8_bits(&model, by(Prediction::By(p)), &expected));
        let auto = int8_bits(&model, by(Prediction::Auto), &expected);
        let least = bits.iter().fold(none, |a, &b| a.min(b));
        assert!(auto <= least + 0.001, "{name}: auto {auto}, none {none}, {bits:?}");
        let found = Predictor::ALL.iter().zip(bits).filter(|b| b.1 < none);
        let found = found.min_by(|a, b| a.1.total_cmp(&b.1)).map(|b| *b.0);
        assert_eq!(found, best, "{name}: none {none}, {bits:?}");
    }
}

#[test]
fn nf4_gives_each_weight_the_nearest_of_its_sixteen_values() {
    let model = Model::new(64, 256, &student(64 * 256));
    let reader = model.convert(Treatment::Lossy(Scheme::Nf4(Granularity::Group(64))), Profile::Cpu);
    let back = model.restored(&reader);
    for (group, found) in student(64 * 256).chunks(64).zip(back.chunks(64)) {
        let largest = group.iter().fold(0f32, |a, w| a.max(w.abs()));
        let scale = found.iter().fold(0f32, |a, w| a.max(w.abs()));
        assert!((scale / largest - 1.0).abs() < 1e-3, "a scale of {scale} for {largest}");
        for (w, found) in group.iter().zip(found) {
            let off = |v: &f32| (v * scale - w).abs();
            let least = NF4.iter().map(off).fold(f32::INFINITY, f32::min);
            assert!((found - w).abs() <= least + 1e-6 * scale, "{w} became {found}");
        }
    }
}

#[test]
fn a_table_for_all_tensors_loses_nothing_but_bits() {
    let folder = tempfile::tempdir().unwrap();
    let (source, output) = (folder.path().join("model.safetensors"), folder.path().join("model.ecq"));
    let bytes = |weights: Vec<f32>| weights.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let (narrow, wide) = (bytes(gaussian(256 * 512)), bytes(student(256 * 512)));
    let view = |bytes| TensorView::new(Dtype::F32, vec![256, 512], bytes).unwrap();
    let file = safetensors::serialize([("narrow", view(&narrow)), ("wide", view(&wide))], None).unwrap();
    std::fs::write(&source, file).unwrap();
    let total = |global_table| {
        let treatment = Treatment::Lossy(Scheme::Int8(Granularity::Tensor));
        let options = Options { global_table, overwrite: true, ..Options::new(treatment) };
        convert(&source, &output, &options, &Silent).unwrap();
        verify(&open(&output), Some(&Source::open(&source, &SourceLimits::default()).unwrap()), &Silent)
            .unwrap()
            .total
            .unwrap()
    };
    let (own, global) = (total(false), total(true));
    assert_eq!((own.sqnr_db, own.max_error), (global.sqnr_db, global.max_error));
    // tensors of unlike shape: one table does not fit both
    assert!(global.bits > own.bits + 0.1, "{} and {}", own.bits, global.bits);
}

//! Bits shared among tensors: targets are met, sharing beats not sharing, rules and sensitivities do what they say.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ecq_convert::convert::{Options, Treatment, convert};
use ecq_convert::rates::{Choice, RateControl, Rules, Sensitivities, Target};
use ecq_convert::source::{Source, SourceLimits};
use ecq_convert::verify::{TensorCheck, verify};
use ecq_convert::{Error, Silent};
use ecq_format::{Limits, Reader};
use ecq_quant::{Granularity, Scheme};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

/// Numbers that look Gaussian, the same each time.
fn normal(seed: u64, count: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count).map(|_| scale * ((0..12).map(|_| draw()).sum::<f32>() - 6.0)).collect()
}

/// Three tensors of unlike size, power and shape of distribution, and a norm.
struct Model {
    folder: TempDir,
    source: PathBuf,
}

impl Model {
    fn new() -> Self {
        let heavy: Vec<f32> = normal(2, 256 * 512, 0.3).iter().map(|w| w * w * w).collect();
        let tensors = [
            ("a.weight", vec![512, 512], normal(1, 512 * 512, 0.02)),
            ("b.weight", vec![256, 512], heavy),
            ("lm_head.weight", vec![300, 512], normal(3, 300 * 512, 5.0)),
            ("norm.weight", vec![512], normal(4, 512, 1.0)),
        ];
        Self::of(tensors)
    }

    fn of<const N: usize>(tensors: [(&'static str, Vec<usize>, Vec<f32>); N]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("model.safetensors");
        let bytes: Vec<(&str, Vec<usize>, Vec<u8>)> = tensors
            .into_iter()
            .map(|(n, s, w)| (n, s, w.iter().flat_map(|w| w.to_le_bytes()).collect()))
            .collect();
        let views = bytes.iter().map(|(n, s, b)| (*n, TensorView::new(Dtype::F32, s.clone(), b).unwrap()));
        std::fs::write(&source, safetensors::serialize(views, None).unwrap()).unwrap();
        Self { folder, source }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("model.ecq")
    }

    fn convert(&self, treatment: Treatment, rules: Rules) -> Result<u64, Error> {
        let options = Options { rules, overwrite: true, ..Options::new(treatment) };
        convert(&self.source, &self.file(), &options, &Silent)
    }

    /// Each coded tensor by its name, and all together.
    fn checks(&self) -> (HashMap<String, TensorCheck>, TensorCheck) {
        let reader = Reader::open(&self.file(), Limits::default()).unwrap();
        let verified =
            verify(&reader, Some(&Source::open(&self.source, &SourceLimits::default()).unwrap()), &Silent)
                .unwrap();
        (verified.tensors.into_iter().map(|t| (t.name.clone(), t)).collect(), verified.total.unwrap())
    }
}

fn shared(target: Target, sensitivities: Sensitivities) -> Treatment {
    Treatment::Shared(RateControl { target, sensitivities, row_scales: false, column_scales: false })
}

fn even() -> Sensitivities {
    Sensitivities::from_iter([("lm_head.weight".to_owned(), 1.0)])
}

/// Errors of the tensors against their own power, a weight each.
fn relative(checks: &HashMap<String, TensorCheck>) -> f64 {
    let coded = checks.values().filter_map(|t| Some((t.weights as f64, t.sqnr_db?)));
    coded.map(|(n, db)| n * 10f64.powf(-db / 10.0)).sum()
}

#[test]
fn bits_are_met_and_shared_bits_are_better_spent() {
    let model = Model::new();
    for bits in [2.0, 3.0, 4.5] {
        model.convert(shared(Target::Bits(bits), even()), Rules::default()).unwrap();
        let (each, all) = model.checks();
        assert!((all.bits - bits).abs() < 0.01, "{} bits, asked {bits}", all.bits);
        model.convert(Treatment::Lossy(Scheme::ecq(bits)), Rules::default()).unwrap();
        let (flat, _) = model.checks();
        assert!(
            relative(&each) < 0.999 * relative(&flat),
            "{bits}: {} shared, {} each alike",
            relative(&each),
            relative(&flat)
        );
    }
}

#[test]
fn a_ratio_is_met() {
    let model = Model::new();
    for db in [12.0, 20.0, 30.0] {
        model.convert(shared(Target::Sqnr(db), even()), Rules::default()).unwrap();
        let found = model.checks().1.sqnr_db.unwrap();
        assert!((found - db).abs() < 0.1, "{found} dB, asked {db}");
    }
}

#[test]
fn a_ratio_is_kept_to_by_weights_on_few_values() {
    // fewer than four bits without loss: the error falls off a cliff there
    let weights: Vec<f32> = normal(5, 512 * 512, 2.0).iter().map(|w| w.round() / 8.0).collect();
    let model = Model::of([("a.weight", vec![512, 512], weights)]);
    for db in [8.0, 15.0, 20.0, 30.0] {
        model.convert(shared(Target::Sqnr(db), Sensitivities::default()), Rules::default()).unwrap();
        let found = model.checks().1.sqnr_db.unwrap_or(f64::INFINITY);
        assert!(found > db - 0.1, "{found} dB, asked {db}");
    }
}

#[test]
fn a_size_is_met_and_never_exceeded() {
    let model = Model::new();
    for size in [120_000, 200_001, 277_777, 400_000] {
        let len = model.convert(shared(Target::Size(size), even()), Rules::default()).unwrap();
        assert_eq!(len, std::fs::metadata(model.file()).unwrap().len());
        assert!(len <= size && len as f64 >= 0.998 * size as f64, "{len} bytes, asked {size}");
    }
    // with a tensor whose size is not known before
    let rules = || Rules::new([("b.*".into(), Choice::Scheme(Scheme::Int8(Granularity::Row)))]).unwrap();
    let len = model.convert(shared(Target::Size(300_000), even()), rules()).unwrap();
    assert!((299_400..=300_000).contains(&len), "{len}");
    // what is more than 8 bits a weight give is not filled up
    let len = model.convert(shared(Target::Size(5_000_000), even()), Rules::default()).unwrap();
    assert!(len < 700_000);
}

#[test]
fn a_size_that_is_just_enough_is_not_refused() {
    let model = Model::new();
    let all = || Rules::new([("*".into(), Choice::Keep)]).unwrap();
    let least = model.convert(shared(Target::Size(9_000_000), even()), all()).unwrap();
    assert_eq!(model.convert(shared(Target::Size(least), even()), all()).unwrap(), least);
    assert_eq!(model.convert(shared(Target::Size(least + 1000), even()), all()).unwrap(), least);
    let error = model.convert(shared(Target::Size(least - 1), even()), all()).unwrap_err();
    assert!(error.to_string().contains(&least.to_string()), "{error}");
    let least = model.convert(shared(Target::Bits(1.0), even()), Rules::default()).unwrap();
    let limit = least + least / 100;
    let len = model.convert(shared(Target::Size(limit), even()), Rules::default()).unwrap();
    assert!(len <= limit, "{len} bytes, asked {limit}");
}

#[test]
fn several_schemes_together_have_no_name_of_one() {
    let model = Model::new();
    let rules = Rules::new([("b.*".into(), Choice::Scheme(Scheme::Int8(Granularity::Row)))]).unwrap();
    model.convert(shared(Target::Bits(3.0), even()), rules).unwrap();
    assert_eq!(model.checks().1.scheme, "mixed");
    model.convert(shared(Target::Bits(3.0), even()), Rules::default()).unwrap();
    assert_eq!(model.checks().1.scheme, "ecq");
}

#[test]
fn a_size_that_cannot_be_had_is_an_error_that_says_what_can() {
    let model = Model::new();
    let error = model.convert(shared(Target::Size(30_000), even()), Rules::default()).unwrap_err();
    assert!(matches!(error, Error::Target { .. }), "{error}");
    assert!(error.to_string().contains("too few"), "{error}");
    assert!(!model.file().exists());
}

#[test]
fn four_times_the_sensitivity_is_a_bit() {
    let model = Model::new();
    let bits_of = |factor: f64| {
        let factors = [("lm_head.weight".to_owned(), 1.0), ("a.weight".to_owned(), factor)];
        model
            .convert(shared(Target::Bits(4.0), Sensitivities::from_iter(factors)), Rules::default())
            .unwrap();
        let (each, all) = model.checks();
        assert!((all.bits - 4.0).abs() < 0.01);
        each["a.weight"].bits - each["lm_head.weight"].bits
    };
    let gained = bits_of(4.0) - bits_of(1.0);
    assert!((0.9..1.1).contains(&gained), "{gained} bits");
    // output layers count four times by themselves: a bit
    model.convert(shared(Target::Bits(4.0), Sensitivities::default()), Rules::default()).unwrap();
    let (each, _) = model.checks();
    let more = each["lm_head.weight"].bits - each["a.weight"].bits;
    assert!((0.9..1.1).contains(&more), "{more} bits");
}

#[test]
fn bits_follow_the_roles_of_tensors() {
    let tensors = [
        ("model.layers.0.mlp.gate_proj.weight", vec![512, 512], normal(1, 512 * 512, 0.02)),
        ("model.layers.1.mlp.gate_proj.weight", vec![512, 512], normal(2, 512 * 512, 0.5)),
        ("model.layers.1.self_attn.v_proj.weight", vec![256, 512], normal(3, 256 * 512, 1.0)),
        ("model.layers.2.mlp.gate_proj.weight", vec![512, 512], normal(4, 512 * 512, 0.02)),
    ];
    let model = Model::of(tensors);
    model.convert(shared(Target::Bits(4.0), Sensitivities::default()), Rules::default()).unwrap();
    let (each, all) = model.checks();
    assert!((all.bits - 4.0).abs() < 0.01, "{} bits", all.bits);
    let bits = |name: &str| each[&format!("model.layers.{name}_proj.weight")].bits;
    // 4 at both ends; 8 of values, each for two heads: half of log2 more bits
    for (name, expected) in [("0.mlp.gate", 1.0), ("2.mlp.gate", 1.0), ("1.self_attn.v", 2.0)] {
        let more = bits(name) - bits("1.mlp.gate");
        assert!((more - expected).abs() < 0.1, "{name}: {more} bits more, expected {expected}");
    }
}

#[test]
fn rules_go_before_sharing() {
    let model = Model::new();
    let rules = Rules::new([
        ("*.weight".into(), Choice::Sqnr(25.0)),
        ("b*".into(), Choice::Keep),
        ("lm_head.weight".into(), Choice::Scheme(Scheme::Absmax4(Granularity::Group(64)))),
    ]);
    model.convert(shared(Target::Bits(2.0), even()), rules.unwrap()).unwrap();
    let (each, _) = model.checks();
    assert_eq!(each["b.weight"].scheme, "plain");
    assert_eq!(each["lm_head.weight"].scheme, "absmax4");
    let db = each["a.weight"].sqnr_db.unwrap();
    assert!((db - 25.0).abs() < 0.1, "{db} dB");
}

#[test]
fn names_that_are_not_in_the_model_are_errors() {
    let model = Model::new();
    let rules = Rules::new([("*.wieght".into(), Choice::Keep)]).unwrap();
    let error = model.convert(Treatment::Lossless, rules).unwrap_err();
    assert!(error.to_string().contains("'*.wieght'") && error.to_string().contains("a.weight"), "{error}");

    let path = model.folder.path().join("s.json");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Sensitivities::read(&path)
    };
    let unknown = read(r#"{"a.weight": 2, "c.weight": 3}"#).unwrap();
    let error = model.convert(shared(Target::Bits(3.0), unknown), Rules::default()).unwrap_err();
    assert!(error.to_string().contains("1 of its 2") && error.to_string().contains("'c.weight'"), "{error}");
    for wrong in ["", "[1]", r#"{"a.weight": "x"}"#, r#"{"a.weight": 0}"#, r#"{"a.weight": -1}"#] {
        let error = read(wrong).unwrap_err();
        assert!(matches!(error, Error::Sensitivities { .. }), "{wrong}");
        assert!(error.to_string().contains("s.json"), "{error}");
    }
    assert!(matches!(Sensitivities::read(Path::new("none.json")), Err(Error::Sensitivities { .. })));
}

#[test]
fn a_tensor_that_is_stored_as_it_is_does_not_make_a_file_lossy() {
    let model = Model::new();
    let keep = || Rules::new([("a.*".into(), Choice::Keep)]).unwrap();
    model.convert(Treatment::Lossless, keep()).unwrap();
    let reader = Reader::open(&model.file(), Limits::default()).unwrap();
    assert!(reader.directory().lossless);
    let lossy = Rules::new([("a.*".into(), Choice::Scheme(Scheme::ecq(4.0)))]).unwrap();
    model.convert(Treatment::Lossless, lossy).unwrap();
    let reader = Reader::open(&model.file(), Limits::default()).unwrap();
    assert!(!reader.directory().lossless);
}

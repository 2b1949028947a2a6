//! Models that MLX, GPTQ, AWQ and bitsandbytes have packed, through the whole pipeline; and models that lie about it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ecq_convert::analyze::{Analysis, analyze};
use ecq_convert::convert::{Options, Treatment, convert};
use ecq_convert::inspect::{Inspection, inspect};
use ecq_convert::restore::{Float, restore};
use ecq_convert::source::{Source, SourceLimits};
use ecq_convert::verify::verify;
use ecq_convert::{Error, Silent};
use ecq_format::encode::Profile;
use ecq_format::{Limits, Reader};
use ecq_quant::{Granularity, Scheme};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Folders of fixtures, with the scheme of their layers, the suffix of their main tensors and the number of parts.
const FIXTURES: [(&str, &str, &str, usize); 6] = [
    ("mlx4", "mlx-4", ".weight", 6),
    ("mlx8", "mlx-8", ".weight", 6),
    ("gptq4", "gptq-4", ".qweight", 6),
    ("gptq4-order", "gptq-4", ".qweight", 6),
    ("awq4", "awq-4", ".qweight", 4),
    ("nf4", "nf4", ".weight", 4),
];

const LAYER: &str = "model.layers.0.self_attn.q_proj";

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/sources")).join(name)
}

/// A model in memory, to be changed and written.
struct Model {
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    config: Value,
}

impl Model {
    fn read(name: &str) -> Self {
        let bytes = fs::read(fixture(name).join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |(name, view): (String, TensorView<'_>)| {
            (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        };
        let config = fs::read(fixture(name).join("config.json")).unwrap();
        Self {
            tensors: file.tensors().into_iter().map(tensor).collect(),
            config: serde_json::from_slice(&config).unwrap(),
        }
    }

    /// The tensor of the layer that is changed.
    fn layer(&mut self, suffix: &str) -> &mut (Dtype, Vec<usize>, Vec<u8>) {
        self.tensors.get_mut(&format!("{LAYER}{suffix}")).unwrap()
    }

    /// Writes `model.safetensors` or shards, and `config.json` unless it is null.
    fn write(&self, shard_of: impl Fn(&str) -> usize) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let shards = self.tensors.keys().map(|name| shard_of(name)).max().unwrap_or(0);
        for shard in 0..=shards {
            let views = self.tensors.iter().filter(|(name, _)| shard_of(name) == shard);
            let views = views.map(|(name, (dtype, shape, data))| {
                (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
            });
            let file = safetensors::serialize(views, None).unwrap();
            fs::write(folder.path().join(format!("model-{shard}.safetensors")), file).unwrap();
        }
        if !self.config.is_null() {
            fs::write(folder.path().join("config.json"), self.config.to_string()).unwrap();
        }
        folder
    }
}

fn lossless() -> Options {
    Options::new(Treatment::Lossless)
}

fn lossy() -> Options {
    Options::new(Treatment::Lossy(Scheme::ecq(3.5)))
}

/// The quickest way to lose something.
fn coarse() -> Options {
    Options::new(Treatment::Lossy(Scheme::Affine4(Granularity::Tensor)))
}

/// Converts into a folder of its own.
fn converted(source: &Path, options: &Options) -> (TempDir, Reader) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.ecq");
    convert(source, &file, options, &Silent).unwrap();
    let reader = Reader::open(&file, Limits::default()).unwrap();
    (folder, reader)
}

fn info<'a>(inspection: &'a Inspection, name: &str) -> &'a ecq_convert::inspect::TensorInfo {
    inspection.tensors.iter().find(|t| t.name == name).unwrap()
}

/// All files of a folder come back byte for byte.
fn comes_back(source: &Path, options: &Options) -> Inspection {
    let (folder, reader) = converted(source, options);
    let back = folder.path().join("back");
    restore(&reader, &back, None, false, &Silent).unwrap();
    for file in fs::read_dir(source).unwrap().map(|f| f.unwrap().file_name()) {
        // a lone file comes back as a file
        let found = if back.is_dir() { back.join(&file) } else { back.clone() };
        let (expected, found) = (fs::read(source.join(&file)).unwrap(), fs::read(found).unwrap());
        assert!(expected == found, "{source:?}: {file:?} is another");
    }
    let verified =
        verify(&reader, Some(&Source::open(source, &SourceLimits::default()).unwrap()), &Silent).unwrap();
    assert_eq!(verified.identical, Some(true));
    assert!(verified.tensors.iter().all(|t| t.exact != Some(false)), "{source:?}");
    inspect(&reader).unwrap()
}

/// The tensors of a restored file, as f32.
fn weights(reader: &Reader, folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let back = folder.join("back.safetensors");
    restore(reader, &back, Some(Float::F32), true, &Silent).unwrap();
    let bytes = fs::read(back).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    tensors.into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
}

fn analyzed(folder: &Path) -> Result<Analysis, Error> {
    analyze(
        &Source::open(folder, &SourceLimits::default())?,
        folder,
        &|name| name.starts_with(LAYER),
        &Silent,
    )
}

#[test]
fn packed_models_come_back_byte_for_byte_and_smaller() {
    for (name, scheme, suffix, parts) in FIXTURES {
        for profile in [Profile::Cpu, Profile::Gpu] {
            let source = Source::open(&fixture(name), &SourceLimits::default()).unwrap();
            assert_eq!(source.notes(), [""; 0], "{name}");
            let found = comes_back(&fixture(name), &Options { profile, ..lossless() });
            let version = if profile == Profile::Gpu { 4 } else { 3 };
            assert_eq!((found.lossless, found.version), (true, version), "{name}");
            let main = format!("{LAYER}{suffix}");
            assert_eq!(info(&found, &main).scheme, scheme);
            assert_eq!(info(&found, &main).shape.last(), Some(&512));
            let of: Vec<_> = found.tensors.iter().filter(|t| t.part_of.is_some()).collect();
            assert_eq!(of.len(), parts, "{name}");
            assert!(of.iter().all(|t| t.stored_bytes == 0 && t.scheme == "part"));
            assert!(of.iter().any(|t| t.part_of.as_ref() == Some(&main)));
            let family = |t: &&ecq_convert::inspect::TensorInfo| t.part_of.is_some() || t.scheme == scheme;
            let stored: u64 = found.tensors.iter().filter(family).map(|t| t.stored_bytes).sum();
            let before: u64 = found.tensors.iter().filter(family).map(|t| t.source_bytes).sum();
            assert!(stored < before, "{name}: {stored} of {before}");
        }
    }
}

#[test]
fn weights_are_those_that_the_tools_compute() {
    for (name, ..) in FIXTURES {
        let (folder, reader) = converted(&fixture(name), &lossless());
        let found = weights(&reader, folder.path());
        let expected = fs::read_to_string(fixture(&format!("{name}.sha256"))).unwrap();
        assert!(expected.lines().count() >= 2);
        for line in expected.lines() {
            let (sum, tensor) = line.split_once("  ").unwrap();
            let hex: String = Sha256::digest(&found[tensor]).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, sum, "{name}: {tensor}");
        }
        let parts = reader.directory().tensors.iter().filter(|t| t.part.is_some());
        assert!(parts.map(|t| &t.name).all(|part| !found.contains_key(part)), "{name}");
    }
}

#[test]
fn packed_models_can_be_quantized_anew() {
    for (name, _, suffix, _) in FIXTURES {
        let (_kept, exact) = converted(&fixture(name), &lossless());
        let (folder, reader) = converted(&fixture(name), &lossy());
        let main = format!("{LAYER}{suffix}");
        let found = inspect(&reader).unwrap();
        assert_eq!(info(&found, &main).scheme, "ecq", "{name}");
        let parts = exact.directory().tensors.iter().filter(|t| t.part.is_some()).map(|t| &t.name);
        for part in parts {
            assert!(found.tensors.iter().all(|t| t.name != *part), "{name}: {part} is left");
        }
        assert!(found.tensors.iter().all(|t| !t.name.contains("quant_")), "{name}");
        let verified =
            verify(&reader, Some(&Source::open(&fixture(name), &SourceLimits::default()).unwrap()), &Silent)
                .unwrap();
        let layer = verified.tensors.iter().find(|t| t.name == main).unwrap();
        assert!(layer.sqnr_db.unwrap() > 17.0, "{name}: {:?} dB", layer.sqnr_db);
        let back = weights(&reader, folder.path());
        assert_eq!(
            back[&format!("{LAYER}.weight")].len(),
            4 * 128 * 512 / if name == "mlx8" { 2 } else { 1 }
        );
        let analysis = analyzed(&fixture(name)).unwrap();
        let layer = analysis.tensors.iter().find(|t| t.name == main).unwrap();
        assert_eq!((layer.shape.last(), layer.schemes[0].scheme.as_str()), (Some(&512), "lossless"));
        assert!(analysis.tensors.iter().all(|t| !t.name.ends_with(".scales")), "{name}");
    }
}

#[test]
fn parts_may_be_in_other_files_than_their_tensor() {
    for (name, scheme, suffix, parts) in FIXTURES {
        let folder = Model::read(name).write(|tensor| usize::from(!tensor.ends_with("eight")));
        let found = comes_back(folder.path(), &lossless());
        assert_eq!(info(&found, &format!("{LAYER}{suffix}")).scheme, scheme);
        assert_eq!(found.tensors.iter().filter(|t| t.part_of.is_some()).count(), parts);
    }
}

#[test]
fn settings_of_single_layers_count() {
    let mut model = Model::read("mlx4");
    let other = Model::read("mlx8");
    model.tensors.retain(|name, _| !name.starts_with(LAYER));
    let theirs = other.tensors.into_iter().filter(|(name, _)| name.starts_with(LAYER));
    model.tensors.extend(theirs);
    model.config["quantization"][LAYER] = json!({"group_size": 64, "bits": 8});
    let found = comes_back(model.write(|_| 0).path(), &lossless());
    assert_eq!(info(&found, &format!("{LAYER}.weight")).scheme, "mlx-8");
    assert_eq!(info(&found, "model.embed_tokens.weight").scheme, "mlx-4");
}

#[test]
fn zero_points_of_the_second_version_are_not_less_one() {
    let mut model = Model::read("gptq4");
    let expected = {
        let (folder, reader) = converted(model.write(|_| 0).path(), &lossless());
        weights(&reader, folder.path())
    };
    for (name, (_, _, data)) in &mut model.tensors {
        if name.ends_with(".qzeros") {
            // no zero point is 15, so none carries into its neighbour
            for word in data.as_chunks_mut::<4>().0 {
                *word = (u32::from_le_bytes(*word) + 0x1111_1111).to_le_bytes();
            }
        }
    }
    model.config["quantization_config"]["checkpoint_format"] = json!("gptq_v2");
    let source = model.write(|_| 0);
    comes_back(source.path(), &lossless());
    let (folder, reader) = converted(source.path(), &lossless());
    let main = format!("{LAYER}.weight");
    assert!(weights(&reader, folder.path())[&main] == expected[&main]);
}

type Change = fn(&mut Model);

/// Changes after which nothing can be joined, or not the layer, and what is said of it.
const LIES: [(&str, Change, &str); 29] = [
    ("mlx4", |m| m.config["quantization"]["bits"] = json!(3), "3 bits"),
    ("mlx4", |m| m.config["quantization"]["bits"] = json!(8), "does not fit"),
    ("mlx4", |m| m.config["quantization"]["group_size"] = json!(0), "group_size"),
    ("mlx4", |m| m.config["quantization"]["group_size"] = json!(u64::MAX), "group_size"),
    ("mlx4", |m| m.config["quantization"]["group_size"] = json!(i64::MAX), "does not fit"),
    ("mlx4", |m| m.config["quantization"]["mode"] = json!("mxfp4"), "mxfp4"),
    ("mlx4", |m| m.config = json!({}), "no \"quantization\""),
    ("mlx4", |m| m.config = Value::Null, "no \"quantization\""),
    ("mlx4", |m| drop(m.tensors.remove(&format!("{LAYER}.biases"))), "'.biases' is missing"),
    ("mlx4", |m| m.layer(".biases").0 = Dtype::F16, "expected the same type"),
    ("mlx4", |m| m.layer(".scales").0 = Dtype::I16, "type I16"),
    ("mlx4", |m| m.layer(".weight").1.reverse(), "does not fit"),
    ("mlx4", |m| m.layer(".weight").1 = vec![128 * 64], "does not fit"),
    ("gptq4", |m| m.config["quantization_config"]["bits"] = json!(3), "3 bits"),
    ("gptq4", |m| m.config["quantization_config"]["group_size"] = json!(-2), "group_size"),
    ("gptq4", |m| m.config["quantization_config"]["group_size"] = json!(64), "does not fit"),
    ("gptq4", |m| m.config["quantization_config"]["checkpoint_format"] = json!("marlin"), "marlin"),
    ("gptq4", |m| drop(m.tensors.remove(&format!("{LAYER}.qzeros"))), "'.qzeros' is missing"),
    ("gptq4", |m| m.layer(".qweight").1.reverse(), "does not fit"),
    ("gptq4", |m| m.layer(".g_idx").2[4..8].copy_from_slice(&4i32.to_le_bytes()), "none of the 4 groups"),
    ("gptq4", |m| m.layer(".g_idx").2[4..8].copy_from_slice(&[255; 4]), "none of the 4 groups"),
    ("gptq4", |m| m.layer(".g_idx").0 = Dtype::U32, "g_idx"),
    ("awq4", |m| m.config["quantization_config"]["version"] = json!("gemv"), "gemv"),
    ("awq4", |m| m.layer(".scales").0 = Dtype::I16, "type I16"),
    ("nf4", |m| m.layer(".weight.quant_state.bitsandbytes__nf4").2.fill(b'['), "cannot be read"),
    ("nf4", |m| state(m, "blocksize", json!(0)), "do not fit"),
    ("nf4", |m| state(m, "shape", json!([u64::MAX, 512])), "do not fit"),
    ("nf4", |m| state(m, "nested_blocksize", json!(0)), "no block size"),
    ("nf4", |m| m.layer(".weight.quant_map").2[3] = 0x7f, "quant_map"),
];

/// Changes what bitsandbytes says of the layer.
fn state(model: &mut Model, key: &str, value: Value) {
    let tensor = model.layer(".weight.quant_state.bitsandbytes__nf4");
    let mut state: Value = serde_json::from_slice(&tensor.2).unwrap();
    state[key] = value;
    tensor.2 = state.to_string().into_bytes();
    tensor.1 = vec![tensor.2.len()];
}

#[test]
fn what_cannot_be_joined_is_kept_and_said_once() {
    for (i, (name, change, why)) in LIES.iter().enumerate() {
        let mut model = Model::read(name);
        change(&mut model);
        let folder = model.write(|_| 0);
        let source = Source::open(folder.path(), &SourceLimits::default()).unwrap();
        let notes = source.notes();
        assert_eq!(notes.len(), 1, "{i}: {notes:?}");
        assert!(notes[0].contains(why) && notes[0].contains("packed tensor"), "{i}: {notes:?}");
        let found = comes_back(folder.path(), &lossless());
        let main = if name.starts_with("gptq") || *name == "awq4" { ".qweight" } else { ".weight" };
        assert_eq!(info(&found, &format!("{LAYER}{main}")).scheme, "plain", "{i}");
        // numbers that belong to packed levels are no weights
        let (kept, reader) = converted(folder.path(), &coarse());
        for tensor in model.tensors.keys().filter(|name| name.starts_with(LAYER) && !name.ends_with(".bias"))
        {
            assert_eq!(info(&inspect(&reader).unwrap(), tensor).scheme, "plain", "{i}: {tensor}");
        }
        // what is packed still needs what the model says of it
        assert!(source.is_quantized(), "{i}");
        let back = kept.path().join("back");
        restore(&reader, &back, None, false, &Silent).unwrap();
        let config = fs::read(back.join("config.json")).ok();
        assert_eq!(config, fs::read(folder.path().join("config.json")).ok(), "{i}");
    }
}

#[test]
fn floats_with_scales_beside_them_keep_what_the_configuration_says() {
    for part in ["weight_scale_inv", "weight_scale", "none"] {
        let mut model = Model::read("mlx4");
        model.tensors.retain(|name, _| !name.starts_with(LAYER));
        model
            .tensors
            .insert(format!("{LAYER}.weight"), (Dtype::F8_E4M3, vec![64, 512], vec![0x31; 64 * 512]));
        model.tensors.insert(format!("{LAYER}.{part}"), (Dtype::F32, vec![64, 1], vec![0; 4 * 64]));
        model.config = json!({"quantization_config": {"quant_method": "fp8"}});
        model.tensors.retain(|name, _| name.starts_with(LAYER));
        let (kept, reader) = converted(model.write(|_| 0).path(), &coarse());
        let back = kept.path().join("back");
        restore(&reader, &back, None, false, &Silent).unwrap();
        let config = fs::read_to_string(back.join("config.json")).unwrap();
        assert_eq!(config.contains("fp8"), part != "none", "{part}: {config}");
    }
}

#[test]
fn gptq_without_a_word_on_how_is_refused_by_name() {
    for name in ["gptq4", "awq4"] {
        let mut model = Model::read(name);
        model.config = json!({"model_type": "llama"});
        let folder = model.write(|_| 0);
        let found = comes_back(folder.path(), &lossless());
        assert!(found.tensors.iter().all(|t| t.part_of.is_none()));
        let refused = [
            convert(folder.path(), &folder.path().join("x.ecq"), &lossy(), &Silent).unwrap_err(),
            analyzed(folder.path()).unwrap_err(),
        ];
        for error in refused {
            let text = error.to_string();
            assert!(matches!(error, Error::Source(_)), "{text}");
            for part in
                [folder.path().to_str().unwrap(), "qweight", "quantize_config.json", "--scheme lossless"]
            {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
        assert!(!folder.path().join("x.ecq").exists());
        // where the tools before config.json had it
        let settings = Model::read(name).config["quantization_config"].clone();
        fs::write(folder.path().join("quantize_config.json"), settings.to_string()).unwrap();
        let found = comes_back(folder.path(), &lossless());
        assert!(found.tensors.iter().any(|t| t.part_of.is_some()), "{name}");
    }
}

#[test]
fn a_group_of_all_columns_and_missing_maps_are_joined() {
    let mut model = Model::read("gptq4");
    model.tensors.retain(|name, _| !name.ends_with(".g_idx"));
    for (name, (_, shape, data)) in &mut model.tensors {
        if name.ends_with(".scales") || name.ends_with(".qzeros") {
            data.truncate(data.len() / shape[0]);
            shape[0] = 1;
        }
    }
    model.config["quantization_config"]["group_size"] = json!(-1);
    let found = comes_back(model.write(|_| 0).path(), &lossless());
    assert_eq!(info(&found, &format!("{LAYER}.qweight")).scheme, "gptq-4");
}

#[test]
fn tensors_of_like_names_that_nothing_uses_are_kept() {
    let mut model = Model::read("awq4");
    let words = (Dtype::F16, vec![64, 512], vec![0x3c; 2 * 64 * 512]);
    model.tensors.insert(format!("{LAYER}.g_idx"), words);
    let found = comes_back(model.write(|_| 0).path(), &lossless());
    assert_eq!(info(&found, &format!("{LAYER}.qweight")).scheme, "awq-4");
    assert_eq!(info(&found, &format!("{LAYER}.g_idx")).part_of, None);
}

#[test]
fn small_tensors_are_kept_with_all_that_belongs_to_them() {
    let mut model = Model::read("mlx4");
    for suffix in [".weight", ".scales", ".biases"] {
        let (_, shape, data) = model.layer(suffix);
        data.truncate(data.len() / shape[0]);
        shape[0] = 1;
    }
    let folder = model.write(|_| 0);
    for options in [lossless(), coarse()] {
        let (_kept, reader) = converted(folder.path(), &options);
        let found = inspect(&reader).unwrap();
        for suffix in [".weight", ".scales", ".biases"] {
            assert_eq!(info(&found, &format!("{LAYER}{suffix}")).scheme, "plain");
        }
    }
    comes_back(folder.path(), &lossless());
}

#[test]
fn layers_of_experts_are_matrices_one_above_the_other() {
    let mut model = Model::read("mlx4");
    for suffix in [".weight", ".scales", ".biases"] {
        let shape = &mut model.layer(suffix).1;
        *shape = vec![2, shape[0] / 2, shape[1]];
    }
    let found = comes_back(model.write(|_| 0).path(), &lossless());
    let layer = info(&found, &format!("{LAYER}.weight"));
    assert_eq!((layer.scheme.as_str(), &layer.shape[..]), ("mlx-4", &[2, 64, 512][..]));
}

/// A seeded linear congruential generator.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 32) as usize) % n
    }
}

/// Changes a tensor of the layer in one of the ways that a safetensors file allows.
fn mutate(model: &mut Model, lcg: &mut Lcg) {
    let names: Vec<String> = model.tensors.keys().filter(|name| name.starts_with(LAYER)).cloned().collect();
    let name = &names[lcg.below(names.len())];
    let (dtype, shape, data) = model.tensors.get_mut(name).unwrap();
    match lcg.below(6) {
        0 => drop(model.tensors.remove(name)),
        1 => shape.reverse(),
        2 => shape.push(1),
        3 => (*shape, *data) = (vec![0; shape.len()], Vec::new()),
        4 => {
            // as many bytes, read as others
            let all = [
                Dtype::U8,
                Dtype::I8,
                Dtype::I16,
                Dtype::F16,
                Dtype::BF16,
                Dtype::I32,
                Dtype::U32,
                Dtype::F32,
            ];
            let like: Vec<Dtype> = all.into_iter().filter(|d| d.bitsize() == dtype.bitsize()).collect();
            *dtype = like[lcg.below(like.len())];
        }
        _ => {
            let at = lcg.below(data.len().max(1));
            data.iter_mut().skip(at).take(1 + lcg.below(8)).for_each(|byte| *byte = lcg.below(256) as u8);
        }
    }
}

#[test]
fn whatever_a_file_says_it_comes_back() {
    let mut lcg = Lcg(7);
    for (name, ..) in FIXTURES {
        for _ in 0..40 {
            let mut model = Model::read(name);
            (0..=lcg.below(2)).for_each(|_| mutate(&mut model, &mut lcg));
            let folder = model.write(|_| 0);
            let (kept, reader) = converted(folder.path(), &lossless());
            let back = kept.path().join("back");
            restore(&reader, &back, None, false, &Silent).unwrap();
            let file = "model-0.safetensors";
            assert!(
                fs::read(folder.path().join(file)).unwrap() == fs::read(back.join(file)).unwrap(),
                "{name}"
            );
            // NaN among scales is no weight; nothing else may fail
            let lossy = convert(folder.path(), &kept.path().join("x.ecq"), &coarse(), &Silent);
            assert!(matches!(lossy, Ok(_) | Err(Error::Quantize { .. })), "{name}: {lossy:?}");
        }
    }
}

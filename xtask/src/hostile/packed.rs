//! Packed weights of which parts contradict each other: GPTQ, AWQ, MLX, NF4. They are kept as they are, and said to be; to
//! quantize what nobody explains is refused.

use serde_json::{Value, json};

use super::safetensors::file;
use super::{Catalogue, Files, Found};

pub fn add(all: &mut Catalogue) {
    words(all);
    configurations(all);
    mlx(all);
    nf4(all);
    unexplained(all);
}

/// A tensor: name, type, shape.
type Tensor<'a> = (&'a str, &'a str, &'a [u64]);

/// A folder of these tensors, each of bytes that repeat, and a configuration.
fn model(tensors: &[Tensor<'_>], state: Option<&str>, config: Option<Value>) -> Files {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for &(name, dtype, shape) in tensors {
        let width = match dtype {
            "I32" | "U32" | "F32" => 4,
            "F16" | "BF16" => 2,
            "I64" => 8,
            _ => 1,
        };
        let text = state.filter(|_| name.contains("quant_state"));
        let bytes = text.map_or_else(
            || vec![0x11; shape.iter().product::<u64>() as usize * width],
            |t| t.as_bytes().into(),
        );
        let shape = if text.is_some() { vec![bytes.len() as u64] } else { shape.to_vec() };
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(name.into(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend(bytes);
    }
    let mut bytes = file(&Value::Object(header).to_string(), 0);
    bytes.extend(data);
    let mut files = Files::from([("model.safetensors".into(), bytes)]);
    if let Some(config) = config {
        files.insert("config.json".into(), config.to_string().into());
    }
    files
}

fn kept(all: &mut Catalogue, name: &str, files: Files, words: &str, attacks: &str) {
    all.folder(&format!("packed-{name}"), files, "kept", words, attacks).found = Found::Data;
}

fn gptq(bits: i64, group: i64) -> Option<Value> {
    Some(
        json!({"quantization_config": {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": false, "sym": true}}),
    )
}

/// Sixteen outputs of 32 inputs in groups of 16, 4 bits.
const LAYER: [Tensor<'static>; 4] = [
    ("a.qweight", "I32", &[4, 16]),
    ("a.scales", "F16", &[2, 16]),
    ("a.qzeros", "I32", &[2, 2]),
    ("a.g_idx", "I32", &[32]),
];

/// The layer with one tensor in the place of another, or without it.
fn layer(at: usize, instead: Option<Tensor<'static>>) -> Vec<Tensor<'static>> {
    let mut tensors = LAYER.to_vec();
    match instead {
        Some(tensor) => tensors[at] = tensor,
        None => drop(tensors.remove(at)),
    }
    tensors
}

fn words(all: &mut Catalogue) {
    let lies: [(&str, usize, Option<Tensor<'static>>, &str); 12] = [
        ("levels-of-u32", 0, Some(("a.qweight", "U32", &[4, 16])), "its integers are not I32"),
        ("levels-of-three-dimensions", 0, Some(("a.qweight", "I32", &[4, 4, 4])), "the shape of its levels"),
        ("levels-more", 0, Some(("a.qweight", "I32", &[8, 16])), "the shape of its scales or zero points"),
        ("levels-of-no-outputs", 0, Some(("a.qweight", "I32", &[4, 0])), ""),
        (
            "scales-missing-a-group",
            1,
            Some(("a.scales", "F16", &[1, 16])),
            "the shape of its scales or zero points",
        ),
        (
            "scales-of-other-outputs",
            1,
            Some(("a.scales", "F16", &[2, 8])),
            "the shape of its scales or zero points",
        ),
        ("scales-of-f32", 1, Some(("a.scales", "F32", &[2, 16])), "of type F32, which is not known there"),
        ("zeros-missing", 2, None, "'.qzeros' is missing beside it"),
        (
            "zeros-of-other-outputs",
            2,
            Some(("a.qzeros", "I32", &[2, 3])),
            "the shape of its scales or zero points",
        ),
        ("zeros-of-i64", 2, Some(("a.qzeros", "I64", &[2, 2])), "its integers are not I32"),
        ("map-too-short", 3, Some(("a.g_idx", "I32", &[31])), "its g_idx is not a group for each column"),
        (
            "map-of-groups-that-are-none",
            3,
            Some(("a.g_idx", "I32", &[32])),
            "columns that belong to none of the 2 groups",
        ),
    ];
    for (name, at, instead, words) in lies {
        let attacks = "tensors of a GPTQ layer that contradict each other";
        kept(all, &format!("gptq-{name}"), model(&layer(at, instead), None, gptq(4, 16)), words, attacks);
    }
}

fn configurations(all: &mut Catalogue) {
    let three = &LAYER[..3];
    for (name, bits, group, words) in [
        ("bits-3", 3, 16, "3"),
        ("bits-0", 0, 16, ""),
        ("bits-negative", -4, 16, ""),
        ("bits-most", i64::MAX, 16, ""),
        ("group-0", 4, 0, ""),
        ("group-negative", 4, -2, ""),
        ("group-lowest", 4, i64::MIN, ""),
        ("group-7", 4, 7, "the shape of its scales or zero points"),
        ("group-most", 4, i64::MAX, "the shape of its scales or zero points"),
    ] {
        kept(
            all,
            &format!("gptq-{name}"),
            model(three, None, gptq(bits, group)),
            words,
            &format!("{bits} bits in groups of {group}"),
        );
    }
    for (name, config) in [
        ("a-list", json!({"quantization_config": []})),
        ("of-nobody", json!({"quantization_config": {"quant_method": "magic", "bits": 4, "group_size": 16}})),
        (
            "of-texts",
            json!({"quantization_config": {"quant_method": "gptq", "bits": "4", "group_size": "16"}}),
        ),
        ("without-bits", json!({"quantization_config": {"quant_method": "gptq"}})),
    ] {
        kept(
            all,
            &format!("configuration-{name}"),
            model(three, None, Some(config)),
            "",
            "a configuration that says nothing",
        );
    }
    let mut bomb = model(three, None, None);
    bomb.insert("config.json".into(), format!("{{\"quantization_config\":{}", "[".repeat(20_000)).into());
    kept(all, "configuration-arrays-20000", bomb, "nothing says how", "20,000 arrays in config.json");
    let awq = json!({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemv"}});
    kept(all, "awq-of-another-order", model(three, None, Some(awq)), "", "AWQ in an order that is not read");
}

fn mlx(all: &mut Catalogue) {
    let config =
        |bits: Value, group: Value| Some(json!({"quantization": {"bits": bits, "group_size": group}}));
    let good: [Tensor<'static>; 3] =
        [("a.weight", "U32", &[8, 8]), ("a.scales", "BF16", &[8, 2]), ("a.biases", "BF16", &[8, 2])];
    for (name, bits, group, words) in [
        ("bits-3", json!(3), json!(32), "3 bits, of 4 and 8 that are known"),
        ("bits-0", json!(0), json!(32), "0 bits"),
        ("bits-text", json!("4"), json!(32), "config.json gives no bits"),
        ("group-0", json!(4), json!(0), "config.json gives no group_size above 0"),
        ("group-negative", json!(4), json!(-32), "config.json gives no group_size above 0"),
        ("group-other", json!(4), json!(64), "its shape does not fit 4 bits in groups of 64"),
        ("group-most", json!(4), json!(i64::MAX), "its shape does not fit 4 bits"),
        ("bits-of-another-shape", json!(8), json!(32), "its shape does not fit 8 bits"),
    ] {
        kept(
            all,
            &format!("mlx-{name}"),
            model(&good, None, config(bits, group)),
            words,
            "a configuration that the tensors contradict",
        );
    }
    let lies: [(&str, usize, Option<Tensor<'static>>, &str); 5] = [
        ("biases-missing", 2, None, "'.biases' is missing beside it"),
        ("biases-of-f16", 2, Some(("a.biases", "F16", &[8, 2])), "scales are BF16 and biases F16"),
        ("scales-of-i32", 1, Some(("a.scales", "I32", &[8, 2])), "of type I32, which is not known there"),
        ("scales-of-other-rows", 1, Some(("a.scales", "BF16", &[4, 2])), "its shape does not fit"),
        ("levels-of-one-dimension", 0, Some(("a.weight", "U32", &[64])), "its shape does not fit"),
    ];
    for (name, at, instead, words) in lies {
        let mut tensors = good.to_vec();
        match instead {
            Some(tensor) => tensors[at] = tensor,
            None => drop(tensors.remove(at)),
        }
        kept(
            all,
            &format!("mlx-{name}"),
            model(&tensors, None, config(json!(4), json!(32))),
            words,
            "tensors of an MLX layer that contradict each other",
        );
    }
    let mode = Some(json!({"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}));
    kept(all, "mlx-mode", model(&good, None, mode), "is not affine", "MLX in a way that is not read");
}

fn nf4(all: &mut Catalogue) {
    const STATE: &str = "a.weight.quant_state.bitsandbytes__nf4";
    let good: [Tensor<'static>; 4] = [
        ("a.weight", "U8", &[128, 1]),
        ("a.weight.absmax", "F32", &[4]),
        ("a.weight.quant_map", "F32", &[16]),
        (STATE, "U8", &[1]),
    ];
    let state = |kind: &str, block: &str, shape: &str| {
        format!("{{\"quant_type\":\"{kind}\",\"blocksize\":{block},\"shape\":{shape}}}")
    };
    for (name, text, words) in [
        ("state-no-json", "nf4".to_owned(), "its quant_state cannot be read"),
        ("state-of-arrays", "[".repeat(20_000), "its quant_state cannot be read"),
        ("state-of-70000-bytes", " ".repeat(70_000), "its quant_state cannot be read"),
        ("of-fp4", state("fp4", "64", "[4,64]"), "it is \"fp4\", where nf4 is known"),
        ("block-0", state("nf4", "0", "[4,64]"), "shapes and group size do not fit"),
        ("block-negative", state("nf4", "-64", "[4,64]"), "its quant_state cannot be read"),
        ("block-most", state("nf4", "18446744073709551615", "[4,64]"), "shapes and group size do not fit"),
        ("shape-more", state("nf4", "64", "[5,64]"), "shapes and group size do not fit"),
        ("shape-0", state("nf4", "64", "[0,64]"), "shapes and group size do not fit"),
        ("shape-2-63", state("nf4", "64", "[9223372036854775808,2]"), "shapes and group size do not fit"),
        ("shape-none", state("nf4", "64", "[]"), "shapes and group size do not fit"),
    ] {
        kept(
            all,
            &format!("nf4-{name}"),
            model(&good, Some(&text), None),
            words,
            "a state of bitsandbytes that contradicts its tensors",
        );
    }
    let text = state("nf4", "64", "[4,64]");
    let lies: [(&str, usize, Option<Tensor<'static>>, &str); 6] = [
        (
            "map-of-15",
            2,
            Some(("a.weight.quant_map", "F32", &[15])),
            "its quant_map is not sixteen finite F32",
        ),
        (
            "map-of-f16",
            2,
            Some(("a.weight.quant_map", "F16", &[16])),
            "its quant_map is not sixteen finite F32",
        ),
        ("map-missing", 2, None, "'.quant_map' is missing beside it"),
        ("absmax-missing", 1, None, "'.absmax' is missing beside it"),
        ("absmax-too-few", 1, Some(("a.weight.absmax", "F32", &[3])), "shapes and group size do not fit"),
        ("absmax-nested-without-a-map", 1, Some(("a.weight.absmax", "U8", &[4])), "is missing beside it"),
    ];
    for (name, at, instead, words) in lies {
        let mut tensors = good.to_vec();
        match instead {
            Some(tensor) => tensors[at] = tensor,
            None => drop(tensors.remove(at)),
        }
        kept(
            all,
            &format!("nf4-{name}"),
            model(&tensors, Some(&text), None),
            words,
            "tensors of an NF4 layer that contradict each other",
        );
    }
}

/// Levels of which nobody says what they mean must not be taken for weights.
fn unexplained(all: &mut Catalogue) {
    for (name, config) in [("without-a-configuration", None), ("with-an-empty-one", Some(json!({})))] {
        let files = model(&LAYER[..3], None, config);
        let words = "is packed by GPTQ or AWQ, and nothing says how";
        let case = all.folder(
            &format!("packed-unexplained-{name}"),
            files,
            "unexplained",
            words,
            "packed levels that are to be quantized",
        );
        case.command = "convert --scheme ecq";
    }
}

//! What a model says of how its tensors are packed.
//!
//! | where | of |
//! |---|---|
//! | `config.json`, "quantization" | MLX |
//! | `config.json`, "quantization_config"; `quantize_config.json`; `quant_config.json` | GPTQ, AWQ |
//! | `__metadata__` of the file: keys "gptq_bits", "gptq_group_size" | GPTQ |

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::error::clip;
use super::layout::Layout;

/// Longest configuration that is read. Ours have some kilobytes; parsed they take some times their length.
const MAX_CONFIG: u64 = 4 << 20;

/// `__metadata__` of a safetensors file.
pub(in crate::source) type Texts = HashMap<String, String>;

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    /// MLX: what holds for all layers, and what for single ones.
    mlx: Option<Map<String, Value>>,
    words: Option<Result<Words, String>>,
}

/// A layer of MLX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MlxLayer {
    pub(super) layout: Layout,
    pub(super) group: u64,
}

/// GPTQ and AWQ: the same for all layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Words {
    pub(super) layout: Layout,
    /// Columns of a group; `None` for all of a row.
    pub(super) group: Option<u64>,
    /// What is added to a level: zero points can be stored less one.
    pub(super) bias: f64,
}

#[derive(Deserialize)]
struct Config {
    quantization: Option<Value>,
    quantization_config: Option<Value>,
}

impl Metadata {
    /// Reads what lies in a folder; `texts` are the metadata in the files themselves.
    pub(super) fn read(folder: &Path, texts: &[Texts]) -> Self {
        let mut found = Self::default();
        if let Some(config) = read_json::<Config>(&folder.join("config.json")) {
            if let Some(Value::Object(all)) = config.quantization {
                found.mlx = Some(all);
            }
            // MLX writes its own settings under this name, too, without a method
            found.words = config.quantization_config.as_ref().and_then(|c| words(c.as_object()?, None));
        }
        for name in ["quantize_config.json", "quant_config.json"] {
            if found.words.is_none()
                && let Some(config) = read_json::<Map<String, Value>>(&folder.join(name))
            {
                // AWQ's older name has its keys with a letter before
                let method = if config.contains_key("w_bit") { "awq" } else { "gptq" };
                found.words = words(&config, Some(method));
            }
        }
        if found.words.is_none() {
            found.words = texts.iter().find_map(|texts| {
                let keys = [("bits", "gptq_bits"), ("group_size", "gptq_group_size")];
                let value = |key: &str| texts.get(key)?.parse::<i64>().ok().map(Value::from);
                let config = keys.map(|(to, from)| Some((to.to_owned(), value(from)?)));
                let config: Option<Map<String, Value>> = config.into_iter().collect();
                words(&config?, Some("gptq"))
            });
        }
        found
    }

    /// How MLX packed a layer; the error is a reason to leave it as it is.
    pub(super) fn mlx(&self, layer: &str) -> Result<MlxLayer, String> {
        let Some(all) = &self.mlx else {
            return Err("config.json beside the file has no \"quantization\", which would say how".into());
        };
        let own = match all.get(layer) {
            Some(Value::Object(own)) => own,
            Some(Value::Bool(false)) => return Err("config.json says that they are not quantized".into()),
            _ => all,
        };
        let get = |key: &str| own.get(key).or_else(|| all.get(key));
        if let Some(mode) = get("mode").filter(|mode| mode.as_str() != Some("affine")) {
            return Err(format!("mode {} is not affine", clip(&mode.to_string())));
        }
        let layout = match get("bits").and_then(Value::as_i64) {
            Some(4) => Layout::Mlx4,
            Some(8) => Layout::Mlx8,
            Some(bits) => return Err(format!("{bits} bits, of 4 and 8 that are known")),
            None => return Err("config.json gives no bits".into()),
        };
        match get("group_size").and_then(Value::as_i64).and_then(|size| u64::try_from(size).ok()) {
            Some(group) if group > 0 => Ok(MlxLayer { layout, group }),
            _ => Err("config.json gives no group_size above 0".into()),
        }
    }

    /// How GPTQ or AWQ packed all layers: `None` if nothing says so, an error if in a way that is not known.
    pub(super) fn words(&self) -> Option<Result<Words, String>> {
        self.words.clone()
    }
}

/// GPTQ's and AWQ's settings. `method` is that of files that do not name one.
fn words(config: &Map<String, Value>, method: Option<&str>) -> Option<Result<Words, String>> {
    let text = |key: &str| config.get(key).and_then(Value::as_str).map(str::to_lowercase);
    let number = |keys: [&str; 2]| keys.iter().find_map(|key| config.get(*key)).and_then(Value::as_i64);
    let method = text("quant_method").or(method.map(str::to_owned))?;
    let group = match number(["group_size", "q_group_size"]) {
        Some(-1) => Ok(None),
        Some(size) if size > 0 => Ok(Some(size as u64)),
        _ => Err("no group_size that is -1 or above 0".to_owned()),
    };
    let bits = number(["bits", "w_bit"]);
    let made = |layout: Layout, bias: f64| match (bits, group) {
        (Some(4), group) => Ok(Words { layout, group: group?, bias }),
        (Some(bits), _) => Err(format!("{bits} bits, where 4 are known")),
        (None, _) => Err("the configuration gives no bits".into()),
    };
    let set = |key: &str| config.get(key).and_then(Value::as_bool);
    Some(match (&*method, text("checkpoint_format").as_deref(), text("version").as_deref()) {
        ("gptq", ..) if set("is_marlin_format") == Some(true) => Err("the format of Marlin".into()),
        ("gptq", None | Some("gptq"), _) => made(Layout::Gptq4, -1.0),
        ("gptq", Some("gptq_v2"), _) => made(Layout::Gptq4, 0.0),
        ("gptq", Some(other), _) => Err(format!("checkpoint format {:?}", clip(other))),
        ("awq", ..) if set("zero_point") == Some(false) => Err("AWQ without zero points".into()),
        ("awq", _, None | Some("gemm")) => made(Layout::Awq4, 0.0),
        ("awq", _, Some(other)) => Err(format!("AWQ of version {:?}, where gemm is known", clip(other))),
        (other, ..) => Err(format!("quant_method {:?}", clip(other))),
    })
}

/// A JSON file; `None` if it is not there, too long or not what is expected.
fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    // asked before opening: opening a pipe would wait for a writer
    let about = std::fs::metadata(path).ok()?;
    if !about.is_file() || about.len() > MAX_CONFIG {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_CONFIG).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(files: &[(&str, Value)]) -> Metadata {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in files {
            std::fs::write(folder.path().join(name), value.to_string()).unwrap();
        }
        Metadata::read(folder.path(), &[])
    }

    fn config(quantization_config: Value) -> Metadata {
        read(&[("config.json", json!({ "quantization_config": quantization_config }))])
    }

    #[test]
    fn layers_of_mlx_can_have_settings_of_their_own() {
        let all = json!({"group_size": 64, "bits": 4, "a": {"group_size": 32, "bits": 8}, "b": {"bits": 8},
            "c": false, "d": {"bits": 3}, "e": {"mode": "mxfp4"}, "f": {"group_size": 0}});
        let metadata = read(&[("config.json", json!({ "quantization": all, "quantization_config": all }))]);
        let layer = |layout, group| Ok(MlxLayer { layout, group });
        assert_eq!(metadata.mlx("other"), layer(Layout::Mlx4, 64));
        assert_eq!(metadata.mlx("a"), layer(Layout::Mlx8, 32));
        assert_eq!(metadata.mlx("b"), layer(Layout::Mlx8, 64));
        for (name, why) in [("c", "not quantized"), ("d", "3 bits"), ("e", "mxfp4"), ("f", "group_size")] {
            assert!(metadata.mlx(name).unwrap_err().contains(why), "{name}");
        }
        assert!(metadata.words().is_none(), "MLX's copy of its settings is not GPTQ's");
    }

    #[test]
    fn settings_of_gptq_and_awq_are_read_wherever_they_are() {
        let gptq = |group, bias| Some(Ok(Words { layout: Layout::Gptq4, group, bias }));
        let good = json!({"quant_method": "gptq", "bits": 4, "group_size": 128});
        assert_eq!(config(good.clone()).words(), gptq(Some(128), -1.0));
        let beside = read(&[("quantize_config.json", json!({"bits": 4, "group_size": -1}))]);
        assert_eq!(beside.words(), gptq(None, -1.0));
        let with = |key: &str, value: Value| {
            let mut changed = good.clone();
            changed[key] = value;
            config(changed).words()
        };
        assert_eq!(with("checkpoint_format", json!("gptq_v2")), gptq(Some(128), 0.0));
        let refused = [
            ("checkpoint_format", json!("marlin"), "marlin"),
            ("is_marlin_format", json!(true), "Marlin"),
            ("bits", json!(3), "3 bits"),
            ("bits", json!("4"), "no bits"),
            ("group_size", json!(0), "group_size"),
            ("group_size", json!(1e300), "group_size"),
            ("quant_method", json!("aqlm"), "aqlm"),
        ];
        for (key, value, why) in refused {
            assert!(with(key, value).unwrap().unwrap_err().contains(why), "{key}");
        }
        let awq = Some(Ok(Words { layout: Layout::Awq4, group: Some(64), bias: 0.0 }));
        let older = json!({"w_bit": 4, "q_group_size": 64, "version": "GEMM", "zero_point": true});
        assert_eq!(read(&[("quant_config.json", older)]).words(), awq);
        let newer = json!({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemv"});
        assert!(config(newer).words().unwrap().unwrap_err().contains("gemv"));
        let texts = |bits: &str| {
            let texts = [("gptq_bits", bits), ("gptq_group_size", "128"), ("format", "pt")];
            let texts = texts.map(|(key, value)| (key.to_owned(), value.to_owned()));
            Metadata::read(Path::new("/nowhere"), &[Texts::from(texts)]).words()
        };
        assert_eq!(texts("4"), gptq(Some(128), -1.0));
        assert_eq!(texts("four"), None);
    }

    #[test]
    fn nothing_is_known_without_a_configuration_that_can_be_read() {
        assert!(read(&[]).words().is_none());
        assert!(read(&[]).mlx("a").is_err());
        assert!(read(&[("config.json", json!([1]))]).words().is_none());
        assert!(config(json!("gptq")).words().is_none());
        assert!(config(json!({"bits": 4})).words().is_none());
    }
}

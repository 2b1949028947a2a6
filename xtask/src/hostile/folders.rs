//! Folders that lie: indexes that lead away, shards that are missing or hold other tensors, files of a wrong kind.

use serde_json::json;

use super::safetensors::{file, tensor};
use super::{Catalogue, Files};

const INDEX: &str = "model.safetensors.index.json";

pub fn add(all: &mut Catalogue) {
    paths(all);
    indexes(all);
    shards(all);
}

fn one(name: &str) -> Vec<u8> {
    file(&format!("{{{}}}", tensor(name, "F32", "1", [0, 4])), 4)
}

/// Two shards of a tensor each, and an index.
fn sharded(index: impl Into<Vec<u8>>) -> Files {
    let index = (INDEX.to_owned(), index.into());
    Files::from([("m-1.safetensors".into(), one("a")), ("m-2.safetensors".into(), one("b")), index])
}

fn index(map: &[(&str, &str)]) -> String {
    let map: std::collections::BTreeMap<_, _> = map.iter().copied().collect();
    json!({"metadata": {"total_size": 8}, "weight_map": map}).to_string()
}

fn paths(all: &mut Catalogue) {
    let long = format!("{}.safetensors", "x".repeat(300));
    for (name, path) in [
        ("parent", "../m-1.safetensors"),
        ("absolute", "/m-1.safetensors"),
        ("below", "x/m-1.safetensors"),
        ("backslash", "x\\m-1.safetensors"),
        ("backslashes-to-parent", "..\\m-1.safetensors"),
        ("drive", "c:m-1.safetensors"),
        ("nothing", ""),
        ("dots", ".."),
        ("dot", "."),
        ("config", "config.json"),
        ("nul", "m-1.safetensors\u{0}.safetensors"),
        ("line", "m-1\n.safetensors"),
        ("device", "con.safetensors"),
        ("device-of-digits", "COM1.safetensors"),
        ("300-bytes", &long),
        ("url", "https://example.com/m-1.safetensors"),
    ] {
        let attacks = format!("an index that names {:?}", path.chars().take(40).collect::<String>());
        let files = sharded(index(&[("b", "m-2.safetensors"), ("a", path)]));
        all.folder(
            &format!("index-names-{name}"),
            files,
            "index",
            "expected a plain .safetensors file name",
            &attacks,
        );
    }
}

fn indexes(all: &mut Catalogue) {
    let words = "the shard index is not valid";
    for (name, text, attacks) in [
        ("open", "{", "an index without an end"),
        ("list", "[]", "an index that is a list"),
        ("without-a-map", "{}", "an index without a map"),
        ("of-nothing", r#"{"weight_map":{}}"#, "an index of no tensors"),
        ("of-numbers", r#"{"weight_map":{"a":1}}"#, "an index of numbers"),
        ("map-a-list", r#"{"weight_map":["a"]}"#, "a map that is a list"),
        (
            "map-twice",
            r#"{"weight_map":{"a":"m-1.safetensors"},"weight_map":{"b":"m-2.safetensors"}}"#,
            "two maps",
        ),
        ("behind-the-map", r#"{"weight_map":{"a":"m-1.safetensors"}} {}"#, "something behind the index"),
        ("surrogate", r#"{"weight_map":{"\udc00":"m-1.safetensors"}}"#, "half of a character"),
    ] {
        all.folder(&format!("index-{name}"), sharded(text), "index", words, attacks);
    }
    let deep = format!("{{\"weight_map\":{}", "[".repeat(20_000));
    all.folder("index-arrays-20000", sharded(deep), "index", words, "20,000 arrays inside each other");
    let twice = r#"{"weight_map":{"a":"m-1.safetensors","a":"m-2.safetensors","b":"m-2.safetensors"}}"#;
    let belong = "index and shards do not belong together";
    all.folder("index-tensor-twice", sharded(twice), "index", belong, "a tensor in two places");
    all.folder("index-empty", sharded(""), "damaged", "the file is empty", "an index of no bytes");
    all.folder(
        "index-not-utf-8",
        sharded(&b"{\"weight_map\":{\"a\":\"\xff\"}}"[..]),
        "index",
        words,
        "an index that is no text",
    );
    let mut several = sharded(index(&[("a", "m-1.safetensors")]));
    several.remove(INDEX);
    for name in ["x.safetensors.index.json", "y.safetensors.index.json"] {
        several.insert(name.into(), index(&[("a", "m-1.safetensors")]).into());
    }
    all.folder(
        "indexes-two",
        several,
        "index",
        "several shard indexes",
        "two indexes, neither of the usual name",
    );
}

fn shards(all: &mut Catalogue) {
    let both = [("a", "m-1.safetensors"), ("b", "m-2.safetensors")];
    let belong = "index and shards do not belong together";
    for (name, map, words) in [
        ("missing", [("a", "m-1.safetensors"), ("b", "m-3.safetensors")], "download the missing shard"),
        ("without-the-tensor", [("a", "m-1.safetensors"), ("c", "m-2.safetensors")], belong),
        ("exchanged", [("a", "m-2.safetensors"), ("b", "m-1.safetensors")], belong),
        ("of-other-case", [("a", "M-1.safetensors"), ("b", "m-2.safetensors")], "download the missing shard"),
    ] {
        all.folder(
            &format!("shard-{name}"),
            sharded(index(&map)),
            "index",
            words,
            "an index that shards do not agree with",
        );
    }
    for (name, bytes, error, words, attacks) in [
        ("of-the-same-tensor", one("a"), "twice", "tensor \"a\" is given twice", "a tensor in two shards"),
        ("empty", vec![], "damaged", "the file is empty", "a shard of no bytes"),
        ("cut", one("b")[..60].into(), "damaged", "", "a shard that is cut short"),
        (
            "gguf",
            super::gguf::gguf(&[], &[], 0),
            "not-a-model",
            "neither GGUF nor safetensors",
            "a GGUF file as a shard",
        ),
        (
            "zip",
            b"PK\x03\x04 a zip archive".to_vec(),
            "not-a-model",
            "neither GGUF nor safetensors",
            "a zip archive as a shard",
        ),
    ] {
        let mut files = sharded(index(&both));
        files.insert("m-2.safetensors".into(), bytes);
        all.folder(&format!("shard-{name}"), files, error, words, attacks);
    }
    let mut loose = sharded(index(&both));
    loose.remove(INDEX);
    loose.insert("other.safetensors".into(), one("a"));
    all.folder(
        "shards-of-the-same-tensor",
        loose,
        "twice",
        "tensor \"a\" is given twice",
        "a tensor in two files without an index",
    );
    let config = Files::from([("config.json".into(), b"{}".to_vec())]);
    all.folder(
        "no-weights",
        config.clone(),
        "not-a-model",
        "no .safetensors file in this folder",
        "a folder without weights",
    );
    let mut gguf = config;
    gguf.insert("m.gguf".into(), super::gguf::gguf(&[], &[], 0));
    all.folder("gguf-alone", gguf, "not-a-model", "give m.gguf itself", "a folder of a GGUF file");
    let hidden = Files::from([(".model.safetensors".into(), one("a"))]);
    all.folder(
        "hidden-weights",
        hidden,
        "not-a-model",
        "no .safetensors file in this folder",
        "weights that are hidden",
    );
}

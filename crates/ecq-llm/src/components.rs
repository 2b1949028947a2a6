//! What `tokenizer.json` is made of, looked at before it is built: other parts than those of byte-pair encodings may panic or
//! grow a text without end.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// A text may become so many times longer before it is split.
const MOST_GROWTH: usize = 64;

/// What is looked at; the large vocabulary is passed over.
#[derive(Deserialize)]
struct Json {
    model: Model,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
}

#[derive(Deserialize)]
struct Model {
    /// Older files do not say.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// All byte pairs have them.
    merges: Option<IgnoredAny>,
    continuing_subword_prefix: Option<String>,
    dropout: Option<f64>,
}

/// Whether a tokenizer is a byte-pair encoding of parts that are known. Returns the name of the token that its post-processor
/// puts before a text, if it does. Error: what is not.
pub fn check(json: &[u8]) -> Result<Option<String>, String> {
    let Json { model, normalizer, pre_tokenizer, post_processor, decoder } =
        serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let kind = model.kind.as_deref().unwrap_or(if model.merges.is_some() { "BPE" } else { "none" });
    if kind != "BPE" {
        return Err(format!("expected a model of type BPE (byte pairs), found {kind}"));
    }
    if model.continuing_subword_prefix.is_some_and(|prefix| !prefix.is_empty()) {
        return Err("expected a model without continuing_subword_prefix".into());
    }
    if let Some(dropout) = model.dropout.filter(|&dropout| dropout != 0.0) {
        return Err(format!("expected a model without dropout, which is for training, found {dropout}"));
    }
    let growing = ["Prepend", "Replace", "Sequence"];
    for (what, part, kinds) in [
        ("normalizer", normalizer, &["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip"][..]),
        (
            "pre_tokenizer",
            pre_tokenizer,
            &["ByteLevel", "Digits", "Metaspace", "Punctuation", "Split", "Whitespace", "WhitespaceSplit"],
        ),
        ("decoder", decoder, &["ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Strip"]),
    ] {
        let Some(part) = part else { continue };
        let kinds = [kinds, &growing].concat();
        if growth(what, &part, &kinds)? > MOST_GROWTH {
            return Err(format!(
                "expected a {what} that lets texts grow to at most {MOST_GROWTH} times their length"
            ));
        }
    }
    Ok(post_processor.as_ref().and_then(first))
}

/// How many times longer a part, and those in it, may make a text.
fn growth(what: &str, part: &Value, kinds: &[&str]) -> Result<usize, String> {
    let kind = part["type"].as_str().unwrap_or("none");
    if !kinds.contains(&kind) {
        return Err(format!("expected a {what} of {}, found {kind}", kinds.join(", ")));
    }
    if what == "decoder" && kind == "Strip" && part["stop"] != 0 {
        // the library looks for letters before the beginning of what has none
        return Err(format!("expected a {what} that strips nothing from the end of tokens, found {part}"));
    }
    let bytes = |value: &Value| value.as_str().map_or(0, str::len);
    Ok(match kind {
        "Sequence" => {
            let parts = ["normalizers", "pretokenizers", "decoders"].map(|name| part[name].as_array());
            let mut all = 1usize;
            for part in parts.into_iter().flatten().flatten() {
                all = all.saturating_mul(growth(what, part, kinds)?);
            }
            all
        }
        "Prepend" => 1 + bytes(&part["prepend"]),
        "Replace" => {
            let replaced = bytes(&part["pattern"]["String"]);
            if replaced == 0 {
                return Err(format!(
                    "expected a {what} that replaces a text, found Replace of {}",
                    part["pattern"]
                ));
            }
            bytes(&part["content"]).div_ceil(replaced).max(1)
        }
        _ => 1,
    })
}

/// The special token that a template for texts begins with.
fn first(post: &Value) -> Option<String> {
    match post["type"].as_str()? {
        "TemplateProcessing" => post["single"][0]["SpecialToken"]["id"].as_str().map(str::to_owned),
        "Sequence" => post["processors"].as_array()?.iter().find_map(first),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(part: &str, value: Value) -> Result<Option<String>, String> {
        let mut all = json!({ "model": { "type": "BPE", "vocab": { "a": 0 }, "merges": [] } });
        all[part] = value;
        check(all.to_string().as_bytes())
    }

    #[test]
    fn byte_pairs_of_known_parts_are_taken() {
        let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
        let prepend = json!({ "type": "Prepend", "prepend": "▁" });
        let all = json!({ "type": "Sequence", "normalizers": [prepend, replace] });
        assert_eq!(with("normalizer", all), Ok(None));
        assert_eq!(with("model", json!({ "vocab": {}, "merges": [] })), Ok(None));
        let bytes = json!({ "type": "ByteLevel" });
        let begin = json!({ "type": "TemplateProcessing", "single": [{ "SpecialToken": { "id": "<s>" } }] });
        let all = json!({ "type": "Sequence", "processors": [bytes, begin] });
        assert_eq!(with("post_processor", all), Ok(Some("<s>".into())));
        assert_eq!(with("post_processor", json!({ "type": "TemplateProcessing", "single": [] })), Ok(None));
    }

    #[test]
    fn what_panics_or_grows_without_end_is_refused() {
        let ten = json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aaaaaaaaaa" });
        let nothing = json!({ "type": "Replace", "pattern": { "Regex": "a*" }, "content": "aa" });
        for (part, value, says) in [
            ("model", json!({ "type": "Unigram", "vocab": [] }), "found Unigram"),
            ("model", json!({ "vocab": {} }), "found none"),
            (
                "model",
                json!({ "type": "BPE", "continuing_subword_prefix": "##" }),
                "continuing_subword_prefix",
            ),
            ("model", json!({ "type": "BPE", "dropout": 0.1 }), "found 0.1"),
            (
                "normalizer",
                json!({ "type": "Precompiled", "precompiled_charsmap": "AAAA" }),
                "found Precompiled",
            ),
            ("normalizer", json!({ "type": "Sequence", "normalizers": [ten, ten] }), "at most 64 times"),
            ("normalizer", nothing.clone(), "found Replace of"),
            ("pre_tokenizer", json!({ "type": "FixedLength", "length": 0 }), "found FixedLength"),
            ("pre_tokenizer", json!({ "type": "Sequence", "pretokenizers": [{ "type": "x" }] }), "found x"),
            ("decoder", json!({ "type": "Sequence", "decoders": [nothing] }), "found Replace of"),
            ("decoder", json!({ "type": "Strip", "content": " ", "start": 1, "stop": 1 }), "strips nothing"),
            ("decoder", json!({ "type": "Prepend", "prepend": "x".repeat(99) }), "at most 64 times"),
        ] {
            let error = with(part, value).unwrap_err();
            assert!(error.contains(says), "{part}: {error}");
        }
    }
}

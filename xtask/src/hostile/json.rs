//! JSON that is deep, double, of numbers and characters that parsers disagree on, or none at all.

use serde_json::json;

use super::forge::sealed;
use super::{Bases, Catalogue};

pub fn add(all: &mut Catalogue, bases: &Bases) {
    bombs(all, bases);
    texts(all, bases);
    headers(all);
}

fn bombs(all: &mut Catalogue, bases: &Bases) {
    for (kind, open, close, deepest) in [("arrays", "[", "]", 20_000), ("objects", "{\"a\":", "}", 2_000)] {
        for depth in [200, deepest] {
            let name = depth.to_string();
            let inner = if kind == "arrays" { "" } else { "1" };
            let bomb = open.repeat(depth) + inner + &close.repeat(depth);
            let attacks = format!("{depth} {kind} inside each other");
            let header = sealed(&format!("{{\"x\":{bomb}}}"), &[0; 8]);
            all.ecq(
                &format!("json-{kind}-{name}-in-the-header"),
                header,
                "header",
                "corrupt header: ",
                &attacks,
            );
            let directory = bases.v1.file_with(&bomb);
            all.ecq(
                &format!("json-{kind}-{name}-as-directory"),
                directory,
                "header",
                "directory: ",
                &attacks,
            );
            let field = bases.v1.file_with(&format!("{{\"version\":1,\"more\":{bomb}}}"));
            all.ecq(&format!("json-{kind}-{name}-in-a-field"), field, "header", "directory: ", &attacks);
        }
    }
    let open = bases.v1.file_with(&"[".repeat(20_000));
    all.ecq("json-arrays-that-never-close", open, "header", "directory: ", "20,000 arrays without an end");
}

/// Texts in the place of the directory, or changed in it.
fn texts(all: &mut Catalogue, bases: &Bases) {
    let text = bases.v1.directory.to_string();
    let mut case = |name: &str, directory: String, error: &'static str, words: &str, attacks: &str| {
        all.ecq(&format!("json-{name}"), bases.v1.file_with(&directory), error, words, attacks);
    };
    for number in ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "0x10", "01", ".5", "1.", "+1", "--1"] {
        let changed = text.replacen("\"step\":0.0625", &format!("\"step\":{number}"), 1);
        case(
            &format!("number-{number}"),
            changed,
            "header",
            "directory: ",
            "a number that JSON does not have",
        );
    }
    let digits = "9".repeat(5000);
    case(
        "number-of-5000-digits",
        text.replacen("\"version\":1", &format!("\"version\":{digits}"), 1),
        "header",
        "directory: ",
        "a number that no type holds",
    );
    for (name, from, to) in [
        ("field-twice", "{", "{\"lossless\":true,"),
        ("version-twice", "{", "{\"version\":1,"),
        ("rows-twice", "\"rows\":5", "\"rows\":5,\"rows\":5"),
    ] {
        case(name, text.replacen(from, to, 1), "header", "duplicate field", "a field that is given twice");
    }
    for (name, escape) in [("lone-high", "\\ud800"), ("lone-low", "\\udc00"), ("two-high", "\\ud800\\ud800")]
    {
        let changed = text.replacen("\"writer\":\"", &format!("\"writer\":\"{escape}"), 1);
        case(&format!("surrogate-{name}"), changed, "header", "directory: ", "half of a character");
    }
    for (name, letters) in [
        ("escape-unknown", "\\x41"),
        ("escape-short", "\\u12-"),
        ("control-character", "\u{1}"),
        ("nul", "\u{0}"),
    ] {
        let changed = text.replacen("\"writer\":\"", &format!("\"writer\":\"{letters}"), 1);
        case(name, changed, "header", "directory: ", "a text that JSON does not have");
    }
    for (name, whole) in [
        ("nothing", ""),
        ("null", "null"),
        ("empty-object", "{}"),
        ("list", "[1]"),
        ("nul-alone", "\u{0}"),
        ("text-without-an-end", "\"abc"),
        ("comment", "/* */{}"),
        ("byte-order-mark", "\u{feff}{}"),
    ] {
        case(&format!("directory-{name}"), whole.into(), "header", "directory: ", "a directory that is none");
    }
    case("behind-the-directory", format!("{text} {{}}"), "header", "directory: ", "two directories");
    case("comma-too-many", text.replacen('}', ",}", 1), "header", "directory: ", "a comma too many");
    let long = text.replacen("\"role\":\"companion\"", &format!("\"role\":\"{}\"", "c".repeat(50_000)), 1);
    case(
        "variant-of-50000-letters",
        long,
        "header",
        "unknown variant",
        "a name that must not flood the message",
    );
}

/// Headers of the container itself.
fn headers(all: &mut Catalogue) {
    let entry = r#"{"dtype":"U8","shape":[8],"data_offsets":[0,8]}"#;
    let metadata = r#""__metadata__":{"ecq":"{}"}"#;
    for (name, header, attacks) in [
        (
            "metadata-twice",
            format!("{{{metadata},{metadata},\"#seal\":{entry}}}"),
            "metadata that are given twice",
        ),
        (
            "entry-twice",
            format!("{{{metadata},\"#seal\":{entry},\"#seal\":{entry}}}"),
            "an entry that is given twice",
        ),
        (
            "ecq-twice",
            format!("{{\"__metadata__\":{{\"ecq\":\"{{}}\",\"ecq\":\"{{}}\"}},\"#seal\":{entry}}}"),
            "a directory that is given twice",
        ),
        (
            "metadata-a-list",
            format!("{{\"__metadata__\":[],\"#seal\":{entry}}}"),
            "metadata that are no texts",
        ),
        (
            "directory-an-object",
            format!("{{\"__metadata__\":{{\"ecq\":{{}}}},\"#seal\":{entry}}}"),
            "a directory that is no text",
        ),
        ("entry-a-number", format!("{{{metadata},\"#seal\":1}}"), "an entry that is a number"),
        (
            "offsets-three",
            format!("{{{metadata},\"#seal\":{}}}", entry.replace("[0,8]", "[0,4,8]")),
            "three offsets",
        ),
        (
            "offsets-fractions",
            format!("{{{metadata},\"#seal\":{}}}", entry.replace("[0,8]", "[0.0,8.0]")),
            "offsets that are no integers",
        ),
        (
            "offsets-beyond-64-bits",
            format!("{{{metadata},\"#seal\":{}}}", entry.replace("[0,8]", "[0,18446744073709551616]")),
            "an offset of 2^64",
        ),
        (
            "shape-negative",
            format!("{{{metadata},\"#seal\":{}}}", entry.replace("[8],", "[-8],")),
            "a negative shape",
        ),
        ("open", "{\"__metadata__\":".to_owned(), "a header that ends early"),
    ] {
        all.ecq(
            &format!("json-header-{name}"),
            sealed(&header, &[0; 8]),
            "header",
            "corrupt header: ",
            attacks,
        );
    }
    let mut utf8 = sealed(&json!({"__metadata__": {"ecq": "?"}}).to_string(), &[0; 8]);
    if let Some(mark) = utf8.iter_mut().find(|byte| **byte == b'?') {
        *mark = 0xff;
    }
    all.ecq("json-header-not-utf-8", utf8, "header", "corrupt header: ", "a byte that no UTF-8 has");
}

//! safetensors files that lie: lengths, JSON, types, offsets.

use super::Catalogue;

const MOST: u64 = u64::MAX;

pub fn add(all: &mut Catalogue) {
    headers(all);
    json(all);
    tensors(all);
    pairs(all);
    names(all);
}

/// A file of this header and so many bytes of data.
pub fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    bytes.resize(bytes.len() + data, 0x11);
    bytes
}

/// What a header says of a tensor.
pub fn tensor(name: &str, dtype: &str, shape: &str, offsets: [u64; 2]) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":{offsets:?}}}"#)
}

fn case(all: &mut Catalogue, name: &str, bytes: Vec<u8>, error: &'static str, words: &str, attacks: &str) {
    all.model(format!("safetensors/{name}.safetensors"), bytes, error, words, attacks);
}

fn headers(all: &mut Catalogue) {
    case(all, "empty", vec![], "damaged", "the file is empty", "a file of no bytes");
    case(
        all,
        "three-bytes",
        vec![2, 0, 0],
        "damaged",
        "the header length needs 8 bytes",
        "a file without a length",
    );
    case(
        all,
        "length-alone",
        2u64.to_le_bytes().into(),
        "damaged",
        "a header of 2 bytes is announced and 0 bytes follow",
        "a file of a length alone",
    );
    case(
        all,
        "zip",
        b"PK\x03\x04 a zip archive".to_vec(),
        "not-a-model",
        "neither GGUF nor safetensors",
        "a zip archive, as PyTorch writes",
    );
    case(
        all,
        "pickle",
        b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01".to_vec(),
        "not-a-model",
        "neither GGUF nor safetensors",
        "a pickle",
    );
    case(
        all,
        "list",
        file("[]", 0),
        "not-a-model",
        "neither GGUF nor safetensors",
        "a header that is a list",
    );
    for (name, len) in
        [("most", MOST), ("most-less-7", MOST - 7), ("2-63", 1 << 63), ("2-40", 1 << 40), ("one-more", 3)]
    {
        let bytes = [&len.to_le_bytes()[..], b"{}"].concat();
        case(
            all,
            &format!("length-{name}"),
            bytes,
            "damaged",
            "is announced and 2 bytes follow",
            "a header that is longer than the file",
        );
    }
    for (name, len) in [("0", 0u64), ("1", 1)] {
        let bytes = [&len.to_le_bytes()[..], b"{}"].concat();
        case(
            all,
            &format!("length-{name}"),
            bytes,
            "damaged",
            "not valid safetensors JSON",
            "a header that is shorter than its text",
        );
    }
    let utf8 = [&3u64.to_le_bytes()[..], &[b'{', 0xff, b'}']].concat();
    case(
        all,
        "not-utf-8",
        utf8,
        "damaged",
        "the header at byte 9 is not valid UTF-8",
        "a header that is no text",
    );
}

fn json(all: &mut Catalogue) {
    let entry = |info: &str| format!("{{\"w\":{info}}}");
    let info = |text: &str| entry(&format!("{{{text}}}"));
    let good = r#""dtype":"F32","shape":[1],"data_offsets":[0,4]"#;
    for (name, header, attacks) in [
        ("open", "{".to_owned(), "a header without an end"),
        ("two", "{} {".to_owned(), "two headers"),
        ("comma", r#"{"__metadata__":{},}"#.to_owned(), "a comma too many"),
        ("tensor-a-number", entry("1"), "a tensor that is a number"),
        ("tensor-null", entry("null"), "a tensor that is nothing"),
        ("without-shape", info(r#""dtype":"F32""#), "a tensor without a shape"),
        ("without-offsets", info(r#""dtype":"F32","shape":[1]"#), "a tensor without a place"),
        ("field-twice", info(&format!("{good},\"shape\":[1]")), "a shape that is given twice"),
        ("dtype-unknown", info(&good.replace("F32", "F31")), "a type that there is not"),
        ("dtype-a-number", info(&good.replace("\"F32\"", "32")), "a type that is a number"),
        ("shape-negative", info(&good.replace("[1]", "[-1]")), "a negative shape"),
        ("shape-fraction", info(&good.replace("[1]", "[1.5]")), "a shape that is no integer"),
        ("shape-2-64", info(&good.replace("[1]", "[18446744073709551616]")), "a dimension of 2^64"),
        ("shape-1e400", info(&good.replace("[1]", "[1e400]")), "a dimension that no number is"),
        ("offsets-one", info(&good.replace("[0,4]", "[0]")), "one offset"),
        ("offsets-three", info(&good.replace("[0,4]", "[0,2,4]")), "three offsets"),
        ("offsets-negative", info(&good.replace("[0,4]", "[-4,4]")), "a negative offset"),
        ("offsets-2-64", info(&good.replace("[0,4]", "[0,18446744073709551620]")), "an offset of 2^64 and 4"),
        ("metadata-a-list", r#"{"__metadata__":[1]}"#.to_owned(), "metadata that are a list"),
        ("metadata-of-numbers", r#"{"__metadata__":{"a":1}}"#.to_owned(), "metadata that are no texts"),
        ("metadata-of-objects", r#"{"__metadata__":{"a":{}}}"#.to_owned(), "metadata inside each other"),
        (
            "metadata-twice",
            r#"{"__metadata__":{},"__metadata__":{}}"#.to_owned(),
            "metadata that are given twice",
        ),
        ("surrogate", r#"{"__metadata__":{"a":"\ud800"}}"#.to_owned(), "half of a character"),
        (
            "control-character",
            "{\"__metadata__\":{\"a\":\"\u{1}\"}}".to_owned(),
            "a text that JSON does not have",
        ),
        ("arrays-20000", format!("{{\"w\":{}", "[".repeat(20_000)), "20,000 arrays inside each other"),
        ("objects-20000", "{\"w\":".repeat(20_000), "20,000 objects inside each other"),
        (
            "metadata-arrays-20000",
            format!("{{\"__metadata__\":{{\"a\":{}", "[".repeat(20_000)),
            "20,000 arrays in the metadata",
        ),
    ] {
        case(
            all,
            &format!("json-{name}"),
            file(&header, 4),
            "damaged",
            "not valid safetensors JSON",
            attacks,
        );
    }
}

fn tensors(all: &mut Catalogue) {
    let one =
        |dtype: &str, shape: &str, offsets| file(&format!("{{{}}}", tensor("w", dtype, shape, offsets)), 8);
    for (name, dtype, shape, offsets, words) in [
        ("behind-the-end", "F32", "3", [0, 12], "ends at byte"),
        ("backwards", "F32", "1", [8, 4], "has offsets 8 to 4, expected an increasing pair"),
        ("backwards-from-most", "F32", "1", [MOST, 0], "expected an increasing pair"),
        ("too-short", "F32", "3", [0, 8], "has 8 bytes, expected 12 from its shape and type"),
        ("too-long", "F32", "1", [0, 8], "has 8 bytes, expected 4"),
        ("f64-as-f32", "F64", "2", [0, 8], "has 8 bytes, expected 16"),
        ("bool-as-f16", "BOOL", "4", [0, 8], "has 8 bytes, expected 4"),
        ("half-a-byte", "F4", "3", [0, 2], "of 12 bits does not end on a byte"),
        ("shape-2-64", "F32", "4294967296,4294967296", [0, 8], "its shape or offset overflows 64 bits"),
        ("shape-2-61-bytes", "U8", "2305843009213693952", [0, 8], "its shape or offset overflows 64 bits"),
        ("shape-2-63", "U8", "9223372036854775808", [0, 8], "its shape or offset overflows 64 bits"),
        ("shape-0-by-2-64", "U8", "4294967296,4294967296,0", [0, 8], "its shape or offset overflows 64 bits"),
        ("behind-a-hole", "F32", "1", [4, 8], "safetensors allows no holes"),
        ("before-trailing-bytes", "F32", "1", [0, 4], "safetensors allows nothing after them"),
        ("at-most", "U8", "8", [MOST - 8, MOST], "ends at byte"),
        ("scalar-of-8-bytes", "F32", "", [0, 8], "has 8 bytes, expected 4"),
        ("empty-of-8-bytes", "F32", "0", [0, 8], "has 8 bytes, expected 0"),
        ("empty-behind-the-end", "F32", "0", [64, 64], "ends at byte"),
    ] {
        let attacks = format!("a tensor of {dtype} at {offsets:?} in 8 bytes of data");
        case(all, &format!("tensor-{name}"), one(dtype, shape, offsets), "damaged", words, &attacks);
    }
    case(
        all,
        "data-of-nobody",
        file("{}", 8),
        "damaged",
        "safetensors allows nothing after them",
        "data without tensors",
    );
}

fn pairs(all: &mut Catalogue) {
    let pair = |a, b| file(&format!("{{{},{}}}", tensor("a", "F32", "1", a), tensor("b", "F32", "1", b)), 8);
    for (name, first, second, words) in [
        ("overlap", [0, 4], [2, 6], "overlap at byte"),
        ("same", [0, 4], [0, 4], "overlap at byte"),
        ("hole", [0, 4], [8, 12], "ends at byte"),
        ("gap-of-none", [4, 8], [4, 8], "no holes"),
    ] {
        case(
            all,
            &format!("pair-{name}"),
            pair(first, second),
            "damaged",
            words,
            &format!("tensors at {first:?} and {second:?}"),
        );
    }
    let same = format!("{{{},{}}}", tensor("w", "F32", "1", [0, 4]), tensor("w", "F32", "1", [4, 8]));
    case(
        all,
        "name-twice",
        file(&same, 8),
        "twice",
        "tensor \"w\" is given twice",
        "two tensors of one name",
    );
    let merged = format!("{{{},{}}}", tensor("w", "F32", "1", [0, 4]), tensor("w", "F32", "1", [0, 4]));
    case(
        all,
        "name-twice-of-one-place",
        file(&merged, 4),
        "twice",
        "tensor \"w\" is given twice",
        "two tensors that parsers merge into one",
    );
    let escaped =
        format!("{{{},{}}}", tensor("w", "F32", "1", [0, 4]), tensor("\\u0077", "F32", "1", [4, 8]));
    case(
        all,
        "name-twice-escaped",
        file(&escaped, 8),
        "twice",
        "tensor \"w\" is given twice",
        "one name in two spellings",
    );
}

fn names(all: &mut Catalogue) {
    let one = |name: &str| file(&format!("{{{}}}", tensor(name, "F32", "1", [0, 4])), 4);
    let long = "n".repeat(65_537);
    case(
        all,
        "name-of-65537-bytes",
        one(&long),
        "limit",
        "a tensor name of 65537 bytes is longer than the limit",
        "a name as long as no name is",
    );
    for (name, text) in [("of-nothing", ""), ("with-a-hash", "a#tiles"), ("of-the-seal", "#seal")] {
        case(
            all,
            &format!("name-{name}"),
            one(text),
            "unstorable",
            "must not be empty, contain '#'",
            "a name that an .ecq file cannot have",
        );
    }
    let ecq = format!("{{\"__metadata__\":{{\"ecq\":\"{{}}\"}},{}}}", tensor("w", "F32", "1", [0, 4]));
    case(
        all,
        "ecq",
        file(&ecq, 4),
        "not-a-model",
        "is an .ecq file already",
        "an .ecq file that is to be converted",
    );
}

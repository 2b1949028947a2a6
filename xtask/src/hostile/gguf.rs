//! GGUF files that lie: counts, strings, arrays, types, alignment, tensors that overlap or lie outside.

use super::Catalogue;

const MOST: u64 = u64::MAX;

pub fn add(all: &mut Catalogue) {
    headers(all);
    counts(all);
    metadata(all);
    arrays(all);
    alignments(all);
    shapes(all);
    places(all);
    names(all);
    cuts(all);
}

pub fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

/// A metadata entry: key, type, value.
pub fn entry(key: impl AsRef<[u8]>, id: u32, value: &[u8]) -> Vec<u8> {
    [&string(key)[..], &id.to_le_bytes(), value].concat()
}

pub fn array(id: u32, count: u64, values: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes()[..], &count.to_le_bytes(), values].concat()
}

/// A tensor's name, dimensions (innermost first), type and offset.
pub fn info(name: impl AsRef<[u8]>, dimensions: &[u64], id: u32, offset: u64) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.extend((dimensions.len() as u32).to_le_bytes());
    bytes.extend(dimensions.iter().flat_map(|dimension| dimension.to_le_bytes()));
    bytes.extend(id.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

/// A file with these counts, and `data` bytes behind an aligned body.
fn with(version: u32, counts: [u64; 2], body: &[Vec<u8>], data: usize) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
    bytes.extend(body.concat());
    bytes.resize(bytes.len().next_multiple_of(32) + data, 0x11);
    bytes
}

/// A file of version 3 with true counts.
pub fn gguf(entries: &[Vec<u8>], infos: &[Vec<u8>], data: usize) -> Vec<u8> {
    with(3, [infos.len() as u64, entries.len() as u64], &[entries, infos].concat(), data)
}

fn case(all: &mut Catalogue, name: &str, bytes: Vec<u8>, error: &'static str, words: &str, attacks: &str) {
    all.model(format!("gguf/{name}.gguf"), bytes, error, words, attacks);
}

fn headers(all: &mut Catalogue) {
    case(all, "empty", vec![], "damaged", "the file is empty", "a file of no bytes");
    case(
        all,
        "magic-alone",
        b"GGUF".to_vec(),
        "damaged",
        "the version needs 4 bytes",
        "a file of the magic alone",
    );
    for (name, magic) in [
        ("ggml", &b"GGML"[..]),
        ("ggjt", b"ggjt"),
        ("ggla", b"ggla"),
        ("backwards", b"FUGG"),
        ("short", b"GG"),
    ] {
        let bytes = [magic, &[3, 0, 0, 0, 0, 0, 0, 0]].concat();
        case(
            all,
            &format!("magic-{name}"),
            bytes,
            "not-a-model",
            "neither GGUF nor safetensors",
            "a magic that is not GGUF's",
        );
    }
    for version in [0, 1, 4, 99, u32::MAX] {
        let words = format!("GGUF version {version} is not supported");
        case(
            all,
            &format!("version-{version}"),
            with(version, [0, 0], &[], 0),
            "unsupported",
            &words,
            "a version that is not read",
        );
    }
    let mut big = b"GGUF".to_vec();
    big.extend(3u32.to_be_bytes());
    big.extend([0u64, 0].iter().flat_map(|n| n.to_be_bytes()));
    case(
        all,
        "big-endian",
        big,
        "unsupported",
        "big-endian GGUF is not supported",
        "a file for machines of the other byte order",
    );
}

fn counts(all: &mut Catalogue) {
    for (name, counts, error, words) in [
        ("tensors-2-21", [1 << 21, 0], "limit", "2097152 tensors are more than the limit"),
        ("tensors-2-63", [1 << 63, 0], "limit", "tensors are more than the limit"),
        ("tensors-most", [MOST, 0], "limit", "18446744073709551615 tensors"),
        ("tensors-2-20-of-none", [1 << 20, 0], "damaged", "1048576 tensor infos at byte 24 cannot fit"),
        ("tensors-one-of-none", [1, 0], "damaged", "1 tensor infos at byte 24 cannot fit"),
        ("entries-2-63", [0, 1 << 63], "damaged", "metadata entries at byte 24 cannot fit"),
        ("entries-most", [0, MOST], "damaged", "metadata entries at byte 24 cannot fit"),
        ("entries-2-20-of-none", [0, 1 << 20], "damaged", "1048576 metadata entries at byte 24 cannot fit"),
        ("entries-one-of-none", [0, 1], "damaged", "1 metadata entries at byte 24 cannot fit"),
    ] {
        case(
            all,
            &format!("count-{name}"),
            with(3, counts, &[], 0),
            error,
            words,
            "counts of things that are not there",
        );
    }
    let entry = entry("k", 0, &[0]);
    let more = with(3, [0, 2], std::slice::from_ref(&entry), 32);
    case(all, "count-entries-one-more", more, "damaged", "", "one entry more than there are");
    let twice = with(3, [2, 0], &[info("a", &[1], 0, 0)], 64);
    case(all, "count-tensors-one-more", twice, "damaged", "", "one tensor more than there are");
}

fn metadata(all: &mut Catalogue) {
    let one = |entry: Vec<u8>| gguf(&[entry], &[], 0);
    let long = |len: u64| [&len.to_le_bytes()[..], &[0; 40]].concat();
    for (name, len) in [("most", MOST), ("2-63", 1 << 63), ("2-32", 1 << 32), ("100", 100)] {
        case(
            all,
            &format!("key-of-{name}"),
            one(long(len)),
            "damaged",
            "a metadata key at byte 32 is",
            "a key that is longer than the file",
        );
    }
    for (name, len) in [("most", MOST), ("2-63", 1 << 63), ("2-40", 1 << 40), ("1000", 1000)] {
        let bytes = one(entry("k", 8, &len.to_le_bytes()));
        case(
            all,
            &format!("string-of-{name}"),
            bytes,
            "damaged",
            "a metadata string at byte",
            "a string that is longer than the file",
        );
    }
    let key = [b'k'; 65537];
    case(
        all,
        "key-of-65537-bytes",
        one(entry(key, 0, &[0])),
        "limit",
        "a metadata key of 65537 bytes is longer than the limit",
        "a key as long as no key is",
    );
    for (name, bytes) in [
        ("c3-28", &[0xc3u8, 0x28][..]),
        ("surrogate", &[0xed, 0xa0, 0x80]),
        ("overlong", &[0xc0, 0xaf]),
        ("ff", &[0xff]),
    ] {
        let file = one(entry(bytes, 0, &[0]));
        case(
            all,
            &format!("key-not-utf-8-{name}"),
            file,
            "damaged",
            "a metadata key at byte 32 is not valid UTF-8",
            "a key that is no text",
        );
    }
    for id in [13u32, 99, 1 << 31, u32::MAX] {
        let words = format!("has the unknown value type {id}");
        case(
            all,
            &format!("value-type-{id}"),
            one(entry("k", id, &[0; 8])),
            "damaged",
            &words,
            "a value of a type that is not known",
        );
    }
    let architecture = entry("general.architecture", 8, &string("llama"));
    let twice = gguf(&[architecture.clone(), architecture], &[], 0);
    case(
        all,
        "key-architecture-twice",
        twice,
        "damaged",
        "\"general.architecture\" is given twice",
        "a key that is given twice",
    );
    let pair = |a: &[u8], b: &[u8]| {
        gguf(&[entry("llama.block_count", 4, a), entry("llama.block_count", 4, b)], &[], 0)
    };
    let words = "\"llama.block_count\" is given twice";
    case(
        all,
        "key-twice",
        pair(&[1, 0, 0, 0], &[2, 0, 0, 0]),
        "damaged",
        words,
        "a key with two values, of which readers take different ones",
    );
    case(
        all,
        "key-twice-of-one-value",
        pair(&[1, 0, 0, 0], &[1, 0, 0, 0]),
        "damaged",
        words,
        "a key that is given twice",
    );
    let number = entry("general.architecture", 4, &1u32.to_le_bytes());
    case(
        all,
        "architecture-a-number",
        one(number),
        "damaged",
        "\"general.architecture\" has value type 4",
        "an architecture that is no text",
    );
    let name = entry("general.architecture", 8, &string([0xff, 0xfe]));
    case(
        all,
        "architecture-not-utf-8",
        one(name),
        "damaged",
        "the architecture at byte",
        "an architecture that is no text",
    );
}

fn arrays(all: &mut Catalogue) {
    let one = |value: Vec<u8>| gguf(&[entry("k", 9, &value)], &[], 0);
    for (name, id, count) in [
        ("bytes-most", 0u32, MOST),
        ("bytes-2-40", 0, 1 << 40),
        ("f64-2-61", 12, 1 << 61),
        ("f64-2-63", 12, 1 << 63),
        ("u16-2-63", 2, 1 << 63),
        ("strings-2-61", 8, 1 << 61),
        ("strings-100", 8, 100),
        ("arrays-2-60", 9, 1 << 60),
        ("u32-1000", 4, 1000),
    ] {
        let attacks = format!("an array of {count} values that are not there");
        case(
            all,
            &format!("array-of-{name}"),
            one(array(id, count, &[0; 16])),
            "damaged",
            "array values at byte",
            &attacks,
        );
    }
    for id in [13u32, 99, u32::MAX] {
        let words = format!("has the unknown value type {id}");
        case(
            all,
            &format!("array-type-{id}"),
            one(array(id, 0, &[])),
            "damaged",
            &words,
            "an array of values of no type",
        );
    }
    for depth in [5, 200, 3000] {
        let mut deep = array(0, 0, &[]);
        for _ in 1..depth {
            deep = array(9, 1, &deep);
        }
        case(
            all,
            &format!("array-depth-{depth}"),
            one(deep),
            "damaged",
            "nests arrays deeper than 4",
            "arrays inside each other",
        );
    }
    let strings = [&string("a")[..], &MOST.to_le_bytes(), &[0; 16]].concat();
    case(
        all,
        "array-string-most",
        one(array(8, 2, &strings)),
        "damaged",
        "a metadata string at byte",
        "a string in an array that is longer than the file",
    );
}

fn alignments(all: &mut Catalogue) {
    for value in [0u32, 3, 33, 48, 1 << 21, 1 << 31, u32::MAX] {
        let alignment = entry("general.alignment", 4, &value.to_le_bytes());
        let words = format!("alignment {value} is not a power of two");
        case(
            all,
            &format!("alignment-{value}"),
            gguf(&[alignment], &[], 0),
            "damaged",
            &words,
            "an alignment that is none",
        );
    }
    let alignment = entry("general.alignment", 4, &64u32.to_le_bytes());
    let twice = gguf(&[alignment.clone(), alignment], &[], 0);
    case(
        all,
        "alignment-twice",
        twice,
        "damaged",
        "\"general.alignment\" is given twice",
        "an alignment that is given twice",
    );
    for (name, id, bytes) in
        [("u64", 10, &64u64.to_le_bytes()[..]), ("text", 8, &string("32")), ("signed", 5, &[32, 0, 0, 0])]
    {
        let wide = entry("general.alignment", id, bytes);
        let words = "\"general.alignment\" has value type";
        case(
            all,
            &format!("alignment-of-{name}"),
            gguf(&[wide], &[], 0),
            "damaged",
            words,
            "an alignment of another type",
        );
    }
}

fn one(dimensions: &[u64], id: u32, offset: u64) -> Vec<u8> {
    gguf(&[], &[info("w", dimensions, id, offset)], 64)
}

fn shapes(all: &mut Catalogue) {
    for (name, dimensions, id, words) in
        [("9", &[1u64; 9][..], 0u32, "has 9 dimensions"), ("65", &[1; 65], 0, "has 65 dimensions")]
    {
        case(
            all,
            &format!("dimensions-{name}"),
            one(dimensions, id, 0),
            "damaged",
            words,
            "more dimensions than there are",
        );
    }
    let mut many = one(&[1], 0, 0);
    many[24 + 9..24 + 13].fill(0xff);
    case(all, "dimensions-most", many, "limit", "has 4294967295 dimensions", "2^32 - 1 dimensions");
    for (name, dimensions, id) in [
        ("2-64", &[1u64 << 32, 1 << 32][..], 0u32),
        ("2-63-by-2", &[1 << 63, 2], 24),
        ("most-of-f32", &[MOST], 0),
        ("most-by-most", &[MOST, MOST], 1000),
        ("2-62-of-f32", &[1 << 62], 0),
        ("of-four", &[1 << 16, 1 << 16, 1 << 16, 1 << 16], 0),
    ] {
        let words = "its shape or offset overflows 64 bits";
        case(
            all,
            &format!("shape-{name}"),
            one(dimensions, id, 0),
            "damaged",
            words,
            "a shape whose product overflows",
        );
    }
    // 2^60 blocks of 18 bytes: the product fits, the bytes overflow nothing and lie outside
    let huge = one(&[1 << 58], 2, 0);
    case(all, "shape-2-58-of-blocks", huge, "damaged", "ends at byte", "blocks far beyond the file");
    for (name, dimensions, id, words) in [
        ("q4_0-of-31", &[31u64][..], 2u32, "rows of 31 are no multiple of the 32"),
        ("q8_0-of-no-dimension", &[], 8, "rows of 1 are no multiple of the 32"),
        ("q6_k-of-128", &[128], 14, "rows of 128 are no multiple of the 256"),
        ("q4_k-of-257", &[257, 2], 12, "rows of 257 are no multiple of the 256"),
        ("q5_0-of-16-by-2", &[16, 2], 6, "rows of 16 are no multiple of the 32"),
    ] {
        case(
            all,
            &format!("blocks-{name}"),
            one(dimensions, id, 0),
            "damaged",
            words,
            "rows that are no whole blocks",
        );
    }
}

fn places(all: &mut Catalogue) {
    for (name, dimensions, id, offset, words) in [
        ("offset-4", &[1u64][..], 0u32, 4u64, "at offset 4 is not aligned to 32 bytes"),
        ("offset-31", &[1], 0, 31, "at offset 31 is not aligned"),
        ("one-number-too-long", &[17], 0, 0, "ends at byte"),
        ("at-the-end", &[1], 0, 64, "ends at byte"),
        ("empty-behind-the-end", &[0], 0, 96, "ends at byte"),
        ("at-2-62", &[1], 0, 1 << 62, "ends at byte"),
        ("at-most", &[1], 0, MOST - 31, "its shape or offset overflows"),
        ("unknown-type-at-the-end", &[1], 1000, 64, "ends at byte"),
        ("unknown-type-at-2-63", &[1], 1000, 1 << 63, "ends at byte"),
    ] {
        case(
            all,
            &format!("place-{name}"),
            one(dimensions, id, offset),
            "damaged",
            words,
            "a tensor outside the file, or not aligned",
        );
    }
    let pair = |a: (u64, u32, u64), b: (u64, u32, u64)| {
        gguf(&[], &[info("a", &[a.0], a.1, a.2), info("b", &[b.0], b.1, b.2)], 64)
    };
    for (name, first, second) in [
        ("by-one-number", (9, 0, 0), (1, 0, 32)),
        ("same-place", (1, 0, 0), (1, 0, 0)),
        ("with-an-unknown-type", (1, 0, 0), (1, 1000, 0)),
        ("of-two-unknown-types", (1, 1000, 0), (1, 1001, 0)),
        ("inside", (16, 0, 0), (1, 0, 32)),
    ] {
        case(
            all,
            &format!("overlap-{name}"),
            pair(first, second),
            "damaged",
            "overlap at byte",
            "two tensors of which one reads the other's bytes",
        );
    }
}

fn names(all: &mut Catalogue) {
    let tensors = |infos: &[Vec<u8>]| gguf(&[], infos, 64);
    let same = [info("a", &[1], 0, 0), info("a", &[1], 0, 32)];
    case(
        all,
        "name-twice",
        tensors(&same),
        "twice",
        "tensor \"a\" is given twice",
        "two tensors of one name",
    );
    let invalid = tensors(&[info([0xff], &[1], 0, 0)]);
    case(all, "name-not-utf-8", invalid, "damaged", "a tensor name at byte", "a name that is no text");
    let long = tensors(&[info([b'n'; 65537], &[1], 0, 0)]);
    case(
        all,
        "name-of-65537-bytes",
        long,
        "limit",
        "a tensor name of 65537 bytes",
        "a name as long as no name is",
    );
    let mut huge = tensors(&[info("w", &[1], 0, 0)]);
    huge[24..32].fill(0xff);
    case(
        all,
        "name-of-most",
        huge,
        "damaged",
        "a tensor name at byte 32 is",
        "a name that is longer than the file",
    );
    for (name, text, words) in [
        ("of-nothing", "", "must not be empty"),
        ("with-a-hash", "a#tiles", "contain '#'"),
        ("of-the-seal", "#seal", "contain '#'"),
        ("of-metadata", "__metadata__", "contain '#'"),
    ] {
        case(
            all,
            &format!("name-{name}"),
            tensors(&[info(text, &[1], 0, 0)]),
            "unstorable",
            words,
            "a name that an .ecq file cannot have",
        );
    }
}

fn cuts(all: &mut Catalogue) {
    let whole = gguf(
        &[
            entry("general.architecture", 8, &string("llama")),
            entry("k", 9, &array(8, 2, &[string("a"), string("bc")].concat())),
        ],
        &[info("late", &[64, 2], 3, 32), info("early", &[2, 3], 0, 0)],
        112,
    );
    for (name, at) in [
        ("version", 6),
        ("tensor-count", 12),
        ("entry-count", 20),
        ("key-length", 28),
        ("key", 40),
        ("value-type", 54),
        ("value", 62),
        ("array", 90),
        ("tensor-name", 120),
        ("dimensions", 140),
        ("last-info", whole.len() - 112 - 10),
        ("data", whole.len() - 112),
        ("first-tensor", whole.len() - 80),
        ("last-byte", whole.len() - 1),
    ] {
        case(
            all,
            &format!("cut-in-{name}"),
            whole[..at].into(),
            "damaged",
            "",
            &format!("cut at byte {at} of {}", whole.len()),
        );
    }
}

//! Directories that lie: counts, shapes, codecs, places, versions, names.

use serde_json::{Value, json};

use super::forge::Forge;
use super::{Bases, Catalogue};

/// A lie: its name, where in the directory, what instead, the error and words of it.
type Lie = (&'static str, &'static str, Value, &'static str, &'static str);

const MOST: u64 = u64::MAX;

pub fn add(all: &mut Catalogue, bases: &Bases) {
    lies(all, "v1-coded", &bases.v1, "what a coded tensor says of itself", coded());
    lies(all, "v1-values", &bases.v1, "how levels become weights", values());
    lies(all, "v1-file", &bases.v1, "what a file says of itself", file());
    lies(all, "v1-blob", &bases.v1, "what a file says of its blobs", blobs());
    lies(all, "v1-names", &bases.v1, "names of tensors", names());
    lies(all, "v1-older", &bases.v1, "a thing of version 3 in a file of version 1", newer(1));
    lies(all, "v2-floats", &bases.v2, "bit patterns of floats", floats());
    lies(all, "v3-parts", &bases.v3, "tensors that are parts of others", parts());
    lies(all, "v4-prefix", &bases.v4[0], "bands and strips of pairs", pairs());
    lies(all, "lossless", &bases.lossless, "a source that cannot be put together again", sources());
    unknown_fields(all, bases);
    missing_fields(all, bases);
    too_many(all, bases);
}

/// A case for each lie.
pub fn lies(all: &mut Catalogue, base: &str, forge: &Forge, what: &str, lies: Vec<Lie>) {
    for (name, pointer, value, error, words) in lies {
        let mut lying = forge.clone();
        let attacks = format!("{what}: {pointer} is {}", short(&value));
        lying.set(pointer, value);
        all.ecq(&format!("{base}-{name}"), lying.file(), error, words, &attacks);
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.len() > 60 { format!("{}…", text.chars().take(60).collect::<String>()) } else { text }
}

fn coded() -> Vec<Lie> {
    let at = "/tensors/0/coded/codec";
    let nibble = |lanes: u64| json!({"nibble": lanes});
    vec![
        ("rows-fewer", "/tensors/0/coded/rows", json!(4), "corrupt", "a matrix of 4 x 40"),
        ("rows-0", "/tensors/0/coded/rows", json!(0), "corrupt", "a matrix of 0 x 40"),
        (
            "rows-most",
            "/tensors/0/coded/rows",
            json!(MOST),
            "corrupt",
            "a matrix of 18446744073709551615 x 40",
        ),
        ("cols-more", "/tensors/0/coded/cols", json!(41), "corrupt", "a matrix of 5 x 41"),
        ("cols-negative", "/tensors/0/coded/cols", json!(-1), "header", "directory: "),
        ("cols-fraction", "/tensors/0/coded/cols", json!(40.5), "header", "directory: "),
        ("tile-rows-0", "/tensors/0/coded/tile_rows", json!(0), "corrupt", "tiles of 0 rows"),
        ("tile-rows-more", "/tensors/0/coded/tile_rows", json!(6), "corrupt", "tiles of 6 rows"),
        (
            "tile-rows-fewer",
            "/tensors/0/coded/tile_rows",
            json!(1),
            "corrupt",
            "index of 16 bytes for 5 tiles",
        ),
        ("lanes-0", at, nibble(0), "corrupt", "0 lanes"),
        ("lanes-65", at, nibble(65), "corrupt", "65 lanes"),
        ("lanes-1088", at, nibble(1088), "corrupt", "1088 lanes"),
        ("lanes-2-32", at, nibble(1 << 32), "header", "directory: "),
        ("lanes-128", at, nibble(128), "corrupt", "corrupt tile 0"),
        ("codec-of-other-symbols", at, json!("byte_pairs"), "corrupt", "corrupt tables"),
        ("codec-of-nibbles", "/tensors/1/coded/codec", nibble(64), "corrupt", "corrupt tables"),
        ("codec-unknown", at, json!("huffman"), "header", "unknown variant"),
        ("codec-two-at-once", at, json!({"nibble": 64, "pairs": {}}), "header", "directory: "),
        ("raw-bits-of-version-2", "/tensors/0/coded/raw_bits", json!(9), "corrupt", "needs version 2"),
        ("raw-bits-12", "/tensors/0/coded/raw_bits", json!(12), "corrupt", "12 raw bits"),
        ("raw-bits-most", "/tensors/0/coded/raw_bits", json!(u32::MAX), "corrupt", "4294967295 raw bits"),
        ("raw-bits-fewer", "/tensors/0/coded/raw_bits", json!(0), "corrupt", "corrupt index"),
        ("raw-bits-more", "/tensors/0/coded/raw_bits", json!(8), "corrupt", "corrupt index"),
        ("center-too-high", "/tensors/0/coded/center", json!(1 << 24 | 1), "corrupt", "around 16777217"),
        ("center-too-low", "/tensors/0/coded/center", json!(-(1 << 24) - 1), "corrupt", "around -16777217"),
        ("center-lowest", "/tensors/0/coded/center", json!(i32::MIN), "corrupt", "around -2147483648"),
        ("center-2-40", "/tensors/0/coded/center", json!(1u64 << 40), "header", "directory: "),
        ("shape-other", "/tensors/0/shape", json!([5, 8]), "corrupt", "for the shape"),
        ("shape-2-63", "/tensors/0/shape", json!([1u64 << 63, 2, 40]), "corrupt", "product overflows"),
        ("shape-most", "/tensors/0/shape", json!([MOST, 40]), "corrupt", "product overflows"),
        ("shape-none", "/tensors/0/shape", json!([]), "corrupt", "a matrix of 5 x 40 for the shape []"),
        ("shape-beyond-64-bits", "/tensors/0/shape", json!([1e30, 40]), "header", "directory: "),
        ("shape-of-many-ones", "/tensors/0/shape", many_ones(), "limit", "dimensions of 'n'"),
        ("place-in-no-file", "/tensors/0/source/file", json!(9), "corrupt", "outside the source"),
        ("place-at-most", "/tensors/0/source/offset", json!(MOST), "corrupt", "outside the source"),
        ("place-too-long", "/tensors/0/source/len", json!(1u64 << 40), "corrupt", "outside the source"),
        (
            "checksum-wrong",
            "/tensors/0/crc",
            json!(1),
            "corrupt",
            "index, tables or side data: its checksum is wrong",
        ),
        ("checksum-2-32", "/tensors/0/crc", json!(1u64 << 32), "header", "directory: "),
        ("not-coded-after-all", "/tensors/0/coded", json!(null), "corrupt", "no entry 'n'"),
        ("scheme-of-a-number", "/tensors/0/coded/scheme", json!(4), "header", "directory: "),
    ]
}

fn many_ones() -> Value {
    let mut shape = vec![json!(1); 70];
    shape.extend([json!(5), json!(40)]);
    json!(shape)
}

fn values() -> Vec<Lie> {
    let (step, scales) = ("/tensors/0/coded/values/step", "/tensors/0/coded/values/scales");
    let group = |size: u64| json!({"group": {"size": size, "min": false}});
    let sides = |both: bool| json!({"row_column": {"row": both, "column": both}});
    vec![
        ("step-beyond-f32", step, json!(1e39), "corrupt", "not a finite f32"),
        ("step-between-f32", step, json!(0.1), "corrupt", "not a finite f32"),
        ("step-null", step, json!(null), "header", "directory: "),
        ("bias-below-f32", "/tensors/0/coded/values/bias", json!(1e-300), "corrupt", "not a finite f32"),
        ("offset-beyond-f32", "/tensors/0/coded/values/offset", json!(-1e300), "corrupt", "not a finite f32"),
        ("groups-of-0", scales, group(0), "corrupt", "groups of 0 columns"),
        ("groups-beyond-a-row", scales, group(41), "corrupt", "groups of 41 columns"),
        ("groups-of-most", scales, group(MOST), "corrupt", "groups of 18446744073709551615 columns"),
        ("groups-of-1", scales, group(1), "corrupt", "corrupt side data"),
        ("no-scales-after-all", scales, json!("none"), "header", "belong to something"),
        ("scales-unknown", scales, json!("some"), "header", "unknown variant"),
        (
            "scales-of-neither",
            "/tensors/1/coded/values/scales",
            sides(false),
            "corrupt",
            "neither row nor column",
        ),
        (
            "scales-of-columns-too",
            "/tensors/1/coded/values/scales",
            sides(true),
            "corrupt",
            "corrupt side data",
        ),
    ]
}

fn file() -> Vec<Lie> {
    vec![
        ("version-5", "/version", json!(5), "version", "format version 5"),
        ("version-0", "/version", json!(0), "version", "format version 0"),
        ("version-most", "/version", json!(u32::MAX), "version", "format version 4294967295"),
        ("version-negative", "/version", json!(-1), "header", "directory: "),
        ("version-text", "/version", json!("1"), "header", "directory: "),
        ("version-2-32", "/version", json!(1u64 << 32), "header", "directory: "),
        ("writer-a-number", "/writer", json!(7), "header", "directory: "),
        ("lossless-a-number", "/lossless", json!(1), "header", "directory: "),
        ("no-sources", "/sources", json!([]), "corrupt", "outside the source"),
        ("source-too-short", "/sources/0/size", json!(10), "corrupt", "outside the source"),
        ("verbatim-of-nothing", "/sources/0/verbatim", json!(2), "corrupt", "verbatim blob is missing"),
        ("verbatim-most", "/sources/0/verbatim", json!(MOST), "corrupt", "verbatim blob is missing"),
        ("verbatim-a-companion", "/sources/0/verbatim", json!(0), "corrupt", "verbatim blob is missing"),
        ("no-tensors", "/tensors", json!([]), "header", "belong to something"),
        ("tensors-an-object", "/tensors", json!({}), "header", "directory: "),
    ]
}

fn blobs() -> Vec<Lie> {
    vec![
        ("none", "/blobs", json!([]), "corrupt", "verbatim blob is missing"),
        ("size-2-40", "/blobs/0/size", json!(1u64 << 40), "limit", "above the limit of 1073741824"),
        ("size-2-63", "/blobs/0/size", json!(1u64 << 63), "limit", "the size of blob"),
        ("size-most", "/blobs/0/size", json!(MOST), "limit", "the size of blob"),
        ("crc-0", "/blobs/0/crc", json!(0), "corrupt", "corrupt blob: its checksum is wrong"),
        ("crc-of-verbatim", "/blobs/1/crc", json!(0), "corrupt", "corrupt blob: its checksum is wrong"),
        ("role-unknown", "/blobs/0/role", json!("trojan"), "header", "unknown variant"),
        ("name-a-number", "/blobs/0/name", json!(1), "header", "directory: "),
    ]
}

fn names() -> Vec<Lie> {
    vec![
        ("twice", "/tensors/0/name", json!("b"), "header", "two tensors are called 'b'"),
        ("of-no-entry", "/tensors/0/name", json!("m"), "corrupt", "no entry 'm#index'"),
        ("of-no-plain-entry", "/tensors/2/name", json!("m"), "corrupt", "no entry 'm'"),
        ("empty", "/tensors/2/name", json!(""), "corrupt", "must not be empty"),
        ("with-a-hash", "/tensors/2/name", json!("n#x"), "corrupt", "must not be empty, contain '#'"),
        ("of-the-seal", "/tensors/2/name", json!("#seal"), "corrupt", "must not be empty, contain '#'"),
        (
            "of-metadata",
            "/tensors/2/name",
            json!("__metadata__"),
            "corrupt",
            "must not be empty, contain '#'",
        ),
        ("too-long", "/tensors/2/name", json!("n".repeat(70_000)), "limit", "the name of a tensor"),
        ("a-list", "/tensors/2/name", json!(["norm"]), "header", "directory: "),
        ("plain-of-another-shape", "/tensors/2/shape", json!([4]), "corrupt", "not the entry that it says"),
        ("plain-of-another-type", "/tensors/2/dtype", json!("F16"), "corrupt", "not the entry that it says"),
        (
            "plain-of-another-length",
            "/tensors/2/source/len",
            json!(5),
            "corrupt",
            "not the entry that it says",
        ),
        (
            "plain-shape-overflows",
            "/tensors/3/shape",
            json!([MOST, 2]),
            "corrupt",
            "not the entry that it says",
        ),
        (
            "plain-checksum-wrong",
            "/tensors/2/crc",
            json!(0),
            "corrupt",
            "corrupt data: its checksum is wrong",
        ),
    ]
}

/// What version 3 brought, in a file that says that it is older.
fn newer(version: u32) -> Vec<Lie> {
    let (scales, words) = ("/tensors/0/coded/values/scales", "needs version 3, the file is of version");
    debug_assert!(version < 3);
    let numbers = json!({"numbers": {"size": 32, "format": "bf16", "min": "none", "mapped": false}});
    let nested = json!({"nested": {"size": 32, "supers": 1, "bias": 0, "min": false}});
    let lookup = json!({"lookup": {"size": 32, "supers": 1, "offset": 0}});
    let pairs = json!({"pairs": {"code": "prefix", "band": 4, "strip": 32}});
    vec![
        ("codebook", "/tensors/1/coded/values/codebook", json!(vec![0.5; 16]), "corrupt", words),
        ("predictor", "/tensors/0/coded/predictor", json!("up"), "corrupt", words),
        ("part", "/tensors/2/part", json!({"of": "n", "index": 0}), "corrupt", words),
        ("numbers", scales, numbers, "corrupt", words),
        ("nested", scales, nested, "corrupt", words),
        ("lookup", scales, lookup, "corrupt", words),
        ("pattern", "/tensors/0/coded/pattern", json!({"format": "bf16", "base": 0}), "corrupt", ""),
        ("pairs", "/tensors/1/coded/codec", pairs, "corrupt", "needs version 4, the file is of version 1"),
    ]
}

fn floats() -> Vec<Lie> {
    let (base, format) = ("/tensors/1/coded/pattern/base", "/tensors/1/coded/pattern/format");
    let book = json!(vec![0.5; 16]);
    vec![
        ("version-1", "/version", json!(1), "corrupt", "needs version 2, the file is of version 1"),
        ("base-too-high", base, json!(1 << 15), "corrupt", ""),
        ("base-most", base, json!(u32::MAX), "corrupt", ""),
        ("base-2-32", base, json!(1u64 << 32), "header", "directory: "),
        ("base-negative", base, json!(-1), "header", "directory: "),
        ("format-of-8-bits", format, json!("f8_e5m2"), "corrupt", ""),
        ("format-unknown", format, json!("f64"), "header", "unknown variant"),
        ("no-pattern", "/tensors/1/coded/pattern/more", json!(1), "header", "unknown field"),
        (
            "values-beside-a-pattern",
            "/tensors/1/coded/values/step",
            json!(2.0),
            "corrupt",
            "values beside a pattern",
        ),
        ("codebook-beside-a-pattern", "/tensors/1/coded/values/codebook", book, "corrupt", ""),
        ("center-beside-a-pattern", "/tensors/1/coded/center", json!(1), "corrupt", ""),
        (
            "predictor-beside-a-pattern",
            "/tensors/1/coded/predictor",
            json!("left"),
            "corrupt",
            "a predictor beside a pattern",
        ),
        (
            "source-of-other-length",
            "/tensors/1/source/len",
            json!(100),
            "corrupt",
            "floats of 100 bytes in the source",
        ),
        ("raw-bits-beyond-the-type", "/tensors/2/coded/raw_bits", json!(6), "corrupt", ""),
        ("raw-bits-12", "/tensors/0/coded/raw_bits", json!(13), "corrupt", "13 raw bits"),
    ]
}

fn parts() -> Vec<Lie> {
    let part = |of: &str, index: u64| json!({"of": of, "index": index});
    let at = "/tensors/5/part";
    vec![
        (
            "of-nobody",
            at,
            part("nobody", 0),
            "corrupt",
            "a part of 'nobody', which is no other, coded tensor",
        ),
        ("of-no-name", at, part("", 0), "corrupt", "a part of ''"),
        ("of-itself", at, part("map.scales", 0), "corrupt", "a part of 'map.scales'"),
        ("of-a-plain-tensor", at, part("norm", 0), "corrupt", "a part of 'norm'"),
        ("coded-and-a-part", "/tensors/0/part", part("nested", 0), "corrupt", "a part of 'nested'"),
        ("shape-2-63", "/tensors/5/shape", json!([1u64 << 63, 2]), "corrupt", "product overflows"),
        ("place-at-most", "/tensors/5/source/offset", json!(MOST), "corrupt", "outside the source"),
        ("place-in-no-file", "/tensors/5/source/file", json!(1), "corrupt", "outside the source"),
        ("name-twice", "/tensors/5/name", json!("map"), "header", "two tensors are called 'map'"),
        ("name-with-a-hash", "/tensors/5/name", json!("a#b"), "corrupt", "must not be empty, contain '#'"),
        ("index-2-32", at, part("map", 1 << 32), "header", "directory: "),
        ("index-negative", "/tensors/5/part/index", json!(-1), "header", "directory: "),
        ("nothing-after-all", at, json!(null), "corrupt", "no entry 'map.scales'"),
        ("entry-beside-a-part", "/tensors/4/part", part("map", 0), "header", "belong to something"),
        ("version-2", "/version", json!(2), "corrupt", "needs version 3, the file is of version 2"),
    ]
}

fn pairs() -> Vec<Lie> {
    let (band, strip) = ("/tensors/0/coded/codec/pairs/band", "/tensors/0/coded/codec/pairs/strip");
    vec![
        ("band-0", band, json!(0), "corrupt", "bands of 0 rows"),
        ("band-odd", band, json!(3), "corrupt", "bands of 3 rows"),
        ("band-66", band, json!(66), "corrupt", "bands of 66 rows"),
        ("band-most", band, json!(u32::MAX), "corrupt", "bands of 4294967295 rows"),
        ("band-2-32", band, json!(1u64 << 32), "header", "directory: "),
        ("strip-0", strip, json!(0), "corrupt", "strips of 0 columns"),
        ("strip-33", strip, json!(33), "corrupt", "strips of 33 columns"),
        ("strip-wider", strip, json!(64), "corrupt", "corrupt tile 0"),
        ("strip-whole", strip, json!(MOST), "corrupt", "corrupt tile 0"),
        ("code-unknown", "/tensors/0/coded/codec/pairs/code", json!("huffman"), "header", "unknown variant"),
        ("no-codec", "/tensors/0/coded/codec/pairs", json!(null), "header", "directory: "),
        ("byte-pairs", "/tensors/0/coded/codec", json!("byte_pairs"), "corrupt", "corrupt t"),
        ("tile-rows-fewer", "/tensors/0/coded/tile_rows", json!(2), "corrupt", "for 5 tiles"),
        ("version-3", "/version", json!(3), "corrupt", "needs version 4, the file is of version 3"),
        ("predictor-unknown", "/tensors/2/coded/predictor", json!("down"), "header", "unknown variant"),
        ("predictor-a-number", "/tensors/2/coded/predictor", json!(1), "header", "directory: "),
    ]
}

fn sources() -> Vec<Lie> {
    let sum = json!("0".repeat(64));
    vec![
        ("sha256-wrong", "/sources/0/sha256", sum, "sha256", "comes back with SHA-256"),
        ("sha256-escapes", "/sources/0/sha256", json!("\u{1b}[2J\u{1b}]0;x\u{7}"), "sha256", "it was "),
        ("sha256-no-sum", "/sources/0/sha256", json!("?"), "sha256", "it was ?"),
        ("size-more", "/sources/0/size", json!(3000), "inconsistent", "its verbatim part is too short"),
        ("size-most", "/sources/0/size", json!(MOST), "inconsistent", "its verbatim part is too short"),
        ("part-of-other-index", "/tensors/1/part/index", json!(1), "inconsistent", "does not hold its bytes"),
        ("part-that-is-none", "/tensors/1/part/index", json!(2), "inconsistent", "does not hold its bytes"),
        ("part-of-most", "/tensors/1/part/index", json!(u32::MAX), "inconsistent", "does not hold its bytes"),
        ("part-of-other-bytes", "/tensors/1/crc", json!(0), "inconsistent", "does not hold its bytes"),
        ("scheme-of-nobody", "/tensors/0/coded/scheme", json!("mlx-3"), "inconsistent", "mlx-3"),
        ("scheme-empty", "/tensors/0/coded/scheme", json!(""), "inconsistent", ""),
        ("scheme-of-blocks", "/tensors/0/coded/scheme", json!("q4_1"), "inconsistent", ""),
        ("scheme-of-gptq", "/tensors/0/coded/scheme", json!("gptq-4"), "inconsistent", ""),
        ("scheme-of-nf4", "/tensors/0/coded/scheme", json!("nf4"), "inconsistent", ""),
        ("scheme-of-8-bits", "/tensors/0/coded/scheme", json!("mlx-8"), "inconsistent", "length"),
        ("step-of-2", "/tensors/0/coded/values/step", json!(2.0), "inconsistent", ""),
        (
            "scales-of-f16",
            "/tensors/0/coded/values/scales/numbers/format",
            json!("f16"),
            "inconsistent",
            "does not hold its bytes",
        ),
        (
            "scales-mapped",
            "/tensors/0/coded/values/scales/numbers/mapped",
            json!(true),
            "corrupt",
            "corrupt side data",
        ),
        ("center-of-1", "/tensors/0/coded/center", json!(1), "inconsistent", ""),
        (
            "overlap-in-the-source",
            "/tensors/1/source/offset",
            json!(2400),
            "inconsistent",
            "overlaps 'a.weight'",
        ),
        ("hole-in-the-source", "/tensors/3/source/offset", json!(2663), "inconsistent", ""),
        ("longer-in-the-source", "/tensors/0/source/len", json!(2040), "inconsistent", ""),
    ]
}

/// A field that nobody knows, at every level.
fn unknown_fields(all: &mut Catalogue, bases: &Bases) {
    let of_v1 = [
        ("directory", ""),
        ("source", "/sources/0"),
        ("blob", "/blobs/0"),
        ("tensor", "/tensors/0"),
        ("place", "/tensors/0/source"),
        ("coded", "/tensors/0/coded"),
        ("values", "/tensors/0/coded/values"),
        ("groups", "/tensors/0/coded/values/scales/group"),
        ("rows", "/tensors/1/coded/values/scales/row_column"),
    ];
    let of_v3 = [
        ("numbers", "/tensors/0/coded/values/scales/numbers"),
        ("nested", "/tensors/1/coded/values/scales/nested"),
        ("lookup", "/tensors/2/coded/values/scales/lookup"),
        ("part", "/tensors/5/part"),
    ];
    let of_v4 = [("pairs", "/tensors/0/coded/codec/pairs"), ("pattern", "/tensors/3/coded/pattern")];
    let bases = [(&bases.v1, &of_v1[..]), (&bases.v3, &of_v3), (&bases.v4[0], &of_v4)];
    for (base, (name, parent)) in bases.into_iter().flat_map(|(b, list)| list.iter().map(move |l| (b, *l))) {
        let mut lying = base.clone();
        lying.set(&format!("{parent}/more"), json!(1));
        let attacks =
            format!("an unknown field in {}", if parent.is_empty() { "the directory" } else { parent });
        all.ecq(&format!("unknown-field-{name}"), lying.file(), "header", "unknown field", &attacks);
    }
}

/// The fields without which nothing can be understood.
fn missing_fields(all: &mut Catalogue, bases: &Bases) {
    for (name, parent, key) in [
        ("version", "", "version"),
        ("sources", "", "sources"),
        ("blobs", "", "blobs"),
        ("tensors", "", "tensors"),
        ("size-of-a-blob", "/blobs/0", "size"),
        ("place", "/tensors/0", "source"),
        ("shape", "/tensors/0", "shape"),
        ("checksum", "/tensors/0", "crc"),
        ("codec", "/tensors/0/coded", "codec"),
        ("rows", "/tensors/0/coded", "rows"),
        ("scales", "/tensors/0/coded/values", "scales"),
    ] {
        let mut lying = bases.v1.clone();
        if let Some(parent) = lying.directory.pointer_mut(parent).and_then(Value::as_object_mut) {
            parent.remove(key);
        }
        let attacks = format!("{parent}/{key} is not there");
        all.ecq(&format!("missing-field-{name}"), lying.file(), "header", "missing field", &attacks);
    }
}

/// Counts that no file backs: what they ask for must not be allocated.
fn too_many(all: &mut Catalogue, bases: &Bases) {
    let sizes: [(&str, [u64; 3], &'static str, &str); 9] = [
        ("2-40-tiles", [1 << 40, 40, 1], "limit", "the scales of 'n' is"),
        ("tile-of-2-20-rows", [1 << 40, 40, 1 << 20], "corrupt", "tiles of 1048576 x 40 weights"),
        ("one-tile-of-2-20-rows", [1 << 20, 40, 1 << 20], "corrupt", "tiles of 1048576 x 40 weights"),
        ("row-of-2-24-and-1", [1, (1 << 24) + 1, 1], "corrupt", "tiles of 1 x 16777217 weights"),
        ("2-36-tiles", [1 << 36, 40, 1], "limit", "the scales of 'n' is 137438953472"),
        ("2-20-tiles", [1 << 20, 40, 1], "corrupt", "index of 16 bytes for 1048576 tiles"),
        ("most-rows", [MOST, 1, 1], "limit", "the scales of 'n' is"),
        ("2-63-rows", [1 << 63, 1, 1 << 24], "limit", "the scales of 'n' is"),
        ("2-58-tiles", [1 << 58, 40, 1], "limit", "the scales of 'n' is"),
    ];
    for (name, [rows, cols, height], error, words) in sizes {
        let mut lying = bases.v1.clone();
        lying.set("/tensors/0/shape", json!([rows, cols]));
        for (key, value) in [("rows", rows), ("cols", cols), ("tile_rows", height)] {
            lying.set(&format!("/tensors/0/coded/{key}"), json!(value));
        }
        // groups as wide as a row
        lying.set("/tensors/0/coded/values/scales", json!({"group": {"size": cols, "min": false}}));
        let attacks = format!("{rows} x {cols} weights in tiles of {height} rows, of which there are 200");
        all.ecq(&format!("v1-count-{name}"), lying.file(), error, words, &attacks);
    }
}

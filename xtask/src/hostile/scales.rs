//! Scales, codebooks and predictions that lie; side data whose tables, contexts and states are wrong.

use serde_json::{Value, json};

use super::directory::lies;
use super::forge::Forge;
use super::{Bases, Catalogue};

pub fn add(all: &mut Catalogue, bases: &Bases) {
    numbers(all, &bases.v3);
    books(all, &bases.v3);
    side_data(all, &bases.v1);
    maps(all, &bases.v3);
}

fn numbers(all: &mut Catalogue, base: &Forge) {
    let numbers = |size: u64, format: &str, min: &str, mapped: bool| json!({"numbers": {"size": size, "format": format, "min": min, "mapped": mapped}});
    let nested = |size: u64, supers: u64, bias: i64| json!({"nested": {"size": size, "supers": supers, "bias": bias, "min": true}});
    let lookup = |size: u64, supers: u64, offset: f64| json!({"lookup": {"size": size, "supers": supers, "offset": offset}});
    let at = ["/tensors/0", "/tensors/1", "/tensors/2"].map(|t| format!("{t}/coded/values/scales"));
    let [first, second, third] = at.each_ref().map(String::as_str);
    let most = u64::MAX;
    for (name, pointer, value, error, words) in [
        (
            "numbers-of-0",
            first,
            numbers(0, "f32", "zero", true),
            "corrupt",
            "groups of 0 columns in rows of 40",
        ),
        ("numbers-of-41", first, numbers(41, "f32", "zero", true), "corrupt", "groups of 41 columns"),
        ("numbers-of-most", first, numbers(most, "f32", "zero", true), "corrupt", "columns in rows of 40"),
        ("numbers-of-f16", first, numbers(8, "f16", "zero", true), "corrupt", "corrupt side data"),
        ("numbers-without-zeros", first, numbers(8, "f32", "none", true), "corrupt", "corrupt side data"),
        ("numbers-with-minima", first, numbers(8, "f32", "number", true), "corrupt", "corrupt side data"),
        ("numbers-without-a-map", first, numbers(8, "f32", "zero", false), "corrupt", "corrupt side data"),
        ("numbers-of-4", first, numbers(4, "f32", "zero", true), "corrupt", "corrupt side data"),
        ("numbers-of-f64", first, numbers(8, "f64", "zero", true), "header", "unknown variant"),
        ("numbers-of-no-minimum", first, numbers(8, "f32", "one", true), "header", "unknown variant"),
        ("numbers-two-kinds", first, json!({"numbers": {}, "nested": {}}), "header", "directory: "),
        ("nested-of-0", second, nested(0, 2, -32), "corrupt", "groups of 0 columns"),
        ("nested-of-41", second, nested(41, 2, -32), "corrupt", "groups of 41 columns"),
        ("nested-every-0", second, nested(8, 0, -32), "corrupt", "a number for every 0 groups"),
        ("nested-every-1", second, nested(8, 1, -32), "corrupt", "corrupt side data"),
        ("nested-every-most", second, nested(8, most, -32), "corrupt", "corrupt side data"),
        ("nested-bias-1", second, nested(8, 2, 1), "corrupt", "a bias of 1, expected -128 to 0"),
        ("nested-bias-129", second, nested(8, 2, -129), "corrupt", "a bias of -129"),
        ("nested-bias-lowest", second, nested(8, 2, i32::MIN.into()), "corrupt", "a bias of -2147483648"),
        ("nested-bias-2-40", second, nested(8, 2, 1 << 40), "header", "directory: "),
        ("lookup-of-0", third, lookup(0, 3, 0.5), "corrupt", "groups of 0 columns"),
        ("lookup-every-0", third, lookup(8, 0, 0.5), "corrupt", "a number for every 0 groups"),
        ("lookup-every-2", third, lookup(8, 2, 0.5), "corrupt", "corrupt side data"),
        (
            "lookup-offset-between-f32",
            third,
            lookup(8, 3, 0.1),
            "corrupt",
            "offset of the scales is not a finite f32",
        ),
        (
            "lookup-offset-beyond-f32",
            third,
            lookup(8, 3, 1e39),
            "corrupt",
            "offset of the scales is not a finite f32",
        ),
        (
            "lookup-offset-null",
            third,
            json!({"lookup": {"size": 8, "supers": 3, "offset": null}}),
            "header",
            "directory: ",
        ),
    ] {
        let mut lying = base.clone();
        lying.set(pointer, value);
        let attacks = format!("scales: {name} of columns, groups or type that the side data have not");
        all.ecq(&format!("v3-scales-{name}"), lying.file(), error, words, &attacks);
    }
}

fn books(all: &mut Catalogue, base: &Forge) {
    let book = |first: Value, count: usize| {
        let mut values = vec![first];
        values.resize(count, json!(0.5));
        json!(values)
    };
    let own = "/tensors/2/coded/values/codebook";
    let predictor = "/tensors/3/coded/predictor";
    lies(
        all,
        "v3-codebook",
        base,
        "a codebook, or a prediction",
        vec![
            (
                "beside-raw-bits",
                "/tensors/0/coded/values/codebook",
                book(json!(0.5), 16),
                "corrupt",
                "a codebook beside",
            ),
            (
                "beside-a-prediction",
                "/tensors/3/coded/values/codebook",
                book(json!(0.5), 16),
                "corrupt",
                "a codebook beside 3 raw bits",
            ),
            ("of-15", own, book(json!(-1.0), 15), "header", "directory: "),
            ("of-17", own, book(json!(-1.0), 17), "header", "directory: "),
            ("of-none", own, json!([]), "header", "directory: "),
            ("between-f32", own, book(json!(0.1), 16), "header", "directory: "),
            ("beyond-f32", own, book(json!(1e39), 16), "header", "directory: "),
            ("of-text", own, book(json!("1.0"), 16), "header", "directory: "),
            ("with-null", own, book(json!(null), 16), "header", "directory: "),
            ("an-object", own, json!({"0": 1.0}), "header", "directory: "),
            ("predictor-unknown", predictor, json!("down"), "header", "unknown variant"),
            ("predictor-of-capitals", predictor, json!("Left"), "header", "unknown variant"),
            ("predictor-true", predictor, json!(true), "header", "directory: "),
        ],
    );
}

/// Edits of the bytes of side data, with checksums that fit: two planes of ten, so two contexts, four bytes of length,
/// tables, states, stream.
fn side_data(all: &mut Catalogue, base: &Forge) {
    let edits: [(&str, usize, &[u8], &str); 8] = [
        ("context-of-itself", 0, &[0], "no context plane 0"),
        ("context-of-a-later-plane", 0, &[1], "no context plane 1"),
        ("context-beyond-the-planes", 1, &[2], "no context plane 2"),
        ("context-254", 1, &[254], "no context plane 254"),
        ("no-tables", 2, &[0, 0, 0, 0], "corrupt side data"),
        ("tables-of-4-gib", 2, &[0xff; 4], "ends early"),
        ("tables-of-nothing", 6, &[0xff; 4], "frequency table"),
        ("frequencies-too-large", 6, &[0xfe, 0x7f], "frequencies sum"),
    ];
    let mut side = |name: &str, words: &str, edit: &dyn Fn(&mut [u8])| {
        let mut lying = base.clone();
        edit(lying.entry("n#side"));
        lying.checksum(0);
        let attacks = format!("side data with a checksum that fits: {name}");
        let case = all.ecq(&format!("v1-side-{name}"), lying.file(), "corrupt", words, &attacks);
        case.found = super::Found::Data;
    };
    for (name, at, bytes, words) in edits {
        side(name, words, &|side| side[at..at + bytes.len()].copy_from_slice(bytes));
    }
    let states = |side: &[u8]| 6 + u32::from_le_bytes([side[2], side[3], side[4], side[5]]) as usize;
    side("state-0", "lane 0 starts below", &|side| {
        let at = states(side);
        side[at..at + 4].fill(0);
    });
    side("state-of-a-lane-without-symbols", "does not end where its encoder began", &|side| {
        let at = states(side);
        side[at + 4 * 31] ^= 1;
    });
    side("bytes-behind-the-stream", "corrupt side data", &|side| *side.last_mut().expect("side data") ^= 1);
    side("all-zero", "corrupt side data", &|side| side.fill(0));
    side("all-ones", "corrupt side data", &|side| side.fill(255));
}

/// More groups than a map can name.
fn maps(all: &mut Catalogue, base: &Forge) {
    let mut wide = base.clone();
    for (key, value) in [("rows", 1u64), ("cols", 65537), ("tile_rows", 1)] {
        wide.set(&format!("/tensors/0/coded/{key}"), json!(value));
    }
    wide.set("/tensors/0/shape", json!([65537]));
    wide.set("/tensors/0/coded/values/scales/numbers/size", json!(1));
    let words = "a map to 65537 groups, at most 65536";
    all.ecq(
        "v3-map-of-65537-groups",
        wide.file(),
        "corrupt",
        words,
        "a map of columns to more groups than 16 bits name",
    );
}

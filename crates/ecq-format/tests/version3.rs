//! What version 3 added: it comes back, and files that lie about it are errors, for the second reader, too.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;
#[path = "common/place.rs"]
mod place;

use std::process::Command;

use common::forge::Forge;
use common::sources::{self, NF4};
use common::{Draw, Model, Part, Piece, one_of_everything, read};
use ecq_format::directory::{self, Codebook, Min, NumberFormat, Pairs, Scales};
use ecq_format::encode::Profile;
use ecq_format::predict::Predictor;
use ecq_format::{Error, Limits, Reader};
use place::Place;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Pairs as version 3 has them, in tiles that are not too long.
const WHOLE: Option<(Pairs, u64)> = Some((Pairs::WHOLE, 400));

const NUMBERS: Scales = Scales::Numbers { size: 8, format: NumberFormat::F32, min: Min::Zero, mapped: true };
const NESTED: Scales = Scales::Nested { size: 8, supers: 2, bias: -32, min: true };
const LOOKUP: Scales = Scales::Lookup { size: 8, supers: 3, offset: 0.5 };

/// Five tensors of 5 x 40: a map, nested scales, a lookup with a codebook, a prediction, a plain tensor; and a part.
fn model() -> Model {
    let mut draw = Draw(71);
    let (cpu, gpu, book) = (Profile::Cpu, Profile::Gpu, Some(NF4));
    let mut tensor = |name: &str, profile, scales, book| {
        sources::tensor(name.into(), (5, 40), profile, scales, book, &mut draw)
    };
    let mut coded = vec![
        tensor("map", cpu, NUMBERS, None),
        tensor("nested", gpu, NESTED, None),
        tensor("book", cpu, LOOKUP, book),
    ];
    coded.push(sources::predicted("predicted".into(), (5, 40), gpu, Predictor::Planar, 3, &mut draw));
    let part = directory::Part { of: "map".into(), index: 1 };
    let pieces = vec![Piece { name: "map.scales".into(), shape: vec![5, 5], part, bytes: vec![7; 100] }];
    let plain = vec![one_of_everything().plain.remove(0)];
    Model { coded, plain, pieces, pairs: WHOLE, ..Model::default() }
}

/// The tensors of [`model`] by their place in the directory.
const OF: [&str; 6] = ["map", "nested", "book", "predicted", "norm", "map.scales"];

fn forge(place: &Place) -> Forge {
    let forge = Forge::new(&place.written(&model()));
    let names: Vec<&str> =
        forge.directory["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!((names, &forge.directory["version"]), (OF.to_vec(), &json!(3)));
    forge
}

/// What the second reader says; `None` if it finds the file in order.
fn second_reader(place: &Place) -> Option<String> {
    const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/reader.py");
    let output = Command::new("python3").args(["-B", READER]).arg(place.path()).output();
    let output = output.expect("python3 is needed to build ECQ");
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A lie of the directory: tensor, where in it, what instead, and the error, for both readers.
type Lie = (usize, &'static str, Value, &'static str);

fn expect_corrupt(lies: &[Lie]) {
    let place = Place::new();
    let honest = forge(&place);
    place.expect("unchanged", &honest.file(), "none", "");
    assert_eq!(second_reader(&place), None);
    for (tensor, pointer, value, words) in lies {
        let mut lying = honest.clone();
        lying.set(&format!("/tensors/{tensor}{pointer}"), value.clone());
        let what = format!("{}{pointer} = {value}", OF[*tensor]);
        place.expect(&what, &lying.file(), "corrupt", words);
        let second = second_reader(&place).unwrap_or_default();
        assert!(second.starts_with("corrupt: "), "{what}: the second reader says '{second}'");
    }
}

const SCALES: &str = "/coded/values/scales";

#[test]
fn lies_about_scales() {
    let numbers = |size: u64, format: &str, min: &str, mapped: bool| json!({"numbers": {"size": size, "format": format, "min": min, "mapped": mapped}});
    let nested = |size: u64, supers: u64, bias: i32, min: bool| json!({"nested": {"size": size, "supers": supers, "bias": bias, "min": min}});
    let lookup = |size: u64, supers: u64, offset: f64| json!({"lookup": {"size": size, "supers": supers, "offset": offset}});
    let tiny = f64::from(f32::MIN_POSITIVE) / 1e30;
    expect_corrupt(&[
        (0, SCALES, numbers(0, "f32", "zero", true), "groups of 0 columns in rows of 40"),
        (0, SCALES, numbers(41, "f32", "zero", true), "groups of 41 columns"),
        (0, SCALES, numbers(u64::MAX, "f32", "zero", true), "groups of 18446744073709551615 columns"),
        (0, SCALES, numbers(8, "f16", "zero", true), "corrupt side data"),
        (0, SCALES, numbers(8, "f32", "none", true), "corrupt side data"),
        (0, SCALES, numbers(8, "f32", "number", true), "corrupt side data"),
        (0, SCALES, numbers(8, "f32", "zero", false), "corrupt side data"),
        (0, SCALES, numbers(4, "f32", "zero", true), "corrupt side data"),
        (1, SCALES, nested(0, 2, -32, true), "groups of 0 columns"),
        (1, SCALES, nested(41, 2, -32, true), "groups of 41 columns"),
        (1, SCALES, nested(8, 0, -32, true), "a number for every 0 groups"),
        (1, SCALES, nested(8, 1, -32, true), "corrupt side data"),
        (1, SCALES, nested(8, u64::MAX, -32, true), "corrupt side data"),
        (1, SCALES, nested(8, 2, 1, true), "a bias of 1, expected -128 to 0"),
        (1, SCALES, nested(8, 2, -129, true), "a bias of -129"),
        (1, SCALES, nested(8, 2, i32::MIN, true), "a bias of -2147483648"),
        (1, SCALES, nested(8, 2, -32, false), "corrupt side data"),
        (2, SCALES, lookup(0, 3, 0.5), "groups of 0 columns"),
        (2, SCALES, lookup(41, 3, 0.5), "groups of 41 columns"),
        (2, SCALES, lookup(8, 0, 0.5), "a number for every 0 groups"),
        (2, SCALES, lookup(8, 2, 0.5), "corrupt side data"),
        (2, SCALES, lookup(8, 3, 0.1), "the offset of the scales is not a finite f32"),
        (2, SCALES, lookup(8, 3, 1e39), "the offset of the scales is not a finite f32"),
        (2, SCALES, lookup(8, 3, tiny), "the offset of the scales is not a finite f32"),
    ]);
}

#[test]
fn lies_about_codebooks_and_predictors() {
    const BOOK: &str = "/coded/values/codebook";
    let book = json!(NF4.map(f64::from));
    expect_corrupt(&[
        (0, BOOK, book.clone(), "a codebook beside"),
        (3, BOOK, book, "a codebook beside 3 raw bits"),
    ]);
    // what is no codebook at all is found when the directory is parsed
    let place = Place::new();
    let honest = forge(&place);
    let with = |first: Value, more: usize| {
        let mut values = vec![first];
        values.extend(NF4[1..].iter().map(|&v| json!(f64::from(v))));
        values.resize(16 + more - 1, json!(1.0));
        json!(values)
    };
    for (what, value) in [
        ("15 numbers", with(json!(-1.0), 0)),
        ("17 numbers", with(json!(-1.0), 2)),
        ("no numbers", json!([])),
        ("a number of too many digits", with(json!(0.1), 1)),
        ("a number beyond f32", with(json!(1e39), 1)),
        ("a number below f32", with(json!(1e-60), 1)),
        ("words", with(json!("1.0"), 1)),
        ("null among numbers", with(json!(null), 1)),
        ("a number", json!(1.0)),
        ("an object", json!({"0": 1.0})),
    ] {
        let mut lying = honest.clone();
        lying.set("/tensors/2/coded/values/codebook", value);
        place.expect(what, &lying.file(), "header", "directory");
        assert!(second_reader(&place).is_some(), "{what}");
    }
    for number in ["1e999", "-1e999", "NaN", "Infinity"] {
        let text = honest.directory.to_string();
        let changed = text.replacen("\"codebook\":[-1.0,", &format!("\"codebook\":[{number},"), 1);
        assert_ne!(changed, text);
        place.expect(number, &honest.file_with(&changed), "header", "directory");
        assert!(second_reader(&place).is_some(), "{number}");
    }
    for value in [json!("down"), json!("Left"), json!(1), json!({"left": {}}), json!(true)] {
        let mut lying = honest.clone();
        lying.set("/tensors/3/coded/predictor", value.clone());
        place.expect(&format!("predictor {value}"), &lying.file(), "header", "directory");
        assert!(second_reader(&place).is_some(), "{value}");
    }
    // null is the same as nothing there
    let mut none = honest.clone();
    none.set("/tensors/3/coded/predictor", json!(null));
    none.set("/tensors/2/coded/values/codebook", json!(null));
    none.set("/tensors/1/part", json!(null));
    place.expect("null", &none.file(), "none", "");
    assert_eq!(second_reader(&place), None);
}

#[test]
fn unknown_and_missing_fields_of_what_is_new() {
    let place = Place::new();
    let honest = forge(&place);
    for place_of in [
        "/tensors/0/coded/values/scales/numbers",
        "/tensors/1/coded/values/scales/nested",
        "/tensors/2/coded/values/scales/lookup",
        "/tensors/5/part",
    ] {
        let mut more = honest.clone();
        more.set(&format!("{place_of}/more"), json!(1));
        place.expect(place_of, &more.file(), "header", "unknown field");
        for key in honest.directory.pointer(place_of).unwrap().as_object().unwrap().keys() {
            let mut less = honest.clone();
            less.directory.pointer_mut(place_of).unwrap().as_object_mut().unwrap().remove(key);
            place.expect(&format!("{place_of} without {key}"), &less.file(), "header", "missing field");
        }
    }
    for scales in [
        json!("numbers"),
        json!({"other": {}}),
        json!({"numbers": {"size": 8, "format": "f64", "min": "zero", "mapped": true}}),
        json!({"numbers": {"size": 8, "format": "f32", "min": "one", "mapped": true}}),
        json!({"numbers": {"size": -8, "format": "f32", "min": "zero", "mapped": true}}),
        json!({"numbers": {"size": 8, "format": "f32", "min": "zero", "mapped": 1}}),
        json!({"nested": {"size": 8, "supers": 2, "bias": -32.5, "min": true}}),
        json!({"nested": {"size": 8, "supers": 2, "bias": 1u64 << 40, "min": true}}),
        json!({"lookup": {"size": 8, "supers": 3, "offset": null}}),
        json!({"numbers": {}, "nested": {}}),
    ] {
        let mut lying = honest.clone();
        lying.set("/tensors/0/coded/values/scales", scales.clone());
        place.expect(&scales.to_string(), &lying.file(), "header", "directory");
    }
}

#[test]
fn lies_about_parts() {
    let part = |of: &str| json!({"of": of, "index": 0});
    expect_corrupt(&[
        (5, "/part", part("nobody"), "a part of 'nobody', which is no other, coded tensor"),
        (5, "/part", part(""), "a part of ''"),
        (5, "/part", part("map.scales"), "a part of 'map.scales', which is no other, coded tensor"),
        (5, "/part", part("norm"), "a part of 'norm', which is no other, coded tensor"),
        (0, "/part", part("nested"), "a part of 'nested', which is no other, coded tensor"),
        (0, "/part", part("map"), "a part of 'map'"),
    ]);
    let place = Place::new();
    let honest = forge(&place);
    let with = |pointer: &str, value: Value, kind: &str, words: &str| {
        let mut lying = honest.clone();
        lying.set(&format!("/tensors/5{pointer}"), value);
        place.expect(pointer, &lying.file(), kind, words);
    };
    with("/shape", json!([1u64 << 63, 2]), "corrupt", "product overflows");
    with("/source/offset", json!(u64::MAX), "corrupt", "outside the source");
    with("/source/len", json!(1u64 << 40), "corrupt", "outside the source");
    with("/source/file", json!(1), "corrupt", "outside the source");
    with("/name", json!("map"), "header", "two tensors are called 'map'");
    with("/name", json!("a#b"), "corrupt", "must not be empty, contain '#'");
    with("/part/index", json!(1u64 << 32), "header", "directory");
    with("/part/index", json!(-1), "header", "directory");
    // neither an entry without a record, nor a record without its entry
    with("/part", json!(null), "corrupt", "no entry 'map.scales'");
    let mut both = honest.clone();
    both.set("/tensors/4/part", part("map"));
    place.expect("an entry beside a part", &both.file(), "header", "belong to something");
    assert!(second_reader(&place).unwrap().starts_with("corrupt: "));
    // parts of each other, and a part of a part
    let mut circle = honest.clone();
    let mut other = circle.directory["tensors"][5].clone();
    other["name"] = json!("other");
    circle.directory["tensors"].as_array_mut().unwrap().push(other);
    circle.set("/tensors/5/part/of", json!("other"));
    place.expect("a circle", &circle.file(), "corrupt", "a part of 'other'");
}

#[test]
fn older_versions_have_nothing_of_it() {
    let place = Place::new();
    let honest = forge(&place);
    for version in [1, 2] {
        let mut lying = honest.clone();
        lying.set("/version", json!(version));
        let words = format!("needs version 3, the file is of version {version}");
        place.expect("all of it", &lying.file(), "corrupt", &words);
        assert!(second_reader(&place).unwrap().starts_with("corrupt: "));
    }
    // one thing at a time, in a file that has nothing else
    let old = Forge::new(&place.written(&one_of_everything()));
    assert_eq!(old.directory["version"], json!(1));
    for (pointer, value) in [
        ("/tensors/1/coded/values/codebook", json!(NF4.map(f64::from))),
        ("/tensors/0/coded/predictor", json!("up")),
        ("/tensors/2/part", json!({"of": "n", "index": 0})),
        (
            "/tensors/0/coded/values/scales",
            json!({"numbers": {"size": 32, "format": "bf16", "min": "none", "mapped": false}}),
        ),
        (
            "/tensors/0/coded/values/scales",
            json!({"nested": {"size": 32, "supers": 1, "bias": 0, "min": false}}),
        ),
        ("/tensors/0/coded/values/scales", json!({"lookup": {"size": 32, "supers": 1, "offset": 0}})),
    ] {
        for version in [1, 2] {
            let mut lying = old.clone();
            lying.set("/version", json!(version));
            lying.set(pointer, value.clone());
            let words = format!("needs version 3, the file is of version {version}");
            place.expect(&format!("{pointer} in {version}"), &lying.file(), "corrupt", &words);
            assert!(second_reader(&place).unwrap().starts_with("corrupt: "));
        }
    }
    // a newer version may have nothing new
    for version in [2, 3] {
        let mut newer = old.clone();
        newer.set("/version", json!(version));
        place.expect("a version that is not needed", &newer.file(), "none", "");
        assert_eq!(second_reader(&place), None);
    }
}

#[test]
fn no_predictor_stands_beside_a_pattern() {
    let place = Place::new();
    let format = ecq_format::pattern::FloatFormat::Bf16;
    let bytes = common::floats(format, 4 * 64, false, &mut Draw(1));
    let floats =
        common::Floats { name: "f".into(), shape: vec![4, 64], format, profile: Profile::Cpu, bytes };
    let mut forge = Forge::new(&place.written(&Model { floats: vec![floats], ..Model::default() }));
    forge.set("/version", json!(3));
    place.expect("patterns", &forge.file(), "none", "");
    for (pointer, value, words) in [
        ("predictor", json!("left"), "a predictor beside a pattern"),
        ("values/codebook", json!(NF4.map(f64::from)), "a codebook beside"),
    ] {
        let mut lying = forge.clone();
        lying.set(&format!("/tensors/0/coded/{pointer}"), value);
        place.expect(pointer, &lying.file(), "corrupt", words);
        assert!(second_reader(&place).unwrap().starts_with("corrupt: "));
    }
}

#[test]
fn maps_to_groups_that_are_not_there() {
    let place = Place::new();
    let honest = model();
    // planes 5 and 6 are the map, to groups 0 to 4
    for (column, high, low, group) in [(0, 0, 5, 5), (39, 0, 5, 5), (17, 1, 0, 256), (3, 255, 255, 65535)] {
        let mut lying = honest.clone();
        let tensor = &mut lying.coded[0];
        (tensor.planes[5][column], tensor.planes[6][column]) = (high, low);
        let words = format!("column {column} belongs to none of the 5 groups");
        place.expect(&format!("group {group}"), &place.written(&lying), "corrupt", &words);
        assert!(second_reader(&place).unwrap().starts_with("corrupt: a column of no group"));
    }
    // one group more than 16 bits can name
    let mut wide = Forge::new(&place.written(&honest));
    for (key, value) in [("rows", 1u64), ("cols", 65537), ("tile_rows", 1)] {
        wide.set(&format!("/tensors/0/coded/{key}"), json!(value));
    }
    wide.set("/tensors/0/shape", json!([65537]));
    wide.set("/tensors/0/coded/values/scales/numbers/size", json!(1));
    place.expect("65537 groups", &wide.file(), "corrupt", "a map to 65537 groups, at most 65536");
    assert!(second_reader(&place).unwrap().starts_with("corrupt: a map"));
}

/// Few bytes of side data that claim to be many planes.
#[test]
fn scales_that_ask_for_too_much() {
    let place = Place::new();
    let mut draw = Draw(5);
    for (scales, a_row) in [(NUMBERS, 25), (NESTED, 22), (LOOKUP, 11)] {
        // a tile of one level has no bytes, however many weights it claims, and planes of zeros have few
        let mut tensor = sources::tensor("c".into(), (5, 40), Profile::Cpu, scales, Some(NF4), &mut draw);
        tensor.matrix.levels.fill(tensor.center);
        tensor.planes.iter_mut().for_each(|plane| plane.fill(0));
        let honest = Forge::new(&place.written(&Model { coded: vec![tensor], ..Model::default() }));
        let of_rows = |rows: u64, tile_rows: u64| {
            let mut lying = honest.clone();
            lying.set("/tensors/0/shape", json!([rows, 40]));
            for (key, value) in [("rows", rows), ("tile_rows", tile_rows)] {
                lying.set(&format!("/tensors/0/coded/{key}"), json!(value));
            }
            lying.file()
        };
        let few = of_rows(400_000, 400_000);
        place.expect("16 million weights", &few, "corrupt", "bytes cannot stand for planes of");
        let many = 1u64 << 33;
        let (kind, text) = place.error(&of_rows(many, 1));
        let numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok());
        assert!(kind == "limit" && text.contains("the scales of 'c'"), "{kind}: {text}");
        assert!(numbers.max().is_some_and(|n| n >= a_row * many && n < (a_row + 2) * many), "{text}");
        // and for a caller who takes anything, the index is not that long
        let all = Limits { side_bytes: u64::MAX, ..Limits::default() };
        let error = Reader::open(&place.path(), all).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        // counts that do not fit 64 bits
        for rows in [1u64 << 58, u64::MAX / 40] {
            place.expect(&format!("{rows} rows"), &of_rows(rows, 1), "limit", "the scales of 'c'");
        }
    }
}

#[test]
fn a_number_for_all_groups_there_are() {
    // no count overflows, and one number serves all
    let place = Place::new();
    let mut model = model();
    let mut draw = Draw(9);
    for (i, scales) in [
        Scales::Nested { size: 40, supers: u64::MAX, bias: 0, min: true },
        Scales::Nested { size: 1, supers: u64::MAX, bias: -128, min: false },
        Scales::Lookup { size: 1, supers: u64::MAX, offset: -0.0 },
    ]
    .into_iter()
    .enumerate()
    {
        model.coded[i] = sources::tensor(OF[i].into(), (5, 40), Profile::Cpu, scales, None, &mut draw);
    }
    place.expect("one number", &place.written(&model), "none", "");
    assert_eq!(second_reader(&place), None);
    let contents = read(&place.path()).unwrap();
    for (tensor, part) in model.coded.iter().zip(contents.tensors) {
        let (levels, planes) = (tensor.matrix.levels.clone(), tensor.planes.clone());
        assert_eq!(part, Part::Coded { levels, planes });
    }
}

#[test]
fn the_writer_refuses_parts_of_nothing() {
    let place = Place::new();
    for of in ["nobody", "norm", "map.scales"] {
        let mut model = model();
        model.pieces[0].part.of = of.into();
        let error = model.write(&place.path(), true, 0).unwrap_err();
        assert!(matches!(error, Error::Unstorable { name, .. } if name == "map.scales"), "{of}");
    }
    let mut twice = model();
    twice.pieces[0].name = "map".into();
    assert!(matches!(twice.write(&place.path(), true, 0), Err(Error::Unstorable { .. })));
}

#[test]
fn every_flipped_byte_is_an_error() {
    let place = Place::new();
    let bytes = place.written(&model());
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        assert_ne!(place.error(&damaged).0, "none", "byte {at}");
    }
}

/// Any byte changed and checksums recomputed: other numbers are possible, a panic is not.
#[test]
fn any_byte_behind_a_fitting_checksum() {
    let place = Place::new();
    let honest = forge(&place);
    let mut noticed = [0; 2];
    for (tensor, name) in OF.into_iter().enumerate().take(4) {
        for part in ["tiles", "tables", "side"] {
            let entry = format!("{name}#{part}");
            if honest.entries.get(&entry).is_none() {
                continue;
            }
            let step = if part == "side" { 3 } else { 1 };
            for at in (0..honest.range(&entry).len()).step_by(step) {
                let lying = honest.changed(tensor, name, part, at, [0x01, 0x80, 0xff][at % 3]);
                let (kind, text) = place.error(&lying.file());
                assert!(["none", "corrupt"].contains(&kind), "{entry} {at}: {text}");
                noticed[usize::from(kind == "corrupt")] += 1;
            }
        }
    }
    assert!(noticed[1] > noticed[0] / 3, "{noticed:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn predicted_levels_come_back(
        rows in prop_oneof![1usize..40, 250usize..600], cols in prop_oneof![1usize..70, 250usize..300],
        gpu: bool, predictor in 0usize..3, raw in 0u32..=8, book: bool, seed: u64,
    ) {
        let profile = if gpu { Profile::Gpu } else { Profile::Cpu };
        let (predictor, mut draw) = (Predictor::ALL[predictor], Draw(seed));
        let raw = if book { 0 } else { raw };
        let mut tensor = sources::predicted("p".into(), (rows, cols), profile, predictor, raw, &mut draw);
        tensor.values.codebook = book.then_some(Codebook(NF4));
        let place = Place::new();
        let model = Model { coded: vec![tensor], pairs: WHOLE, ..Model::default() };
        place.written(&model);
        let contents = read(&place.path()).unwrap();
        prop_assert_eq!(contents.directory.version, 3);
        let record = contents.directory.tensors[0].coded.as_ref().unwrap();
        prop_assert_eq!(record.predictor, Some(predictor));
        prop_assert_eq!(record.values, model.coded[0].values);
        let levels = model.coded[0].matrix.levels.clone();
        prop_assert_eq!(&contents.tensors[0], &Part::Coded { levels, planes: vec![] });
    }

    #[test]
    fn random_directories_are_no_panic(seed: u64) {
        // random values in random fields of what is new
        let place = Place::new();
        let (mut lying, mut draw) = (forge(&place), Draw(seed));
        let fields = [
            "/tensors/0/coded/values/scales/numbers/size", "/tensors/0/coded/values/scales/numbers/mapped",
            "/tensors/0/coded/values/scales/numbers/format", "/tensors/0/coded/values/scales/numbers/min",
            "/tensors/1/coded/values/scales/nested/size", "/tensors/1/coded/values/scales/nested/supers",
            "/tensors/1/coded/values/scales/nested/bias", "/tensors/1/coded/values/scales/nested/min",
            "/tensors/2/coded/values/scales/lookup/size", "/tensors/2/coded/values/scales/lookup/supers",
            "/tensors/2/coded/values/scales/lookup/offset", "/tensors/2/coded/values/codebook/3",
            "/tensors/3/coded/predictor", "/tensors/3/coded/center", "/tensors/5/part/of",
        ];
        for _ in 0..=draw.below(3) {
            let small = draw.below(100);
            let value = match draw.below(8) {
                0 => json!(draw.below(2) == 0),
                1 => json!((u64::from(draw.bits()) << 32 | u64::from(draw.bits())) >> draw.below(64)),
                2 => json!(-i64::from(draw.bits() >> draw.below(32))),
                3 => json!(f32::from_bits(draw.bits())),
                4 => json!(["left", "up", "planar", "f16", "bf16", "f32", "none", "number"][small as usize % 8]),
                5 => json!(OF[small as usize % 6]),
                _ => json!(small),
            };
            lying.set(fields[draw.below(fields.len() as u32) as usize], value);
        }
        let (kind, text) = place.error(&lying.file());
        prop_assert!(["none", "corrupt", "header", "limit"].contains(&kind), "{}: {}", kind, text);
    }
}

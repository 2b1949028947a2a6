//! Damaged files and lying files: every one is an error of the right kind, none a panic or a huge allocation.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;
#[path = "common/place.rs"]
mod place;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use common::forge::{Forge, sealed};
use common::{Model, Part, one_of_everything, read};
use ecq_format::{Error, Limits, Reader};
use place::{Place, kind};
use serde_json::{Value, json};

#[test]
fn every_flipped_bit_is_an_error() {
    let place = Place::new();
    let bytes = place.written(&one_of_everything());
    assert!(bytes.len() < 5000, "{} bytes: keep the file small", bytes.len());
    read(&place.path()).unwrap();
    let file = OpenOptions::new().write(true).open(place.path()).unwrap();
    let mut unnoticed = Vec::new();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            file.write_all_at(&[bytes[at] ^ 1 << bit], at as u64).unwrap();
            if read(&place.path()).is_ok() {
                unnoticed.push((at, bit));
            }
        }
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
    }
    assert_eq!(unnoticed, [], "flips (byte, bit) without an error");
    read(&place.path()).unwrap();
}

#[test]
fn every_cut_and_every_added_byte_is_an_error() {
    let place = Place::new();
    let bytes = place.written(&one_of_everything());
    for len in (0..bytes.len()).rev() {
        OpenOptions::new().write(true).open(place.path()).unwrap().set_len(len as u64).unwrap();
        let error = read(&place.path()).unwrap_err();
        let expected: &[_] = match len {
            0..9 => &["not ecq", "io"], // an empty file may be impossible to map
            _ => &["header"],
        };
        assert!(expected.contains(&kind(&error)), "cut at {len}: {error}");
    }
    for added in [1, 7, 8, 64, 4096] {
        let longer = [&bytes[..], &vec![0; added]].concat();
        place.expect("bytes added", &longer, "header", "bytes added");
        place.expect("the file twice", &[&bytes[..], &bytes].concat(), "header", "bytes added");
    }
}

/// A lie of the directory: where, what instead, and the error.
type Lie = (&'static str, Value, &'static str, &'static str);

fn expect_lies(lies: &[Lie]) {
    let place = Place::new();
    let forge = Forge::new(&place.written(&one_of_everything()));
    place.expect("unchanged", &forge.file(), "none", "");
    for (pointer, value, kind, words) in lies {
        let mut lying = forge.clone();
        lying.set(pointer, value.clone());
        place.expect(&format!("{pointer} = {value}"), &lying.file(), kind, words);
    }
}

const TWO_64: u64 = u64::MAX;

#[test]
fn lies_about_a_coded_tensor() {
    expect_lies(&[
        ("/tensors/0/coded/rows", json!(4), "corrupt", "a matrix of 4 x 40"),
        ("/tensors/0/coded/rows", json!(0), "corrupt", "a matrix of 0 x 40"),
        ("/tensors/0/coded/rows", json!(TWO_64), "corrupt", "a matrix of"),
        ("/tensors/0/coded/cols", json!(41), "corrupt", "a matrix of 5 x 41"),
        ("/tensors/0/coded/cols", json!(-1), "header", "directory"),
        ("/tensors/0/coded/tile_rows", json!(0), "corrupt", "tiles of 0 rows"),
        ("/tensors/0/coded/tile_rows", json!(6), "corrupt", "tiles of 6 rows"),
        ("/tensors/0/coded/tile_rows", json!(1), "corrupt", "index of 16 bytes for 5 tiles"),
        ("/tensors/0/coded/codec", json!({"nibble": 0}), "corrupt", "0 lanes"),
        ("/tensors/0/coded/codec", json!({"nibble": 65}), "corrupt", "65 lanes"),
        ("/tensors/0/coded/codec", json!({"nibble": 1088}), "corrupt", "1088 lanes"),
        ("/tensors/0/coded/codec", json!({"nibble": 1u64 << 32}), "header", "directory"),
        ("/tensors/0/coded/codec", json!({"nibble": 128}), "corrupt", "corrupt tile 0"),
        ("/tensors/0/coded/codec", json!("byte_pairs"), "corrupt", "corrupt tables"),
        ("/tensors/1/coded/codec", json!({"nibble": 64}), "corrupt", "corrupt tables"),
        ("/tensors/0/coded/codec", json!("huffman"), "header", "unknown variant"),
        ("/tensors/0/coded/raw_bits", json!(9), "corrupt", "needs version 2, the file is of version 1"),
        ("/tensors/0/coded/raw_bits", json!(12), "corrupt", "12 raw bits"),
        ("/tensors/0/coded/raw_bits", json!(0), "corrupt", "corrupt index"),
        ("/tensors/0/coded/raw_bits", json!(8), "corrupt", "corrupt index"),
        ("/tensors/0/coded/center", json!(1 << 24 | 1), "corrupt", "around 16777217"),
        ("/tensors/0/coded/center", json!(-(1 << 24) - 1), "corrupt", "around -16777217"),
        ("/tensors/0/coded/center", json!(i32::MIN), "corrupt", "around -2147483648"),
        ("/tensors/0/coded/center", json!(1u64 << 40), "header", "directory"),
        ("/tensors/0/shape", json!([5, 8]), "corrupt", "for the shape"),
        ("/tensors/0/shape", json!([1u64 << 63, 2, 40]), "corrupt", "product overflows"),
        ("/tensors/0/shape", json!([TWO_64, 40]), "corrupt", "product overflows"),
        ("/tensors/0/shape", json!([]), "corrupt", "a matrix of 5 x 40 for the shape []"),
        ("/tensors/0/source", json!({"file": 9, "offset": 0, "len": 1}), "corrupt", "outside the source"),
        ("/tensors/0/source/offset", json!(TWO_64), "corrupt", "outside the source"),
        ("/tensors/0/source/len", json!(1u64 << 40), "corrupt", "outside the source"),
        ("/tensors/0/crc", json!(1), "corrupt", "index, tables or side data"),
        ("/tensors/0/crc", json!(1u64 << 32), "header", "directory"),
        ("/tensors/0/coded", json!(null), "corrupt", "no entry 'n'"),
    ]);
}

#[test]
fn lies_about_values_and_scales() {
    let group = |size: u64| json!({"group": {"size": size, "min": false}});
    expect_lies(&[
        ("/tensors/0/coded/values/step", json!(1e39), "corrupt", "not a finite f32"),
        ("/tensors/0/coded/values/step", json!(0.1), "corrupt", "not a finite f32"),
        ("/tensors/0/coded/values/step", json!(null), "header", "directory"),
        ("/tensors/0/coded/values/bias", json!(1e-300), "corrupt", "not a finite f32"),
        ("/tensors/0/coded/values/offset", json!(-1e300), "corrupt", "not a finite f32"),
        ("/tensors/0/coded/values/scales", group(0), "corrupt", "groups of 0 columns"),
        ("/tensors/0/coded/values/scales", group(41), "corrupt", "groups of 41 columns"),
        ("/tensors/0/coded/values/scales", group(TWO_64), "corrupt", "groups of"),
        ("/tensors/0/coded/values/scales", group(1), "corrupt", "corrupt side data"),
        ("/tensors/0/coded/values/scales", json!("none"), "header", "belong to something"),
        (
            "/tensors/1/coded/values/scales",
            json!({"row_column": {"row": false, "column": false}}),
            "corrupt",
            "neither row nor column",
        ),
        (
            "/tensors/1/coded/values/scales",
            json!({"row_column": {"row": true, "column": true}}),
            "corrupt",
            "corrupt side data",
        ),
    ]);
    // numbers that JSON does not have
    let place = Place::new();
    let forge = Forge::new(&place.written(&one_of_everything()));
    let text = forge.directory.to_string();
    for number in ["NaN", "Infinity", "1e999", "-1e999", "0x10"] {
        let changed = text.replacen("\"step\":0.0625", &format!("\"step\":{number}"), 1);
        assert_ne!(changed, text);
        place.expect(number, &forge.file_with(&changed), "header", "directory");
    }
}

#[test]
fn lies_about_the_file() {
    expect_lies(&[
        ("/version", json!(5), "version", "format version 5"),
        ("/version", json!(0), "version", "format version 0"),
        ("/version", json!(-1), "header", "directory"),
        ("/version", json!("1"), "header", "directory"),
        ("/version", json!(1u64 << 32), "header", "directory"),
        ("/sources", json!([]), "corrupt", "outside the source"),
        ("/sources/0/verbatim", json!(2), "corrupt", "verbatim blob is missing"),
        ("/sources/0/verbatim", json!(TWO_64), "corrupt", "verbatim blob is missing"),
        ("/sources/0/size", json!(10), "corrupt", "outside the source"),
        ("/blobs/0/size", json!(1u64 << 40), "limit", "above the limit of 1073741824"),
        ("/blobs/0/size", json!(TWO_64), "limit", "the size of blob"),
        ("/blobs/0/size", json!(1u64 << 30), "corrupt", "not the 1073741824 bytes"),
        ("/blobs/0/size", json!(0), "corrupt", "not the 0 bytes"),
        ("/blobs/1/zstd", json!(true), "corrupt", "corrupt blob"),
        ("/blobs/0/zstd", json!(false), "corrupt", "corrupt blob"),
        ("/blobs/0/crc", json!(0), "corrupt", "its checksum is wrong"),
        ("/blobs/0/role", json!("trojan"), "header", "unknown variant"),
        ("/blobs", json!([]), "corrupt", "verbatim blob is missing"),
        ("/tensors", json!([]), "header", "belong to something"),
        ("/tensors/0/name", json!("b"), "header", "two tensors are called 'b'"),
        ("/tensors/0/name", json!("m"), "corrupt", "no entry 'm#index'"),
        ("/tensors/2/name", json!("m"), "corrupt", "no entry 'm'"),
        ("/tensors/2/crc", json!(0), "corrupt", "corrupt data"),
        // unknown fields, at every level
        ("/more", json!(1), "header", "unknown field"),
        ("/sources/0/more", json!(1), "header", "unknown field"),
        ("/blobs/0/more", json!(1), "header", "unknown field"),
        ("/tensors/0/more", json!(1), "header", "unknown field"),
        ("/tensors/0/source/more", json!(1), "header", "unknown field"),
        ("/tensors/0/coded/more", json!(1), "header", "unknown field"),
        ("/tensors/0/coded/values/more", json!(1), "header", "unknown field"),
    ]);
}

#[test]
fn every_missing_field_is_an_error() {
    let place = Place::new();
    let forge = Forge::new(&place.written(&one_of_everything()));
    let places = [
        "",
        "/sources/0",
        "/blobs/0",
        "/tensors/0",
        "/tensors/0/source",
        "/tensors/0/coded",
        "/tensors/0/coded/values",
    ];
    for parent in places {
        for key in forge.directory.pointer(parent).unwrap().as_object().unwrap().keys() {
            let mut lying = forge.clone();
            lying.directory.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
            // without "coded" a tensor is plain, and its entry is missing
            let (kind, words) =
                if key == "coded" { ("corrupt", "no entry 'n'") } else { ("header", "missing field") };
            place.expect(&format!("{parent} without {key}"), &lying.file(), kind, words);
        }
    }
}

#[test]
fn counts_that_ask_for_too_much() {
    let place = Place::new();
    let forge = Forge::new(&place.written(&constant()));
    let with = |rows: u64, cols: u64, tile_rows: u64, words: &str| {
        let mut lying = forge.clone();
        lying.set("/tensors/0/shape", json!([rows, cols]));
        for (key, value) in [("rows", rows), ("cols", cols), ("tile_rows", tile_rows)] {
            lying.set(&format!("/tensors/0/coded/{key}"), json!(value));
        }
        place.expect(&format!("{rows} x {cols} by {tile_rows}"), &lying.file(), "corrupt", words);
    };
    with(1 << 40, 40, 1, "index of 16 bytes for 1099511627776 tiles");
    with(1 << 40, 40, 1 << 20, "tiles of 1048576 x 40 weights");
    with(1 << 20, 40, 1 << 20, "tiles of 1048576 x 40 weights");
    with(1, (1 << 24) + 1, 1, "tiles of 1 x 16777217 weights");
    with(u64::MAX, 1, 1, "an index of 16 bytes")
}

#[test]
fn the_limits_of_the_caller_hold() {
    let place = Place::new();
    place.written(&one_of_everything());
    let all = Limits::default();
    let open = |limits| Reader::open(&place.path(), limits).map(drop);
    open(all).unwrap();
    for (limits, what) in [
        (Limits { header: 100, ..all }, "header"),
        (Limits { tensors: 3, ..all }, "number of tensors"),
        (Limits { blob: 3, ..all }, "blob"),
        (Limits { tile_weights: 199, ..all }, "weights of a tile of 'n'"),
        (Limits { side_bytes: 19, ..all }, "scales of 'n'"),
    ] {
        let error = open(limits).unwrap_err();
        assert!(matches!(&error, Error::Limit { what: w, .. } if w.contains(what)), "{error}");
    }
    let enough = Limits { tensors: 4, tile_weights: 200, side_bytes: 20, blob: 1 << 10, header: 1 << 14 };
    open(enough).unwrap();
    open(Limits {
        header: u64::MAX,
        tensors: u64::MAX,
        blob: u64::MAX,
        tile_weights: u64::MAX,
        side_bytes: u64::MAX,
    })
    .unwrap();
}

#[test]
fn entries_missing_renamed_or_added() {
    let place = Place::new();
    let forge = Forge::new(&place.written(&one_of_everything()));
    for part in ["tiles", "index", "tables", "side"] {
        let mut lying = forge.clone();
        lying.rename(&format!("n#{part}"), "other");
        place.expect(part, &lying.file(), "corrupt", &format!("no entry 'n#{part}'"));
        lying.entries.as_object_mut().unwrap().remove("other");
        place.expect(part, &lying.file(), "header", ""); // a hole in the data
    }
    for (entry, kind) in [("#blob/0", "corrupt"), ("#seal", "header"), ("norm", "corrupt")] {
        let mut lying = forge.clone();
        lying.rename(entry, "other");
        place.expect(entry, &lying.file(), kind, "");
    }
    let mut added = forge.clone();
    let end = forge.data.len() - 8;
    added.entries["extra"] = json!({"dtype": "U8", "shape": [0], "data_offsets": [end, end]});
    place.expect("an entry of nobody", &added.file(), "header", "belong to something");
    let mut long = forge.clone();
    long.data.extend([0; 8]);
    long.entries["#seal"] = json!({"dtype": "U8", "shape": [16], "data_offsets": [end, end + 16]});
    place.expect("a long seal", &long.file(), "header", "seal is missing");
}

#[test]
fn headers_that_lie_about_themselves() {
    let place = Place::new();
    let bytes = place.written(&one_of_everything());
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    for lie in [
        0,
        1,
        2,
        len - 1,
        len + 1,
        len - 64,
        bytes.len() as u64 - 8,
        1 << 40,
        1 << 63,
        u64::MAX - 7,
        u64::MAX,
    ] {
        let changed = [&lie.to_le_bytes()[..], &bytes[8..]].concat();
        place.expect(&format!("a header of {lie}"), &changed, "header", "");
    }
    let offsets = |a: u64, b: u64, shape: u64| {
        let header = json!({
            "__metadata__": {"ecq": "{}"},
            "x": {"dtype": "U8", "shape": [shape], "data_offsets": [a, b]},
        });
        sealed(&header.to_string(), &[0; 16])
    };
    let most = u64::MAX;
    for (a, b, n) in [
        (0, most, most),
        (0, most - 7, most - 7),
        (most, most, 0),
        (most, 0, 1),
        (8, 16, 8),
        (0, 1 << 63, 1 << 63),
    ] {
        place.expect(&format!("{a}..{b} of {n}"), &offsets(a, b, n), "header", "");
    }
    let wide = json!({"x": {"dtype": "F64", "shape": [1u64 << 62, 4], "data_offsets": [0, 16]}});
    place.expect("a shape that overflows", &sealed(&wide.to_string(), &[0; 16]), "header", "");
    place.expect("no metadata", &sealed("{}", &[0; 8]), "header", "");
    let plain = json!({"x": {"dtype": "U8", "shape": [16], "data_offsets": [0, 16]}});
    place.expect("plain safetensors", &sealed(&plain.to_string(), &[0; 16]), "not ecq", "plain safetensors");
    place.expect(
        "a GGUF",
        &[&b"GGUF\x03\0\0\0"[..], &[1; 100]].concat(),
        "not ecq",
        "begin as a safetensors",
    );
}

#[test]
fn nested_and_repeated_json() {
    let place = Place::new();
    let forge = Forge::new(&place.written(&one_of_everything()));
    for depth in [200, 100_000] {
        let bomb = "[".repeat(depth) + &"]".repeat(depth);
        place.expect("a nested header", &sealed(&format!("{{\"x\":{bomb}}}"), &[0; 8]), "header", "");
        place.expect("a nested directory", &forge.file_with(&bomb), "header", "directory");
        let inside = format!("{{\"version\":1,\"more\":{bomb}}}");
        place.expect("a nested field", &forge.file_with(&inside), "header", "directory");
    }
    let text = forge.directory.to_string();
    let twice = text.replacen("{", "{\"lossless\":true,", 1);
    place.expect("a field twice", &forge.file_with(&twice), "header", "duplicate field");
    place.expect("no JSON", &forge.file_with("\u{0}"), "header", "directory");
    place.expect("nothing", &forge.file_with(""), "header", "directory");
}

#[test]
fn a_blob_that_unpacks_to_more_than_it_says() {
    let place = Place::new();
    let mut model = one_of_everything();
    model.blobs = vec![("bomb".into(), vec![0; 32 << 20])];
    let mut forge = Forge::new(&place.written(&model));
    place.expect("the truth", &forge.file(), "none", "");
    forge.set("/blobs/0/size", json!(100));
    place.expect("a lie", &forge.file(), "corrupt", "not the 100 bytes");
    forge.set("/blobs/0/size", json!(u64::MAX));
    fs::write(place.path(), forge.file()).unwrap();
    let reader = Reader::open(&place.path(), Limits { blob: u64::MAX, ..Limits::default() }).unwrap();
    assert!(matches!(reader.blob(0), Err(Error::Corrupt { .. })));
}

#[test]
fn a_tile_of_constants_takes_no_more_memory_than_the_format_allows() {
    let place = Place::new();
    let mut forge = Forge::new(&place.written(&constant()));
    let side = 1u64 << 12;
    forge.set("/tensors/0/shape", json!([side, side]));
    for key in ["rows", "cols", "tile_rows"] {
        forge.set(&format!("/tensors/0/coded/{key}"), json!(side));
    }
    fs::write(place.path(), forge.file()).unwrap();
    let contents = read(&place.path()).unwrap();
    let Part::Coded { levels, .. } = &contents.tensors[0] else { panic!("a coded tensor") };
    assert!(levels.len() == 1 << 24 && levels.iter().all(|&l| l == 3));
}

/// One tensor of one level: its tile has no bytes.
fn constant() -> Model {
    let mut model = one_of_everything();
    model.coded.truncate(1);
    model.plain.clear();
    let coded = &mut model.coded[0];
    coded.matrix.levels.fill(3);
    (coded.raw_bits, coded.planes) = (0..=0, Vec::new());
    coded.values = common::values(ecq_format::directory::Scales::None);
    model
}

#[test]
fn no_file_is_an_error_and_so_is_a_folder() {
    let place = Place::new();
    assert!(matches!(read(&place.path()), Err(Error::Io { action: "open", .. })));
    assert!(read(place.folder()).is_err());
}

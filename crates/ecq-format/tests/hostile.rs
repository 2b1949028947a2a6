//! Damaged files and lying files: every one is an error of the right kind, none a panic or a huge allocation. Here is what goes
//! through all places of a file; single lies are files of `fixtures/hostile`.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;
#[path = "common/place.rs"]
mod place;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use common::forge::Forge;
use common::{Model, Part, one_of_everything, read};
use ecq_format::{Error, Limits, Reader};
use place::{Place, kind};
use serde_json::json;

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

/// Each limit is met by the file, and one less is not.
#[test]
fn the_limits_of_the_caller_hold() {
    let place = Place::new();
    place.written(&one_of_everything());
    let open = |limits| Reader::open(&place.path(), limits);
    let header = open(Limits::default()).unwrap().header_size() - 8;
    let most = u64::MAX;
    let all = Limits {
        header: most,
        tensors: most,
        name: most,
        dimensions: most,
        weights: most,
        blob: most,
        tile_weights: most,
        side_bytes: most,
    };
    open(all).unwrap();
    type Set = fn(&mut Limits) -> &mut u64;
    let limits: [(Set, u64, &str); 8] = [
        (|l| &mut l.header, header, "the length of the header"),
        (|l| &mut l.tensors, 4, "the number of tensors"),
        (|l| &mut l.name, 11, "the name of a blob"),
        (|l| &mut l.dimensions, 2, "the number of dimensions of 'n'"),
        (|l| &mut l.weights, 299, "the number of weights"),
        (|l| &mut l.blob, 48, "the size of blob 'config.json'"),
        (|l| &mut l.tile_weights, 200, "the weights of a tile of 'n'"),
        (|l| &mut l.side_bytes, 20, "the scales of 'n'"),
    ];
    for (of, exactly, words) in limits {
        let mut limits = all;
        *of(&mut limits) = exactly;
        open(limits).unwrap();
        *of(&mut limits) = exactly - 1;
        let error = open(limits).unwrap_err();
        assert!(
            matches!(&error, Error::Limit { path, what, value, limit }
                if *path == place.path() && what == words && *value == exactly && *limit == exactly - 1),
            "{error}"
        );
    }
    let short = Limits { name: 3, ..all };
    place.written(&Model { blobs: vec![], ..one_of_everything() });
    assert!(open(short).is_err(), "the name of a source's blob, or of a tensor");
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

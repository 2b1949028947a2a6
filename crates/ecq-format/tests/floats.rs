//! Floats come back bit for bit, and files that lie about them are errors.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;
#[path = "common/place.rs"]
mod place;

use common::forge::Forge;
use common::{Draw, Floats, Model, Part, floats, read};
use ecq_format::directory::{Codec, Pairs};
use ecq_format::encode::Profile;
use ecq_format::pattern::FloatFormat;
use place::Place;
use proptest::prelude::*;
use serde_json::json;

const FORMATS: [FloatFormat; 4] =
    [FloatFormat::Bf16, FloatFormat::F16, FloatFormat::F8E4M3, FloatFormat::F8E5M2];

fn model(format: FloatFormat, profile: Profile, shape: [u64; 2], bytes: Vec<u8>) -> Model {
    let floats = vec![Floats { name: "f".into(), shape: shape.into(), format, profile, bytes }];
    Model { floats, ..Model::default() }
}

/// Writes and reads; both ways of decoding must give the bits that were there.
fn come_back(model: &Model) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    model.write(&path, false, 0).unwrap();
    let contents = read(&path).unwrap();
    let coded = contents.directory.tensors[0].coded.as_ref().unwrap();
    let expected = if matches!(coded.codec, Codec::Pairs(pairs) if pairs != Pairs::WHOLE) { 4 } else { 2 };
    assert_eq!(contents.directory.version, expected);
    let Part::Floats { pattern, levels, bytes } = &contents.tensors[0] else { panic!("no floats") };
    let floats = &model.floats[0];
    assert!(*bytes == floats.bytes, "{:?} {:?}", floats.format, floats.shape);
    let width = floats.format.bytes();
    let bits = levels.iter().flat_map(|&q| pattern.bits(q).unwrap().to_le_bytes()[..width].to_vec());
    assert!(bits.eq(floats.bytes.iter().copied()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn floats_come_back(
        format in 0usize..4, rows in prop_oneof![Just(1u64), 1u64..40, 200u64..300],
        cols in prop_oneof![1u64..70, Just(256u64), 1000u64..1100], gpu: bool, kind in 0u32..4, seed: u64,
    ) {
        let (format, mut draw) = (FORMATS[format], Draw(seed));
        let profile = if gpu { Profile::Gpu } else { Profile::Cpu };
        let mut bytes = floats(format, (rows * cols) as usize, kind == 1, &mut draw);
        let width = format.bytes();
        match kind {
            2 => bytes.copy_within(..width, (draw.below((rows * cols) as u32) as usize) * width),
            3 => {
                let first = bytes[..width].to_vec();
                bytes.chunks_exact_mut(width).for_each(|w| w.copy_from_slice(&first)); // all equal
            }
            _ => {}
        }
        come_back(&model(format, profile, [rows, cols], bytes));
    }
}

#[test]
fn every_bit_pattern_comes_back() {
    for format in FORMATS {
        let count = 1u64 << format.bits();
        let all = (0..count).flat_map(|bits| bits.to_le_bytes()[..format.bytes()].to_vec());
        for profile in [Profile::Cpu, Profile::Gpu] {
            come_back(&model(format, profile, [count / 64, 64], all.clone().collect()));
        }
    }
}

#[test]
fn zeros_of_both_signs_and_rows_of_them_come_back() {
    for format in FORMATS {
        let mut bytes = floats(format, 64 * 96, false, &mut Draw(3));
        let (row, width) = (96 * format.bytes(), format.bytes());
        bytes[5 * row..7 * row].fill(0);
        bytes[6 * row..7 * row].chunks_exact_mut(width).for_each(|w| w[width - 1] = 0x80);
        come_back(&model(format, Profile::Cpu, [64, 96], bytes));
    }
}

#[test]
fn a_large_matrix_is_judged_by_a_part_of_its_rows_and_comes_back() {
    let format = FloatFormat::Bf16;
    let mut bytes = floats(format, 1200 * 1111, false, &mut Draw(4));
    // one row that is like no other
    bytes[700 * 2222..701 * 2222].copy_from_slice(&floats(format, 1111, true, &mut Draw(5)));
    come_back(&model(format, Profile::Cpu, [1200, 1111], bytes));
}

fn honest(place: &Place, format: FloatFormat) -> Forge {
    let bytes = floats(format, 16 * 60, false, &mut Draw(8));
    Forge::new(&place.written(&model(format, Profile::Cpu, [16, 60], bytes)))
}

#[test]
fn lies_about_floats() {
    let place = Place::new();
    for (format, most) in FORMATS.into_iter().zip([32767, 32767, 127, 127]) {
        let forge = honest(&place, format);
        place.expect("unchanged", &forge.file(), "none", "");
        let raw_bits = json!(if most > 127 { 12 } else { 5 });
        let offset = forge.directory["tensors"][0]["source"]["len"].as_u64().unwrap();
        for (pointer, value, kind, words) in [
            ("/version", json!(1), "corrupt", "needs version 2, the file is of version 1"),
            ("/tensors/0/coded/pattern/base", json!(most + 1), "corrupt", "patterns from"),
            ("/tensors/0/coded/pattern/base", json!(u32::MAX), "corrupt", "patterns from"),
            ("/tensors/0/coded/pattern/base", json!(-1), "header", "directory"),
            ("/tensors/0/coded/pattern/format", json!("f4"), "header", "unknown variant"),
            ("/tensors/0/coded/pattern/more", json!(1), "header", "unknown field"),
            ("/tensors/0/coded/pattern", json!({"base": 0}), "header", "missing field"),
            ("/tensors/0/coded/pattern", json!(7), "header", "directory"),
            ("/tensors/0/coded/center", json!(1), "corrupt", "raw bits around 1"),
            ("/tensors/0/coded/raw_bits", raw_bits, "corrupt", "raw bits"),
            ("/tensors/0/coded/values/step", json!(2), "corrupt", "values beside a pattern"),
            ("/tensors/0/coded/values/bias", json!(0.5), "corrupt", "values beside a pattern"),
            ("/tensors/0/source/len", json!(offset - 1), "corrupt", "floats of"),
        ] {
            let mut lying = forge.clone();
            lying.set(pointer, value.clone());
            place.expect(&format!("{format:?}: {pointer} = {value}"), &lying.file(), kind, words);
        }
    }
}

#[test]
fn an_escape_that_is_no_bit_pattern() {
    let place = Place::new();
    for format in [FloatFormat::Bf16, FloatFormat::F16] {
        // all equal but for one, whose magnitude is half way around
        let mut bytes = vec![0; 2 * 16 * 60];
        bytes[777 * 2 + 1] = 0x40;
        let mut forge = Forge::new(&place.written(&model(format, Profile::Cpu, [16, 60], bytes)));
        place.expect("unchanged", &forge.file(), "none", "");
        let tiles = forge.entry("f#tiles");
        // position 777 and z of 0x8000
        let escape = tiles.windows(5).position(|w| w == [0x89, 0x06, 0x80, 0x80, 0x02]).unwrap();
        tiles[escape + 4] = 0x04; // 0x10000: level 0x8000
        forge.checksum_tiles(0, "f");
        place.expect(&format!("{format:?}"), &forge.file(), "corrupt", "level 32768 has no bit pattern");
    }
}

#[test]
fn every_flipped_byte_is_an_error() {
    let place = Place::new();
    let bytes = honest(&place, FloatFormat::F16).file();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert_ne!(place.error(&damaged).0, "none", "byte {at}");
    }
}

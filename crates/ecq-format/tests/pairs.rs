//! Pairs of nibbles in strips and bands: what version 4 of the format has. They come back, the second reader agrees, and
//! files that lie about them are errors.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;
#[path = "common/place.rs"]
mod place;
#[path = "common/reader.rs"]
mod reader;

use common::forge::Forge;
use common::{Coded, Draw, Floats, Matrix, Model, Part, floats, read, sources, values};
use ecq_format::directory::{Codec, PairCode, Pairs, Scales};
use ecq_format::encode::{Profile, layout};
use ecq_format::pattern::FloatFormat;
use ecq_format::predict::Predictor;
use place::Place;
use proptest::prelude::*;
use reader::second_reader;
use serde_json::{Value, json};

const CODES: [PairCode; 2] = [PairCode::Rans, PairCode::Prefix];

fn coded(name: &str, matrix: Matrix, raw_bits: u32) -> Coded {
    let shape = vec![matrix.rows as u64, matrix.cols as u64];
    let (name, raw_bits, values) = (name.into(), raw_bits..=raw_bits, values(Scales::None));
    let profile = Profile::Gpu;
    Coded { name, shape, matrix, profile, center: 0, raw_bits, values, planes: vec![], predictor: None }
}

/// Levels of all kinds: constant, few, many, with escapes.
fn matrix(rows: usize, cols: usize, kind: u32, draw: &mut Draw) -> Matrix {
    Matrix::new(rows, cols, || match kind {
        0 => 3,
        1 => (draw.bits().leading_zeros() / 3) as i32,
        2 => draw.below(16) as i32,
        _ if draw.below(60) == 0 => draw.bits() as i32,
        _ => draw.below(9) as i32 - 4,
    })
}

fn levels_of(model: &Model) -> Vec<Part> {
    let part = |t: &Coded| Part::Coded { levels: t.matrix.levels.clone(), planes: vec![] };
    model.coded.iter().map(part).collect()
}

/// What a tensor needs that is coded like this.
fn version(pairs: Pairs, tile_rows: u64, cols: u64) -> u32 {
    let old = pairs.code == PairCode::Rans && u64::from(pairs.band) >= tile_rows && pairs.strip >= cols;
    if old { 1 } else { 4 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn levels_come_back(
        rows in prop_oneof![1usize..20, 1usize..140], cols in prop_oneof![1usize..70, Just(96usize), 100usize..400],
        code in 0..CODES.len(), band in 1u32..=32, strip in prop_oneof![1u64..6, Just(100)], height in 1u64..150,
        kind in 0u32..4, raw in 0u32..=4, seed: u64,
    ) {
        let mut draw = Draw(seed);
        let pairs = Pairs { code: CODES[code], band: 2 * band, strip: 32 * strip };
        let model = Model {
            coded: vec![coded("c", matrix(rows, cols, kind, &mut draw), raw)],
            pairs: Some((pairs, height)),
            ..Model::default()
        };
        let place = Place::new();
        place.written(&model);
        let contents = read(&place.path()).unwrap();
        let tile_rows = height.min(rows as u64);
        prop_assert_eq!(contents.directory.version, version(pairs, tile_rows, cols as u64));
        let record = contents.directory.tensors[0].coded.as_ref().unwrap();
        prop_assert_eq!(record.codec, Codec::Pairs(pairs.oldest(tile_rows, cols as u64)));
        prop_assert_eq!(contents.tensors, levels_of(&model));
    }
}

#[test]
fn the_second_reader_agrees() {
    let mut draw = Draw(41);
    let shapes = [(1, 1), (9, 33), (16, 64), (21, 100), (40, 31), (5, 130)];
    for (i, code) in CODES.into_iter().enumerate() {
        for (band, strip, height) in [(2, 32, 7), (4, 64, 20), (8, 32, 16), (6, 4096, 12), (64, 96, 64)] {
            let mut model = Model { pairs: Some((Pairs { code, band, strip }, height)), ..Model::default() };
            for (rows, cols) in shapes {
                for kind in 0..4 {
                    let raw = (kind + i as u32) % 3;
                    let name = format!("{rows}x{cols}.{kind}");
                    model.coded.push(coded(&name, matrix(rows, cols, kind, &mut draw), raw));
                }
            }
            let place = Place::new();
            place.written(&model);
            assert_eq!(read(&place.path()).unwrap().tensors, levels_of(&model));
            let found = second_reader(&place.path()).unwrap();
            for (found, t) in found.iter().zip(&model.coded) {
                let bytes: Vec<u8> = t.matrix.levels.iter().flat_map(|q| q.to_le_bytes()).collect();
                assert_eq!(found["levels"], crc32fast::hash(&bytes), "{code:?} {band} {strip} {}", t.name);
            }
            assert_eq!(found.len(), model.coded.len());
        }
    }
}

#[test]
fn floats_and_predictions_come_back() {
    let mut draw = Draw(42);
    for code in CODES {
        let pairs = Some((Pairs { code, band: 8, strip: 64 }, 24));
        let bytes = floats(FloatFormat::Bf16, 50 * 100, false, &mut draw);
        let (name, shape, profile) = ("f".into(), vec![50, 100], Profile::Gpu);
        let floats = vec![Floats { name, shape, format: FloatFormat::Bf16, profile, bytes }];
        let predicted =
            sources::predicted("p".into(), (50, 100), Profile::Gpu, Predictor::Planar, 2, &mut draw);
        let model = Model { coded: vec![predicted], floats, pairs, ..Model::default() };
        let place = Place::new();
        place.written(&model);
        let contents = read(&place.path()).unwrap();
        assert_eq!(contents.directory.version, 4);
        let Part::Floats { bytes, .. } = &contents.tensors[1] else { panic!("no floats") };
        assert!(*bytes == model.floats[0].bytes);
        assert_eq!(contents.tensors[0], levels_of(&model)[0]);
        second_reader(&place.path()).unwrap();
    }
}

#[test]
fn the_layout_for_gpus() {
    for (rows, cols) in
        [(1, 1), (576, 576), (1536, 576), (576, 1536), (49152, 576), (4096, 4096), (14336, 4096)]
            .into_iter()
            .chain([(4096, 14336), (7, 100_000), (128_256, 4096), (3, 1 << 22), (8, 1 << 24), (30522, 384)])
    {
        let (codec, tile_rows) = layout(rows, cols, Profile::Gpu);
        let Codec::Pairs(pairs) = codec else { panic!("{codec:?}") };
        assert!(pairs.strip <= 4096 && pairs.strip.is_multiple_of(32) && pairs.band == 8);
        assert!(tile_rows <= rows && tile_rows * cols <= 1 << 24, "{rows} x {cols}: {tile_rows}");
        assert!(
            tile_rows == rows || tile_rows.is_multiple_of(8) || cols > 1 << 21,
            "{rows} x {cols}: {tile_rows}"
        );
        let stream = tile_rows * pairs.strip.min(cols);
        if rows * cols > 1 << 20 && cols <= 1 << 20 {
            assert!((8_000..50_000).contains(&stream), "{rows} x {cols}: {stream} weights a stream");
        }
    }
}

/// Two tiles of two strips and a narrow one, in bands.
fn model(code: PairCode) -> Model {
    let matrix = matrix(13, 70, 1, &mut Draw(43));
    let pairs = Some((Pairs { code, band: 4, strip: 32 }, 8));
    Model { coded: vec![coded("c", matrix, 1)], pairs, ..Model::default() }
}

/// A lie about field `key` of the codec, and the error.
fn lie(key: &str, value: Value, kind: &str, words: &str) {
    for code in CODES {
        let place = Place::new();
        let mut forge = Forge::new(&place.written(&model(code)));
        place.expect("unchanged", &forge.file(), "none", "");
        forge.set(&format!("/tensors/0/coded/{key}"), value.clone());
        place.expect(&format!("{key} = {value}"), &forge.file(), kind, words);
        assert!(second_reader(&place.path()).is_err(), "{key} = {value}");
    }
}

#[test]
fn lies_about_the_codec() {
    for band in [0, 1, 3, 66, u32::MAX - 1] {
        lie("codec/pairs/band", json!(band), "corrupt", "expected an even number from 2 to 64");
    }
    for strip in [0u64, 1, 31, 33, 69] {
        lie("codec/pairs/strip", json!(strip), "corrupt", "expected a multiple of 32 or all 70");
    }
    for strip in [64u64, 70, 96, u64::MAX] {
        lie("codec/pairs/strip", json!(strip), "corrupt", "corrupt tile 0");
    }
    lie("codec/pairs/code", json!("huffman"), "header", "unknown variant");
    lie("codec/pairs/lanes", json!(1), "header", "unknown field");
    lie("codec/pairs", json!({"code": "rans", "band": 4}), "header", "missing field");
    let whole = json!({"code": "rans", "band": Pairs::WHOLE.band, "strip": Pairs::WHOLE.strip});
    lie("codec/pairs", whole, "header", "expected `byte_pairs`");
}

#[test]
fn older_versions_have_only_one_form_of_pairs() {
    for code in CODES {
        let place = Place::new();
        let mut forge = Forge::new(&place.written(&model(code)));
        for version in [1, 2, 3] {
            forge.set("/version", json!(version));
            let words = format!("needs version 4, the file is of version {version}");
            place.expect("pairs", &forge.file(), "corrupt", &words);
            assert!(second_reader(&place.path()).is_err());
        }
    }
    let old =
        Model { pairs: Some((Pairs { code: PairCode::Rans, band: 8, strip: 96 }, 8)), ..model(CODES[0]) };
    let place = Place::new();
    let forge = Forge::new(&place.written(&old));
    assert_eq!(forge.directory["version"], json!(1));
    assert_eq!(forge.directory["tensors"][0]["coded"]["codec"], json!("byte_pairs"));
}

#[test]
fn lengths_of_strips_that_are_off() {
    for code in CODES {
        let place = Place::new();
        // one tile, as the forger's checksums ask for
        let whole = Model { pairs: model(code).pairs.map(|(pairs, _)| (pairs, 13)), ..model(code) };
        let honest = Forge::new(&place.written(&whole));
        let stream = (13usize * 70).div_ceil(8).next_multiple_of(4);
        for strip in 0..3 {
            for bits in [1u32, 4, 0x100, 1 << 31] {
                for byte in 0..4 {
                    let bits = (bits >> (8 * byte)) as u8;
                    if bits == 0 {
                        continue;
                    }
                    let lying = honest.changed(0, "c", "tiles", stream + 4 * strip + byte, bits);
                    place.expect(&format!("strip {strip}"), &lying.file(), "corrupt", "corrupt tile 0");
                    assert!(second_reader(&place.path()).is_err());
                }
            }
        }
    }
}

#[test]
fn every_flipped_byte_is_an_error() {
    for code in CODES {
        let place = Place::new();
        let bytes = place.written(&model(code));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert_ne!(place.error(&damaged).0, "none", "{code:?}: byte {at}");
        }
    }
}

/// Any byte changed and checksums recomputed: other levels are possible, a panic is not.
#[test]
fn any_byte_behind_a_fitting_checksum() {
    for code in CODES {
        let place = Place::new();
        let whole = Model { pairs: model(code).pairs.map(|(pairs, _)| (pairs, 13)), ..model(code) };
        let honest = Forge::new(&place.written(&whole));
        let mut noticed = [0; 2];
        for part in ["tiles", "tables"] {
            for at in 0..honest.range(&format!("c#{part}")).len() {
                let lying = honest.changed(0, "c", part, at, [0x01, 0x80, 0xff][at % 3]);
                let (kind, text) = place.error(&lying.file());
                assert!(["none", "corrupt"].contains(&kind), "{part} {at}: {text}");
                noticed[usize::from(kind == "corrupt")] += 1;
            }
        }
        assert!(noticed[1] > noticed[0] / 3, "{code:?}: {noticed:?}");
    }
}

//! The files that the hostile catalogue is made from: what they hold, so that every kind of damage has something to damage.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::{Path, PathBuf};

use common::sources::{self, NF4};
use common::{Coded, Draw, Floats, Matrix, Model, Piece, Plain, floats, one_of_everything, read, values};
use ecq_format::directory::{self, Codec, Min, NumberFormat, PairCode, Pairs, Scales};
use ecq_format::encode::Profile;
use ecq_format::pattern::FloatFormat;
use ecq_format::predict::Predictor;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/hostile/base").join(name)
}

/// What each file was written from.
fn bases() -> [(&'static str, u32, Model); 5] {
    [
        ("v1.ecq", 1, one_of_everything()),
        ("v2.ecq", 2, version_2()),
        ("v3.ecq", 3, version_3()),
        ("v4-prefix.ecq", 4, version_4(PairCode::Prefix)),
        ("v4-rans.ecq", 4, version_4(PairCode::Rans)),
    ]
}

fn float(name: &str, format: FloatFormat, (rows, cols): (usize, usize), profile: Profile) -> Floats {
    let bytes = floats(format, rows * cols, false, &mut Draw(rows as u64));
    Floats { name: name.into(), shape: vec![rows as u64, cols as u64], format, profile, bytes }
}

/// Floats of both codecs, and levels of more than eight raw bits.
fn version_2() -> Model {
    let mut draw = Draw(2);
    let wide = Matrix::new(3, 40, || draw.below(1 << 13) as i32 - (1 << 12));
    let mut coded = tensor("wide", wide, Profile::Cpu, Scales::None, vec![]);
    coded.raw_bits = 10..=10;
    Model {
        coded: vec![coded],
        floats: vec![
            float("bf16", FloatFormat::Bf16, (6, 40), Profile::Cpu),
            float("f8", FloatFormat::F8E4M3, (5, 36), Profile::Gpu),
        ],
        plain: vec![plain()],
        pairs: Some((Pairs::WHOLE, 64)),
        ..Model::default()
    }
}

/// A map of columns, nested scales, a lookup with a codebook, a prediction, and a part.
fn version_3() -> Model {
    let mut draw = Draw(71);
    let numbers = Scales::Numbers { size: 8, format: NumberFormat::F32, min: Min::Zero, mapped: true };
    let nested = Scales::Nested { size: 8, supers: 2, bias: -32, min: true };
    let lookup = Scales::Lookup { size: 8, supers: 3, offset: 0.5 };
    let mut tensor = |name: &str, profile, scales, book| {
        let mut made = sources::tensor(name.into(), (5, 40), profile, scales, book, &mut draw);
        // numbers in place of noise, which would be most of the file; but for the two planes of a map
        let map = if matches!(scales, Scales::Numbers { .. }) { 2 } else { 0 };
        let scales = made.planes.len() - map;
        made.planes[..scales].iter_mut().flatten().for_each(|byte| *byte = 56 + *byte % 4);
        made
    };
    let mut coded = vec![
        tensor("map", Profile::Cpu, numbers, None),
        tensor("nested", Profile::Gpu, nested, None),
        tensor("book", Profile::Cpu, lookup, Some(NF4)),
    ];
    coded.push(sources::predicted(
        "predicted".into(),
        (5, 40),
        Profile::Gpu,
        Predictor::Planar,
        3,
        &mut draw,
    ));
    let part = directory::Part { of: "map".into(), index: 1 };
    let pieces = vec![Piece { name: "map.scales".into(), shape: vec![5, 5], part, bytes: vec![7; 100] }];
    Model { coded, plain: vec![plain()], pieces, pairs: Some((Pairs::WHOLE, 400)), ..Model::default() }
}

/// Bands and strips of pairs in several tiles, floats in pairs, and one of the kinds of version 3 and 1 each.
fn version_4(code: PairCode) -> Model {
    let mut draw = Draw(4);
    let mut paired = Matrix::new(10, 70, || (draw.below(4) + draw.below(4)) as i32 - 3);
    paired.levels[5 * 70 + 3] = -(1 << 20);
    let octaves = (0..10).map(|_| 125 + draw.below(6) as u8).collect();
    let rows = Scales::RowColumn { row: true, column: false };
    let mut coded = vec![tensor("paired", paired, Profile::Gpu, rows, vec![octaves])];
    let nested = Scales::Nested { size: 8, supers: 2, bias: -32, min: false };
    coded.push(sources::tensor("nested".into(), (3, 24), Profile::Cpu, nested, None, &mut draw));
    coded.push(sources::predicted("predicted".into(), (4, 40), Profile::Gpu, Predictor::Up, 2, &mut draw));
    let part = directory::Part { of: "nested".into(), index: 0 };
    Model {
        coded,
        floats: vec![float("bf16", FloatFormat::Bf16, (4, 40), Profile::Gpu)],
        pieces: vec![Piece { name: "nested.part".into(), shape: vec![9], part, bytes: vec![7; 9] }],
        blobs: vec![
            ("config.json".into(), b"[1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024]".into()),
            ("short.txt".into(), b"no shorter".into()),
        ],
        pairs: Some((Pairs { code, band: 4, strip: 32 }, 4)),
        lanes: Some((64, 2)),
        plain: vec![],
    }
}

fn tensor(name: &str, matrix: Matrix, profile: Profile, scales: Scales, planes: Vec<Vec<u8>>) -> Coded {
    let shape = vec![matrix.rows as u64, matrix.cols as u64];
    let (raw_bits, values) = (0..=3, values(scales));
    Coded { name: name.into(), shape, matrix, profile, center: 0, raw_bits, values, planes, predictor: None }
}

fn plain() -> Plain {
    one_of_everything().plain.remove(0)
}

/// Written once; the catalogue is made from them for ever.
#[test]
#[ignore = "writes fixtures/hostile/base, once for a format version"]
fn write() {
    for (name, _, model) in bases() {
        model.write(&path(name), false, 0).unwrap();
    }
}

#[test]
fn the_bases_hold_what_they_were_written_from() {
    let dir = tempfile::tempdir().unwrap();
    for (name, version, model) in bases() {
        let found = read(&path(name)).unwrap();
        assert_eq!(found.directory.version, version, "{name}");
        // a better encoder may choose other splits: what comes out is what went in
        let again = dir.path().join(name);
        model.write(&again, false, 0).unwrap();
        let again = read(&again).unwrap();
        assert!(found.tensors == again.tensors && found.blobs == again.blobs, "{name}");
        let len = std::fs::metadata(path(name)).unwrap().len();
        assert!(len < 8192, "{name} has {len} bytes");
    }
}

#[test]
fn the_bases_have_every_kind_of_tensor() {
    let all = bases().map(|(name, _, _)| read(&path(name)).unwrap().directory);
    let coded = || all.iter().flat_map(|d| &d.tensors).filter_map(|t| t.coded.as_ref());
    let has = |what: &str, is: &dyn Fn(&directory::Coded) -> bool| assert!(coded().any(is), "{what}");
    has("nibbles", &|c| matches!(c.codec, Codec::Nibble(_)));
    has("pairs of version 1", &|c| c.codec == Codec::Pairs(Pairs::WHOLE));
    for code in [PairCode::Prefix, PairCode::Rans] {
        has(
            "pairs",
            &|c| matches!(c.codec, Codec::Pairs(p) if p.code == code && c.strips() > 2 && c.tiles() > 2),
        );
    }
    has("floats", &|c| c.pattern.is_some() && matches!(c.codec, Codec::Nibble(_)));
    has("floats in pairs", &|c| c.pattern.is_some() && matches!(c.codec, Codec::Pairs(_)));
    has("a prediction", &|c| c.predictor.is_some());
    has("a codebook", &|c| c.values.codebook.is_some());
    has("more than eight raw bits", &|c| c.raw_bits > 8);
    for (what, is) in [
        ("rows", (|s| matches!(s, Scales::RowColumn { .. })) as fn(Scales) -> bool),
        ("groups", |s| matches!(s, Scales::Group { .. })),
        ("numbers", |s| matches!(s, Scales::Numbers { .. })),
        ("nested", |s| matches!(s, Scales::Nested { .. })),
        ("lookup", |s| matches!(s, Scales::Lookup { .. })),
    ] {
        has(what, &|c| is(c.values.scales));
    }
    assert!(all.iter().flat_map(|d| &d.tensors).any(|t| t.part.is_some()));
    for zstd in [false, true] {
        assert!(all.iter().flat_map(|d| &d.blobs).any(|b| b.zstd == zstd));
    }
}

//! What is written comes back: random shapes, levels, scales, plain tensors and blobs, through the whole file.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::path::Path;

use common::sources;
use common::{Coded, Draw, Matrix, Model, Part, Plain, VERBATIM, one_of_everything, read, values};
use ecq_format::directory::{Role, Scales, Values};
use ecq_format::encode::Profile;
use ecq_format::writer::TensorHead;
use ecq_format::{Dtype, Error, Writer};
use proptest::prelude::*;

fn matrix(rows: usize, cols: usize, center: i32, kind: u32, seed: u64) -> Matrix {
    let mut draw = Draw(seed);
    let constant = draw.below(40) as i32 - 20;
    Matrix::new(rows, cols, move || {
        let d = match kind {
            0 => constant,
            1 => (draw.bits().count_ones() as i32 - 16) / 2,
            2 => draw.below(4001) as i32 - 2000,
            // half of them halved again and again: most are small, a few need any number of bits
            3 => (0..12).fold(draw.bits() as i32 >> 8, |v, _| if draw.below(8) > 0 { v >> 2 } else { v }),
            _ if draw.below(50) == 0 => [i32::MIN, i32::MAX, i32::MIN + 1, -1][draw.below(4) as usize],
            _ => draw.below(3) as i32,
        };
        if kind == 4 { d } else { center + d }
    })
}

/// Scales of every kind, with the planes that they ask for.
fn scales(rows: usize, cols: usize, kind: u32, seed: u64) -> (Scales, Vec<Vec<u8>>) {
    let mut draw = Draw(!seed);
    let size = [1, 16, 32, cols as u64][draw.below(4) as usize].min(cols as u64);
    let groups = cols.div_ceil(size as usize);
    let (scales, lengths) = match kind {
        0 => (Scales::None, vec![]),
        1 => (Scales::RowColumn { row: true, column: false }, vec![rows]),
        2 => (Scales::RowColumn { row: false, column: true }, vec![cols]),
        3 => (Scales::RowColumn { row: true, column: true }, vec![rows, cols]),
        4 => (Scales::Group { size, min: false }, vec![rows * groups; 2]),
        5 => (Scales::Group { size, min: true }, vec![rows * groups; 4]),
        _ => {
            let all = sources::scales(size);
            let scales = all[draw.below(all.len() as u32) as usize];
            return (scales, sources::planes(scales, rows, cols, &mut draw));
        }
    };
    let spread = 1 + draw.below(255);
    let plane = |n: usize| (0..n).map(|_| draw.below(spread) as u8).collect();
    (scales, lengths.into_iter().map(plane).collect())
}

/// A shape whose product of all dimensions but the last is `rows`.
fn shape(rows: usize, cols: usize, seed: u64) -> Vec<u64> {
    match seed % 3 {
        0 if rows == 1 => vec![cols as u64],
        1 if rows.is_multiple_of(2) => vec![2, rows as u64 / 2, cols as u64],
        _ => vec![rows as u64, cols as u64],
    }
}

prop_compose! {
    fn any_coded()(
        rows in prop_oneof![Just(1usize), 1usize..12, 1usize..260],
        cols in prop_oneof![Just(1usize), 1usize..70, Just(256usize), 1usize..400],
        gpu: bool, kind in 0u32..5, center in -1000i32..1000, raw in 0u32..=8, fixed: bool,
        scaled in 0u32..9, seed: u64, step: f32, offset in -1f32..1.0,
    ) -> Coded {
        let (scales, planes) = scales(rows, cols, scaled, seed);
        let step = if step.is_finite() { step } else { 1.0 };
        let values = Values { step: step.into(), bias: 0.5, offset: offset.into(), scales, codebook: None };
        let profile = if gpu { Profile::Gpu } else { Profile::Cpu };
        let (name, shape) = (format!("t{seed}"), shape(rows, cols, seed));
        let matrix = matrix(rows, cols, center, kind, seed);
        let raw_bits = if fixed { raw..=raw } else { 0..=8 };
        Coded { name, shape, matrix, profile, center, raw_bits, values, planes, predictor: None }
    }
}

const DTYPES: [(&str, Option<Dtype>, u64); 9] = [
    ("F64", Some(Dtype::F64), 8),
    ("I64", Some(Dtype::I64), 8),
    ("F32", Some(Dtype::F32), 4),
    ("BF16", Some(Dtype::BF16), 2),
    ("F16", Some(Dtype::F16), 2),
    ("BOOL", Some(Dtype::BOOL), 1),
    ("F8_E4M3", Some(Dtype::F8_E4M3), 1),
    ("I8", Some(Dtype::I8), 1),
    ("Q6_K", None, 1),
];

fn plain(index: usize, shape: Vec<u64>, seed: u64) -> Plain {
    let (dtype, stored, size) = DTYPES[index];
    let n = shape.iter().product::<u64>() * size;
    let bytes = Draw(seed).bytes(n as usize);
    Plain { name: format!("plain.{index}.{seed}"), shape, dtype: dtype.into(), stored, bytes }
}

prop_compose! {
    fn any_model()(
        coded in prop::collection::vec(any_coded(), 0..4),
        plains in prop::collection::btree_map(0usize..9, (prop::collection::vec(0u64..9, 0..4), any::<u64>()), 0..9),
        blobs in prop::collection::vec((0usize..3000, any::<bool>(), any::<u64>()), 0..4),
    ) -> Model {
        let bytes = |(n, packs, seed): (usize, bool, u64)| {
            if packs { vec![seed as u8; n] } else { Draw(seed).bytes(n) }
        };
        let named = |(i, b)| (format!("file-{i}.json"), bytes(b));
        let plain = plains.into_iter().map(|(i, (shape, seed))| plain(i, shape, seed)).collect();
        Model { coded, plain, blobs: blobs.into_iter().enumerate().map(named).collect(), ..Model::default() }
    }
}

/// What a reader must find.
fn assert_holds(path: &Path, model: &Model) {
    let contents = read(path).unwrap();
    assert_eq!(contents.tensors.len(), model.coded.len() + model.plain.len());
    for coded in &model.coded {
        let i = contents.directory.tensors.iter().position(|t| t.name == coded.name).unwrap();
        let record = &contents.directory.tensors[i];
        assert_eq!(record.shape, coded.shape);
        assert_eq!(record.coded.as_ref().unwrap().values, coded.values);
        let (levels, planes) = (coded.matrix.levels.clone(), coded.planes.clone());
        assert_eq!(contents.tensors[i], Part::Coded { levels, planes });
    }
    for plain in &model.plain {
        let i = contents.directory.tensors.iter().position(|t| t.name == plain.name).unwrap();
        let record = &contents.directory.tensors[i];
        assert_eq!((&record.shape, &record.dtype), (&plain.shape, &plain.dtype));
        assert_eq!(contents.tensors[i], Part::Plain(plain.bytes.clone()));
    }
    let (verbatim, companions) = contents.blobs.split_last().unwrap();
    assert_eq!(verbatim, VERBATIM);
    assert!(companions.iter().eq(model.blobs.iter().map(|(_, bytes)| bytes)));
}

/// A safetensors reader that knows nothing of ECQ opens the file and finds the plain tensors, aligned.
fn assert_safetensors(path: &Path, model: &Model) {
    let bytes = fs::read(path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for plain in &model.plain {
        let view = all.tensor(&plain.name).unwrap();
        assert_eq!(view.data(), plain.bytes);
        if let Some(dtype) = plain.stored {
            assert_eq!(view.dtype(), dtype);
            assert!(view.shape().iter().map(|&d| d as u64).eq(plain.shape.iter().copied()));
            let start = metadata.info(&plain.name).unwrap().data_offsets.0;
            assert!(start.is_multiple_of(dtype.bitsize() / 8));
        }
    }
    for coded in &model.coded {
        for part in ["tiles", "index", "tables"] {
            let info = metadata.info(&format!("{}#{part}", coded.name)).unwrap();
            assert!(info.data_offsets.0.is_multiple_of(8) && info.data_offsets.1.is_multiple_of(8));
        }
    }
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!((header + 8) % 64, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn models_come_back(model in any_model()) {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.ecq"), dir.path().join("b.ecq"));
        // without room for the header everything moves; the entries are the same
        prop_assert_eq!(model.write(&a, false, 0).unwrap(), fs::metadata(&a).unwrap().len());
        prop_assert_eq!(model.write(&b, false, 50_000).unwrap(), fs::metadata(&b).unwrap().len());
        assert_holds(&a, &model);
        assert_holds(&b, &model);
        assert_safetensors(&a, &model);
        assert_safetensors(&b, &model);
        prop_assert_eq!(read(&a).unwrap(), read(&b).unwrap());
        let first = fs::read(&a).unwrap();
        model.write(&a, true, 0).unwrap();
        prop_assert!(first == fs::read(&a).unwrap(), "a second run gives other bytes");
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

#[test]
fn every_number_of_raw_bits_and_many_tiles_in_both_codecs() {
    for profile in [Profile::Cpu, Profile::Gpu] {
        for raw in 0..=8u32 {
            let mut draw = Draw(raw.into());
            let spread = 12u32 << raw;
            let mut level = || draw.below(spread) as i32 - spread as i32 / 2;
            let matrix = Matrix::new(2701, 101, &mut level);
            let scales = Scales::Group { size: 32, min: true };
            let planes = vec![vec![60; 2701 * 4]; 4];
            let coded = Coded {
                name: "model.layers.0.mlp.down_proj.weight".into(),
                shape: vec![2701, 101],
                matrix,
                profile,
                center: 0,
                raw_bits: raw..=raw,
                values: values(scales),
                planes,
                predictor: None,
            };
            let model = Model { coded: vec![coded], ..Model::default() };
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.ecq");
            model.write(&path, false, 0).unwrap();
            let directory = read(&path).unwrap().directory;
            let coded = directory.tensors[0].coded.clone().unwrap();
            assert!(coded.tiles() > 1 && coded.raw_bits == raw);
            assert_ne!(coded.rows % coded.tile_rows, 0, "the last tile shall be shorter");
            assert_holds(&path, &model);
        }
    }
}

#[test]
fn an_existing_file_stays_unless_overwriting_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    fs::write(&path, "precious").unwrap();
    let model = one_of_everything();
    assert!(matches!(model.write(&path, false, 0), Err(Error::Exists(p)) if p == path));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    model.write(&path, true, 0).unwrap();
    assert_holds(&path, &model);

    // a file that appears while another is being written is not replaced either
    let late = dir.path().join("late.ecq");
    let writer = Writer::create(&late, false, 0).unwrap();
    fs::write(&late, "precious").unwrap();
    assert!(matches!(writer.finish(Vec::new(), false), Err(Error::Exists(p)) if p == late));
    assert_eq!(fs::read(&late).unwrap(), b"precious");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn a_writer_that_fails_or_is_dropped_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    let source = ecq_format::directory::Extent { file: 0, offset: 0, len: 4 };
    let head = TensorHead { name: "x", shape: &[1], dtype: "F32", source };

    let mut twice = Writer::create(&path, false, 0).unwrap();
    twice.plain(head.clone(), Some(Dtype::F32), &[0; 4]).unwrap();
    let error = twice.plain(head.clone(), Some(Dtype::F32), &[0; 4]).unwrap_err();
    assert!(matches!(error, Error::Unstorable { name, .. } if name == "x"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the unfinished file, under another name");
    assert!(!path.exists());
    drop(twice);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    let mut short = Writer::create(&path, false, 0).unwrap();
    short.blob("config.json", Role::Companion, b"{}").unwrap();
    short.plain(head, Some(Dtype::F32), &[0; 3]).unwrap();
    assert!(matches!(short.finish(Vec::new(), false), Err(Error::Unstorable { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    let nowhere = dir.path().join("no/such/folder/a.ecq");
    assert!(matches!(Writer::create(&nowhere, false, 0), Err(Error::Io { .. })));
}

#[test]
fn side_data_of_the_wrong_length_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = one_of_everything();
    model.coded[0].planes[1].pop();
    let error = model.write(&dir.path().join("a.ecq"), false, 0).unwrap_err();
    assert!(matches!(error, Error::Unstorable { name, .. } if name == "n"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

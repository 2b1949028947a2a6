//! Files that lie: a product is the right one or an error that says where, whatever a tile holds.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;

use std::fs;
use std::path::Path;

use common::forge::Forge;
use common::sources::NF4;
use common::{Draw, Floats, Model};
use ecq_cpu::{Isa, Matrix, Packed, Precision};
use ecq_format::directory::{Min, NumberFormat, Scales};
use ecq_format::encode::Profile;
use ecq_format::pattern::FloatFormat;
use ecq_format::predict::Predictor;
use ecq_format::reader::Tensor;
use ecq_format::tile::{Frequencies, TileParts};
use ecq_format::{Error, Limits, Reader};
use rans_core::nibble::{EncodeTable, Strips, encode, max_len};
use reference::Case;
use serde_json::json;

/// Products by all ways, or the error of each.
fn products(path: &Path) -> Vec<Result<(), Error>> {
    let reader = Reader::open(path, Limits::default()).unwrap();
    let Tensor::Coded(tensor) = reader.tensor("w").unwrap() else { panic!("not coded") };
    let mut levels = Vec::new();
    let sound = (0..tensor.tiles()).try_for_each(|tile| tensor.levels(tile, &mut levels));
    let mut all = Vec::new();
    for isa in Isa::all() {
        let matrix = Matrix::with_isa(isa, &tensor).unwrap();
        let vectors = reference::vectors(matrix.cols(), 1, 1);
        let x = matrix.activations(Precision::Int8, &vectors);
        let mut y = vec![0.0; matrix.rows()];
        all.push(matrix.multiply(&x, &mut y));
        all.push(matrix.multiply_serial(&x, &mut y));
        if sound.is_ok() {
            reference::Weights::new(&tensor).compare(&vectors, &x, &y, "a changed tile that decodes");
        }
    }
    match Packed::new(&tensor) {
        Err(Error::Unsupported { .. }) if tensor.coded().predictor.is_some() => {}
        packed => all.push(packed.map(drop)),
    }
    assert!(all.iter().all(|a| a.is_ok() == sound.is_ok()), "all ways agree: {sound:?}, {all:?}");
    all
}

fn assert_names_the_tile(result: Result<(), Error>) {
    match result {
        Err(Error::Corrupt { name, part, .. }) => assert_eq!((name.as_str(), part.as_str()), ("w", "tile 0")),
        other => panic!("{other:?}"),
    }
}

fn case(raw_bits: u32, profile: Profile) -> Case {
    let cols = if profile == Profile::Gpu { 50 } else { 64 };
    Case { rows: 5, cols, raw_bits, scales: Scales::None, profile, escapes: 40, seed: 6, ..Case::PLAIN }
}

#[test]
fn any_byte_of_a_tile_without_its_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    case(1, Profile::Cpu).model().write(&path, false, 0).unwrap();
    let honest = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(honest[..8].try_into().unwrap()) as usize;
    for at in [0, 17, 60, 100] {
        let mut file = honest.clone();
        file[header + at] ^= 4;
        fs::write(&path, file).unwrap();
        products(&path).into_iter().for_each(assert_names_the_tile);
    }
}

#[test]
fn any_byte_of_a_tile_with_a_fitting_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    let codebook = Case { codebook: Some(NF4), ..case(0, Profile::Cpu) };
    let predicted = Case { predictor: Some(Predictor::Planar), ..case(2, Profile::Cpu) };
    for case in [
        case(0, Profile::Cpu),
        case(3, Profile::Cpu),
        case(6, Profile::Cpu),
        case(1, Profile::Gpu),
        codebook,
        Case { profile: Profile::Gpu, ..codebook },
        predicted,
    ] {
        case.model().write(&path, true, 0).unwrap();
        let honest = Forge::new(&fs::read(&path).unwrap());
        let (mut sound, mut corrupt) = (0, 0);
        for at in 0..honest.range("w#index").start {
            let mut lying = honest.clone();
            lying.entry("w#tiles")[at] ^= 1 << (at % 8);
            lying.checksum_tiles(0, "w");
            let file = lying.file();
            fs::write(&path, file).unwrap();
            let Ok(reader) = Reader::open(&path, Limits::default()) else { panic!("a sealed file") };
            if reader.tensor("w").is_err() {
                continue; // filling after the last tile
            }
            for result in products(&path) {
                match result {
                    Ok(()) => sound += 1,
                    error => {
                        corrupt += 1;
                        assert_names_the_tile(error);
                    }
                }
            }
        }
        assert!(corrupt > 0 && (sound > 0 || case.raw_bits == 0), "{case:?}: {sound}, {corrupt}");
    }
}

/// The one tile of a tensor without raw bits, made of this stream and these escapes.
fn with_tile(forge: &mut Forge, stream: &[u8], escapes: &[u8]) {
    let mut tile = stream.to_vec();
    tile.resize(stream.len().next_multiple_of(4), 0);
    tile.extend(escapes);
    tile.resize(tile.len().next_multiple_of(4), 0);
    forge.replace("w#tiles", &tile);
    let lengths = [stream.len(), escapes.len()].map(|n| (n as u32).to_le_bytes()).concat();
    forge.entry("w#index")[..8].copy_from_slice(&lengths);
    forge.checksum_tiles(0, "w");
}

/// Stream, escapes and nibbles of the one tile of a tensor without raw bits, and the frequencies of its nibbles.
fn parts(path: &Path) -> (Vec<u8>, Vec<u8>, Vec<u8>, Frequencies) {
    let reader = Reader::open(path, Limits::default()).unwrap();
    let Tensor::Coded(tensor) = reader.tensor("w").unwrap() else { panic!("not coded") };
    let (bytes, entry) = tensor.tile(0).unwrap();
    let weights = tensor.coded().weights() as usize;
    let parts = TileParts::new(bytes, entry, tensor.coded().split(), weights).unwrap();
    let mut nibbles = vec![0; weights];
    tensor.decoder().nibbles(parts.stream, &mut nibbles).unwrap();
    (parts.stream.into(), parts.escapes.into(), nibbles, tensor.frequencies().clone())
}

#[test]
fn tiles_cut_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    for profile in [Profile::Cpu, Profile::Gpu] {
        case(0, profile).model().write(&path, true, 0).unwrap();
        let honest = Forge::new(&fs::read(&path).unwrap());
        let (stream, escapes, ..) = parts(&path);
        let check = |stream: &[u8], escapes: &[u8]| {
            let mut cut = honest.clone();
            with_tile(&mut cut, stream, escapes);
            fs::write(&path, cut.file()).unwrap();
            products(&path)
        };
        assert!(check(&stream, &escapes).iter().all(Result::is_ok));
        for len in 0..stream.len() {
            check(&stream[..len], &escapes).into_iter().for_each(assert_names_the_tile);
        }
        let sound = (0..escapes.len()).filter(|&len| check(&stream, &escapes[..len])[0].is_ok()).count();
        assert!(sound > 0 && sound < escapes.len(), "escapes may end after each, not within one");
    }
}

#[test]
fn any_number_of_lanes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    for (rows, cols) in [(1, 64), (7, 128), (33, 192), (20, 65), (3, 1)] {
        let scales = Scales::Group { size: 1, min: false };
        let case = Case {
            rows,
            cols,
            raw_bits: 0,
            scales,
            profile: Profile::Cpu,
            escapes: 30,
            seed: 8,
            ..Case::PLAIN
        };
        case.model().write(&path, true, 0).unwrap();
        let honest = Forge::new(&fs::read(&path).unwrap());
        let (_, escapes, nibbles, freqs) = parts(&path);
        let Frequencies::Nibble(freqs) = freqs else { panic!("{freqs:?}") };
        for groups in 1..=16 {
            let strips = Strips::new(64 * groups, rows.div_ceil(groups) * cols, nibbles.len()).unwrap();
            let mut stream = vec![0; max_len(&strips)];
            let len = encode(&EncodeTable::new(&freqs), &strips, &nibbles, &mut stream).unwrap();
            let mut other = honest.clone();
            other.set("/tensors/0/coded/codec", json!({ "nibble": 64 * groups }));
            with_tile(&mut other, &stream[..len], &escapes);
            fs::write(&path, other.file()).unwrap();
            assert!(products(&path).iter().all(Result::is_ok), "{rows} x {cols}, {groups} groups");
        }
    }
}

#[test]
fn floats_without_loss_have_no_packed_integers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    for format in [FloatFormat::Bf16, FloatFormat::F16, FloatFormat::F8E4M3, FloatFormat::F8E5M2] {
        let bytes = common::floats(format, 4 * 64, false, &mut Draw(1));
        let floats = Floats { name: "w".into(), shape: vec![4, 64], format, profile: Profile::Cpu, bytes };
        Model { floats: vec![floats], ..Model::default() }.write(&path, true, 0).unwrap();
        let reader = Reader::open(&path, Limits::default()).unwrap();
        let Tensor::Coded(tensor) = reader.tensor("w").unwrap() else { panic!("not coded") };
        let Err(Error::Unsupported { name, why, .. }) = Packed::new(&tensor) else { panic!("packed") };
        assert!(name == "w" && why.contains(&format!("{format:?}")), "{why}");
    }
}

#[test]
fn scales_that_lie() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    let mapped = Scales::Numbers { size: 8, format: NumberFormat::F32, min: Min::Zero, mapped: true };
    for scales in [
        mapped,
        Scales::Nested { size: 8, supers: 3, bias: -32, min: true },
        Scales::Lookup { size: 8, supers: 3, offset: 0.5 },
    ] {
        let case = Case { rows: 5, cols: 64, scales, seed: 6, codebook: Some(NF4), ..Case::PLAIN };
        case.model().write(&path, true, 0).unwrap();
        let honest = Forge::new(&fs::read(&path).unwrap());
        let mut refused = 0;
        // any bits: other products, or an error, for all alike
        for at in (0..honest.range("w#side").len()).step_by(7) {
            let mut lying = honest.clone();
            lying.entry("w#side")[at] ^= 1 << (at % 8);
            lying.checksum(0);
            fs::write(&path, lying.file()).unwrap();
            let reader = Reader::open(&path, Limits::default()).unwrap();
            let Tensor::Coded(tensor) = reader.tensor("w").unwrap() else { panic!("not coded") };
            for isa in Isa::all() {
                match (Matrix::with_isa(isa, &tensor), tensor.side()) {
                    (Ok(matrix), Ok(_)) => {
                        let x = matrix.activations(Precision::Int8, &reference::vectors(64, 2, 1));
                        matrix.multiply(&x, &mut [0.0; 10]).unwrap();
                    }
                    (Err(Error::Corrupt { name, part, .. }), Err(_)) => {
                        assert_eq!((name.as_str(), part.as_str()), ("w", "side data"));
                        refused += 1;
                    }
                    (other, side) => panic!("{:?}, {:?}", other.map(drop), side.map(drop)),
                }
            }
        }
        assert!(refused > 0, "{scales:?}");
    }
    // a column that belongs to no group
    let mut model = Case { rows: 5, cols: 64, scales: mapped, ..Case::PLAIN }.model();
    model.coded[0].planes[6][63] = 8;
    model.write(&path, true, 0).unwrap();
    let reader = Reader::open(&path, Limits::default()).unwrap();
    let Tensor::Coded(tensor) = reader.tensor("w").unwrap() else { panic!("not coded") };
    for error in [Matrix::new(&tensor).err(), Packed::new(&tensor).err()] {
        let error = error.unwrap().to_string();
        assert!(error.contains("column 63 belongs to none of the 8 groups"), "{error}");
    }
}

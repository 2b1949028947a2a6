//! Files that lie: a product is the right one or an error that says where, whatever a tile holds.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;

use std::fs;
use std::path::Path;

use common::forge::Forge;
use ecq_cpu::{Isa, Matrix, Packed, Precision};
use ecq_format::directory::Scales;
use ecq_format::encode::Profile;
use ecq_format::reader::Tensor;
use ecq_format::{Error, Limits, Reader};
use reference::Case;

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
    all.push(Packed::new(&tensor).map(drop));
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
    Case { rows: 5, cols, raw_bits, scales: Scales::None, profile, escapes: 40, seed: 6 }
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
    for (raw_bits, profile) in [(0, Profile::Cpu), (3, Profile::Cpu), (6, Profile::Cpu), (1, Profile::Gpu)] {
        case(raw_bits, profile).model().write(&path, true, 0).unwrap();
        let honest = Forge::new(&fs::read(&path).unwrap());
        let (mut sound, mut corrupt) = (0, 0);
        for at in 0..honest.range("w#index").start {
            let mut lying = honest.clone();
            lying.entry("w#tiles")[at] ^= 1 << (at % 8);
            lying.checksum_tile(0, "w");
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
        assert!(corrupt > 0 && (sound > 0 || raw_bits == 0), "{raw_bits} {profile:?}: {sound}, {corrupt}");
    }
}

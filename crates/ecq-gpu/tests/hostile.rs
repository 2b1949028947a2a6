//! Files that lie: a tensor is refused, or its products are the right ones, whatever a tile holds.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;
mod support;

use std::fs;

use case::{Case, vectors};
use common::forge::Forge;
use common::sources::NF4;
use ecq_format::encode::Profile;
use ecq_format::reader::Tensor;
use ecq_format::{Limits, Reader};
use ecq_gpu::host::Host;
use ecq_gpu::{Engine, Error, Matrix, plan};

/// Whether a file's tensor is taken: then its products are compared.
fn taken(engine: &Engine, file: &[u8], what: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    fs::write(&path, file).unwrap();
    let reader = Reader::open(&path, Limits::default()).unwrap();
    let Ok(Tensor::Coded(tensor)) = reader.tensor("w") else { return false };
    let sound = (0..tensor.tiles()).all(|tile| tensor.levels(tile, &mut Vec::new()).is_ok());
    let host = Host::new("w", &tensor, &plan::Limits::WEBGPU);
    assert_eq!(host.is_ok(), sound, "{what}: {:?}", host.err());
    let matrix = match Matrix::new(engine, "w", &tensor) {
        Ok(matrix) => matrix,
        Err(error) => {
            assert!(!sound && matches!(error, Error::Tensor(_)), "{what}: {error}");
            return false;
        }
    };
    assert!(sound, "{what}: taken, though a tile is corrupt");
    let reference = reference::Weights::new(&tensor);
    let packed = support::decode(engine, &matrix);
    for count in [1, 17] {
        let x = vectors(matrix.cols(), count, 1);
        reference.compare(&x, &support::product(engine, &matrix, &x), &format!("{what}, {count} vectors"));
        let y = support::packed_product(engine, &matrix, &packed, &x);
        reference.compare(&x, &y, &format!("{what}, {count} vectors, packed"));
    }
    true
}

#[test]
fn bytes_of_a_tile_with_a_fitting_checksum() {
    let Some(engine) = support::engine() else { return };
    let pairs = Case { rows: 5, cols: 50, profile: Profile::Gpu, escapes: 40, seed: 6, ..Case::PLAIN };
    let nibbles = Case { cols: 64, profile: Profile::Cpu, ..pairs };
    for case in [
        pairs,
        Case { raw_bits: 3, ..pairs },
        Case { codebook: Some(NF4), ..pairs },
        Case { raw_bits: 3, ..nibbles },
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.ecq");
        case.model().write(&path, true, 0).unwrap();
        let honest = Forge::new(&fs::read(&path).unwrap());
        assert!(taken(&engine, &honest.clone().file(), "as it was"));
        let end = honest.range("w#index").start;
        let (mut sound, mut refused) = (0, 0);
        for at in (0..end).step_by(end.div_ceil(50)) {
            let mut lying = honest.clone();
            lying.entry("w#tiles")[at] ^= 1 << (at % 8);
            lying.checksum_tiles(0, "w");
            match taken(&engine, &lying.file(), &format!("byte {at} of {case:?}")) {
                true => sound += 1,
                false => refused += 1,
            }
        }
        println!("{sound} taken, {refused} refused: {case:?}");
        assert!(refused > 0 && (sound > 0 || case.raw_bits == 0), "{sound}, {refused}: {case:?}");
    }
}

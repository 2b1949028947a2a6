//! A `.ecq` file from a stranger.

use ecq_convert::{Silent, inspect, verify};
use ecq_cpu::{Isa, Matrix, Packed, Precision};
use ecq_format::reader::{CodedTensor, Tensor};
use ecq_format::{Limits, Reader};

use crate::place;

/// A file with more than this is refused, and nothing found.
fn limits() -> Limits {
    let defaults = Limits::default();
    Limits {
        header: 1 << 20,
        tensors: 1 << 10,
        blob: 1 << 20,
        tile_weights: 1 << 16,
        weights: 1 << 18,
        side_bytes: 1 << 20,
        ..defaults
    }
}

/// Most weights of a tensor that is multiplied: all instruction sets take their time.
const MOST_WEIGHTS: u64 = 1 << 16;

/// Opens a file, inspects and verifies it, and multiplies its tensors.
pub fn ecq(bytes: &[u8]) {
    let path = place::file("model.ecq", bytes);
    let Ok(reader) = Reader::open(&path, limits()) else { return };
    let inspected = inspect::inspect(&reader).is_ok();
    let verified = verify::verify(&reader, None, &Silent).is_ok();
    assert!(inspected || !verified, "verified, but cannot be inspected");
    for record in &reader.directory().tensors {
        match reader.load(record) {
            Ok(Tensor::Coded(tensor)) if tensor.coded().weights() <= MOST_WEIGHTS => {
                products(&tensor, verified);
            }
            Ok(_) => {}
            Err(_) => assert!(!verified, "{}: verified, but cannot be loaded", record.name),
        }
    }
}

/// Products on all instruction sets: all succeed or none. A tensor that was verified can be multiplied as it is coded;
/// not every one can be packed.
fn products(tensor: &CodedTensor<'_>, verified: bool) {
    let x = vec![0.5; tensor.coded().cols as usize];
    let mut outcomes = Isa::all().map(|isa| {
        let coded = Matrix::with_isa(isa, tensor).and_then(|matrix| {
            let mut y = vec![0.0; matrix.rows()];
            let precisions = [Precision::F32, Precision::Int8];
            precisions
                .iter()
                .try_for_each(|&precision| matrix.multiply(&matrix.activations(precision, &x), &mut y))
        });
        let packed = Packed::with_isa(isa, tensor).map(|packed| {
            let mut y = vec![0.0; packed.rows()];
            packed.multiply(&packed.activations(Precision::Int8, &x), &mut y);
        });
        [coded, packed].map(|made| made.map_err(|e| e.to_string()))
    });
    let first = outcomes.next().expect("scalar code is always there");
    assert!(first[0].is_ok() || !verified, "verified, but {:?}", first[0]);
    outcomes.for_each(|other| assert_eq!(first, other, "instruction sets differ"));
}

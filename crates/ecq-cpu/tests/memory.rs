//! What a directory foretells of memory is enough for what tensors then take, and not twice as much.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;

use common::sources::NF4;
use ecq_cpu::{Matrix, Packed, memory};
use ecq_format::directory::{Min, NumberFormat, Scales};
use ecq_format::predict::Predictor;
use reference::{Case, with_tensor};

fn check(most: u64, taken: u64, case: &Case) {
    // codes of five bits that fit four, and numbers that fit halves, take half
    assert!((taken..=2 * taken).contains(&most), "{most} bytes for {taken}: {case:?}");
    let exact = case.raw_bits != 1 && matches!(case.scales, Scales::None | Scales::Group { .. });
    assert!(most == taken || !exact || case.codebook.is_some(), "{most} bytes for {taken}: {case:?}");
}

#[test]
fn memory_is_foretold() {
    let numbers = |mapped, min| Scales::Numbers { size: 32, format: NumberFormat::Bf16, min, mapped };
    let scales = [
        Scales::None,
        Scales::RowColumn { row: true, column: true },
        Scales::RowColumn { row: false, column: true },
        Scales::Group { size: 32, min: false },
        Scales::Group { size: 32, min: true },
        numbers(false, Min::Zero),
        numbers(true, Min::Number),
        Scales::Nested { size: 16, supers: 8, bias: -32, min: true },
        Scales::Lookup { size: 64, supers: 4, offset: 0.25 },
    ];
    let plain = Case { rows: 37, cols: 200, ..Case::PLAIN };
    let mut cases: Vec<Case> = scales.into_iter().map(|scales| Case { scales, ..plain }).collect();
    cases.extend([1, 4, 5].map(|raw_bits| Case { raw_bits, escapes: 50, ..plain }));
    cases.push(Case { predictor: Some(Predictor::Left), ..plain });
    cases.extend([NF4, [1e30; 16]].map(|book| Case { codebook: Some(book), ..plain }));
    for case in cases {
        with_tensor(&case, |tensor| {
            let matrix = Matrix::new(tensor).unwrap();
            check(memory::matrix(tensor.coded()), matrix.memory(), &case);
            let packed = Packed::new(tensor).ok();
            assert_eq!(memory::packed(tensor.coded()).is_some(), packed.is_some(), "{case:?}");
            if let (Some(most), Some(packed)) = (memory::packed(tensor.coded()), packed) {
                check(most, packed.memory(), &case);
            }
        });
    }
}

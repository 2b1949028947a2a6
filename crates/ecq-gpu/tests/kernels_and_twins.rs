//! Kernels beside their twins: packed weights, which `twins.rs` has for twins, and products bit for bit where nothing rounds.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
mod check;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;
mod sequential;
mod support;

use case::{Case, vectors, with_model};
use common::sources::NF4;
use common::{Draw, Model};
use ecq_format::directory::{PairCode, Pairs};
use ecq_format::encode::Profile;
use ecq_format::pattern::FloatFormat;
use ecq_format::reader::CodedTensor;
use ecq_gpu::host::Host;
use ecq_gpu::plan::Limits;
use ecq_gpu::{Engine, Matrix};
use sequential::Sequential;

/// Less than a band and a block of columns, and several of tiles, bands, strips and blocks, the last ones cut short.
const SHAPES: [(usize, usize); 3] = [(1, 3), (7, 33), (43, 203)];

fn model(case: &Case, code: PairCode) -> Model {
    let mut model = Case { profile: Profile::Gpu, ..*case }.model();
    model.pairs = Some((Pairs { code, band: 8, strip: 96 }, 16));
    model
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|y| y.to_bits()).collect()
}

/// Packed weights are those of the file.
fn check_packed(engine: &Engine, tensor: &CodedTensor<'_>, what: &str) {
    let host = Host::new("w", tensor, &Limits::from(engine.limits())).unwrap();
    let matrix = Matrix::new(engine, "w", tensor).unwrap();
    sequential::check_packed(tensor, &host, &check::packed_words(engine, &matrix), what);
}

#[test]
fn packed_weights_are_those_of_the_file() {
    let Some(engine) = support::engine() else { return };
    for (code, raw_bits, codebook) in [
        (PairCode::Prefix, 0, None),
        (PairCode::Prefix, 3, None),
        (PairCode::Prefix, 11, None),
        (PairCode::Rans, 0, Some(NF4)),
        (PairCode::Rans, 1, None),
    ] {
        for (rows, cols) in SHAPES {
            let case = Case { rows, cols, raw_bits, codebook, escapes: 40, seed: 1, ..Case::PLAIN };
            let what = format!("{case:?} {code:?}");
            with_model(&model(&case, code), |tensor| check_packed(&engine, tensor, &what));
        }
    }
    for format in [FloatFormat::Bf16, FloatFormat::F8E4M3] {
        for (rows, cols) in SHAPES {
            let bytes = common::floats(format, rows * cols, true, &mut Draw(3));
            let model = Model::of_floats(format, (rows, cols), Profile::Gpu, bytes);
            with_model(&model, |tensor| {
                check_packed(&engine, tensor, &format!("{format:?} {rows} x {cols}"))
            });
        }
    }
}

/// Small integers as vectors, and levels with one scale: every order of summation has the same sums.
#[test]
fn products_without_rounding_are_the_same_bits() {
    let Some(engine) = support::engine() else { return };
    for (code, raw_bits) in [(PairCode::Prefix, 0), (PairCode::Prefix, 2), (PairCode::Rans, 1)] {
        for (rows, cols) in SHAPES {
            let case = Case { rows, cols, raw_bits, escapes: 40, ..Case::PLAIN };
            with_model(&model(&case, code), |tensor| {
                let x: Vec<f32> = vectors(cols, 3, 1).iter().map(|x| (8.0 * x).round()).collect();
                let twin = Sequential::run(&Host::new("w", tensor, &Limits::WEBGPU).unwrap(), &x);
                let matrix = Matrix::new(&engine, "w", tensor).unwrap();
                let what = format!("{case:?} {code:?}");
                assert_eq!(bits(&support::product(&engine, &matrix, &x)), bits(&twin.fused), "{what}");
                let packed = support::decode(&engine, &matrix);
                let plain = support::packed_product(&engine, &matrix, &packed, &x);
                assert_eq!(bits(&plain), bits(&twin.plain), "packed, {what}");
            });
        }
    }
}

//! Kernels beside their twins: packed weights bit for bit, products within rounding, and bit for bit where nothing rounds.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;
mod sequential;
mod support;

use case::{Case, vectors, with_model};
use common::sources::NF4;
use common::{Draw, Floats, Model};
use ecq_format::directory::{PairCode, Pairs, Scales};
use ecq_format::encode::Profile;
use ecq_format::pattern::FloatFormat;
use ecq_format::reader::CodedTensor;
use ecq_gpu::host::Host;
use ecq_gpu::plan::Limits;
use ecq_gpu::upload::buffer;
use ecq_gpu::{Engine, Matrix, Packed};
use sequential::Sequential;
use wgpu::BufferUsages;

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

/// Packed weights are the same words, but for rows behind the last one.
fn check_packed(engine: &Engine, tensor: &CodedTensor<'_>, what: &str) {
    let host = Host::new("w", tensor, &Limits::from(engine.limits())).unwrap();
    let x = vec![0.0; host.resident.shape.cols];
    let twin = Sequential::run(&host, &x).packed;
    let matrix = Matrix::new(engine, "w", tensor).unwrap();
    // buffers that can be read
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
    let room = matrix.packed_sizes().into_iter().map(|size| buffer(engine, "packed", size, usage).unwrap());
    let packed = Packed::over(&matrix, room.collect()).unwrap();
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    packed.decode(engine, &mut encoder, &matrix).unwrap();
    engine.queue().submit([encoder.finish()]);
    assert_eq!(packed.buffers().len(), twin.len());
    for (part, (buffer, mut twin)) in packed.buffers().iter().zip(twin).enumerate() {
        let words = ecq_gpu::engine::read(engine.device(), engine.queue(), buffer, 4 * twin.len() as u64);
        let mut words = words.unwrap();
        sequential::clear_missing_rows(&host, part, &mut words);
        sequential::clear_missing_rows(&host, part, &mut twin);
        assert_eq!(words, twin, "{what}");
    }
}

#[test]
fn packed_weights_are_the_same_bits() {
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
            let (name, shape, profile) = ("w".into(), vec![rows as u64, cols as u64], Profile::Gpu);
            let model =
                Model { floats: vec![Floats { name, shape, format, profile, bytes }], ..Model::default() };
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

#[test]
fn products_are_the_same_but_for_rounding() {
    let Some(engine) = support::engine() else { return };
    for (code, raw_bits, scales) in [
        (PairCode::Prefix, 1, Scales::Group { size: 2, min: true }),
        (PairCode::Rans, 0, Scales::RowColumn { row: true, column: true }),
    ] {
        for (rows, cols) in SHAPES {
            let case = Case { rows, cols, raw_bits, scales, escapes: 40, ..Case::PLAIN };
            with_model(&model(&case, code), |tensor| {
                let x = vectors(cols, 2, 1);
                let twin = Sequential::run(&Host::new("w", tensor, &Limits::WEBGPU).unwrap(), &x);
                let gpu = support::product(&engine, &Matrix::new(&engine, "w", tensor).unwrap(), &x);
                reference::Weights::new(tensor).same(&x, &gpu, &twin.fused, &format!("{case:?} {code:?}"));
            });
        }
    }
}

//! GPU memory of coded tensors is what they take in their file: every kind of scales, of weights and of escapes.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod support;

use case::Case;
use common::sources::{self, NF4};
use common::{Draw, Model};
use ecq_format::directory::{PairCode, Pairs, Scales};
use ecq_format::encode::Profile;
use ecq_format::pattern::FloatFormat;
use ecq_format::reader::Tensor;
use ecq_format::{Limits, Reader};
use ecq_gpu::{Engine, Matrix};

/// What a tensor may take beside its size in the file and 2 % of it: the table of its code is 5 KiB in memory, and less in the
/// file; what is 256 numbers in a file is 1 KiB; parameters, and words that kernels load ahead.
const BESIDE: u64 = 8 << 10;

const SHAPE: (usize, usize) = (256, 2048);

/// Bytes on the GPU and in the file.
fn check(engine: &Engine, model: &Model, what: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    model.write(&path, false, 0).unwrap();
    let reader = Reader::open(&path, Limits::default()).unwrap();
    let record = reader.directory().tensors.iter().find(|tensor| tensor.name == "w").unwrap();
    let Tensor::Coded(tensor) = reader.load(record).unwrap() else { panic!("{what}: not coded") };
    let (gpu, file) = (Matrix::new(engine, "w", &tensor).unwrap().bytes(), reader.stored_bytes(record));
    let more = 100.0 * (gpu as f64 - BESIDE as f64) / file as f64 - 100.0;
    println!("{file:8} in the file, {gpu:8} on the GPU: {more:+.2} % of what counts: {what}");
    assert!(gpu.saturating_sub(BESIDE) as f64 <= 1.02 * file as f64, "{gpu} of {file} bytes: {what}");
}

fn coded(engine: &Engine, case: Case) {
    let (rows, cols) = SHAPE;
    let case = Case { rows, cols, ..case };
    let mut model = case.model();
    model.pairs = Some((Pairs { code: PairCode::Prefix, band: 8, strip: 2048 }, 64));
    check(engine, &model, &format!("{case:?}"));
}

#[test]
fn scales_of_every_kind() {
    let Some(engine) = support::engine() else { return };
    let plain = Case { profile: Profile::Gpu, seed: 1, ..Case::PLAIN };
    coded(&engine, plain);
    for (row, column) in [(true, false), (false, true), (true, true)] {
        coded(&engine, Case { scales: Scales::RowColumn { row, column }, ..plain });
    }
    for size in [16, 32, 128] {
        let groups = [false, true].map(|min| Scales::Group { size, min });
        for scales in sources::scales(size).into_iter().chain(groups) {
            coded(&engine, Case { scales, ..plain });
        }
    }
}

#[test]
fn weights_of_every_kind() {
    let Some(engine) = support::engine() else { return };
    let plain = Case { profile: Profile::Gpu, seed: 1, ..Case::PLAIN };
    for raw_bits in 1..=8 {
        coded(&engine, Case { raw_bits, ..plain });
    }
    coded(
        &engine,
        Case { codebook: Some(NF4), scales: Scales::Lookup { size: 64, supers: 256, offset: 0.25 }, ..plain },
    );
    // one weight in so many
    for escapes in [2000, 300, 100, 50] {
        coded(&engine, Case { escapes, ..plain });
        coded(&engine, Case { escapes, raw_bits: 4, ..plain });
        coded(&engine, Case { escapes, codebook: Some(NF4), ..plain });
    }
    let (rows, cols) = SHAPE;
    for format in [FloatFormat::Bf16, FloatFormat::F16, FloatFormat::F8E4M3, FloatFormat::F8E5M2] {
        let bytes = common::floats(format, rows * cols, false, &mut Draw(3));
        let model = Model::of_floats(format, SHAPE, Profile::Gpu, bytes);
        check(&engine, &model, &format!("{format:?}"));
    }
}

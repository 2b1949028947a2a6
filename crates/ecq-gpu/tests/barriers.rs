//! Kernels without subgroups.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
mod check;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;
mod support;

use case::{Case, with_model};
use check::From;
use common::sources::NF4;
use ecq_format::directory::{PairCode, Pairs, Scales};
use ecq_format::encode::Profile;
use ecq_gpu::variant::Lanes;
use ecq_gpu::{Engine, Options};

fn engine() -> Option<Engine> {
    let engine = support::engine_with(Options { no_subgroups: true, ..Options::default() })?;
    assert_eq!(engine.lanes(), Lanes::Barriers);
    Some(engine)
}

fn check_case(engine: &Engine, case: Case, code: PairCode, count: usize) {
    for (rows, cols) in [(1, 35), (7, 33), (19, 128), (40, 75), (130, 320)] {
        let mut model = Case { rows, cols, profile: Profile::Gpu, ..case }.model();
        model.pairs = Some((Pairs { code, band: 8, strip: 96 }, 16));
        *model.coded[0].matrix.levels.last_mut().unwrap() = if case.escapes > 0 { 40_000 } else { 1 };
        model.coded[0].values.bias = 0.375;
        with_model(&model, |tensor| {
            let what = format!("{case:?} {code:?} {rows} x {cols}");
            check::products(engine, tensor, &[count], From::Both, &what);
        });
    }
}

#[test]
fn integers() {
    let Some(engine) = engine() else { return };
    let scales = Scales::Group { size: 32, min: true };
    check_case(
        &engine,
        Case { raw_bits: 2, scales, escapes: 50, seed: 2, ..Case::PLAIN },
        PairCode::Prefix,
        1,
    );
    let scales = Scales::RowColumn { row: true, column: true };
    check_case(&engine, Case { scales, escapes: 50, seed: 2, ..Case::PLAIN }, PairCode::Prefix, 3);
}

#[test]
fn rans_and_codebooks() {
    let Some(engine) = engine() else { return };
    check_case(&engine, Case { raw_bits: 1, escapes: 50, ..Case::PLAIN }, PairCode::Rans, 1);
    check_case(&engine, Case { codebook: Some(NF4), seed: 1, ..Case::PLAIN }, PairCode::Rans, 2);
}

#[test]
fn sixteen_vectors() {
    let Some(engine) = engine() else { return };
    check_case(&engine, Case { seed: 2, ..Case::PLAIN }, PairCode::Prefix, 16);
}

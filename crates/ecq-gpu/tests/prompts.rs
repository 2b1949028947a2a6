//! Products with many vectors at once against plain loops in f64, from coded weights and from packed ones.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
mod check;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;
mod support;

use case::{Case, vectors, with_model};
use check::From;
use common::sources::NF4;
use common::{Draw, Model};
use ecq_format::directory::{PairCode, Pairs, Scales};
use ecq_format::encode::Profile;
use ecq_format::pattern::FloatFormat;
use ecq_gpu::{Engine, Matrix, Options};

/// Less than a workgroup has, as many, one more, several times as many.
const COUNTS: [usize; 5] = [17, 33, 64, 65, 200];

/// One row; a few columns; tiles that a workgroup is not full of; more of them, the last one of less than a band; a row of
/// several strips that is shorter than a block.
const SHAPES: [(usize, usize); 5] = [(1, 3), (7, 33), (19, 128), (203, 75), (40, 321)];

/// A case in all [`SHAPES`], in strips and tiles so small that there are many of them.
fn check_case(engine: &Engine, case: Case, code: PairCode) {
    for (rows, cols) in SHAPES {
        // tiles of two bands, then of one
        for (strip, tile) in [(cols as u64, 16), (96, 8)] {
            let case = Case { rows, cols, profile: Profile::Gpu, ..case };
            let mut model = case.model();
            model.pairs = Some((Pairs { code, band: 8, strip }, tile));
            model.coded[0].values.bias = 0.375; // a constant
            if case.escapes > 0 {
                *model.coded[0].matrix.levels.last_mut().unwrap() = 40_000;
            }
            let counts = if cols == 75 { &COUNTS[..] } else { &COUNTS[..2] };
            let what = format!("{case:?} {code:?} in strips of {strip}");
            with_model(&model, |tensor| {
                check::products(engine, tensor, counts, From::Both, &what);
            });
        }
    }
}

const SCALED: Case =
    Case { scales: Scales::RowColumn { row: true, column: true }, escapes: 50, ..Case::PLAIN };
const GROUPED: Case = Case { scales: Scales::Group { size: 32, min: true }, escapes: 50, ..Case::PLAIN };

/// With an offset, which even seeds have.
#[test]
fn levels() {
    let Some(engine) = support::engine() else { return };
    check_case(&engine, Case::PLAIN, PairCode::Prefix);
}

#[test]
fn levels_with_raw_bits() {
    let Some(engine) = support::engine() else { return };
    check_case(&engine, Case { raw_bits: 2, seed: 1, ..SCALED }, PairCode::Prefix);
}

#[test]
fn levels_of_eight_bits() {
    let Some(engine) = support::engine() else { return };
    check_case(&engine, Case { raw_bits: 4, seed: 2, ..SCALED }, PairCode::Prefix);
}

#[test]
fn groups_and_codebooks() {
    let Some(engine) = support::engine() else { return };
    for (rows, cols) in [(9, 64), (203, 75), (40, 321)] {
        let case = Case { rows, cols, codebook: Some(NF4), seed: 1, profile: Profile::Gpu, ..GROUPED };
        with_model(&case.model(), |tensor| {
            check::products(&engine, tensor, &COUNTS, From::Both, &format!("{case:?}"));
        });
    }
}

#[test]
fn rans() {
    let Some(engine) = support::engine() else { return };
    check_case(&engine, Case { raw_bits: 1, seed: 1, ..SCALED }, PairCode::Rans);
}

#[test]
fn rans_without_raw_bits() {
    let Some(engine) = support::engine() else { return };
    check_case(&engine, Case::PLAIN, PairCode::Rans);
}

#[test]
fn without_subgroups() {
    let Some(engine) = support::engine_with(Options { no_subgroups: true, ..Options::default() }) else {
        return;
    };
    check_case(&engine, Case { raw_bits: 2, ..SCALED }, PairCode::Prefix);
    check_case(&engine, Case { seed: 1, ..Case::PLAIN }, PairCode::Rans);
}

#[test]
fn floats() {
    let Some(engine) = support::engine() else { return };
    for format in [FloatFormat::Bf16, FloatFormat::F8E4M3] {
        for (rows, cols) in [(1, 1000), (33, 192), (70, 65)] {
            let mut bytes = common::floats(format, rows * cols, false, &mut Draw(11));
            // not the patterns that are no numbers
            let (size, high) = (format.bytes(), format.bytes() - 1);
            bytes.chunks_exact_mut(size).for_each(|weight| weight[high] &= 0xbf);
            let model = Model::of_floats(format, (rows, cols), Profile::Gpu, bytes);
            with_model(&model, |tensor| {
                let what = format!("{format:?} {rows} x {cols}");
                check::products(&engine, tensor, &[17, 65], From::Both, &what);
            });
        }
    }
}

/// What is no number stays in its row, and vectors that are no numbers stay in their product.
#[test]
fn no_numbers() {
    let Some(engine) = support::engine() else { return };
    let case = Case { rows: 40, cols: 75, profile: Profile::Gpu, seed: 1, ..Case::PLAIN };
    with_model(&case.model(), |tensor| {
        let matrix = Matrix::new(&engine, "w", tensor).unwrap();
        let mut x = vectors(case.cols, 70, 1);
        x[3 * case.cols + 5] = f32::NAN;
        x[66 * case.cols + 74] = f32::INFINITY;
        let y = support::product(&engine, &matrix, &x);
        for (i, y) in y.chunks(case.rows).enumerate() {
            match i {
                3 => assert!(y.iter().all(|y| y.is_nan())),
                66 => assert!(y.iter().all(|y| !y.is_finite())),
                _ => assert!(y.iter().all(|y| y.is_finite()), "vector {i}"),
            }
        }
    });
}

//! Products on a GPU against plain loops in f64, over schemes, raw bits, shapes and numbers of vectors.
//!
//! Drivers take long to compile a kernel, above all those on CPUs: every test is of few forms of tensors, and of many
//! tensors of each form.
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
use common::Model;
use common::sources::NF4;
use ecq_format::directory::{Min, NumberFormat, PairCode, Pairs, Scales};
use ecq_format::encode::Profile;
use ecq_format::predict::Predictor;
use ecq_gpu::Engine;

/// Shapes that have everything that a tile may have: less than a band, less than a block of columns, whole ones, both.
const SHAPES: [(usize, usize); 4] = [(1, 75), (7, 33), (19, 128), (40, 75)];

/// How tensors of the profile for GPUs are coded: with the code of those that are coded anew, in other strips and tiles.
const NATIVE: (Pairs, u64) = (Pairs { code: PairCode::Prefix, band: 8, strip: 64 }, 24);

/// Whether escapes need more than the 13 bits of narrow ones.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Far {
    Yes,
    No,
}

/// A model that has an escape if the case says so, however small it is.
fn model(case: &Case, far: Far) -> Model {
    let mut model = case.model();
    model.pairs = Some(NATIVE);
    let coded = &mut model.coded[0];
    if case.escapes > 0 && case.predictor.is_none() {
        let center = coded.center;
        if far == Far::No {
            coded.matrix.levels.iter_mut().for_each(|q| *q = (*q).clamp(center - 1500, center + 2500));
        }
        *coded.matrix.levels.last_mut().unwrap() = if far == Far::Yes { 40_000 } else { center + 2500 };
    }
    model
}

fn check_model(engine: &Engine, model: &Model, counts: &[usize], from: From, what: &str) {
    with_model(model, |tensor| {
        check::products(engine, tensor, counts, from, what);
    });
}

fn check_case(engine: &Engine, case: &Case, from: From) {
    check_model(engine, &model(case, Far::Yes), &[1], from, &format!("{case:?}"));
}

/// A case in all of [`SHAPES`] that have room for its groups, and both profiles.
fn check_shapes(engine: &Engine, case: Case, from: From) {
    let size = case.scales.size().unwrap_or(1) as usize;
    for (i, (rows, cols)) in SHAPES.into_iter().enumerate().filter(|(_, (_, cols))| *cols >= size) {
        let profile = if i % 2 == 0 { Profile::Cpu } else { Profile::Gpu };
        check_case(engine, &Case { rows, cols, profile, ..case }, from);
    }
}

#[test]
fn factors_of_rows_and_columns() {
    let Some(engine) = support::engine() else { return };
    // odd seeds are without an offset
    for (row, column, raw_bits, escapes, seed) in
        [(true, false, 0, 30, 1), (false, true, 1, 0, 0), (true, true, 2, 30, 1), (true, true, 0, 0, 2)]
    {
        let scales = Scales::RowColumn { row, column };
        check_shapes(&engine, Case { raw_bits, scales, escapes, seed, ..Case::PLAIN }, From::Both);
    }
}

#[test]
fn groups_of_any_size() {
    let Some(engine) = support::engine() else { return };
    for (size, min, raw_bits, escapes) in
        [(1, true, 0, 0), (4, false, 1, 30), (10, true, 3, 30), (32, false, 0, 30), (33, true, 0, 0)]
    {
        let scales = Scales::Group { size, min };
        check_shapes(&engine, Case { raw_bits, scales, escapes, seed: size, ..Case::PLAIN }, From::Coded);
    }
    // a group a row
    let scales = Scales::Group { size: 75, min: false };
    for rows in [1, 7, 40] {
        check_case(&engine, &Case { rows, cols: 75, scales, seed: 2, ..Case::PLAIN }, From::Coded);
    }
}

#[test]
fn numbers_of_all_formats() {
    let Some(engine) = support::engine() else { return };
    for format in [NumberFormat::F16, NumberFormat::Bf16, NumberFormat::F32] {
        for min in [Min::None, Min::Number, Min::Zero] {
            let scales = Scales::Numbers { size: 32, format, min, mapped: false };
            check_shapes(&engine, Case { scales, seed: 1, ..Case::PLAIN }, From::Both);
        }
    }
}

#[test]
fn scattered_groups() {
    let Some(engine) = support::engine() else { return };
    for (format, min, raw_bits) in [
        (NumberFormat::F16, Min::Zero, 2),
        (NumberFormat::F32, Min::None, 0),
        (NumberFormat::F32, Min::Number, 0),
    ] {
        let scales = Scales::Numbers { size: 16, format, min, mapped: true };
        check_shapes(&engine, Case { raw_bits, scales, escapes: 40, seed: 3, ..Case::PLAIN }, From::Both);
    }
}

#[test]
fn nested_and_looked_up_scales() {
    let Some(engine) = support::engine() else { return };
    for (size, supers, bias, raw_bits) in [(32, 8, 0, 0), (16, 16, -128, 2), (16, 2, -32, 2)] {
        let scales = Scales::Nested { size, supers, bias, min: bias == 0 };
        check_shapes(&engine, Case { raw_bits, scales, seed: 1, ..Case::PLAIN }, From::Coded);
    }
    let scales = Scales::Lookup { size: 64, supers: 5, offset: 0.125 };
    check_shapes(&engine, Case { scales, escapes: 40, seed: 2, ..Case::PLAIN }, From::Coded);
}

#[test]
fn few_raw_bits() {
    let Some(engine) = support::engine() else { return };
    raw_bits(&engine, &[0, 4, 5]);
}

#[test]
fn many_raw_bits() {
    let Some(engine) = support::engine() else { return };
    raw_bits(&engine, &[6, 8, 11]);
}

/// Folded levels, with a constant and without scales; narrow escapes where there are any. Other tests have 1 to
/// 3 bits; 7 are the fields of 4, 2 and 1 bits that 5, 6 and 11 have.
fn raw_bits(engine: &Engine, all: &[u32]) {
    for &raw_bits in all {
        for (i, (rows, cols)) in [(1, 3), (1, 300), (7, 33), (203, 192)].into_iter().enumerate() {
            let escapes = if raw_bits < 8 { 200 } else { 0 };
            let profile = if i % 2 == 0 { Profile::Gpu } else { Profile::Cpu };
            let case = Case { rows, cols, raw_bits, escapes, profile, seed: 1, ..Case::PLAIN };
            let mut model = model(&case, Far::No);
            model.coded[0].values.bias = 0.375;
            check_model(engine, &model, &[1], From::Both, &format!("{case:?}"));
        }
    }
}

/// Numbers of one sign, one of which is larger than all others together.
const UNEVEN: [f32; 16] = [0.1, 0.2, 0.3, 0.35, 0.36, 0.5, 0.6, 0.7, 0.8, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 40.0];

#[test]
fn codebooks() {
    let Some(engine) = support::engine() else { return };
    let mapped = Scales::Numbers { size: 16, format: NumberFormat::Bf16, min: Min::Number, mapped: true };
    for (codebook, scales, escapes, seed) in [
        (NF4, Scales::None, 0, 0),
        (UNEVEN, Scales::None, 40, 1),
        (NF4, Scales::RowColumn { row: true, column: true }, 40, 1),
        (NF4, Scales::Group { size: 32, min: true }, 40, 1),
        (UNEVEN, mapped, 0, 0),
    ] {
        check_shapes(
            &engine,
            Case { scales, escapes, seed, codebook: Some(codebook), ..Case::PLAIN },
            From::Both,
        );
    }
    // numbers that a binary16 does not hold
    for factor in [1e-30, 1e-6, 1e10, 1e30] {
        let codebook = Some(NF4.map(|v| v * factor));
        let case = Case { rows: 11, cols: 130, codebook, ..Case::PLAIN };
        let mut model = case.model();
        model.coded[0].matrix.levels.iter_mut().for_each(|q| *q = (*q).clamp(-8, 7));
        model.coded[0].values.offset = 0.0;
        check_model(&engine, &model, &[1], From::Both, &format!("{factor:e}"));
    }
}

#[test]
fn predicted_levels() {
    let Some(engine) = support::engine() else { return };
    for predictor in [Predictor::Left, Predictor::Up, Predictor::Planar] {
        let case = Case { raw_bits: 2, escapes: 50, seed: 1, predictor: Some(predictor), ..Case::PLAIN };
        for (rows, cols, profile) in
            [(19, 128, Profile::Cpu), (40, 75, Profile::Gpu), (300, 600, Profile::Cpu)]
        {
            check_case(&engine, &Case { rows, cols, profile, ..case }, From::Coded);
        }
    }
}

#[test]
fn shapes() {
    let Some(engine) = support::engine() else { return };
    let scales = Scales::RowColumn { row: true, column: false };
    for (rows, cols) in [
        (1, 1),
        (1, 3),
        (1, 64),
        (1, 4096),
        (2, 65),
        (3, 3),
        (7, 2048),
        (8, 32),
        (9, 1),
        (16, 31),
        (64, 2),
        (261, 1024),
        (1030, 1088),
        (50_257, 5),
        (50_257, 32),
    ] {
        for profile in [Profile::Cpu, Profile::Gpu] {
            let case =
                Case { rows, cols, raw_bits: 2, scales, profile, escapes: 1000, seed: 5, ..Case::PLAIN };
            check_case(&engine, &case, From::Both);
        }
    }
}

/// rANS, with any numbers of rows and columns in the last tiles, bands and strips.
#[test]
fn native_rans() {
    let Some(engine) = support::engine() else { return };
    let both = Scales::RowColumn { row: true, column: true };
    for (raw_bits, scales, codebook) in
        [(0, Scales::None, None), (2, both, None), (0, Scales::None, Some(NF4))]
    {
        for (rows, cols) in [(1, 35), (7, 33), (19, 128), (40, 75), (130, 320)] {
            for strip in [32, 96, cols as u64] {
                let case =
                    Case { rows, cols, raw_bits, scales, escapes: 30, seed: 1, codebook, ..Case::PLAIN };
                let mut model = model(&Case { profile: Profile::Gpu, ..case }, Far::Yes);
                model.pairs = Some((Pairs { code: PairCode::Rans, band: 8, strip }, 16));
                check_model(&engine, &model, &[1], From::Both, &format!("{case:?} in strips of {strip}"));
            }
        }
    }
}

#[test]
fn escapes_that_are_most_of_a_tensor() {
    let Some(engine) = support::engine() else { return };
    for far in [Far::Yes, Far::No] {
        for (rows, cols) in [(20, 128), (20, 70), (7, 33)] {
            let scales = Scales::Group { size: 32, min: true };
            let case = Case { rows, cols, scales, escapes: 2, seed: 3, ..Case::PLAIN };
            check_model(&engine, &model(&case, far), &[1], From::Coded, &format!("{case:?} {far:?}"));
        }
    }
}

#[test]
fn few_vectors() {
    let Some(engine) = support::engine() else { return };
    let scales = Scales::Group { size: 32, min: true };
    numbers_of_vectors(
        &engine,
        Case { raw_bits: 2, scales, escapes: 100, ..Case::PLAIN },
        From::Both,
        &[2, 3, 4],
    );
}

#[test]
fn many_vectors() {
    let Some(engine) = support::engine() else { return };
    let scales = Scales::RowColumn { row: true, column: true };
    numbers_of_vectors(&engine, Case { scales, escapes: 100, ..Case::PLAIN }, From::Coded, &[7, 8, 16]);
}

fn numbers_of_vectors(engine: &Engine, case: Case, from: From, counts: &[usize]) {
    for (rows, cols) in [(1, 35), (13, 320), (65, 77)] {
        let case = Case { rows, cols, seed: 2, ..case };
        let mut model = model(&case, Far::Yes);
        model.coded[0].values.bias = 0.375; // a constant
        check_model(engine, &model, counts, from, &format!("{case:?}"));
    }
}

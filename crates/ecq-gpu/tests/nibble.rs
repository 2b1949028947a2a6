//! Tensors of the `nibble` codec on a GPU: any number of lanes, tiles of any height, with subgroups and without.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
mod check;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;
mod sequential;
mod support;

use case::{Case, with_model};
use check::From;
use common::sources::NF4;
use common::{Draw, Model};
use ecq_format::directory::{Min, NumberFormat, Scales};
use ecq_format::encode::Profile;
use ecq_format::pattern::FloatFormat;
use ecq_gpu::host::Host;
use ecq_gpu::plan::Limits;
use ecq_gpu::variant::{Code, Lanes};
use ecq_gpu::{Engine, Matrix, Options};

/// Rows and columns of a matrix, and rows of its tiles.
type Cut = (usize, usize, u64);

/// Rows that end within a step, with it, several in one; strips that are shorter or empty; tiles that share bands.
const CUTS: [Cut; 9] = [
    (1, 1, 1),
    (1, 300, 1),
    (5, 3, 5),
    (37, 3, 12),
    (33, 64, 33),
    (19, 128, 8),
    (40, 75, 12),
    (23, 130, 5),
    (67, 1000, 32),
];

/// The engine of the adapter, and one without subgroups.
fn engines() -> Vec<Engine> {
    let Some(engine) = support::engine() else { return Vec::new() };
    let without = support::engine_with(Options { no_subgroups: true, ..Options::default() }).unwrap();
    assert_eq!(without.lanes(), Lanes::Barriers);
    vec![engine, without]
}

fn model(case: &Case, (rows, cols, tile_rows): Cut, lanes: u32) -> Model {
    let case = Case { rows, cols, profile: Profile::Cpu, ..*case };
    let mut model = Model { lanes: Some((lanes, tile_rows)), ..case.model() };
    if case.escapes > 0 {
        *model.coded[0].matrix.levels.last_mut().unwrap() = 40_000;
    }
    model
}

/// Products with so many vectors, and weights that are decoded in GPU memory.
fn check_model(engine: &Engine, model: &Model, lanes: u32, count: usize, what: &str) {
    with_model(model, |tensor| {
        let what = format!("{what}, {lanes} lanes, {:?}", engine.lanes());
        let matrix = check::products(engine, tensor, &[count], From::Coded, &what);
        assert_eq!(matrix.form().code, Code::Nibble { lanes });
        let host = Host::new("w", tensor, &Limits::from(engine.limits())).unwrap();
        sequential::check_packed(tensor, &host, &check::packed_words(engine, &matrix), &what);
    });
}

#[test]
fn lanes_and_tiles() {
    for engine in engines() {
        for lanes in [64, 128, 320, 512, 704, 1024] {
            for cut in CUTS {
                let scales = Scales::RowColumn { row: true, column: true };
                let case = Case { raw_bits: 2, scales, escapes: 30, seed: 2, ..Case::PLAIN };
                check_model(&engine, &model(&case, cut, lanes), lanes, 1, &format!("{cut:?}"));
            }
        }
    }
}

#[test]
fn levels_and_groups() {
    for engine in engines() {
        let nibbles = Case { seed: 1, ..Case::PLAIN };
        let groups = Case { scales: Scales::Group { size: 3, min: true }, escapes: 20, ..nibbles };
        let mapped = Scales::Numbers { size: 3, format: NumberFormat::F32, min: Min::None, mapped: true };
        let mapped = Case { scales: mapped, raw_bits: 1, seed: 4, ..nibbles };
        let book = Case { codebook: Some(NF4), escapes: 40, ..nibbles };
        for (case, lanes) in [(nibbles, 512), (groups, 128), (mapped, 512), (book, 256)] {
            let size = case.scales.size().unwrap_or(1) as usize;
            for cut in CUTS.into_iter().filter(|(_, cols, _)| *cols >= size) {
                let mut model = model(&case, cut, lanes);
                model.coded[0].values.bias = 0.375;
                check_model(&engine, &model, lanes, 1, &format!("{case:?} {cut:?}"));
            }
        }
    }
}

#[test]
fn raw_bits_of_any_number() {
    for engine in engines() {
        for raw_bits in [1, 3, 7, 11] {
            for cut in [(5, 3, 5), (40, 75, 12), (67, 1000, 32)] {
                let case = Case { raw_bits, seed: 1, ..Case::PLAIN };
                check_model(
                    &engine,
                    &model(&case, cut, 256),
                    256,
                    1,
                    &format!("{raw_bits} raw bits, {cut:?}"),
                );
            }
        }
    }
}

#[test]
fn floats() {
    for engine in engines() {
        for format in [FloatFormat::Bf16, FloatFormat::F8E4M3] {
            let (rows, cols) = (43, 150);
            let mut bytes = common::floats(format, rows * cols, false, &mut Draw(3));
            // numbers of about one size, so that products are numbers, too
            bytes.chunks_exact_mut(format.bytes()).for_each(|b| match b.last_mut() {
                Some(high) => *high = *high & 0x87 | 0x38,
                None => unreachable!(),
            });
            let model = Model::of_floats(format, (rows, cols), Profile::Cpu, bytes);
            let model = Model { lanes: Some((320, 12)), ..model };
            check_model(&engine, &model, 320, 1, &format!("{format:?}"));
        }
    }
}

/// The stream of a lone symbol is empty.
#[test]
fn a_lone_symbol() {
    for engine in engines() {
        for (raw_bits, lanes) in [(0, 64), (2, 1024)] {
            for (i, cut) in CUTS.into_iter().enumerate() {
                let case = Case { raw_bits, seed: 1, ..Case::PLAIN };
                let mut model = model(&case, cut, lanes);
                let coded = &mut model.coded[0];
                let mut draw = Draw(3);
                // of nibble 0 where there are raw bits, of any where there are none
                let of_symbol = |_: &i32| match raw_bits {
                    0 => coded.center + i as i32 % 16,
                    _ => coded.center - 2 + draw.below(4) as i32,
                };
                coded.matrix.levels = coded.matrix.levels.iter().map(of_symbol).collect();
                with_model(&model, |tensor| {
                    assert!((0..tensor.tiles()).all(|tile| tensor.tile(tile).unwrap().1.stream == 0));
                });
                check_model(&engine, &model, lanes, 1, &format!("{raw_bits} raw bits, {cut:?}"));
            }
        }
    }
}

#[test]
fn several_vectors() {
    for engine in engines() {
        for (lanes, count) in [(64, 2), (512, 7), (1024, 16), (128, 19)] {
            for cut in [(1, 35, 1), (37, 3, 12), (65, 77, 24)] {
                let case = Case { escapes: 60, seed: 2, ..Case::PLAIN };
                let mut model = model(&case, cut, lanes);
                model.coded[0].values.bias = 0.375;
                check_model(&engine, &model, lanes, count, &format!("{cut:?} x {count}"));
            }
        }
    }
}

/// What a tensor takes in GPU memory is what it takes in the file, but for 2 %.
#[test]
fn memory_is_that_of_the_file() {
    let Some(engine) = support::engine() else { return };
    for (raw_bits, rows, cols) in [(0, 1000, 1030), (2, 500, 900)] {
        let scales = Scales::RowColumn { row: true, column: false };
        let mut model = Case { rows, cols, raw_bits, scales, ..Case::PLAIN }.model();
        // no escapes: `memory.rs` has those, of pairs
        let (center, reach) = (model.coded[0].center, 8 << raw_bits.saturating_sub(1));
        model.coded[0]
            .matrix
            .levels
            .iter_mut()
            .for_each(|q| *q = (*q).clamp(center - reach, center + reach - 1));
        with_model(&model, |tensor| {
            let bytes = |tile| {
                let (bytes, _) = tensor.tile(tile).unwrap();
                bytes.len() as u64 + 12 // of the index
            };
            let coded = (0..tensor.tiles()).map(bytes).sum::<u64>() + rows as u64;
            let resident = Matrix::new(&engine, "w", tensor).unwrap().bytes();
            assert!(resident * 100 <= coded * 102, "{resident} bytes of {coded}");
        });
    }
}

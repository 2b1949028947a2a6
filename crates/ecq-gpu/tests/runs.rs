//! Many products in a row, the same one twice, and buffers that do not fit.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;
mod support;

use case::{Case, vectors, with_model, with_tensor};
use ecq_format::directory::{PairCode, Pairs, Scales};
use ecq_format::encode::Profile;
use ecq_gpu::variant::{Table, Tuning};
use ecq_gpu::{Engine, Error, Matrix, Packed};
use wgpu::Buffer;

const CASE: Case = Case {
    rows: 96,
    cols: 200,
    raw_bits: 2,
    scales: Scales::Group { size: 32, min: true },
    escapes: 60,
    ..Case::PLAIN
};

fn with_matrix(engine: &Engine, run: impl FnOnce(&Matrix, &reference::Weights)) {
    with_tensor(&CASE, |tensor| {
        run(&Matrix::new(engine, "w", tensor).unwrap(), &reference::Weights::new(tensor));
    });
}

fn bits(y: &[f32]) -> Vec<u32> {
    y.iter().map(|y| y.to_bits()).collect()
}

#[test]
fn the_same_product_has_the_same_bits() {
    let Some(engine) = support::engine() else { return };
    with_matrix(&engine, |matrix, _| {
        let x = vectors(CASE.cols, 3, 1);
        let packed = support::decode(&engine, matrix);
        let first = bits(&support::product(&engine, matrix, &x));
        let first_packed = bits(&support::packed_product(&engine, matrix, &packed, &x));
        for _ in 0..10 {
            assert_eq!(bits(&support::product(&engine, matrix, &x)), first);
            assert_eq!(bits(&support::packed_product(&engine, matrix, &packed, &x)), first_packed);
        }
    });
}

/// Where a table is and how many streams a workgroup decodes changes nothing.
#[test]
fn tuning_does_not_change_a_bit() {
    let Some(engine) = support::engine() else { return };
    for (code, table, streams) in [
        (PairCode::Prefix, Table::Storage, 3),
        (PairCode::Rans, Table::Storage, 8),
        (PairCode::Prefix, Table::Workgroup, 1),
    ] {
        let case = Case { rows: 130, cols: 200, profile: Profile::Gpu, seed: 2, ..Case::PLAIN };
        let mut model = case.model();
        model.pairs = Some((Pairs { code, band: 8, strip: 96 }, 16));
        with_model(&model, |tensor| {
            let matrix = Matrix::new(&engine, "w", tensor).unwrap();
            let x = vectors(CASE.cols, 1, 1);
            let product = bits(&support::product(&engine, &matrix, &x));
            let packed = support::decode(&engine, &matrix);
            let from_packed = bits(&support::packed_product(&engine, &matrix, &packed, &x));
            let engine = engine.tuned(Tuning { table, streams });
            assert_eq!(bits(&support::product(&engine, &matrix, &x)), product, "{table:?}, {streams}");
            let packed = support::decode(&engine, &matrix);
            let product = bits(&support::packed_product(&engine, &matrix, &packed, &x));
            assert_eq!(product, from_packed, "{table:?}, {streams}");
        });
    }
}

#[test]
fn a_thousand_products_in_one_encoder() {
    let Some(engine) = support::engine() else { return };
    with_matrix(&engine, |matrix, weights| {
        // each has its own vector and place; one after another they write everything
        const COUNT: usize = 1000;
        let align = engine.limits().min_storage_buffer_offset_alignment as usize / 4;
        let (x_step, y_step) = (CASE.cols.next_multiple_of(align), CASE.rows.next_multiple_of(align));
        let x = vectors(x_step, COUNT, 1);
        let (x_buffer, y) =
            (support::buffer(&engine, &x), support::buffer(&engine, &vec![0.0; y_step * COUNT]));
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        let slice = |step: usize, i: usize, len: usize| 4 * (step * i) as u64..4 * (step * i + len) as u64;
        for i in 0..COUNT {
            let x = x_buffer.slice(slice(x_step, i, CASE.cols));
            let y = y.slice(slice(y_step, i, CASE.rows));
            matrix.record(&engine, &mut encoder, x, y).unwrap();
        }
        engine.queue().submit([encoder.finish()]);
        let y = support::read(&engine, &y);
        for (i, (x, y)) in x.chunks(x_step).zip(y.chunks(y_step)).enumerate() {
            weights.compare(&x[..CASE.cols], &y[..CASE.rows], &format!("product {i}"));
        }
    });
}

#[test]
fn buffers_that_do_not_fit_are_refused() {
    let Some(engine) = support::engine() else { return };
    with_matrix(&engine, |matrix, _| {
        let packed = Packed::new(&engine, matrix).unwrap();
        let (xs, ys) = (4 * CASE.cols as u64, 4 * CASE.rows as u64);
        let room = support::buffer(&engine, &vec![0.0; 4096]);
        let other = support::buffer(&engine, &vec![0.0; 4096]);
        let refused = |x: (&Buffer, u64, u64), y: (&Buffer, u64, u64), says: &str| {
            let mut encoder = engine.device().create_command_encoder(&Default::default());
            let (x, y) = (x.0.slice(x.1..x.1 + x.2), y.0.slice(y.1..y.1 + y.2));
            let coded = matrix.record(&engine, &mut encoder, x, y);
            for result in [coded, packed.record(&engine, &mut encoder, matrix, x, y)] {
                match result {
                    Err(error @ Error::Argument { .. }) => {
                        assert!(error.to_string().contains(says), "{error}, not {says}");
                    }
                    other => panic!("{other:?}, not {says}"),
                }
            }
        };
        refused((&room, 0, xs - 4), (&other, 0, ys), "a multiple of 800 bytes");
        refused((&room, 0, xs + 4), (&other, 0, ys), "a multiple of 800 bytes");
        refused((&room, 0, xs), (&other, 0, ys - 4), "384 bytes for 1 vectors");
        refused((&room, 0, xs), (&other, 0, ys + 4), "384 bytes for 1 vectors");
        refused((&room, 0, 2 * xs), (&other, 0, ys), "768 bytes for 2 vectors");
        if engine.limits().min_storage_buffer_offset_alignment > 4 {
            refused((&room, 4, xs), (&other, 0, ys), "the offset of x");
            refused((&room, 0, xs), (&other, 4, ys), "the offset of y");
        }
    });
}

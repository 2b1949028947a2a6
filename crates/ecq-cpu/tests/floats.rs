//! Products of floats that are coded without loss, on every instruction set, against sums in f64.

#![allow(clippy::unwrap_used)]

#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;

use common::{Draw, Floats, Model};
use ecq_cpu::{Isa, Matrix, Precision};
use ecq_format::encode::Profile;
use ecq_format::pattern::FloatFormat;
use ecq_format::reader::Tensor;
use ecq_format::{Limits, Reader};
use ecq_quant::values::from_bytes;

const FORMATS: [FloatFormat; 4] =
    [FloatFormat::Bf16, FloatFormat::F16, FloatFormat::F8E4M3, FloatFormat::F8E5M2];

/// Floats around 0 that are numbers.
fn numbers(format: FloatFormat, count: usize, draw: &mut Draw) -> Vec<u8> {
    let mut bytes = common::floats(format, count, false, draw);
    for weight in bytes.chunks_exact_mut(format.bytes()) {
        let mut value = [0.0];
        from_bytes(format, weight, &mut value);
        if !value[0].is_finite() {
            weight.fill(0);
        }
    }
    bytes
}

/// Calls `each` with the products of a tensor of these bytes, for both precisions and every instruction set.
fn products(
    format: FloatFormat,
    (rows, cols): (usize, usize),
    profile: Profile,
    bytes: Vec<u8>,
    x: &[f32],
    mut each: impl FnMut(Precision, &[f32]),
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    let floats = Floats { name: "w".into(), shape: vec![rows as u64, cols as u64], format, profile, bytes };
    Model { floats: vec![floats], ..Model::default() }.write(&path, true, 0).unwrap();
    let reader = Reader::open(&path, Limits::default()).unwrap();
    let Tensor::Coded(tensor) = reader.tensor("w").unwrap() else { panic!("not coded") };
    for isa in Isa::all() {
        let matrix = Matrix::with_isa(isa, &tensor).unwrap();
        for precision in [Precision::F32, Precision::Int8] {
            let mut y = vec![f32::NAN; rows * x.len() / cols];
            matrix.multiply(&matrix.activations(precision, x), &mut y).unwrap();
            each(precision, &y);
        }
    }
}

#[test]
fn all_formats_codecs_and_shapes() {
    let mut draw = Draw(11);
    for format in FORMATS {
        for (rows, cols) in [(4, 64), (33, 192), (9, 65), (17, 1100), (1, 1000)] {
            for (profile, count) in [(Profile::Cpu, 1), (Profile::Cpu, 3), (Profile::Gpu, 2)] {
                let bytes = numbers(format, rows * cols, &mut draw);
                let mut weights = vec![0f32; rows * cols];
                from_bytes(format, &bytes, &mut weights);
                let x: Vec<f32> = (0..count * cols).map(|_| draw.below(2001) as f32 / 1000.0 - 1.0).collect();
                products(format, (rows, cols), profile, bytes, &x, |precision, y| {
                    for (i, &y) in y.iter().enumerate() {
                        let (x, w) = (&x[i / rows * cols..], &weights[i % rows * cols..][..cols]);
                        let terms = w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                        let all: f64 = terms.clone().map(f64::abs).sum();
                        let most: f64 = w.iter().map(|&w| f64::from(w).abs()).sum();
                        // an int8 number is off by half of a 127th of the largest of its block, which is at most 1
                        let near = if precision == Precision::F32 { 1e-5 * all } else { most / 250.0 };
                        let expected: f64 = terms.sum();
                        let error = (f64::from(y) - expected).abs();
                        assert!(
                            error <= near + 1e-30,
                            "{format:?} {rows} x {cols} {precision:?}: {y} {expected}"
                        );
                    }
                });
            }
        }
    }
}

#[test]
fn what_is_no_number_stays_in_its_row() {
    // NaN and infinity are escapes; the second tensor has fewer columns, so that its filling lies where they were
    for cols in [128, 70] {
        let mut bytes = numbers(FloatFormat::Bf16, 16 * cols, &mut Draw(5));
        let odd = 3 * cols + cols - 1;
        bytes[2 * odd..2 * odd + 2].copy_from_slice(&0x7fc0u16.to_le_bytes());
        bytes[2 * (5 * cols)..2 * (5 * cols) + 2].copy_from_slice(&0x7f80u16.to_le_bytes());
        let x = vec![1.0; cols];
        products(FloatFormat::Bf16, (16, cols), Profile::Cpu, bytes, &x, |_, y| {
            for (row, y) in y.iter().enumerate() {
                match row {
                    3 => assert!(y.is_nan()),
                    5 => assert_eq!(*y, f32::INFINITY),
                    _ => assert!(y.is_finite(), "row {row} of {cols} columns"),
                }
            }
        });
    }
}

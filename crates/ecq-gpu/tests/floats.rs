//! Products of floats that are coded without loss, against sums in f64.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
mod check;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;
mod support;

use case::with_model;
use check::From;
use common::{Draw, Model};
use ecq_format::encode::Profile;
use ecq_format::pattern::FloatFormat;
use ecq_gpu::{Engine, Matrix};
use ecq_quant::values::from_bytes;

/// Floats around 0 that are numbers; the last is the smallest there is.
fn numbers(format: FloatFormat, count: usize, draw: &mut Draw) -> Vec<u8> {
    let mut bytes = common::floats(format, count, false, draw);
    for weight in bytes.chunks_exact_mut(format.bytes()) {
        let mut value = [0.0];
        from_bytes(format, weight, &mut value);
        if !value[0].is_finite() {
            weight.fill(0);
        }
    }
    let last = count - 1;
    bytes[last * format.bytes()..].fill(0);
    bytes[last * format.bytes()] = 1;
    bytes
}

/// Tensors of this format in several shapes, vectors of any numbers.
fn check_format(engine: &Engine, format: FloatFormat) {
    let mut draw = Draw(11);
    for (rows, cols) in [(4, 64), (33, 192), (9, 65), (17, 1100), (1, 1000), (7, 3)] {
        for profile in [Profile::Cpu, Profile::Gpu] {
            let bytes = numbers(format, rows * cols, &mut draw);
            with_model(&Model::of_floats(format, (rows, cols), profile, bytes), |tensor| {
                let what = format!("{format:?} {rows} x {cols} {profile:?}");
                check::products(engine, tensor, &[1], From::Coded, &what);
            });
        }
    }
}

#[test]
fn floats_of_16_bits() {
    let Some(engine) = support::engine() else { return };
    check_format(&engine, FloatFormat::Bf16);
    check_format(&engine, FloatFormat::F16);
}

#[test]
fn floats_of_8_bits() {
    let Some(engine) = support::engine() else { return };
    check_format(&engine, FloatFormat::F8E4M3);
    check_format(&engine, FloatFormat::F8E5M2);
}

/// Every bit pattern of a format, one a row, of which x sees nothing else, comes out.
#[test]
fn every_number_is_itself() {
    let Some(engine) = support::engine() else { return };
    for format in [FloatFormat::Bf16, FloatFormat::F16, FloatFormat::F8E4M3, FloatFormat::F8E5M2] {
        let rows = 1usize << format.bits();
        // the other columns are what most weights are, so that all formats get the window that models have
        let usual: u32 = match format {
            FloatFormat::Bf16 => 0x3c00,
            FloatFormat::F16 => 0x2400,
            FloatFormat::F8E4M3 => 0x28,
            FloatFormat::F8E5M2 => 0x24,
        };
        let cols = 3;
        let mut bytes = Vec::new();
        for bits in 0..rows as u32 {
            for bits in [usual, bits, usual] {
                bytes.extend(&bits.to_le_bytes()[..format.bytes()]);
            }
        }
        let mut weights = vec![0.0; rows * cols];
        from_bytes(format, &bytes, &mut weights);
        with_model(&Model::of_floats(format, (rows, cols), Profile::Gpu, bytes), |tensor| {
            let matrix = Matrix::new(&engine, "w", tensor).unwrap();
            let y = support::product(&engine, &matrix, &[0.0, 1.0, 0.0]);
            for (row, &y) in y.iter().enumerate() {
                let exact = weights[row * cols + 1];
                // compilers may add an escape to what is taken off for it: BF16 has some that vanish in that
                let beside = if format == FloatFormat::Bf16 { weights[0] } else { 0.0 };
                let most = exact.abs() * 2f32.powi(-23) + beside * 2f32.powi(-24);
                let same = y == exact || y.is_nan() && exact.is_nan() || (y - exact).abs() <= most;
                assert!(same, "{format:?} {row:#x}: {y}, not {exact}");
            }
        });
    }
}

#[test]
fn what_is_no_number_stays_in_its_row() {
    let Some(engine) = support::engine() else { return };
    // NaN and infinity are escapes; the second tensor has columns beside whole blocks
    for cols in [128, 70] {
        let mut bytes = numbers(FloatFormat::Bf16, 16 * cols, &mut Draw(5));
        let mut put = |row: usize, col: usize, bits: u16| {
            let at = 2 * (row * cols + col);
            bytes[at..at + 2].copy_from_slice(&bits.to_le_bytes());
        };
        put(3, cols - 1, 0x7fc0);
        put(5, 0, 0x7f80);
        put(10, cols - 1, 0xff80);
        with_model(&Model::of_floats(FloatFormat::Bf16, (16, cols), Profile::Cpu, bytes), |tensor| {
            let y = support::product(&engine, &Matrix::new(&engine, "w", tensor).unwrap(), &vec![1.0; cols]);
            for (row, y) in y.iter().enumerate() {
                match row {
                    3 => assert!(y.is_nan()),
                    5 => assert_eq!(*y, f32::INFINITY),
                    10 => assert_eq!(*y, f32::NEG_INFINITY),
                    _ => assert!(y.is_finite(), "row {row} of {cols} columns"),
                }
            }
        });
    }
}

/// Weights of which most are no number, so that escapes have one of those in their place.
#[test]
fn escapes_among_what_is_no_number() {
    let Some(engine) = support::engine() else { return };
    for (format, infinity, small) in [
        (FloatFormat::Bf16, 0x7f80u16, 0x3c00u16),
        (FloatFormat::F16, 0x7c00, 0x0400),
        (FloatFormat::F8E5M2, 0x7c, 0x04),
    ] {
        for profile in [Profile::Cpu, Profile::Gpu] {
            // rows of infinities, of large numbers with some that are small, and of both
            let (rows, cols) = (24, 96);
            let mut draw = Draw(9);
            let large = infinity - (1 << format.mantissa());
            let weight = |row: usize, draw: &mut Draw| match (row % 3, draw.below(8)) {
                (0, _) => infinity,
                (2, 0) => infinity | 1,
                (_, 1) => small + draw.below(3) as u16,
                _ => large - draw.below(9) as u16,
            };
            let bits = (0..rows * cols).map(|i| weight(i / cols, &mut draw)).collect::<Vec<_>>();
            let bytes = bits.iter().flat_map(|w| w.to_le_bytes()[..format.bytes()].to_vec()).collect();
            with_model(&Model::of_floats(format, (rows, cols), profile, bytes), |tensor| {
                let weights = reference::Weights::new(tensor);
                // sums of the largest are numbers, too
                let x = vec![1e-3; cols];
                let y = support::product(&engine, &Matrix::new(&engine, "w", tensor).unwrap(), &x);
                assert!(y.iter().enumerate().all(|(row, y)| (row % 3 == 1) == y.is_finite()), "{y:?}");
                weights.compare(&x, &y, &format!("{format:?} {profile:?}"));
            });
        }
    }
}

//! What the native scheme gains over a plain uniform quantizer at the same coded rate, and where it must not break.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Lcg, weights};
use ecq_format::directory::Scales;
use ecq_format::encode::Profile;
use ecq_quant::measure::Distortion;
use ecq_quant::quantize::Quantized;
use ecq_quant::weights::{Dense, Weights};
use ecq_quant::{Error, Scheme};

const PROFILE: Profile = Profile::Cpu;

/// Coded bits a weight, distortion, and the quantized matrix's scales and whether it has a codebook.
fn quantized(scheme: Scheme, data: &[f32], cols: usize) -> (f64, Distortion, Scales, bool) {
    let matrix = Dense::new(data, cols).unwrap();
    let made = Quantized::new(scheme, &matrix, PROFILE).unwrap();
    let bits = made.coded_bits(PROFILE).unwrap() / (matrix.rows() * matrix.cols()) as f64;
    let found = Distortion::of_quantized(&matrix, &made);
    assert!(found.noise.is_finite(), "{scheme}");
    (bits, found, made.values().scales, made.values().codebook.is_some())
}

#[test]
fn the_native_scheme_beats_plain_rounding_at_low_rates() {
    // dB that must be gained; a little less than measured
    for (name, draw, gains) in [
        ("gaussian", Lcg::gaussian as fn(&mut Lcg) -> f64, [(1.5, 0.75), (2.0, 0.35)]),
        ("laplace", Lcg::laplace, [(1.5, 0.55), (2.0, 0.35)]),
        ("student", Lcg::student, [(1.5, 0.65), (2.0, 0.35)]),
    ] {
        // a size that is coded for trials, and one that is not
        for (rows, cols) in [(512, 512), (2304, 1024)] {
            let data = weights(3, rows * cols, draw);
            for (bits, gain) in gains {
                let plain = quantized(Scheme::Uniform { bits }, &data, cols);
                let native = quantized(Scheme::ecq(bits), &data, cols);
                for (rate, ..) in [plain, native] {
                    assert!((rate - bits).abs() < 0.01, "{name} {rows} x {cols}: {rate} bits for {bits}");
                }
                let gained = native.1.sqnr() - plain.1.sqnr() - 6.02 * (native.0 - plain.0);
                assert!(gained > gain, "{name} {rows} x {cols} at {bits} bits: {gained} dB");
            }
        }
    }
}

#[test]
fn the_native_scheme_is_never_worse_than_plain_rounding() {
    let data = weights(4, 1 << 18, Lcg::student);
    for bits in [1.0, 2.5, 3.0, 3.5, 4.5, 6.0, 8.0] {
        let plain = quantized(Scheme::Uniform { bits }, &data, 512);
        let native = quantized(Scheme::ecq(bits), &data, 512);
        assert!((native.0 - bits).abs() < 0.003, "{} bits for {bits}", native.0);
        assert!(native.1.sqnr() > plain.1.sqnr(), "{bits}: {} and {} dB", native.1.sqnr(), plain.1.sqnr());
    }
}

/// Rows and columns whose spread differs by up to `octaves` each.
fn spread(rows: usize, cols: usize, octaves: (f64, f64)) -> Vec<f32> {
    let mut lcg = Lcg(5);
    let mut factors = |n: usize, o: f64| (0..n).map(|_| (o * lcg.uniform()).exp2()).collect::<Vec<_>>();
    let (row, column) = (factors(rows, octaves.0), factors(cols, octaves.1));
    let data = weights(6, rows * cols, Lcg::gaussian);
    data.iter().enumerate().map(|(i, w)| (f64::from(*w) * row[i / cols] * column[i % cols]) as f32).collect()
}

#[test]
fn scales_are_taken_where_they_pay_and_only_there() {
    let of = |row, column| Scales::RowColumn { row, column };
    for (octaves, expected) in [
        ((0.0, 0.0), Scales::None),
        ((3.0, 0.0), of(true, false)),
        ((0.0, 3.0), of(false, true)),
        ((1.5, 1.5), of(true, true)),
    ] {
        let data = spread(640, 768, octaves);
        for bits in [2.0, 3.5] {
            let (rate, found, scales, _) = quantized(Scheme::ecq(bits), &data, 768);
            assert_eq!(scales, expected, "{octaves:?} at {bits} bits");
            assert!((rate - bits).abs() < 0.003, "{rate} bits for {bits}");
            if let Scales::RowColumn { row, column } = expected {
                // asked for, they are the same ones; and they beat others
                let same = Scheme::Ecq { bits, row_scales: row, column_scales: column };
                assert_eq!(quantized(same, &data, 768).1, found);
                let plain = quantized(Scheme::Uniform { bits }, &data, 768);
                assert!(found.sqnr() > plain.1.sqnr() + 0.5, "{octaves:?} at {bits} bits");
            }
        }
    }
}

#[test]
fn a_codebook_is_taken_for_weights_that_no_step_fits() {
    // three distinct weights, whose ratios are no fractions of small integers
    let mut lcg = Lcg(9);
    let data: Vec<f32> =
        (0..1 << 16).map(|_| [0.0, 0.1, -0.261_8][(lcg.uniform() * 2.999) as usize]).collect();
    let (rate, found, _, codebook) = quantized(Scheme::ecq(1.65), &data, 256);
    assert!(rate < 1.66, "{rate} bits");
    assert!(codebook, "no codebook at {} dB", found.sqnr());
    assert!(found.sqnr() > 60.0, "{} dB", found.sqnr());
    let data = weights(10, 1 << 18, Lcg::laplace);
    assert!(!quantized(Scheme::ecq(2.0), &data, 512).3, "a codebook that gains nothing");
}

#[test]
fn odd_weights_have_finite_errors() {
    let cases = [
        ("zeros", vec![0.0; 4096]),
        ("constant", vec![-0.3; 4096]),
        ("one in a thousand", (0..1 << 14).map(|i| if i % 1000 == 7 { 1.0 } else { 0.0 }).collect()),
        ("an outlier", (0..1 << 14).map(|i| if i == 77 { 1e30 } else { (i % 100) as f32 }).collect()),
        ("tiny", weights(12, 1 << 14, |l| 1e-42 * l.gaussian())),
        ("positive", weights(12, 1 << 14, |l| 1.0 + l.uniform())),
    ];
    for (name, data) in &cases {
        for bits in [1.0, 2.0, 3.5, 8.0] {
            for scheme in [
                Scheme::Uniform { bits },
                Scheme::ecq(bits),
                Scheme::Ecq { bits, row_scales: true, column_scales: true },
            ] {
                let (rate, found, ..) = quantized(scheme, data, 64);
                assert!(found.noise <= 1.01 * found.signal, "{name}, {scheme}: {found:?}");
                assert!(rate.is_finite());
            }
        }
    }
    let mut broken = vec![0.5; 4096];
    broken[70] = f32::INFINITY;
    let matrix = Dense::new(&broken, 64).unwrap();
    let refused = Quantized::new(Scheme::Uniform { bits: 2.0 }, &matrix, PROFILE).err();
    assert!(matches!(refused, Some(Error::NotFinite { row: 1, column: 6, .. })));
    assert!(matches!(
        Quantized::new(Scheme::Uniform { bits: 0.5 }, &matrix, PROFILE).err(),
        Some(Error::Rate(_))
    ));
}

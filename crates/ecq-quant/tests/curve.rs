//! A curve tells what quantizing gives, and shares bits as theory does.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Lcg, weights};
use ecq_format::encode::Profile;
use ecq_quant::measure::Distortion;
use ecq_quant::quantize::Quantized;
use ecq_quant::weights::Dense;
use ecq_quant::{Curve, Error, Scheme};

const PROFILE: Profile = Profile::Cpu;

fn curve(data: &[f32], cols: usize) -> Curve {
    Curve::of(&Dense::new(data, cols).unwrap(), false, false, PROFILE).unwrap()
}

#[test]
fn a_curve_tells_the_error_that_a_rate_buys() {
    for draw in [Lcg::gaussian, Lcg::laplace, Lcg::student] {
        let data = weights(7, 1 << 19, draw);
        let matrix = Dense::new(&data, 512).unwrap();
        let curve = curve(&data, 512);
        assert!(*curve.range().start() <= 1.0 && *curve.range().end() >= 8.0, "{:?}", curve.range());
        for bits in [1.0, 1.5, 2.0, 2.7, 3.5, 4.4, 6.0, 8.0] {
            let quantized = Quantized::new(Scheme::ecq(bits), &matrix, PROFILE).unwrap();
            let found = Distortion::of_quantized(&matrix, &quantized);
            let db = 10.0 * (curve.error_at(bits) / found.noise).log10();
            assert!(db.abs() < 0.15, "{bits} bits: {db} dB off");
            let back = curve.bits_for_error(curve.error_at(bits));
            assert!((back - bits).abs() < 1e-6, "{bits} became {back}");
            assert!((curve.signal() / found.signal - 1.0).abs() < 0.02);
        }
    }
}

#[test]
fn a_curve_falls_and_is_convex() {
    let data = weights(8, 1 << 18, Lcg::student);
    let curve = curve(&data, 256);
    let slope = |p: &[ecq_quant::curve::Point]| (p[0].error - p[1].error) / (p[1].bits - p[0].bits);
    assert!(curve.points().len() > 12);
    for p in curve.points().windows(3) {
        assert!(slope(&p[..2]) > slope(&p[1..]) && slope(&p[1..]) > 0.0, "{p:?}");
    }
}

#[test]
fn a_slope_leads_to_the_least_sum_of_error_and_rate() {
    let data = weights(9, 1 << 18, Lcg::laplace);
    let curve = curve(&data, 256);
    let (first, last) = curve.range().into_inner();
    let mut before = last;
    for exponent in -70..20 {
        // from finer than the finest step to coarser than the coarsest
        let lambda = 1e-4 * (f64::from(exponent) / 4.0).exp2();
        let bits = curve.bits_at_slope(lambda);
        assert!(bits <= before && (first..=last).contains(&bits), "{lambda}: {bits}");
        before = bits;
        let cost = |bits: f64| curve.error_at(bits) + lambda * bits * curve.weights() as f64;
        let least = (0..=1000).map(|i| first + f64::from(i) / 1000.0 * (last - first)).map(cost);
        let least = least.fold(f64::INFINITY, f64::min);
        assert!(cost(bits) < least * 1.003, "{lambda}: {bits} bits cost {}, not {least}", cost(bits));
    }
    assert_eq!(before, first);
    for none in [0.0, -1.0, f64::NAN] {
        assert_eq!(curve.bits_at_slope(none), last);
    }
    assert_eq!(curve.bits_at_slope(f64::INFINITY), first);
}

#[test]
fn equal_slopes_give_a_bit_more_where_weights_are_twice_as_large() {
    let small = weights(10, 1 << 19, Lcg::gaussian);
    let large: Vec<f32> = weights(11, 1 << 19, Lcg::gaussian).iter().map(|w| 2.0 * w).collect();
    let (small, large) = (curve(&small, 512), curve(&large, 512));
    for exponent in 0..12 {
        let lambda = 1e-4 * (-f64::from(exponent) / 1.3).exp2();
        let (a, b) = (small.bits_at_slope(lambda), large.bits_at_slope(lambda));
        if a > 2.5 && b < 7.5 {
            assert!((b - a - 1.0).abs() < 0.06, "{lambda}: {a} and {b} bits");
        }
    }
}

#[test]
fn odd_weights_have_a_curve() {
    let zeros = curve(&[0.0; 4096], 64);
    assert_eq!(zeros.points().len(), 1);
    let bits = *zeros.range().start();
    assert_eq!((zeros.bits_at_slope(1.0), zeros.error_at(3.0), zeros.bits_for_error(0.0)), (bits, 0.0, bits));
    let constant = curve(&[0.7; 4096], 64);
    assert!(constant.error_at(1.0) < 1e-6 * constant.signal(), "{:?}", constant.points());
    // three distinct weights: no rate above their entropy helps
    let few: Vec<f32> = (0..1 << 16).map(|i| [-0.3, 0.0, 0.3][i * i % 7 % 3]).collect();
    let few = curve(&few, 256);
    for bits in [1.0, 2.0, 8.0] {
        assert!(few.error_at(bits).is_finite() && few.bits_at_slope(bits).is_finite());
    }
    assert!(few.error_at(2.0) < 1e-6 * few.signal(), "{:?}", few.points());
    let huge = curve(&[1e36, -1e36, 3e30, 0.0].repeat(1024), 64);
    assert!(huge.points().iter().all(|p| p.bits.is_finite() && p.error.is_finite()), "{:?}", huge.points());
    let mut broken = vec![0.5; 4096];
    broken[70] = f32::NAN;
    let refused = Curve::of(&Dense::new(&broken, 64).unwrap(), false, false, PROFILE);
    assert!(matches!(refused, Err(Error::NotFinite { row: 1, column: 6, .. })));
    let empty = Curve::of(&Dense::new(&[], 64).unwrap(), false, false, PROFILE);
    assert!(matches!(empty, Err(Error::Unstorable(_))));
}

//! Every kernel against plain loops in f64, over schemes, raw bits, shapes and numbers of vectors.
//!
//! Under the address sanitizer, which the C of zstd must be built without:
//!
//!     CFLAGS_x86_64_unknown_linux_gnu=-fno-sanitize=all RUSTFLAGS=-Zsanitizer=address \
//!         cargo +nightly test -p ecq-cpu --tests --target x86_64-unknown-linux-gnu
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;

use common::sources::NF4;
use common::{Draw, Model};
use ecq_cpu::{Activations, Isa, Matrix, Packed, Precision};
use ecq_format::Error;
use ecq_format::directory::{Codec, Min, NumberFormat, PairCode, Pairs, Scales};
use ecq_format::encode::Profile;
use ecq_format::predict::Predictor;
use ecq_format::reader::CodedTensor;
use reference::{Case, with_model, with_tensor};

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Int8];

/// Every instruction set and precision against the reference, for these numbers of vectors.
fn check(case: &Case, counts: &[usize]) {
    with_tensor(case, |tensor| check_tensor(tensor, case, counts));
}

fn check_tensor(tensor: &CodedTensor<'_>, case: &Case, counts: &[usize]) {
    let reference = reference::Weights::new(tensor);
    for &count in counts {
        let x = reference::vectors(reference.cols, count, case.seed);
        for isa in Isa::all() {
            let matrix = Matrix::with_isa(isa, tensor).unwrap();
            let packed = packed(isa, tensor, case);
            if let Some(packed) = &packed {
                assert_eq!((packed.rows(), packed.cols()), (matrix.rows(), matrix.cols()));
                let five = if case.narrow && case.profile == Profile::Cpu { 4 } else { 8 };
                let bits = [4, five, 8, 8, 8].get(case.raw_bits as usize).copied().unwrap_or(16);
                assert_eq!(packed.bits(), bits);
            }
            for precision in PRECISIONS {
                let what = format!("{case:?} {isa:?} {precision:?} x {count}");
                let prepared = matrix.activations(precision, &x);
                let mut y = vec![f32::NAN; reference.rows * count];
                matrix.multiply_serial(&prepared, &mut y).unwrap();
                reference.compare(&x, &prepared, &y, &what);
                if let Some(packed) = &packed {
                    let coded: Vec<u32> = y.iter().map(|y| y.to_bits()).collect();
                    y.fill(f32::NAN);
                    packed.multiply_serial(&prepared, &mut y);
                    reference.compare(&x, &prepared, &y, &format!("packed, {what}"));
                    // decoding ahead changes no bit
                    assert!(y.iter().map(|y| y.to_bits()).eq(coded), "packed, {what}");
                }
            }
        }
    }
}

/// Packed integers, where there are such.
fn packed(isa: Isa, tensor: &CodedTensor<'_>, case: &Case) -> Option<Packed> {
    match (Packed::with_isa(isa, tensor), case.by_weight()) {
        (Ok(packed), false) => Some(packed),
        (Err(Error::Unsupported { name, why, .. }), true) => {
            assert!(
                name == "w" && why.contains("have no packed integers; multiply from the coded form"),
                "{why}"
            );
            None
        }
        (other, _) => panic!("{case:?}: {:?}", other.map(drop)),
    }
}

fn all_scales(cols: usize) -> Vec<Scales> {
    let mut all = vec![
        Scales::None,
        Scales::RowColumn { row: true, column: false },
        Scales::RowColumn { row: false, column: true },
        Scales::RowColumn { row: true, column: true },
    ];
    for size in [1, 4, 10, 16, 32, 48, 64, 128, cols as u64] {
        for min in [false, true] {
            all.extend((size <= cols as u64).then_some(Scales::Group { size, min }));
        }
    }
    for format in [NumberFormat::F16, NumberFormat::Bf16, NumberFormat::F32] {
        for min in [Min::None, Min::Number, Min::Zero] {
            all.push(Scales::Numbers { size: 32, format, min, mapped: false });
        }
    }
    for (size, supers, bias) in [(32, 8, 0), (16, 16, -128), (16, 2, -32)] {
        all.push(Scales::Nested { size, supers, bias, min: bias == 0 });
    }
    all.push(Scales::Lookup { size: 64, supers: 5, offset: 0.125 });
    all
}

/// Codes of five bits that fit four, as those of Q4_1 and Q4_0 do.
#[test]
fn signed_codes_of_four_bits() {
    let scales = [
        Scales::None,
        Scales::RowColumn { row: true, column: true },
        Scales::Group { size: 32, min: true },
        Scales::Group { size: 32, min: false },
        Scales::Group { size: 64, min: true },
        Scales::Group { size: 16, min: true },
    ];
    for (i, scales) in scales.into_iter().enumerate() {
        for (cols, escapes) in [(576, 0), (128, 40), (75, 40)] {
            for profile in [Profile::Cpu, Profile::Gpu] {
                let seed = i as u64;
                let case = Case {
                    rows: 37,
                    cols,
                    raw_bits: 1,
                    scales,
                    profile,
                    escapes,
                    seed,
                    narrow: true,
                    ..Case::PLAIN
                };
                check(&case, &[1, 2, 5, 19]);
            }
        }
    }
}

#[test]
fn all_scales_with_few_and_many_raw_bits() {
    for cols in [128, 75] {
        for (i, scales) in all_scales(cols).into_iter().enumerate() {
            for raw_bits in [0, 1, 3, 6] {
                let profile = if i % 5 == 4 { Profile::Gpu } else { Profile::Cpu };
                let case = Case {
                    rows: 19,
                    cols,
                    raw_bits,
                    scales,
                    profile,
                    escapes: 60,
                    seed: i as u64,
                    ..Case::PLAIN
                };
                check(&case, &[1, 3]);
            }
        }
    }
}

#[test]
fn pairs_in_strips_and_bands() {
    for code in [PairCode::Prefix, PairCode::Rans] {
        for (i, (band, strip, height)) in [(8, 64, 16), (2, 32, 7), (6, 96, 40)].into_iter().enumerate() {
            for raw_bits in [0, 1, 4, 6] {
                let scales = Scales::Group { size: 32, min: i == 1 };
                let case =
                    Case { rows: 43, cols: 203, raw_bits, scales, escapes: 50, seed: 3, ..Case::PLAIN };
                let case = Case { profile: Profile::Gpu, ..case };
                let pairs = Some((Pairs { code, band, strip }, height));
                with_model(&Model { pairs, ..case.model() }, |tensor| {
                    assert!(tensor.tiles() > 1 && tensor.coded().strips() > 1);
                    check_tensor(tensor, &case, &[1, 3]);
                });
            }
        }
    }
}

#[test]
fn all_raw_bits_in_both_codecs() {
    for raw_bits in 0..=11 {
        for profile in [Profile::Cpu, Profile::Gpu] {
            // four strips, and a last tile that is short
            let scales = Scales::Group { size: 32, min: true };
            let case = Case {
                rows: 403,
                cols: 192,
                raw_bits,
                scales,
                profile,
                escapes: 500,
                seed: 1,
                ..Case::PLAIN
            };
            check(&case, &[1]);
            check(&Case { scales: Scales::None, ..case }, &[2]);
        }
    }
}

#[test]
fn shapes() {
    for (rows, cols) in [
        (1, 1),
        (1, 64),
        (1, 63),
        (1, 300),
        (2, 65),
        (3, 128),
        (5, 40),
        (9, 1),
        (64, 2),
        (100, 100),
        (2, 20_000),
        (3, 16_384),
        (130, 320),
        (1024, 64),
        (1030, 1088),
        (261, 4096),
    ] {
        for raw_bits in [0, 2] {
            let scales = Scales::RowColumn { row: true, column: false };
            let profile = Profile::Cpu;
            check(
                &Case { rows, cols, raw_bits, scales, profile, escapes: 1000, seed: 5, ..Case::PLAIN },
                &[1],
            );
        }
    }
}

#[test]
fn numbers_of_vectors() {
    for raw_bits in [0, 1, 4, 7] {
        for scales in
            [Scales::None, Scales::Group { size: 32, min: false }, Scales::Group { size: 16, min: true }]
        {
            let profile = Profile::Cpu;
            let case =
                Case { rows: 13, cols: 320, raw_bits, scales, profile, escapes: 100, seed: 9, ..Case::PLAIN };
            check(&case, &[1, 2, 3, 4, 5, 6, 7, 8, 17, 64]);
        }
    }
}

#[test]
fn escapes_that_are_most_of_a_tensor() {
    for (rows, cols) in [(20, 128), (20, 70)] {
        for raw_bits in [0, 1, 5] {
            let scales = Scales::Group { size: 32, min: true };
            let profile = Profile::Cpu;
            check(
                &Case { rows, cols, raw_bits, scales, profile, escapes: 2, seed: 3, ..Case::PLAIN },
                &[1, 9],
            );
        }
    }
}

/// Numbers of one sign, one of which is larger than all others together.
const UNEVEN: [f32; 16] = [0.1, 0.2, 0.3, 0.35, 0.36, 0.5, 0.6, 0.7, 0.8, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 40.0];

#[test]
fn codebooks_with_all_scales() {
    for cols in [128, 75] {
        for (i, scales) in all_scales(cols).into_iter().enumerate() {
            for codebook in [NF4, UNEVEN] {
                let profile = if i % 5 == 4 { Profile::Gpu } else { Profile::Cpu };
                let (codebook, seed) = (Some(codebook), i as u64);
                let case =
                    Case { rows: 19, cols, scales, profile, escapes: 60, seed, codebook, ..Case::PLAIN };
                check(&case, &[1, 3]);
            }
        }
    }
}

#[test]
fn codebooks_of_all_shapes_and_numbers_of_vectors() {
    let codebook = Some(NF4);
    for (rows, cols) in [(1, 1), (1, 63), (9, 1), (100, 100), (3, 16_384), (1030, 1088), (261, 4096)] {
        check(&Case { rows, cols, escapes: 1000, seed: 5, codebook, ..Case::PLAIN }, &[1]);
    }
    for scales in
        [Scales::None, Scales::Group { size: 32, min: false }, Scales::Group { size: 16, min: true }]
    {
        let case = Case { rows: 13, cols: 320, scales, escapes: 100, seed: 9, codebook, ..Case::PLAIN };
        check(&case, &[1, 2, 3, 4, 5, 6, 7, 8, 17, 64]);
    }
    let most = Case { rows: 20, cols: 70, escapes: 2, seed: 3, codebook, ..Case::PLAIN };
    check(&most, &[1, 9]);
}

/// With a codebook that lists what levels are anyway, and is whole in units: nothing is rounded.
#[test]
fn a_codebook_of_levels_changes_nothing() {
    let mut same: [f32; 16] = std::array::from_fn(|i| i as f32 - 8.0 + 0.5);
    let case = |codebook| Case { rows: 40, cols: 256, escapes: 90, seed: 8, codebook, ..Case::PLAIN };
    let products = |case: &Case| {
        let mut all = Vec::new();
        with_tensor(case, |tensor| {
            let matrix = Matrix::new(tensor).unwrap();
            let x = matrix.activations(Precision::F32, &reference::vectors(256, 1, 2));
            all.resize(40, 0.0);
            matrix.multiply(&x, &mut all).unwrap();
        });
        all
    };
    // the same levels in both
    let mut with = case(Some(same)).model();
    with.coded[0].values.codebook = None;
    let mut without = Vec::new();
    with_model(&with, |tensor| {
        let matrix = Matrix::new(tensor).unwrap();
        let x = matrix.activations(Precision::F32, &reference::vectors(256, 1, 2));
        without.resize(40, 0.0);
        matrix.multiply(&x, &mut without).unwrap();
    });
    let close = |a: &[f32]| a.iter().zip(&without).all(|(a, b)| (a - b).abs() < 1e-3 * (1.0 + b.abs()));
    assert!(close(&products(&case(Some(same)))));
    same[9] = 3.0;
    assert!(!close(&products(&case(Some(same)))));
}

#[test]
fn codebooks_of_any_size() {
    let times = |factor: f32| NF4.map(|v| v * factor);
    let mut zeros = [0.0; 16];
    zeros[3] = -0.0;
    for (codebook, packs) in [
        (zeros, true),
        (times(1e-6), true),
        (times(1e10), true),
        ([1.0; 16], true),
        ([-3.0; 16], true),
        // what no kernel takes is multiplied weight by weight
        (times(1e-20), false),
        (times(1e20), false),
    ] {
        let most = codebook.iter().fold(0f32, |most, v| most.max(v.abs()));
        for scales in [Scales::None, Scales::Group { size: 32, min: true }] {
            // levels beyond the codebook would outweigh the small ones
            let case = Case { rows: 11, cols: 130, scales, seed: 2, codebook: Some(codebook), ..Case::PLAIN };
            let mut model = case.model();
            model.coded[0].matrix.levels.iter_mut().for_each(|q| *q = (*q).clamp(-8, 7));
            with_model(&model, |tensor| {
                let reference = reference::Weights::new(tensor);
                let x = reference::vectors(130, 2, 1);
                for isa in Isa::all() {
                    let matrix = Matrix::with_isa(isa, tensor).unwrap();
                    let packed = Packed::with_isa(isa, tensor);
                    assert_eq!(packed.is_ok(), packs, "{most}");
                    let precisions = if packs { &PRECISIONS[..] } else { &PRECISIONS[..1] };
                    for &precision in precisions {
                        let prepared = matrix.activations(precision, &x);
                        let mut y = vec![f32::NAN; 22];
                        matrix.multiply(&prepared, &mut y).unwrap();
                        reference.compare(&x, &prepared, &y, &format!("{most} {isa:?} {precision:?}"));
                        if let Ok(packed) = &packed {
                            packed.multiply(&prepared, &mut y);
                            reference.compare(&x, &prepared, &y, &format!("packed {most} {isa:?}"));
                        }
                    }
                }
            });
        }
    }
}

#[test]
fn predicted_levels_and_scattered_groups() {
    let mut all = vec![(Scales::None, None), (Scales::Group { size: 10, min: true }, None)];
    for format in [NumberFormat::F16, NumberFormat::Bf16, NumberFormat::F32] {
        for min in [Min::None, Min::Number, Min::Zero] {
            let scales = Scales::Numbers { size: 16, format, min, mapped: true };
            all.extend([(scales, None), (scales, Some(NF4))]);
        }
    }
    for (i, (scales, codebook)) in all.into_iter().enumerate() {
        let mapped = matches!(scales, Scales::Numbers { .. });
        for predictor in [None, Some(Predictor::Left), Some(Predictor::Up), Some(Predictor::Planar)] {
            if predictor.is_none() && !mapped {
                continue; // other tests have those
            }
            for (rows, cols, profile) in [(19, 128, Profile::Cpu), (40, 75, Profile::Gpu)] {
                let (raw_bits, seed) = (if codebook.is_some() { 0 } else { 2 }, i as u64);
                let escapes = 50;
                let case = Case {
                    rows,
                    cols,
                    raw_bits,
                    scales,
                    profile,
                    escapes,
                    seed,
                    codebook,
                    predictor,
                    narrow: false,
                };
                check(&case, &[1, 3]);
            }
        }
    }
    // several tiles and blocks
    let predictor = Some(Predictor::Planar);
    check(&Case { rows: 700, cols: 600, raw_bits: 4, seed: 1, predictor, ..Case::PLAIN }, &[1]);
}

#[test]
fn threads_do_not_change_a_bit() {
    for scales in [Scales::None, Scales::Group { size: 32, min: true }] {
        let profile = Profile::Cpu;
        let case = Case {
            rows: 1500,
            cols: 1024,
            raw_bits: 1,
            scales,
            profile,
            escapes: 3000,
            seed: 2,
            ..Case::PLAIN
        };
        with_tensor(&case, |tensor| {
            assert!(tensor.tiles() > 1 && matches!(tensor.coded().codec, Codec::Nibble(512)));
            let matrix = Matrix::new(tensor).unwrap();
            let packed = Packed::new(tensor).unwrap();
            for precision in PRECISIONS {
                for count in [1, 5] {
                    let x = matrix.activations(precision, &reference::vectors(case.cols, count, 8));
                    let mut serial = vec![0.0; case.rows * count];
                    matrix.multiply_serial(&x, &mut serial).unwrap();
                    let mut from_packed = serial.clone();
                    packed.multiply_serial(&x, &mut from_packed);
                    for threads in [1, 2, 5] {
                        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                        let mut y = vec![0.0; case.rows * count];
                        pool.install(|| matrix.multiply(&x, &mut y)).unwrap();
                        let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
                        assert_eq!(bits(&y), bits(&serial), "{threads} threads");
                        pool.install(|| packed.multiply(&x, &mut y));
                        assert_eq!(bits(&y), bits(&from_packed), "{threads} threads, packed");
                    }
                }
            }
        });
    }
}

#[test]
fn activations_are_what_they_say() {
    let mut draw = Draw(4);
    let (cols, count) = (77, 3);
    let x: Vec<f32> = (0..cols * count).map(|_| draw.below(2001) as f32 / 1000.0 - 1.0).collect();
    let exact = Activations::new(Precision::F32, cols, &x);
    let rounded = Activations::new(Precision::Int8, cols, &x);
    assert_eq!((exact.cols(), exact.count(), exact.precision()), (cols, count, Precision::F32));
    assert_eq!((rounded.cols(), rounded.count(), rounded.precision()), (cols, count, Precision::Int8));
    for (m, x) in x.chunks(cols).enumerate() {
        for (block, x) in x.chunks(32).enumerate() {
            let most = x.iter().fold(0f32, |a, x| a.max(x.abs()));
            for (i, &x) in x.iter().enumerate() {
                let col = 32 * block + i;
                assert_eq!(exact.value(m, col), x);
                let off = (rounded.value(m, col) - x).abs();
                assert!(off <= most / 127.0 * 0.501, "{x} as {}", rounded.value(m, col));
                assert!(x.abs() < most || off <= most * 1e-6, "the largest of a block is kept");
            }
        }
    }
    for small in [1e-40, 2e-38, 3e-37, 1.4e-36] {
        // nothing, rather than numbers that are as large as the largest
        let small = Activations::new(Precision::Int8, 2, &[small, -small / 50.0]);
        assert_eq!((small.value(0, 0), small.value(0, 1)), (0.0, 0.0));
    }
    for most in [1.6e-36, 3e38] {
        let x = Activations::new(Precision::Int8, 2, &[most, -most / 50.0]);
        let off = |col, exact: f32| (x.value(0, col) - exact).abs() / most;
        assert!(off(0, most) < 1e-6 && off(1, -most / 50.0) < 0.004, "{:?}", (x.value(0, 0), x.value(0, 1)));
    }
    let odd = Activations::new(Precision::Int8, 2, &[f32::INFINITY, 1.0]);
    assert!(odd.value(0, 1).is_nan(), "no finite number pretends to be the product");
}

#[test]
#[should_panic(expected = "other column scales")]
fn vectors_for_other_columns_are_refused() {
    let scales = Scales::RowColumn { row: false, column: true };
    let profile = Profile::Cpu;
    let case = Case { rows: 4, cols: 64, raw_bits: 0, scales, profile, escapes: 0, seed: 1, ..Case::PLAIN };
    with_tensor(&case, |tensor| {
        let matrix = Matrix::new(tensor).unwrap();
        let x = Activations::new(Precision::F32, 64, &[1.0; 64]);
        let _ = matrix.multiply(&x, &mut [0.0; 4]);
    });
}

#[test]
fn vectors_of_any_floats() {
    for (cols, raw_bits) in [(64, 0), (63, 1), (65, 3), (128, 7)] {
        for scales in
            [Scales::None, Scales::Group { size: 32, min: true }, Scales::Group { size: 10, min: false }]
        {
            let profile = Profile::Cpu;
            let case = Case { rows: 9, cols, raw_bits, scales, profile, escapes: 20, seed: 4, ..Case::PLAIN };
            with_tensor(&case, |tensor| {
                let reference = reference::Weights::new(tensor);
                for isa in Isa::all() {
                    let matrix = Matrix::with_isa(isa, tensor).unwrap();
                    let packed = Packed::with_isa(isa, tensor).unwrap();
                    for precision in PRECISIONS {
                        // two vectors, of which the second must not notice the first
                        let both = |odd: &[f32]| {
                            let mut x = reference::vectors(cols, 2, 1);
                            x[..cols].iter_mut().zip(odd.iter().cycle()).for_each(|(x, odd)| *x *= odd);
                            let prepared = matrix.activations(precision, &x);
                            let (mut y, mut other) = (vec![0.0; 18], vec![0.0; 18]);
                            matrix.multiply_serial(&prepared, &mut y).unwrap();
                            packed.multiply_serial(&prepared, &mut other);
                            (x, prepared, [y, other])
                        };
                        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                            for y in both(&[odd, 1.0, 1.0]).2 {
                                assert!(
                                    y[..9].iter().all(|y| !y.is_finite()),
                                    "{case:?} {isa:?} {precision:?}"
                                );
                                assert!(
                                    y[9..].iter().all(|y| y.is_finite()),
                                    "{case:?} {isa:?} {precision:?}"
                                );
                            }
                        }
                        for odd in [0.0, -0.0, 1e-43, 1e-30, 1e28] {
                            let (x, prepared, all) = both(&[odd]);
                            for y in all {
                                reference.compare(&x, &prepared, &y, &format!("{case:?} {isa:?} {odd}"));
                            }
                        }
                    }
                }
            });
        }
    }
}

#[test]
fn levels_of_any_size() {
    for (cols, raw_bits) in [(64, 0), (65, 0), (64, 1), (64, 4), (70, 11)] {
        let scales = Scales::RowColumn { row: true, column: true };
        let profile = Profile::Cpu;
        let case = Case { rows: 9, cols, raw_bits, scales, profile, escapes: 0, seed: 3, ..Case::PLAIN };
        // at the ends of rows, and all of a row
        let far = [i32::MIN, i32::MAX, -(1 << 15) - 1, 1 << 15, 1 << 20];
        let far = (0..far.len()).flat_map(|i| [i * cols, i * cols + cols - 1].map(|at| (at, far[i])));
        let row = (8 * cols..9 * cols).map(|at| (at, at as i32 * 1_000_003 % (1 << 30)));
        let mut model = case.model();
        far.chain(row).for_each(|(at, level)| model.coded[0].matrix.levels[at] = level);
        with_model(&model, |tensor| check_tensor(tensor, &case, &[1, 3]));
    }
}

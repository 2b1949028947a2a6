//! The twins of the kernels, without a device: products over all schemes against sums in f64, packed weights against the
//! levels of the tensor, and damage of every kind.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;
mod sequential;

use case::{Case, vectors, with_model};
use common::sources::NF4;
use common::{Draw, Model};
use ecq_format::directory::{Min, NumberFormat, PairCode, Pairs, Scales};
use ecq_format::encode::Profile;
use ecq_format::pattern::FloatFormat;
use ecq_format::predict::Predictor;
use ecq_format::reader::CodedTensor;
use ecq_gpu::host::Host;
use ecq_gpu::params::Params;
use ecq_gpu::plan::Limits;
use ecq_gpu::twins::{self, Buffers, Error};
use ecq_quant::values::from_bytes;
use sequential::Sequential;

/// Less than a band, a block of columns, a strip, a tile; whole ones; and both.
const SHAPES: [(usize, usize); 7] = [(1, 1), (1, 3), (3, 64), (7, 33), (19, 128), (40, 75), (67, 200)];

/// Buffers so small that most tensors are of several parts.
const SMALL: Limits = Limits { buffer: 24 << 10, binding: 24 << 10, ..Limits::WEBGPU };

/// A model whose last level is so far from the center, if it has escapes.
fn model(case: &Case, code: PairCode, strip: u64, far: i32) -> Model {
    let mut model = case.model();
    model.pairs = Some((Pairs { code, band: 8, strip }, 16));
    let coded = &mut model.coded[0];
    if case.escapes > 0 && case.predictor.is_none() {
        let center = coded.center;
        coded.matrix.levels.iter_mut().for_each(|q| *q = (*q).clamp(center - far, center + far));
        *coded.matrix.levels.last_mut().unwrap() = center + far;
    }
    model
}

fn check_tensor(tensor: &CodedTensor<'_>, limits: &Limits, what: &str) -> Sequential {
    let weights = reference::Weights::new(tensor);
    let x = vectors(weights.cols, 2, 1);
    let host = Host::new("w", tensor, limits).unwrap();
    let made = Sequential::run(&host, &x);
    weights.compare(&x, &made.fused, &format!("{what}, {:?}", host.resident.form));
    weights.compare(&x, &made.plain, &format!("packed, {what}, {:?}", host.resident.form));
    sequential::check_packed(tensor, &host, &made.packed, what);
    made
}

/// A case in both codes of pairs, and as files for CPUs have it; predicted levels are coded anew.
fn check(case: Case, far: i32) {
    for (rows, cols) in SHAPES.into_iter().filter(|(_, cols)| *cols as u64 >= case.scales.size().unwrap_or(1))
    {
        for (profile, code, strip) in [
            (Profile::Gpu, PairCode::Prefix, 64),
            (Profile::Gpu, PairCode::Rans, 32),
            (Profile::Gpu, PairCode::Rans, cols as u64),
            (Profile::Cpu, PairCode::Prefix, 64),
        ] {
            let case = Case { rows, cols, profile, ..case };
            let what = format!("{case:?} {code:?} in strips of {strip}");
            with_model(&model(&case, code, strip, far), |tensor| {
                check_tensor(tensor, &Limits::WEBGPU, &what);
            });
        }
    }
}

#[test]
fn raw_bits_and_escapes() {
    for raw_bits in [0, 1, 2, 3, 4, 7, 11] {
        check(Case { raw_bits, ..Case::PLAIN }, 0);
    }
    // values of a few bits, and far ones
    for (raw_bits, far) in [(0, 2500), (1, 2500), (3, 40_000), (0, 40_000)] {
        check(Case { raw_bits, escapes: 40, seed: 1, ..Case::PLAIN }, far);
    }
}

#[test]
fn scales_of_every_kind() {
    let numbers = |size, format, min, mapped| Scales::Numbers { size, format, min, mapped };
    for (i, scales) in [
        Scales::RowColumn { row: true, column: false },
        Scales::RowColumn { row: false, column: true },
        Scales::RowColumn { row: true, column: true },
        Scales::Group { size: 1, min: true },
        Scales::Group { size: 10, min: false },
        Scales::Group { size: 33, min: true },
        numbers(32, NumberFormat::F16, Min::None, false),
        numbers(32, NumberFormat::Bf16, Min::Number, false),
        numbers(32, NumberFormat::F32, Min::Zero, false),
        numbers(16, NumberFormat::F16, Min::Zero, true),
        numbers(16, NumberFormat::F32, Min::Number, true),
        Scales::Nested { size: 16, supers: 2, bias: 0, min: true },
        Scales::Lookup { size: 64, supers: 5, offset: 0.125 },
    ]
    .into_iter()
    .enumerate()
    {
        let raw_bits = [0, 2][i % 2];
        check(
            Case { scales, raw_bits, escapes: 40, seed: i as u64, ..Case::PLAIN },
            [2500, 40_000][i / 2 % 2],
        );
    }
}

#[test]
fn codebooks_and_predictors() {
    check(Case { codebook: Some(NF4), ..Case::PLAIN }, 0);
    let scales = Scales::Group { size: 32, min: true };
    check(Case { codebook: Some(NF4), scales, escapes: 40, seed: 1, ..Case::PLAIN }, 40_000);
    for predictor in [Predictor::Left, Predictor::Up, Predictor::Planar] {
        let predictor = Some(predictor);
        check(Case { raw_bits: 2, escapes: 50, seed: 1, predictor, ..Case::PLAIN }, 0);
    }
}

fn with_floats(
    format: FloatFormat,
    rows: usize,
    cols: usize,
    profile: Profile,
    run: impl FnOnce(&CodedTensor<'_>),
) {
    let mut bytes = common::floats(format, rows * cols, false, &mut Draw(3));
    for weight in bytes.chunks_exact_mut(format.bytes()) {
        let mut value = [0.0];
        from_bytes(format, weight, &mut value);
        if !value[0].is_finite() {
            weight.fill(0); // sums would not be compared
        }
    }
    with_model(&Model::of_floats(format, (rows, cols), profile, bytes), run);
}

#[test]
fn floats() {
    for format in [FloatFormat::Bf16, FloatFormat::F16, FloatFormat::F8E4M3, FloatFormat::F8E5M2] {
        for (rows, cols) in SHAPES {
            for profile in [Profile::Cpu, Profile::Gpu] {
                with_floats(format, rows, cols, profile, |tensor| {
                    check_tensor(tensor, &Limits::WEBGPU, &format!("{format:?} {rows} x {cols} {profile:?}"));
                });
            }
        }
    }
}

/// A tensor of several parts is that of one part: the same sums, and the same packed weights one after another.
#[test]
fn parts() {
    let factors = Scales::RowColumn { row: true, column: true };
    let zeros = Scales::Numbers { size: 3, format: NumberFormat::F32, min: Min::Zero, mapped: true };
    for (code, scales) in [
        (PairCode::Prefix, factors),
        (PairCode::Rans, factors),
        (PairCode::Prefix, Scales::Group { size: 4, min: true }),
        (PairCode::Prefix, zeros),
        (PairCode::Prefix, Scales::Nested { size: 4, supers: 5, bias: -32, min: true }),
        (PairCode::Rans, Scales::Lookup { size: 4, supers: 7, offset: 0.25 }),
    ] {
        let (rows, cols, profile) = (203, 300, Profile::Gpu);
        let case = Case { rows, cols, raw_bits: 1, scales, profile, escapes: 40, ..Case::PLAIN };
        with_model(&model(&case, code, 128, 2500), |tensor| {
            let [one, several] =
                [Limits::WEBGPU, SMALL].map(|limits| check_tensor(tensor, &limits, &format!("{case:?}")));
            assert_eq!(one.packed.len(), 1);
            assert!(several.packed.len() > 2, "{} parts", several.packed.len());
            assert_eq!(one.packed.concat(), several.packed.concat());
            assert_eq!(one.fused, several.fused);
            assert_eq!(one.plain, several.plain);
        });
    }
}

/// Tensors small enough to be damaged at every word: all codes, and everything that a kernel can read.
fn small(run: &mut impl FnMut(&mut Host<Vec<u32>>)) {
    let groups = Scales::Numbers { size: 16, format: NumberFormat::F16, min: Min::Number, mapped: true };
    let factors = Scales::RowColumn { row: true, column: true };
    let plain = Case { rows: 19, cols: 70, profile: Profile::Gpu, escapes: 40, ..Case::PLAIN };
    for (case, code, far) in [
        (Case { raw_bits: 3, scales: groups, ..plain }, PairCode::Prefix, 2500),
        (Case { scales: factors, ..plain }, PairCode::Rans, 40_000),
        (Case { codebook: Some(NF4), ..plain }, PairCode::Rans, 2500),
        (Case { raw_bits: 1, profile: Profile::Cpu, ..plain }, PairCode::Rans, 2500),
    ] {
        with_model(&model(&case, code, 64, far), |tensor| {
            run(&mut Host::new("w", tensor, &Limits::WEBGPU).unwrap());
        });
    }
    with_floats(FloatFormat::Bf16, 7, 33, Profile::Gpu, |tensor| {
        run(&mut Host::new("w", tensor, &Limits::WEBGPU).unwrap());
    });
}

/// Runs all twins; none may panic, whatever they read.
fn run(host: &Host<Vec<u32>>, params: &Params) -> [Result<(), Error>; 3] {
    let (form, shape) = (&host.resident.form, &host.resident.shape);
    let x = vec![1.0; shape.cols];
    let mut sums = vec![0.0; shape.strips() * shape.rows];
    let mut packed = vec![0; host.parts[0].packed as usize];
    let b = Buffers::of(host, 0, params).unwrap();
    let fused = twins::fused(form, &b, &x, &mut sums);
    let _ = twins::finish(params, &sums, &mut vec![0.0; shape.rows]); // may well have nothing to add
    let decoded = twins::decode(form, &b, &mut packed);
    let plain = twins::plain(form, &b, &packed, &x, &mut vec![0.0; shape.rows]);
    [fused, decoded, plain]
}

/// The words that twins read.
fn buffers(host: &mut Host<Vec<u32>>) -> [(&'static str, &mut Vec<u32>); 5] {
    let streams = &mut host.streams[0];
    host.sides.resize(1, Vec::new());
    host.escapes.resize(1, Vec::new());
    [
        ("words", &mut streams.words),
        ("first", &mut streams.first),
        ("codes", &mut host.resident.codes),
        ("side", &mut host.sides[0]),
        ("escapes", &mut host.escapes[0]),
    ]
}

#[test]
fn flipped_bits_are_no_panic() {
    small(&mut |host| {
        let params = host.params(false)[0];
        assert_eq!(run(host, &params), [Ok(()), Ok(()), Ok(())]);
        let mut refused = 0;
        for which in 0..5 {
            for at in 0..buffers(host)[which].1.len() {
                for flip in [1, 1 << 12, 1 << 31, u32::MAX] {
                    buffers(host)[which].1[at] ^= flip;
                    refused += run(host, &params).iter().filter(|result| result.is_err()).count();
                    buffers(host)[which].1[at] ^= flip;
                }
            }
        }
        assert!(refused > 0, "no twin noticed any damage");
        assert_eq!(run(host, &params), [Ok(()), Ok(()), Ok(())]);
    });
}

#[test]
fn truncated_buffers_are_errors_that_name_them() {
    small(&mut |host| {
        let params = host.params(false)[0];
        let form = host.resident.form;
        for which in 0..5 {
            let whole = buffers(host)[which].1.clone();
            let name = buffers(host)[which].0;
            for len in 0..whole.len() {
                buffers(host)[which].1.truncate(len);
                let outside = |r: &Result<(), Error>| matches!(r, Err(Error::Outside { buffer, .. }) if *buffer == name);
                let results = run(host, &params);
                // what follows the last word that is used is for lanes that read ahead, and for columns of whole words
                if len == 0 && !whole.is_empty() {
                    let escapes = name == "escapes" && form.escapes;
                    let used =
                        escapes || name == "side" && form.has_side() || name != "escapes" && name != "side";
                    assert_eq!(results.iter().any(outside), used, "{name}: {results:?}");
                }
                assert!(
                    results.iter().all(|r| r.is_ok() || outside(r)),
                    "{name} of {len} words: {results:?}"
                );
                buffers(host)[which].1.clone_from(&whole);
            }
        }
    });
}

#[test]
fn parameters_that_do_not_fit_are_no_panic() {
    small(&mut |host| {
        let params = host.params(false)[0];
        let fields = bytemuck::cast::<Params, [u32; 16]>(params);
        for at in 0..16 {
            for value in
                [0, 1, 7, 8, 31, 33, 64, 1 << 20, u32::MAX - 7, u32::MAX, fields[at] + 1, fields[at] ^ 8]
            {
                let mut damaged = fields;
                damaged[at] = value;
                let results = run(host, &bytemuck::cast(damaged));
                // rows, columns, rows of the part, and how they are cut
                let matters = value != fields[at] && (at < 2 || at == 7 || at == 5);
                assert!(!matters || results[0].is_err(), "parameter {at} = {value}");
            }
        }
    });
}

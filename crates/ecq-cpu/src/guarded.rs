//! Tests: products with every buffer between pages that nobody may touch. Tiles, vectors, scales, what threads keep, and
//! products are allocated so that each ends directly before such a page, and then begins directly behind one.
#![allow(clippy::unwrap_used)]

use std::thread;

use ecq_format::directory::{PairCode, Pairs, Scales};
use ecq_format::encode::Profile;
use ecq_format::reader::CodedTensor;
use ecq_quant::values::Dequantizer;
use rans_core::Isa;

use crate::common::Model;
use crate::common::sources::NF4;
use crate::scaling::Scaling;
use crate::tile::{self, Stored};
use crate::{Activations, Matrix, Packed, Precision};
use case::{Case, vectors, with_model};

#[path = "../tests/reference/case.rs"]
mod case;
#[path = "../../rans-core/tests/guarded/fence.rs"]
#[allow(unsafe_code)]
mod fence;

#[global_allocator]
static FENCE: fence::Fence = fence::Fence;

/// One vector, a few, and more than kernels take at once.
const COUNTS: [usize; 3] = [1, 5, 19];

/// Runs something on a thread of its own, whose buffers then are as large as it needs and no larger.
fn alone<T: Send>(at_start: bool, run: impl FnOnce() -> T + Send) -> T {
    let run = || {
        fence::at_start(at_start);
        run()
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap())
}

fn bits(y: &[f32]) -> Vec<u32> {
    y.iter().map(|y| y.to_bits()).collect()
}

/// All tiles by all ways; the same to the bit as what the public way says of the whole, which other tests compare with sums in
/// f64. Returns how many products of tiles that were.
fn check(tensor: &CodedTensor<'_>, at_start: bool, what: &str) -> usize {
    let (rows, cols) = (tensor.coded().rows as usize, tensor.coded().cols as usize);
    let mut products = 0;
    for (isa, precision, count) in ways() {
        let x = vectors(cols, count, 5);
        let matrix = Matrix::with_isa(isa, tensor).unwrap();
        let mut expected = vec![f32::NAN; rows * count];
        matrix.multiply_serial(&matrix.activations(precision, &x), &mut expected).unwrap();
        for index in 0..tensor.tiles() {
            let own = tensor.rows(index);
            let y = alone(at_start, || {
                let scaling = Scaling::new(tensor, &Dequantizer::of(tensor).unwrap());
                let x = Activations::with_columns(precision, cols, &x, &scaling.columns);
                let (bytes, entry) = tensor.tile(index).unwrap();
                let bytes = bytes.to_vec().into_boxed_slice();
                let mut y: Vec<Vec<f32>> = vec![vec![f32::NAN; own.len()]; count];
                let mut out: Vec<&mut [f32]> = y.iter_mut().map(|y| &mut y[..]).collect();
                tile::multiply(isa, tensor, &scaling, &Stored { index, bytes: &bytes, entry }, &x, &mut out)
                    .unwrap();
                y
            });
            for (y, expected) in y.iter().zip(expected.chunks_exact(rows)) {
                assert_eq!(bits(y), bits(&expected[own.clone()]), "{what} {isa:?} {precision:?} x {count}");
            }
            products += 1;
        }
        if let Ok(packed) = Packed::with_isa(isa, tensor) {
            let y = alone(at_start, || {
                let mut y = vec![f32::NAN; rows * count];
                packed.multiply_serial(&packed.activations(precision, &x), &mut y);
                y
            });
            assert_eq!(bits(&y), bits(&expected), "packed, {what} {isa:?} {precision:?} x {count}");
        }
    }
    products
}

fn ways() -> impl Iterator<Item = (Isa, Precision, usize)> {
    let precisions = |isa| [Precision::F32, Precision::Int8].map(move |precision| (isa, precision));
    Isa::all().flat_map(precisions).flat_map(|(isa, precision)| COUNTS.map(|count| (isa, precision, count)))
}

/// The codecs: nibbles, and pairs in both codes.
fn codecs() -> [(Profile, Option<(Pairs, u64)>); 4] {
    let pairs = |code, band, strip, rows| (Profile::Gpu, Some((Pairs { code, band, strip }, rows)));
    let (prefix, rans) = (pairs(PairCode::Prefix, 8, 64, 16), pairs(PairCode::Rans, 6, 96, 40));
    [(Profile::Cpu, None), (Profile::Gpu, None), prefix, rans]
}

/// All codecs, raw bits and shapes, two of a kind together, each with some scales.
fn all(at_start: bool) {
    let scales = [
        Scales::None,
        Scales::RowColumn { row: true, column: true },
        Scales::Group { size: 32, min: true },
        Scales::Group { size: 32, min: false },
        Scales::Group { size: 10, min: true },
    ];
    let shapes = [(1, 1), (3, 63), (5, 64), (19, 75), (13, 128), (37, 203), (130, 320), (3, 2113), (2, 4160)];
    let (mut tensors, mut products) = (0, 0);
    for (codec, (profile, pairs)) in codecs().into_iter().enumerate() {
        for (i, (rows, cols)) in shapes.into_iter().enumerate() {
            // the other half with the next codec
            for raw_bits in (0..=6).filter(|raw_bits| (*raw_bits as usize + i + codec).is_multiple_of(2)) {
                let turn = i + raw_bits as usize;
                let scales = scales[turn % scales.len()];
                let scales =
                    if scales.size().is_some_and(|size| size > cols as u64) { Scales::None } else { scales };
                let codebook = (raw_bits == 0 && i % 2 == 1).then_some(NF4);
                let (escapes, narrow, seed) =
                    ([0, 40][turn / 2 % 2], raw_bits == 1 && i % 3 > 0, turn as u64);
                let case = Case {
                    rows,
                    cols,
                    raw_bits,
                    scales,
                    profile,
                    escapes,
                    seed,
                    narrow,
                    codebook,
                    ..Case::PLAIN
                };
                with_model(&Model { pairs, ..case.model() }, |tensor| {
                    products += check(tensor, at_start, &format!("{case:?}"));
                });
                tensors += 1;
            }
        }
    }
    let here: Vec<_> = Isa::all().map(|isa| isa.set()).collect();
    println!("{products} products of tiles of {tensors} tensors on {here:?}");
}

#[test]
fn buffers_end_before_a_forbidden_page() {
    all(false);
}

#[test]
fn buffers_begin_behind_a_forbidden_page() {
    all(true);
}

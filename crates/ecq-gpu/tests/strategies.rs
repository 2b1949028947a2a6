//! Every strategy makes the same products, in any order, and says truly what memory it takes.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;
mod support;

use case::{Case, vectors, with_model, with_tensor};
use common::Model;
use ecq_format::encode::Profile;
use ecq_gpu::{Engine, Error, Id, Matrix, Options, Packed, Strategy, Weights};
use wgpu::{Buffer, BufferUsages};

const PLAIN: Case = Case { profile: Profile::Gpu, ..Case::PLAIN };
/// Of 4 and 8 bits, larger and smaller ones in turn, some of the same size.
const CASES: [Case; 6] = [
    Case { rows: 40, cols: 96, seed: 2, ..PLAIN },
    Case { rows: 130, cols: 75, seed: 4, raw_bits: 4, ..PLAIN },
    Case { rows: 1, cols: 3, seed: 6, ..PLAIN },
    Case { rows: 40, cols: 96, seed: 8, ..PLAIN },
    Case { rows: 64, cols: 128, seed: 10, raw_bits: 4, profile: Profile::Cpu, ..PLAIN },
    Case { rows: 33, cols: 64, seed: 12, ..PLAIN },
];
const ORDERS: [&[usize]; 4] = [
    &[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5],
    &[5, 4, 3, 2, 1, 0],
    &[3, 3, 0, 5, 0, 2, 4, 4, 1, 5],
    &[1, 3, 1, 3],
];

/// A matrix's vectors, and their products from packed and from coded weights.
struct Known {
    x: Vec<f32>,
    packed: Vec<f32>,
    fused: Vec<f32>,
    bytes: u64,
}

fn known(engine: &Engine) -> Vec<Known> {
    let mut all = Vec::new();
    for case in &CASES {
        with_tensor(case, |tensor| {
            let matrix = Matrix::new(engine, "w", tensor).unwrap();
            let x = vectors(case.cols, 1, case.seed);
            let made = support::decode(engine, &matrix);
            let packed = support::packed_product(engine, &matrix, &made, &x);
            let fused = support::product(engine, &matrix, &x);
            let weights = reference::Weights::new(tensor);
            weights.compare(&x, &packed, &format!("packed, {case:?}"));
            weights.compare(&x, &fused, &format!("{case:?}"));
            all.push(Known { x, packed, fused, bytes: made.bytes() });
        });
    }
    all
}

fn add(weights: &mut Weights) -> Vec<Id> {
    let mut ids = Vec::new();
    for case in &CASES {
        with_tensor(case, |tensor| ids.push(weights.add("w", tensor).unwrap()));
    }
    ids
}

fn output(engine: &Engine, rows: usize) -> Buffer {
    support::buffer(engine, &vec![support::UNTOUCHED; rows])
}

/// Products in an order, with so many of them in each encoder, all submitted before any is read.
fn run(engine: &Engine, weights: &mut Weights, ids: &[Id], known: &[Known], order: &[usize], step: usize) {
    let mut made = Vec::new();
    for some in order.chunks(step) {
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        for &i in some {
            let (x, y) = (support::buffer(engine, &known[i].x), output(engine, CASES[i].rows));
            weights.record(&mut encoder, ids[i], x.slice(..), y.slice(..)).unwrap();
            let fused = match weights.memory() {
                memory if memory.scratch > 0 => false,
                _ => matches!(fused_now(weights, ids[i]), Some(true)),
            };
            made.push((i, fused, y));
        }
        engine.queue().submit([encoder.finish()]);
    }
    for (i, fused, y) in made {
        let y = support::read(engine, &y);
        let expected = if fused { &known[i].fused } else { &known[i].packed };
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&y), bits(expected), "matrix {i} in {order:?}, fused {fused}");
    }
}

/// Whether a product with a matrix decodes on the way.
fn fused_now(weights: &Weights, id: Id) -> Option<bool> {
    let own: u64 = weights.matrix(id)?.packed_sizes().iter().sum();
    match weights.strategy() {
        Strategy::Lru { bytes } => Some(own > bytes),
        _ => Some(!weights.is_packed(id)),
    }
}

#[test]
fn products_that_are_ready_are_the_same_each_time() {
    let Some(engine) = support::engine() else { return };
    let known = known(&engine);
    let all: u64 = known.iter().map(|k| k.bytes).sum();
    let largest = known.iter().map(|k| k.bytes).max().unwrap();
    for strategy in [
        Strategy::Fused,
        Strategy::Cached,
        Strategy::Prefetch,
        Strategy::Lru { bytes: all },
        Strategy::Lru { bytes: largest },
        Strategy::Lru { bytes: largest - 1 },
        Strategy::Auto { bytes: all / 3 },
    ] {
        let mut weights = Weights::new(&engine, strategy);
        let ids = add(&mut weights);
        weights.settle().unwrap();
        weights.compile(&[1, 16, 17]).unwrap();
        let ready = |(id, known): (&Id, &Known)| {
            let (rows, x) = (weights.matrix(*id).unwrap().rows(), support::buffer(&engine, &known.x));
            let y = output(&engine, rows);
            (weights.product(*id, x.slice(..), y.slice(..)).unwrap(), y)
        };
        let mut ready: Vec<_> = ids.iter().zip(&known).map(ready).collect();
        for order in ORDERS {
            let mut encoder = engine.device().create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for &i in order {
                weights.multiply(&mut pass, &mut ready[i].0).unwrap();
            }
            drop(pass);
            engine.queue().submit([encoder.finish()]);
            for &i in order {
                let y = &ready[i].1;
                let fused = weights.memory().scratch == 0 && fused_now(&weights, ids[i]) == Some(true);
                let expected = if fused { &known[i].fused } else { &known[i].packed };
                let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                let found = support::read(&engine, y);
                assert_eq!(bits(&found), bits(expected), "matrix {i} in {order:?}, {strategy:?}");
            }
            // so that the next ones are no others' than theirs
            for (_, y) in &ready {
                let untouched = vec![support::UNTOUCHED; y.size() as usize / 4];
                engine.queue().write_buffer(y, 0, bytemuck::cast_slice(&untouched));
            }
        }
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let fail = Weights::new(&engine, strategy).multiply(&mut pass, &mut ready[0].0);
        assert!(matches!(fail, Err(Error::Argument { .. })), "{fail:?}");
    }
}

#[test]
fn all_strategies_make_the_same_products() {
    let Some(engine) = support::engine() else { return };
    let known = known(&engine);
    let all: u64 = known.iter().map(|k| k.bytes).sum();
    let largest = known.iter().map(|k| k.bytes).max().unwrap();
    let strategies = [
        Strategy::Fused,
        Strategy::Cached,
        Strategy::Prefetch,
        Strategy::Lru { bytes: all },
        Strategy::Lru { bytes: largest },
        Strategy::Lru { bytes: all / 2 },
        Strategy::Lru { bytes: largest - 1 },
        Strategy::Lru { bytes: 0 },
        Strategy::Auto { bytes: all },
        Strategy::Auto { bytes: all / 3 },
    ];
    for strategy in strategies {
        let mut weights = Weights::new(&engine, strategy);
        assert!(weights.is_empty());
        let ids = add(&mut weights);
        assert_eq!(weights.len(), CASES.len());
        weights.settle().unwrap();
        for order in ORDERS {
            for step in [1, 3, 99] {
                run(&engine, &mut weights, &ids, &known, order, step);
            }
        }
        weights.forget();
        run(&engine, &mut weights, &ids, &known, ORDERS[2], 4);
        let memory = weights.memory();
        let coded: u64 = ids.iter().map(|&id| weights.matrix(id).unwrap().bytes()).sum();
        assert_eq!(memory.coded, coded);
        assert_eq!(memory.total(), memory.coded + memory.packed + memory.scratch);
        let packed = |id: &Id| weights.is_packed(*id);
        let kept: u64 = ids.iter().zip(&known).filter(|(id, _)| packed(id)).map(|(_, k)| k.bytes).sum();
        match strategy {
            Strategy::Fused => assert_eq!((memory.packed, memory.scratch), (0, 0)),
            Strategy::Cached => assert_eq!((memory.packed, memory.scratch), (all, 0)),
            Strategy::Prefetch => assert_eq!((memory.packed, memory.scratch), (0, 2 * largest)),
            Strategy::Lru { bytes } => {
                assert!(memory.packed <= bytes && (memory.packed > 0) == (bytes > 0));
                assert_eq!(memory.scratch, 0);
            }
            Strategy::Auto { bytes } => {
                assert!(memory.packed <= bytes);
                assert_eq!((memory.packed, memory.scratch), (kept, 0));
            }
        }
    }
}

#[test]
fn streams_of_cached_matrices_are_freed() {
    let Some(engine) = support::engine() else { return };
    let [mut fused, mut cached] = [Strategy::Fused, Strategy::Cached].map(|s| Weights::new(&engine, s));
    let (a, b) = (add(&mut fused), add(&mut cached));
    for ((a, b), case) in a.into_iter().zip(b).zip(&CASES) {
        let (coded, freed) = (fused.matrix(a).unwrap(), cached.matrix(b).unwrap());
        let less = coded.bytes() - freed.bytes();
        assert!(less as usize * 8 > case.rows * case.cols, "{less} bytes of {case:?}");
        // what needs them says so
        let (x, y) = (support::buffer(&engine, &vectors(case.cols, 1, 0)), output(&engine, case.rows));
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        let fail = freed.record(&engine, &mut encoder, x.slice(..), y.slice(..));
        assert!(matches!(fail, Err(Error::Argument { .. })));
        let packed = Packed::new(&engine, freed).unwrap();
        assert!(matches!(packed.decode(&engine, &mut encoder, freed), Err(Error::Argument { .. })));
    }
}

#[test]
fn matrices_in_several_buffers() {
    let Some(gpu) = support::gpu() else { return };
    let mut limits = gpu.adapter.limits();
    limits.max_storage_buffer_binding_size = 28 << 10;
    let descriptor = wgpu::DeviceDescriptor {
        required_features: gpu.adapter.features() & ecq_gpu::gpu::useful_features(),
        required_limits: limits,
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(gpu.adapter.request_device(&descriptor)).unwrap();
    let engine = Engine::new(&device, &queue, Options::default()).unwrap();
    let case = Case { rows: 250, cols: 576, ..Case::PLAIN };
    // two of these tiles share a band
    let model = Model { lanes: Some((64, 12)), ..case.model() };
    with_model(&model, |tensor| {
        let reference = reference::Weights::new(tensor);
        let x = vectors(case.cols, 1, 3);
        let matrix = Matrix::new(&engine, "w", tensor).unwrap();
        assert!(matrix.packed_sizes().len() > 2, "{:?}", matrix.packed_sizes());
        reference.compare(&x, &support::product(&engine, &matrix, &x), "fused");
        for strategy in [Strategy::Cached, Strategy::Prefetch, Strategy::Lru { bytes: 1 << 20 }] {
            let mut weights = Weights::new(&engine, strategy);
            let ids = [0; 2].map(|_| weights.add("w", tensor).unwrap());
            for id in [ids[0], ids[1], ids[0]] {
                let (given, y) = (support::buffer(&engine, &x), output(&engine, case.rows));
                let mut encoder = device.create_command_encoder(&Default::default());
                weights.record(&mut encoder, id, given.slice(..), y.slice(..)).unwrap();
                queue.submit([encoder.finish()]);
                reference.compare(&x, &support::read(&engine, &y), "packed");
            }
        }
    });
}

#[test]
fn failures_are_errors() {
    let Some(engine) = support::engine() else { return };
    let mut weights = Weights::new(&engine, Strategy::Prefetch);
    let ids = add(&mut weights);
    let case = &CASES[0];
    let (x, y) = (support::buffer(&engine, &vectors(case.cols, 1, 0)), output(&engine, case.rows));
    let other = engine.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: y.size(),
        usage: BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    for (id, x, y) in [
        (ids[0], x.slice(..), x.slice(..4 * case.rows as u64)), // the same buffer
        (ids[0], x.slice(..), y.slice(..4)),
        (ids[0], x.slice(..4), y.slice(..)),
        (ids[0], x.slice(..4), y.slice(..0)), // no whole vector, and no product
        (ids[0], x.slice(..0), y.slice(..)),
        (ids[0], x.slice(..), other.slice(..)), // no storage
        (ids[1], x.slice(..), y.slice(..)),     // another matrix's
    ] {
        let fail = weights.record(&mut encoder, id, x, y);
        assert!(matches!(fail, Err(Error::Argument { .. })), "{fail:?}");
    }
    let mut none = Weights::new(&engine, Strategy::Fused);
    let fail = none.record(&mut encoder, ids[0], x.slice(..), y.slice(..));
    assert!(matches!(fail, Err(Error::Argument { .. })), "{fail:?}");
    assert!(none.matrix(ids[0]).is_none() && !none.is_packed(ids[0]));
    // as many matrices of the same shapes are others all the same
    let (mut others, known) = (Weights::new(&engine, Strategy::Cached), ids[0]);
    let own = add(&mut others);
    let fail = others.record(&mut encoder, known, x.slice(..), y.slice(..));
    assert!(matches!(fail, Err(Error::Argument { .. })), "{fail:?}");
    assert!(others.matrix(known).is_none() && !others.is_packed(known) && others.is_packed(own[0]));
    // a device that is gone
    weights.record(&mut encoder, ids[0], x.slice(..), y.slice(..)).unwrap();
    drop(encoder);
    weights.forget();
    engine.device().destroy();
    for strategy in [Strategy::Cached, Strategy::Auto { bytes: 1 << 20 }] {
        let mut late = Weights::new(&engine, strategy);
        with_tensor(case, |tensor| {
            let done = late.add("w", tensor).and_then(|_| late.settle());
            assert!(matches!(done, Err(Error::Lost(_))), "{done:?}");
        });
    }
}

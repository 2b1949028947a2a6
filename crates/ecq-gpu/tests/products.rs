//! Products on a GPU against plain loops in f64.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;

use case::{Case, vectors, with_tensor};
use ecq_format::encode::Profile;
use ecq_gpu::{Engine, Gpu, Matrix, Options, Packed};
use wgpu::util::DeviceExt;

/// Products from coded weights, and from packed ones.
fn products(engine: &Engine, matrix: &Matrix, x: &[f32]) -> [Vec<f32>; 2] {
    let count = x.len() / matrix.cols();
    let device = engine.device();
    let x = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: None,
        contents: bytemuck::cast_slice(x),
        usage: wgpu::BufferUsages::STORAGE,
    });
    let packed = Packed::new(engine, matrix).unwrap();
    [false, true].map(|plain| {
        let size = (4 * matrix.rows() * count) as u64;
        let y = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        if plain {
            packed.decode(engine, &mut encoder, matrix).unwrap();
            packed.record(engine, &mut encoder, matrix, x.slice(..), y.slice(..)).unwrap();
        } else {
            matrix.record(engine, &mut encoder, x.slice(..), y.slice(..)).unwrap();
        }
        engine.queue().submit([encoder.finish()]);
        let words = ecq_gpu::engine::read(device, engine.queue(), &y, size).unwrap();
        words.into_iter().map(f32::from_bits).collect()
    })
}

#[test]
fn integers_of_any_shape() {
    let gpu = Gpu::open(None).unwrap();
    let engine = Engine::new(&gpu.device, &gpu.queue, Options::default()).unwrap();
    for (rows, cols) in [(8, 64), (64, 128), (1, 3), (13, 77), (130, 576)] {
        for (raw_bits, escapes) in [(0, 0), (0, 20), (1, 20), (4, 0)] {
            let profile = if rows % 2 == 0 { Profile::Gpu } else { Profile::Cpu };
            let case = Case { rows, cols, raw_bits, escapes, profile, ..Case::PLAIN };
            with_tensor(&case, |tensor| {
                let weights = reference::Weights::new(tensor);
                let matrix = Matrix::new(&engine, "w", tensor).unwrap();
                for count in [1, 3] {
                    let x = vectors(cols, count, 1);
                    let [fused, plain] = products(&engine, &matrix, &x);
                    weights.compare(&x, &fused, &format!("{case:?} x {count}"));
                    weights.compare(&x, &plain, &format!("packed, {case:?} x {count}"));
                }
            });
        }
    }
}

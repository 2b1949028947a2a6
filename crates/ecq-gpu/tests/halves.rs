//! Vectors of f16: products where the device has them, a refusal where it has not.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;
mod support;

use case::{Case, vectors, with_tensor};
use ecq_format::directory::Scales;
use ecq_format::encode::Profile;
use ecq_gpu::{Engine, Error, Matrix, Options, Packed, Strategy, Vectors, Weights};
use half::f16;
use wgpu::util::DeviceExt;
use wgpu::{Buffer, BufferUsages, Features};

const GROUPS: Case =
    Case { rows: 43, cols: 75, scales: Scales::Group { size: 32, min: true }, escapes: 40, ..Case::PLAIN };

/// Numbers as f16, filled up to words with one that is none, and as the f32 that they are.
fn halves(engine: &Engine, x: &[f32]) -> (Buffer, Vec<f32>) {
    let halves: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
    let mut bits: Vec<u16> = halves.iter().map(|x| x.to_bits()).collect();
    bits.resize(bits.len().next_multiple_of(2), f16::NAN.to_bits());
    let buffer = engine.device().create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: None,
        contents: bytemuck::cast_slice(&bits),
        usage: BufferUsages::STORAGE,
    });
    (buffer, halves.into_iter().map(f16::to_f32).collect())
}

fn output(engine: &Engine, len: usize) -> Buffer {
    support::buffer(engine, &vec![support::UNTOUCHED; len])
}

#[test]
fn halves_are_multiplied_or_refused() {
    let Some(engine) = support::engine() else { return };
    let there = engine.device().features().contains(Features::SHADER_F16);
    println!("f16 in shaders: {there}");
    for case in [GROUPS, Case { rows: 9, cols: 1, profile: Profile::Gpu, ..Case::PLAIN }] {
        with_tensor(&case, |tensor| {
            let reference = reference::Weights::new(tensor);
            let matrix = Matrix::new(&engine, "w", tensor).unwrap();
            let packed = support::decode(&engine, &matrix);
            let mut weights = Weights::new(&engine, Strategy::Fused);
            let id = weights.add("w", tensor).unwrap();
            // more than a kernel takes at once where it is small
            for count in if case.cols == 1 { [1, 17] } else { [1, 2] } {
                let (x, numbers) = halves(&engine, &vectors(case.cols, count, 1));
                let x = Vectors::f16(x.slice(..));
                let all = [0; 3].map(|_| output(&engine, case.rows * count));
                let mut encoder = engine.device().create_command_encoder(&Default::default());
                let results = [
                    matrix.record(&engine, &mut encoder, x, all[0].slice(..)),
                    packed.record(&engine, &mut encoder, &matrix, x, all[1].slice(..)),
                    weights.record(&mut encoder, id, x, all[2].slice(..)),
                ];
                engine.queue().submit([encoder.finish()]);
                for (result, y) in results.into_iter().zip(&all) {
                    if there {
                        result.unwrap();
                        reference.compare(
                            &numbers,
                            &support::read(&engine, y),
                            &format!("{case:?} x {count}"),
                        );
                    } else {
                        let error = result.unwrap_err();
                        assert!(
                            matches!(error, Error::Argument { .. })
                                && error.to_string().contains("SHADER_F16")
                        );
                    }
                }
            }
        });
    }
}

#[test]
fn a_device_without_halves_refuses_them() {
    let Some(gpu) = support::gpu() else { return };
    let descriptor = wgpu::DeviceDescriptor {
        required_features: gpu.adapter.features() & Features::SUBGROUP,
        required_limits: gpu.adapter.limits(),
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(gpu.adapter.request_device(&descriptor)).unwrap();
    let engine = Engine::new(&device, &queue, Options::default()).unwrap();
    with_tensor(&GROUPS, |tensor| {
        let matrix = Matrix::new(&engine, "w", tensor).unwrap();
        let packed = Packed::new(&engine, &matrix).unwrap();
        let (x, _) = halves(&engine, &vectors(GROUPS.cols, 1, 1));
        let y = output(&engine, GROUPS.rows);
        let mut encoder = device.create_command_encoder(&Default::default());
        let x = Vectors::f16(x.slice(..));
        for result in [
            matrix.record(&engine, &mut encoder, x, y.slice(..)),
            packed.record(&engine, &mut encoder, &matrix, x, y.slice(..)),
        ] {
            let error = result.unwrap_err();
            assert!(
                matches!(error, Error::Argument { .. }) && error.to_string().contains("SHADER_F16"),
                "{error}"
            );
        }
    });
}

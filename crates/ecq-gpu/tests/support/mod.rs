//! A device for tests, and products on it.
#![allow(dead_code)] // each test binary uses its part

use ecq_gpu::variant::Lanes;
use ecq_gpu::{Engine, Gpu, Matrix, Options, Packed};
use wgpu::util::DeviceExt;
use wgpu::{Buffer, BufferSlice, BufferUsages, CommandEncoder};

/// A device of the adapter that `ECQ_ADAPTER` names, or the fastest one. `None`, and a line that says so, where `ECQ_NO_GPU`
/// says that no adapter is expected; without it a machine without an adapter fails the test.
pub fn gpu() -> Option<Gpu> {
    if std::env::var_os("ECQ_NO_GPU").is_some_and(|v| !v.is_empty() && v != "0") {
        println!("not run: ECQ_NO_GPU says that there is no adapter");
        return None;
    }
    let name = std::env::var("ECQ_ADAPTER").ok();
    match Gpu::open(name.as_deref()) {
        Ok(gpu) => Some(gpu),
        Err(error) => panic!("{error} (ECQ_NO_GPU=1 says that none is expected)"),
    }
}

/// An engine of its own for each test, so that drivers compile for several at once. `ECQ_SUBGROUP` says what size of
/// subgroups it must have.
pub fn engine() -> Option<Engine> {
    let engine = engine_with(Options::default())?;
    if let Ok(size) = std::env::var("ECQ_SUBGROUP") {
        assert_eq!(engine.lanes(), Lanes::Subgroups(size.parse().unwrap()), "ECQ_SUBGROUP");
    }
    Some(engine)
}

pub fn engine_with(options: Options) -> Option<Engine> {
    let gpu = gpu()?;
    let engine = Engine::new(&gpu.device, &gpu.queue, options).unwrap();
    println!("{}: {:?}", gpu.adapter.get_info().name, engine.lanes());
    Some(engine)
}

pub fn buffer(engine: &Engine, numbers: &[f32]) -> Buffer {
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    buffer_for(engine, bytemuck::cast_slice(numbers), usage)
}

pub fn buffer_for(engine: &Engine, contents: &[u8], usage: BufferUsages) -> Buffer {
    let descriptor = wgpu::util::BufferInitDescriptor { label: None, contents, usage };
    engine.device().create_buffer_init(&descriptor)
}

/// What a kernel leaves where it must not write, or has not written.
pub const UNTOUCHED: f32 = f32::from_bits(0x7fc0_1234);

pub fn read(engine: &Engine, buffer: &Buffer) -> Vec<f32> {
    let words = ecq_gpu::engine::read(engine.device(), engine.queue(), buffer, buffer.size()).unwrap();
    words.into_iter().map(f32::from_bits).collect()
}

/// Products with the vectors that lie one after another in `x`, from coded weights.
pub fn product(engine: &Engine, matrix: &Matrix, x: &[f32]) -> Vec<f32> {
    run(engine, matrix, x, |encoder, x, y| matrix.record(engine, encoder, x, y))
}

/// A matrix decoded in GPU memory.
pub fn decode(engine: &Engine, matrix: &Matrix) -> Packed {
    let packed = Packed::new(engine, matrix).unwrap();
    fill(engine, matrix, &packed);
    packed
}

/// Decodes a matrix into these.
pub fn fill(engine: &Engine, matrix: &Matrix, packed: &Packed) {
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    packed.decode(engine, &mut encoder, matrix).unwrap();
    engine.queue().submit([encoder.finish()]);
}

/// [`product`] from these.
pub fn packed_product(engine: &Engine, matrix: &Matrix, packed: &Packed, x: &[f32]) -> Vec<f32> {
    run(engine, matrix, x, |encoder, x, y| packed.record(engine, encoder, matrix, x, y))
}

fn run(
    engine: &Engine,
    matrix: &Matrix,
    x: &[f32],
    record: impl FnOnce(&mut CommandEncoder, BufferSlice<'_>, BufferSlice<'_>) -> ecq_gpu::Result<()>,
) -> Vec<f32> {
    let len = matrix.rows() * (x.len() / matrix.cols());
    let x = buffer(engine, x);
    let y = buffer(engine, &vec![UNTOUCHED; len + 16]);
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    record(&mut encoder, x.slice(..), y.slice(..4 * len as u64)).unwrap();
    engine.queue().submit([encoder.finish()]);
    let mut y = read(engine, &y);
    let behind = y.split_off(len);
    assert!(behind.iter().all(|y| y.to_bits() == UNTOUCHED.to_bits()), "written behind the product");
    assert!(y.iter().all(|y| y.to_bits() != UNTOUCHED.to_bits()), "not all of the product was written");
    y
}

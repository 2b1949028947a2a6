//! CubeCL and ecq-gpu on one device: CubeCL makes vectors and has room for the products, ecq-gpu multiplies coded weights
//! with them, CubeCL goes on with the result. No number leaves the GPU in between. Fails if a product is wrong.
//!
//!     cargo run --manifest-path crates/ecq-gpu/examples/cubecl/Cargo.toml
//!
//! This is how a program on Burn would do it, whose tensors are CubeCL's buffers.

mod model;

use std::error::Error;

use cubecl_core as cubecl;
use cubecl_core::prelude::*;
use cubecl_core::server::Handle;
use cubecl_core::{MemoryConfiguration, client::Client};
use cubecl_runtime::runtime::Runtime;
use cubecl_runtime::storage::ManagedResource;
use cubecl_wgpu::{
    AutoCompiler, AutoGraphicsApi, RuntimeOptions, WgpuDevice, WgpuResource, WgpuRuntime, WgpuServer,
};
use ecq_format::reader::Tensor;
use ecq_format::{Limits, Reader};
use ecq_gpu::wgpu::BufferSlice;
use ecq_gpu::{Engine, Matrix, Options};

const ROWS: usize = 300;
const COLS: usize = 1000;
const VECTORS: usize = 2;
/// Invocations of a workgroup of CubeCL's kernels.
const CUBE: usize = 64;

/// Numbers from -1 to 1.
#[cube(launch)]
fn make(x: &mut [f32]) {
    if ABSOLUTE_POS < x.len() {
        x[ABSOLUTE_POS] = (f32::cast_from(ABSOLUTE_POS % 17) - 8.0) / 8.0;
    }
}

/// The same on the CPU.
fn made(i: usize) -> f32 {
    ((i % 17) as f32 - 8.0) / 8.0
}

/// What comes behind a layer: negative numbers are a tenth of themselves.
#[cube(launch)]
fn leak(y: &mut [f32]) {
    if ABSOLUTE_POS < y.len() {
        let number = y[ABSOLUTE_POS];
        y[ABSOLUTE_POS] = max(number, 0.1 * number);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.ecq");
    model::write(&path, ROWS, COLS)?;
    let file = Reader::open(&path, Limits::default())?;
    let Tensor::Coded(tensor) = file.tensor("w")? else { return Err("w is not coded".into()) };

    // CubeCL opens the device, with all that the adapter has, and hands it out. The other way round, `try_init_device` takes
    // over a device of the program; that must then have every feature of its adapter, because CubeCL asks the adapter.
    //
    // By default CubeCL cuts many tensors from one buffer. wgpu does not let a dispatch read and write one buffer, at
    // whatever offsets, and `record` refuses it: so a page for each tensor. A program that cannot say so gives `y` a buffer
    // of its own and copies.
    let memory_config = MemoryConfiguration::ExclusivePages;
    let options = RuntimeOptions { memory_config, ..RuntimeOptions::default() };
    let device = WgpuDevice::default();
    let setup = cubecl_wgpu::try_init_setup::<AutoGraphicsApi>(&device, options)?;
    let client = <WgpuRuntime>::client(&device);

    // clones of device and queue are the same device and queue; errors that nobody catches on it are CubeCL's, which panics
    let engine = Engine::new(&setup.device, &setup.queue, Options::default())?;
    let matrix = Matrix::new(&engine, "w", &tensor)?;
    println!("{}: {:?}", setup.adapter.get_info().name, engine.lanes());
    println!("{ROWS} x {COLS} weights in {} bytes, {VECTORS} vectors", matrix.bytes());

    let (x_len, y_len) = (VECTORS * COLS, VECTORS * ROWS);
    let [x, y] = [x_len, y_len].map(|numbers| client.empty(4 * numbers));
    // Held, so that they keep their place: a tensor whose handles are gone may be another one at once, and CubeCL does not
    // know of our encoders.
    let (x_held, y_held) = (resource(&client, &x)?, resource(&client, &y)?);
    make::launch(&client, cubes(x_len), CubeDim::new_1d(CUBE as u32), argument(&x, x_len));
    multiply(&client, &engine, &matrix, &x_held, &y_held)?;
    leak::launch(&client, cubes(y_len), CubeDim::new_1d(CUBE as u32), argument(&y, y_len));
    let bytes = client.read_one(y).map_err(|e| format!("reading y: {e:?}"))?;
    let y: Vec<f32> = bytes.as_chunks().0.iter().map(|&number| f32::from_le_bytes(number)).collect();

    let x: Vec<f32> = (0..x_len).map(made).collect();
    compare(&y, &model::products(&tensor, &x)?)
}

/// `y = W x` between what CubeCL was told before and what it will be told: its buffers, our encoder, one queue.
fn multiply(
    client: &Client,
    engine: &Engine,
    matrix: &Matrix,
    x: &ManagedResource<WgpuResource>,
    y: &ManagedResource<WgpuResource>,
) -> Result<(), Box<dyn Error>> {
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    matrix.record(engine, &mut encoder, slice(x, 4 * VECTORS * COLS), slice(y, 4 * VECTORS * ROWS))?;
    // CubeCL collects launches in an encoder of its own, and submits it after some 32 of them or when it is asked for
    // something. The queue works in the order of submissions, so what makes x must be submitted before us; without this
    // line x would be whatever was there. That it is done by then is not needed.
    client.flush().map_err(|e| format!("flushing CubeCL: {e:?}"))?;
    engine.queue().submit([encoder.finish()]);
    // what CubeCL is told from now on, it submits later
    Ok(())
}

/// A tensor's buffer, held.
fn resource(client: &Client, handle: &Handle) -> Result<ManagedResource<WgpuResource>, Box<dyn Error>> {
    let found = client.get_resource::<WgpuServer<AutoCompiler>>(handle.clone());
    found.map_err(|e| format!("a buffer of CubeCL: {e:?}").into())
}

/// Its first bytes: a tensor may lie anywhere in its buffer, at offsets as the device wants them, and in more bytes than
/// it needs; `record` takes the number of bytes for that of the vectors. Of what a buffer may be used for, `record` needs
/// storage, which all of CubeCL's are for.
fn slice(resource: &ManagedResource<WgpuResource>, bytes: usize) -> BufferSlice<'_> {
    let WgpuResource { buffer, offset, .. } = resource.resource();
    buffer.slice(*offset..*offset + bytes as u64)
}

fn cubes(numbers: usize) -> CubeCount {
    CubeCount::new_1d(numbers.div_ceil(CUBE) as u32)
}

/// A tensor for a kernel of CubeCL.
fn argument(handle: &Handle, numbers: usize) -> BufferArg {
    // SAFETY: The handle was made for so many numbers.
    unsafe { BufferArg::from_raw_parts(handle.clone(), numbers) }
}

/// Prints some products beside those of the CPU. Error: a product that rounding does not explain.
fn compare(gpu: &[f32], cpu: &[(f64, f64)]) -> Result<(), Box<dyn Error>> {
    if gpu.len() != cpu.len() {
        return Err(format!("{} products instead of {}", gpu.len(), cpu.len()).into());
    }
    println!("{:>6} {:>6} {:>14} {:>14}", "vector", "row", "GPU", "CPU");
    for (i, (&gpu, &(product, size))) in gpu.iter().zip(cpu).enumerate() {
        let cpu = product.max(0.1 * product);
        let (vector, row) = (i / ROWS, i % ROWS);
        if row < 4 {
            println!("{vector:>6} {row:>6} {gpu:>14.6} {cpu:>14.6}");
        }
        let off = (f64::from(gpu) - cpu).abs();
        if off.is_nan() || off > 1e-5 * size {
            return Err(format!("row {row} of vector {vector} is {gpu}, not {cpu}").into());
        }
    }
    println!("{} products are right", gpu.len());
    Ok(())
}

//! A program with a wgpu device of its own multiplies a coded tensor: `cargo run -p ecq-gpu --example plain_wgpu -- model.ecq
//! [tensor]`. Prints the first numbers of the product beside those that the CPU makes of the decoded weights.

use std::error::Error;
use std::path::Path;

use ecq_format::reader::{CodedTensor, Tensor};
use ecq_format::{Limits, Reader};
use ecq_gpu::{Engine, Options, Strategy, Weights, wgpu};
use ecq_quant::values::Dequantizer;
use wgpu::{BufferUsages, util::DeviceExt};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: plain_wgpu model.ecq [tensor]")?;
    let reader = Reader::open(Path::new(&path), Limits::default())?;
    let named = arguments.next();
    let mut names = reader.directory().tensors.iter().map(|t| t.name.as_str());
    let coded = |name: &str| matches!(reader.tensor(name), Ok(Tensor::Coded(_)));
    let name = match &named {
        Some(name) => name,
        None => names.find(|name| coded(name)).ok_or("there is no coded tensor in this file")?,
    };
    let Tensor::Coded(tensor) = reader.tensor(name)? else {
        return Err(format!("{name} is not coded").into());
    };

    let (device, queue) = pollster::block_on(open())?;
    let x: Vec<f32> = (0..tensor.coded().cols).map(|i| ((i % 17) as f32 - 8.0) / 8.0).collect();
    let gpu = on_gpu(&device, &queue, name, &tensor, &x)?;
    println!("{name}: {} x {}", gpu.len(), x.len());
    println!("{:>6} {:>14} {:>14}", "row", "GPU", "CPU");
    for (row, (gpu, cpu)) in gpu.iter().zip(on_cpu(&tensor, &x)?).enumerate().take(8) {
        println!("{row:>6} {gpu:>14.6} {cpu:>14.6}");
    }
    Ok(())
}

/// The program's own device. Kernels are faster with these features, and large tensors need the adapter's limits.
async fn open() -> Result<(wgpu::Device, wgpu::Queue), Box<dyn Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await?;
    let descriptor = wgpu::DeviceDescriptor {
        required_features: adapter.features() & ecq_gpu::gpu::useful_features(),
        required_limits: adapter.limits(),
        ..Default::default()
    };
    Ok(adapter.request_device(&descriptor).await?)
}

/// `W x` with the program's buffers and encoder.
fn on_gpu(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    name: &str,
    tensor: &CodedTensor<'_>,
    x: &[f32],
) -> ecq_gpu::Result<Vec<f32>> {
    let engine = Engine::new(device, queue, Options::default())?;
    let mut weights = Weights::new(&engine, Strategy::Fused);
    let id = weights.add(name, tensor)?;
    weights.settle()?;

    let x = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: Some("x"),
        contents: bytemuck::cast_slice(x),
        usage: BufferUsages::STORAGE,
    });
    let y = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("y"),
        size: 4 * tensor.coded().rows,
        usage: BufferUsages::STORAGE | BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    weights.record(&mut encoder, id, x.slice(..), y.slice(..))?;
    queue.submit([encoder.finish()]);
    let words = ecq_gpu::engine::read(device, queue, &y, y.size())?;
    Ok(words.into_iter().map(f32::from_bits).collect())
}

/// The same from decoded weights.
fn on_cpu(tensor: &CodedTensor<'_>, x: &[f32]) -> ecq_format::Result<Vec<f32>> {
    let dequantizer = Dequantizer::of(tensor)?;
    let (mut y, mut levels) = (Vec::new(), Vec::new());
    for tile in 0..tensor.tiles() {
        tensor.levels(tile, &mut levels)?;
        let mut weights = vec![0.0; levels.len()];
        dequantizer.fill(tensor.rows(tile), &levels, &mut weights);
        let product =
            |row: &[f32]| row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum::<f64>();
        y.extend(weights.chunks(x.len()).map(|row| product(row) as f32));
    }
    Ok(y)
}

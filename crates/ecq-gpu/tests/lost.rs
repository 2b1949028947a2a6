//! A device that is gone, or has no memory left, is an error of everything that would use it; then things go on, on a new
//! device or with less.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;
mod support;

use case::{Case, vectors, with_tensor};
use ecq_format::reader::CodedTensor;
use ecq_gpu::{Engine, Error, Gpu, Matrix, Options, Packed, Strategy, Weights, upload};
use wgpu::BufferUsages;

const CASE: Case = Case { rows: 40, cols: 75, ..Case::PLAIN };

/// A product on an engine is the right one.
fn check_product(engine: &Engine, matrix: &Matrix, tensor: &CodedTensor<'_>) {
    let x = vectors(matrix.cols(), 1, 1);
    let y = support::product(engine, matrix, &x);
    reference::Weights::new(tensor).compare(&x, &y, "a product");
}

#[test]
fn everything_says_that_the_device_is_lost() {
    let Some(engine) = support::engine() else { return };
    let case = CASE;
    with_tensor(&case, |tensor| {
        let matrix = Matrix::new(&engine, "w", tensor).unwrap();
        let packed = support::decode(&engine, &matrix);
        let strategies = [Strategy::Fused, Strategy::Prefetch, Strategy::Lru { bytes: 1 << 20 }];
        let mut all = strategies.map(|strategy| {
            let mut weights = Weights::new(&engine, strategy);
            let id = weights.add("w", tensor).unwrap();
            (weights, id)
        });
        let x = support::buffer(&engine, &vec![1.0; case.cols]);
        let y = support::buffer(&engine, &vec![0.0; case.rows]);
        let (x, y) = (x.slice(..), y.slice(..));
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        matrix.record(&engine, &mut encoder, x, y).unwrap();
        engine.device().destroy();
        let is_lost = |what: &str, done: ecq_gpu::Result<()>| {
            assert!(matches!(done, Err(Error::Lost(_))), "{what}: {done:?}");
        };
        for _ in 0..2 {
            is_lost("a product", matrix.record(&engine, &mut encoder, x, y));
            is_lost("a packed one", packed.record(&engine, &mut encoder, &matrix, x, y));
            is_lost("decoding", packed.decode(&engine, &mut encoder, &matrix));
            is_lost("uploading", Matrix::new(&engine, "w", tensor).map(drop));
            is_lost("room", Packed::new(&engine, &matrix).map(drop));
            for (weights, id) in &mut all {
                is_lost("a product of weights", weights.record(&mut encoder, *id, x, y));
                is_lost("adding", weights.add("w", tensor).map(drop));
            }
            is_lost("an engine", Engine::new(engine.device(), engine.queue(), Options::default()).map(drop));
        }
        // what the message says helps
        let again = support::engine().unwrap();
        check_product(&again, &Matrix::new(&again, "w", tensor).unwrap(), tensor);
    });
}

/// wgpu refuses what would take more than a part of a device's memory, if it is asked to. For drivers that compute on the CPU
/// that is the machine's memory, which this test takes and gives back. Others may do so at the same moment: then it is tried
/// anew.
#[test]
fn no_memory_is_an_error_and_afterwards_all_is_well() {
    const NAME: &str = "llvmpipe";
    if support::gpu().is_none_or(|gpu| !gpu.adapter.get_info().name.contains(NAME)) {
        println!("not run: only {NAME} has the machine's memory for its own");
        return;
    }
    let tried = (0..9).find_map(|_| without_memory(NAME));
    tried.expect("memory that stays free for a second");
}

/// Whether there was no memory for something; `None` if there was.
fn out<T>(what: &str, done: ecq_gpu::Result<T>) -> Option<()> {
    match done {
        Err(Error::OutOfMemory { .. }) => Some(()),
        Err(other) => panic!("{what}: {other:?}"),
        Ok(_) => None,
    }
}

fn new_engine(engine: (&wgpu::Device, &wgpu::Queue)) -> ecq_gpu::Result<Engine> {
    Engine::new(engine.0, engine.1, Options::default())
}

/// `None` if somebody else took or freed memory meanwhile.
fn without_memory(adapter: &str) -> Option<()> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let (total, free) = (system.total_memory(), system.available_memory());
    let used = (100 * (total - free)).div_ceil(total);
    let (gpu, part) = (with_most(adapter, used as u8 + 3), total / 100);
    let engine = new_engine((&gpu.device, &gpu.queue)).ok()?;
    let mut done = None;
    with_tensor(&CASE, |tensor| done = in_turn(&engine, tensor, 6 * part as usize));
    done
}

/// Takes so many bytes, without which there is no memory for devices, and gives them back.
fn in_turn(engine: &Engine, tensor: &CodedTensor<'_>, bytes: usize) -> Option<()> {
    let matrix = Matrix::new(engine, "w", tensor).ok()?;
    check_product(engine, &matrix, tensor);
    let device = (engine.device(), engine.queue());
    let x = support::buffer(engine, &vec![1.0; CASE.cols]);
    let taken = vec![1u8; bytes];
    let make = || upload::buffer(engine, "x", 1 << 20, BufferUsages::STORAGE);
    out("a buffer", make())?;
    out("a matrix", Matrix::new(engine, "w", tensor))?;
    out("packed weights", Packed::new(engine, &matrix))?;
    out("an engine", new_engine(device))?;
    let words = ecq_gpu::engine::read(engine.device(), engine.queue(), &x, x.size());
    out("reading", words)?;
    drop(std::hint::black_box(taken));
    make().ok()?;
    let engine = new_engine(device).ok()?;
    check_product(&engine, &Matrix::new(&engine, "w", tensor).ok()?, tensor);
    Some(())
}

/// A device that takes no more than so many percent of the memory that there is.
fn with_most(adapter: &str, percent: u8) -> Gpu {
    let thresholds =
        wgpu::MemoryBudgetThresholds { for_resource_creation: Some(percent), for_device_loss: None };
    let descriptor = wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        memory_budget_thresholds: thresholds,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    };
    let instance = wgpu::Instance::new(descriptor);
    let all = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let own = all.into_iter().find(|a| a.get_info().name.contains(adapter)).unwrap();
    pollster::block_on(Gpu::of(own)).unwrap()
}

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
use ecq_gpu::{Engine, Error, Matrix, Options, Packed, Strategy, Weights, upload};
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

/// Drivers that compute on the CPU take what a process may have of memory; real ones are not filled up for a test.
#[cfg(target_os = "linux")]
#[test]
fn no_memory_is_an_error_and_less_still_works() {
    use nix::sys::resource::{Resource, setrlimit};
    const NAME: &str = "no_memory_is_an_error_and_less_still_works";
    const PIECE: u64 = 16 << 20;
    let Some(gpu) = support::gpu() else { return };
    if gpu.adapter.get_info().device_type != wgpu::DeviceType::Cpu {
        println!("not run: {} has memory of its own", gpu.adapter.get_info().name);
        return;
    }
    // the limit is one of a process
    if std::env::var_os("ECQ_TEST_CHILD").is_none() {
        let this = std::env::current_exe().unwrap();
        let mut child = std::process::Command::new(this);
        child.args(["--exact", NAME, "--nocapture"]).env("ECQ_TEST_CHILD", "1");
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("buffers before there was no memory"), "{said}");
        return;
    }
    let engine = Engine::new(&gpu.device, &gpu.queue, Options::default()).unwrap();
    with_tensor(&CASE, |tensor| {
        let matrix = Matrix::new(&engine, "w", tensor).unwrap();
        check_product(&engine, &matrix, tensor);
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let now = 4096 * pages.split(' ').next().unwrap().parse::<u64>().unwrap();
        setrlimit(Resource::RLIMIT_AS, now + 20 * PIECE, now + 20 * PIECE).unwrap();
        let make = |_| engine.guard("filling", || upload::buffer(&engine, "x", PIECE, BufferUsages::STORAGE));
        let mut all = Vec::new();
        let error = loop {
            match make(()) {
                Ok(buffer) if all.len() < 20 => all.push(buffer),
                Ok(_) => panic!("there is no limit"),
                Err(error) => break error,
            }
        };
        println!("{} buffers before there was no memory: {error}", all.len());
        assert!(matches!(error, Error::OutOfMemory { bytes: Some(PIECE), .. }), "{error:?}");
        assert!(all.len() > 4, "{}", all.len());
        assert!(matches!(make(()), Err(Error::OutOfMemory { .. })), "it was not for once");
        check_product(&engine, &matrix, tensor);
        drop(all);
        engine.wait().unwrap();
        make(()).unwrap();
        check_product(&engine, &Matrix::new(&engine, "w", tensor).unwrap(), tensor);
    });
}

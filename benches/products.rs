//! Products of a 4096 x 4096 matrix of 3.6 bits a weight: coded, packed, and in the layout of ggml. One thread.

#![allow(missing_docs)] // criterion's macros make public functions without any

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ecq_benches::ggml::{Q4, Q8};
use ecq_benches::tensor::{NAME, Repeated, write};
use ecq_cpu::{Matrix, Packed, Precision};
use ecq_format::directory::Scales;
use ecq_format::encode::Levels;
use ecq_format::reader::Tensor;
use ecq_format::{Limits, Reader};

const SIZE: usize = 4096;

fn products(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.ecq");
    let gaussian = Repeated::gaussian(SIZE, 1);
    write(&path, SIZE, &gaussian, 0..=0, Scales::None, false).expect("room for a file");
    let reader = Reader::open(&path, Limits::default()).expect("a sound file");
    let Ok(Tensor::Coded(tensor)) = reader.tensor(NAME) else { panic!("a coded tensor") };
    let matrix = Matrix::new(&tensor).expect("sound scales");
    let packed = Packed::new(&tensor).expect("a sound file");
    let mut levels = vec![0; SIZE * SIZE];
    gaussian.fill(0..SIZE, &mut levels);
    let q4 = Q4::new(SIZE, 0.015625, &levels);

    let mut group = c.benchmark_group("products");
    let x: Vec<f32> = (0..8 * SIZE).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
    for (precision, name) in [(Precision::Int8, "int8"), (Precision::F32, "f32")] {
        for count in [1, 8] {
            group.throughput(Throughput::Elements((SIZE * SIZE) as u64));
            let x = matrix.activations(precision, &x[..count * SIZE]);
            let mut y = vec![0.0; count * SIZE];
            group.bench_function(format!("coded, {name} x {count}"), |b| {
                b.iter(|| matrix.multiply_serial(&x, &mut y).expect("a sound file"))
            });
            let mut z = vec![0.0; count * SIZE];
            group.bench_function(format!("packed, {name} x {count}"), |b| {
                b.iter(|| packed.multiply_serial(&x, &mut z))
            });
            assert!(y.iter().zip(&z).all(|(y, z)| (y - z).abs() < 1e-3), "both are the same product");
        }
    }
    let q8 = Q8::new(&x[..SIZE]);
    let mut y = vec![0.0; SIZE];
    group.bench_function("Q4_0 x Q8_0", |b| b.iter(|| q4.multiply(&q8, &mut y)));
    group.finish();
}

criterion_group!(benches, products);
criterion_main!(benches);

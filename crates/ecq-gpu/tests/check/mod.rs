//! Products and packed weights that a device makes, against what the file says.
#![allow(dead_code)] // each test binary uses its part

use ecq_format::reader::CodedTensor;
use ecq_gpu::upload::buffer;
use ecq_gpu::{Engine, Matrix, Packed};
use wgpu::BufferUsages;

use crate::case::vectors;
use crate::{reference, support};

/// What products are made from: to compile the kernels for packed weights, too, takes twice as long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum From {
    Coded,
    Both,
}

/// Products with so many vectors at once, against plain loops in f64. Comes back with the matrix.
pub fn products(
    engine: &Engine,
    tensor: &CodedTensor<'_>,
    counts: &[usize],
    from: From,
    what: &str,
) -> Matrix {
    let weights = reference::Weights::new(tensor);
    let matrix = Matrix::new(engine, "w", tensor).unwrap();
    assert_eq!((matrix.rows(), matrix.cols()), (weights.rows, weights.cols));
    let packed = (from == From::Both).then(|| support::decode(engine, &matrix));
    for &count in counts {
        let x = vectors(weights.cols, count, 1);
        let y = support::product(engine, &matrix, &x);
        weights.compare(&x, &y, &format!("{what} x {count}"));
        if let Some(packed) = &packed {
            let y = support::packed_product(engine, &matrix, packed, &x);
            weights.compare(&x, &y, &format!("packed, {what} x {count}"));
        }
    }
    matrix
}

/// The words of packed weights, for each part, decoded over whatever was in memory before.
pub fn packed_words(engine: &Engine, matrix: &Matrix) -> Vec<Vec<u32>> {
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC;
    let room = matrix.packed_sizes().into_iter().map(|size| {
        let room = buffer(engine, "packed", size, usage).unwrap();
        engine.queue().write_buffer(&room, 0, &vec![0xa5; size as usize]);
        room
    });
    let packed = Packed::over(matrix, room.collect()).unwrap();
    support::fill(engine, matrix, &packed);
    let read = |b: &wgpu::Buffer| ecq_gpu::engine::read(engine.device(), engine.queue(), b, b.size());
    packed.buffers().iter().map(|buffer| read(buffer).unwrap()).collect()
}

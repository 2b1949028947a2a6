//! Weights that are floats: a plain loop, compiled for several instruction sets. Products and sums are in f32, whatever
//! the precision of the vectors.

use multiversion::multiversion;

use super::Panel;
use crate::activations::{Activations, Data};
use crate::{BLOCK, LANE, LANES};

/// The numbers of a block of columns, in their order.
#[inline(always)]
fn columns(x: &Data, at: usize) -> [f32; BLOCK] {
    match x {
        Data::F32(x) => {
            let x: &[f32; BLOCK] = x[at..].first_chunk().expect("vectors are whole blocks");
            std::array::from_fn(|c| x[c % LANE * LANES + c / LANE])
        }
        Data::Int8 { values, scales, .. } => {
            std::array::from_fn(|c| f32::from(values[at + c]) * scales[(at + c) / LANE])
        }
    }
}

/// Adds the products of a panel whose weights, a row every `pitch`, are `weights`.
#[multiversion(targets = "simd")]
pub(super) fn accumulate(panel: &Panel<'_>, weights: &[f32], x: &Activations, sums: &mut [f32]) {
    let count = x.count();
    for m in 0..count {
        for b in 0..panel.blocks {
            let x = columns(&x.data, m * x.padded() + (panel.block + b) * BLOCK);
            for row in 0..panel.rows {
                let weights = &weights[row * panel.pitch + b * BLOCK..][..BLOCK];
                let sums = &mut sums[(row * count + m) * LANES..][..LANES];
                for (weights, x) in weights.as_chunks::<LANES>().0.iter().zip(x.as_chunks::<LANES>().0) {
                    for ((sum, w), x) in sums.iter_mut().zip(weights).zip(x) {
                        *sum += w * x;
                    }
                }
            }
        }
    }
}

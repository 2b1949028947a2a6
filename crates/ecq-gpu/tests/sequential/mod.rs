//! Runs the twins of the kernels over all parts of a tensor, in the order in which a device runs the kernels.
#![allow(dead_code)] // each test binary uses its part

use std::collections::HashSet;

use ecq_format::reader::CodedTensor;
use ecq_gpu::host::Host;
use ecq_gpu::layout::BAND;
use ecq_gpu::tiles::Tiles;
use ecq_gpu::twins::{self, Buffers};

/// What the twins wrote.
pub struct Sequential {
    /// From coded weights.
    pub fused: Vec<f32>,
    /// From packed ones.
    pub plain: Vec<f32>,
    /// The packed weights of each part.
    pub packed: Vec<Vec<u32>>,
}

/// What is in a place that no twin has written.
const UNTOUCHED: u32 = 0x7fc0_1234;

impl Sequential {
    pub fn run(host: &Host<Vec<u32>>, x: &[f32]) -> Self {
        let (form, shape) = (&host.resident.form, &host.resident.shape);
        let numbers = shape.rows * (x.len() / shape.cols);
        let nothing = |n| vec![f32::from_bits(UNTOUCHED); n];
        let (mut sums, mut plain) = (nothing(shape.strips() * numbers), nothing(numbers));
        let mut packed = Vec::new();
        let params = host.params(false);
        for (part, params) in params.iter().enumerate() {
            let b = Buffers::of(host, part, params).unwrap();
            twins::fused(form, &b, x, &mut sums).unwrap();
            let mut weights = vec![UNTOUCHED; host.parts[part].packed as usize];
            twins::decode(form, &b, &mut weights).unwrap();
            packed.push(weights);
        }
        for (part, params) in host.params(true).iter().enumerate() {
            let b = Buffers::of(host, part, params).unwrap();
            twins::plain(form, &b, &packed[part], x, &mut plain).unwrap();
        }
        let mut fused = nothing(numbers);
        twins::finish(&params[0], &sums, &mut fused).unwrap();
        for written in [&fused, &plain] {
            assert!(written.iter().all(|y| y.to_bits() != UNTOUCHED), "not all of the product was written");
        }
        Self { fused, plain, packed }
    }
}

/// Word and bit of a row of a band (0..8) among the words of a column.
fn place(bits: usize, row: usize) -> (usize, usize) {
    let bit = if bits == 4 { row / 2 * 4 + row % 2 * 16 } else { row * bits };
    (bit / 32, bit % 32)
}

/// Compares packed weights with the levels that the tensor's own decoder finds; what an escape has instead of its level, and
/// what stands for rows behind the last one, is free.
pub fn check_packed(tensor: &CodedTensor<'_>, host: &Host<Vec<u32>>, packed: &[Vec<u32>], what: &str) {
    let (coded, shape) = (tensor.coded(), &host.resident.shape);
    let bits = host.resident.form.value.packed_bits() as usize;
    let (mut all, mut levels) = (Vec::new(), Vec::new());
    for tile in 0..tensor.tiles() {
        tensor.levels(tile, &mut levels).unwrap();
        all.extend_from_slice(&levels);
    }
    let tiles = Tiles::of(tensor).unwrap();
    let escapes = (0..tiles.units()).flat_map(|unit| tiles.unit(unit).unwrap()).flat_map(|tile| tile.escapes);
    let escapes: HashSet<_> = escapes.map(|e| (e.row, e.col)).collect();
    for (part, packed) in host.parts.iter().zip(packed) {
        for row in part.rows.clone() {
            for col in 0..shape.cols {
                if escapes.contains(&(row, col)) {
                    continue;
                }
                let level = all[row * shape.cols + col];
                let expected = match coded.pattern {
                    Some(pattern) => pattern.bits(level).unwrap().into(),
                    None => (level - coded.center) as u32 & ((1 << bits) - 1),
                };
                let (band, row) = ((row - part.rows.start) / BAND, row % BAND);
                let (word, bit) = place(bits, row);
                let got = packed[(band * shape.cols + col) * bits / 4 + word] >> bit & ((1 << bits) - 1);
                assert_eq!(got, expected, "{what}: row {row} of a band, column {col}");
            }
        }
    }
}

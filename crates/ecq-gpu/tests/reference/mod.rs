//! Weights and products in f64.
#![allow(dead_code)] // each test binary uses its part

use ecq_format::reader::CodedTensor;
use ecq_quant::values::Dequantizer;

/// The weights of a tensor, as the format says.
pub struct Weights {
    pub rows: usize,
    pub cols: usize,
    weights: Vec<f32>,
    /// What most of them are, without their signs.
    usual: f64,
}

impl Weights {
    pub fn new(tensor: &CodedTensor<'_>) -> Self {
        let coded = tensor.coded();
        let (rows, cols) = (coded.rows as usize, coded.cols as usize);
        let dequantizer = Dequantizer::of(tensor).unwrap();
        let mut weights = vec![0.0; rows * cols];
        let mut levels = Vec::new();
        for tile in 0..tensor.tiles() {
            tensor.levels(tile, &mut levels).unwrap();
            let range = tensor.rows(tile);
            dequantizer.fill(range.clone(), &levels, &mut weights[range.start * cols..range.end * cols]);
        }
        let mut sizes: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
        sizes.sort_by(f32::total_cmp);
        let usual = f64::from(sizes[sizes.len() / 2]);
        Self { rows, cols, weights, usual }
    }

    /// Compares products with vectors `x`, row by row: a row is off by no more than rounding of its terms explains.
    pub fn compare(&self, x: &[f32], y: &[f32], what: &str) {
        assert_eq!(y.len() / self.rows, x.len() / self.cols, "{what}");
        for (i, (x, y)) in x.chunks(self.cols).zip(y.chunks(self.rows)).enumerate() {
            for (row, (weights, &y)) in self.weights.chunks(self.cols).zip(y).enumerate() {
                let (mut exact, mut size) = (0.0, 0.0);
                for (&w, &x) in weights.iter().zip(x) {
                    let (w, x) = (f64::from(w), f64::from(x));
                    exact += w * x;
                    size += (w.abs() + self.usual) * x.abs();
                }
                let off = (f64::from(y) - exact).abs();
                let same = if exact.is_finite() {
                    off <= 2e-6 * size + 1e-30
                } else {
                    y.is_nan() && exact.is_nan() || f64::from(y) == exact
                };
                assert!(
                    same,
                    "{what}: row {row} of vector {i} is {y}, not {exact}: off by {off:e} of {size:e}"
                );
            }
        }
    }
}

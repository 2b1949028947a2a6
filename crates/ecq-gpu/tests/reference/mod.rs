//! Weights and products in f64.
#![allow(dead_code)] // each test binary uses its part

use ecq_format::reader::CodedTensor;
use ecq_quant::values::Dequantizer;

/// The weights of a tensor, as the format says.
pub struct Weights {
    pub rows: usize,
    pub cols: usize,
    weights: Vec<f32>,
}

impl Weights {
    pub fn new(tensor: &CodedTensor<'_>) -> Self {
        let coded = tensor.coded();
        let (rows, cols) = (coded.rows as usize, coded.cols as usize);
        let dequantizer = Dequantizer::new(coded, &tensor.side().unwrap());
        let mut weights = vec![0.0; rows * cols];
        let mut levels = Vec::new();
        for tile in 0..tensor.tiles() {
            tensor.levels(tile, &mut levels).unwrap();
            let range = tensor.rows(tile);
            dequantizer.fill(range.clone(), &levels, &mut weights[range.start * cols..range.end * cols]);
        }
        Self { rows, cols, weights }
    }

    /// Compares products with vectors `x`: within 1e-5 of the norm of the exact ones, or what rounding of so few numbers
    /// may do.
    pub fn compare(&self, x: &[f32], y: &[f32], what: &str) {
        assert_eq!(y.len() / self.rows, x.len() / self.cols, "{what}");
        for (i, (x, y)) in x.chunks(self.cols).zip(y.chunks(self.rows)).enumerate() {
            let rows = self.weights.chunks(self.cols);
            let terms = rows.map(|row| row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)));
            let (exact, sizes): (Vec<f64>, Vec<f64>) =
                terms.map(|row| row.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()))).unzip();
            let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
            let off: Vec<f64> = exact.iter().zip(y).map(|(e, &y)| f64::from(y) - e).collect();
            let most = (1e-5 * norm(&exact)).max(1e-6 * norm(&sizes));
            assert!(
                norm(&off) <= most,
                "{what}: vector {i} is off by {:e}, at most {most:e}; the first rows are {:?}, not {:?}",
                norm(&off),
                &y[..y.len().min(10)],
                &exact[..y.len().min(10)]
            );
        }
    }
}

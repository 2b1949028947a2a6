//! Products in f64.
#![allow(dead_code)] // each test binary uses its part

use ecq_cpu::{Activations, Precision};
use ecq_format::directory::{Scales, Values};
use ecq_format::reader::CodedTensor;
use ecq_quant::groups::Groups;

mod case;
pub use case::*;

/// The weights of a tensor without column scales, which vectors have in them, and offset.
pub struct Weights {
    pub rows: usize,
    pub cols: usize,
    weights: Vec<f64>,
    /// The same for vectors of integers, with which numbers of a codebook are rounded.
    rounded: Vec<f64>,
    /// What bounds the rounding error of a product with each.
    sizes: Vec<f64>,
    offset: f64,
}

impl Weights {
    pub fn new(tensor: &CodedTensor<'_>) -> Self {
        let coded = tensor.coded();
        let (rows, cols) = (coded.rows as usize, coded.cols as usize);
        let Values { step, bias, offset, scales, codebook } = coded.values;
        let by_weight = Case { scales, predictor: coded.predictor, ..Case::PLAIN }.by_weight();
        let most = codebook.map_or(0.0, |book| book.0.iter().fold(0f32, |most, v| most.max(v.abs())));
        let unit = f64::from((f64::from(most) / 127.0) as f32);
        let planes = tensor.side().unwrap();
        let groups = Groups::new(&scales, rows, cols, &planes);
        let (weights, rounded, sizes) = (Vec::new(), Vec::new(), Vec::new());
        let mut all = Self { rows, cols, weights, rounded, sizes, offset };
        let mut levels = Vec::new();
        for tile in 0..tensor.tiles() {
            tensor.levels(tile, &mut levels).unwrap();
            for (i, &level) in levels.iter().enumerate() {
                let (row, col) = (tensor.rows(tile).start + i / cols, i % cols);
                let (s, m) = match scales {
                    Scales::RowColumn { row: true, .. } => {
                        (((f64::from(planes[0][row]) - 128.0) / 8.0).exp2(), 0.0)
                    }
                    Scales::None | Scales::RowColumn { .. } => (1.0, 0.0),
                    _ => {
                        let groups = groups.as_ref().unwrap();
                        let own = groups.of_column.get(col).map(|&g| usize::from(g));
                        let (s, m) = groups.of_group(row, own.unwrap_or(col / groups.size));
                        (f64::from(s), f64::from(m))
                    }
                };
                let code = i64::from(level) - i64::from(coded.center);
                let listed =
                    codebook.filter(|_| (0..16).contains(&code)).map(|b| f64::from(b.0[code as usize]));
                let t = listed.unwrap_or(f64::from(level) + bias);
                let near = listed.filter(|_| !by_weight && unit > 0.0).map(|v| (v / unit).round() * unit);
                all.weights.push(step * (s * t + m));
                all.rounded.push(step * (s * near.unwrap_or(t) + m));
                let zero = f64::from(coded.center).abs() + bias + f64::from(most);
                let level = f64::from(level);
                all.sizes.push(step * (s.abs() * (level.abs() + 2.0 * zero) + m.abs()));
            }
        }
        all
    }

    /// Compares a product with vectors `x`, which `prepared` holds.
    pub fn compare(&self, x: &[f32], prepared: &Activations, y: &[f32], what: &str) {
        let weights = if prepared.precision() == Precision::Int8 { &self.rounded } else { &self.weights };
        for (m, (x, y)) in x.chunks(self.cols).zip(y.chunks(self.rows)).enumerate() {
            let seen: Vec<f64> = (0..self.cols).map(|col| prepared.value(m, col).into()).collect();
            let sum: f64 = x.iter().map(|&x| f64::from(x)).sum();
            for (row, &y) in y.iter().enumerate() {
                let at = row * self.cols..(row + 1) * self.cols;
                let exact: f64 = weights[at.clone()].iter().zip(&seen).map(|(w, x)| w * x).sum();
                let exact = exact + self.offset * sum;
                let size: f64 = self.sizes[at].iter().zip(&seen).map(|(w, x)| w * x.abs()).sum();
                let off = (f64::from(y) - exact).abs();
                let most = 1e-6 * (size + (self.offset * sum).abs()) + 1e-30;
                assert!(
                    off <= most,
                    "{what}: row {row} of vector {m}: {y}, not {exact} (off {off}, at most {most})"
                );
            }
        }
    }
}

//! Levels and scales back to weights: the one place where the formula of the format is computed.

use std::ops::Range;

use ecq_format::directory::{Coded, Scales, Values};
use half::f16;

/// Turns levels of a coded tensor into weights: `w = step * (s * (q + bias) + m) + offset`, in f32.
pub struct Dequantizer {
    cols: usize,
    step: f32,
    bias: f32,
    offset: f32,
    scales: Table,
}

enum Table {
    None,
    RowColumn { row: Vec<f32>, column: Vec<f32> },
    Group { size: usize, scale: Vec<f32>, min: Vec<f32> },
}

/// A scale byte: eighths of an octave around 128.
pub fn octaves(byte: u8) -> f32 {
    // 2^(i/8), so that no platform's exp2 has a say
    const EIGHTHS: [f32; 8] = [
        1.0,
        1.090_507_7,
        1.189_207_1,
        1.296_839_6,
        std::f32::consts::SQRT_2,
        1.542_210_8,
        1.681_792_9,
        1.834_008_1,
    ];
    let octave = i32::from(byte) - 128;
    EIGHTHS[octave.rem_euclid(8) as usize] * 2f32.powi(octave.div_euclid(8))
}

impl Dequantizer {
    /// For a tensor and the planes of its side data.
    pub fn new(coded: &Coded, planes: &[Vec<u8>]) -> Self {
        Self::with(&coded.values, coded.rows as usize, coded.cols as usize, planes)
    }

    pub(crate) fn with(values: &Values, rows: usize, cols: usize, planes: &[Vec<u8>]) -> Self {
        let scales = match values.scales {
            Scales::None => Table::None,
            Scales::RowColumn { row, column } => {
                let mut planes = planes.iter();
                let mut next = |present: bool, n: usize| match present {
                    true => planes.next().map_or_else(Vec::new, |p| p.iter().map(|&b| octaves(b)).collect()),
                    false => vec![1.0; n],
                };
                Table::RowColumn { row: next(row, rows), column: next(column, cols) }
            }
            Scales::Group { size, min } => {
                let halves = |i: usize| -> Vec<f32> {
                    let pairs = planes[i].iter().zip(&planes[i + 1]);
                    pairs
                        .map(|(&high, &low)| f16::from_bits(u16::from_be_bytes([high, low])).to_f32())
                        .collect()
                };
                Table::Group {
                    size: size as usize,
                    scale: halves(0),
                    min: if min { halves(2) } else { Vec::new() },
                }
            }
        };
        let Values { step, bias, offset, .. } = *values;
        Self { cols, step: step as f32, bias: bias as f32, offset: offset as f32, scales }
    }

    /// Weights of whole rows.
    pub fn fill(&self, rows: Range<usize>, levels: &[i32], out: &mut [f32]) {
        for ((row, levels), out) in
            rows.zip(levels.chunks_exact(self.cols)).zip(out.chunks_exact_mut(self.cols))
        {
            self.row(row, levels, out);
        }
    }

    fn row(&self, row: usize, levels: &[i32], out: &mut [f32]) {
        let value = |q: i32, s: f32, m: f32| self.step * (s * (q as f32 + self.bias) + m) + self.offset;
        match &self.scales {
            Table::None => out.iter_mut().zip(levels).for_each(|(w, &q)| *w = value(q, 1.0, 0.0)),
            Table::RowColumn { row: scale, column } => {
                for ((w, &q), c) in out.iter_mut().zip(levels).zip(column) {
                    *w = value(q, scale[row] * c, 0.0);
                }
            }
            Table::Group { size, scale, min } => {
                let first = row * self.cols.div_ceil(*size);
                for (g, (out, levels)) in out.chunks_mut(*size).zip(levels.chunks(*size)).enumerate() {
                    let (s, m) = (scale[first + g], min.get(first + g).copied().unwrap_or(0.0));
                    out.iter_mut().zip(levels).for_each(|(w, &q)| *w = value(q, s, m));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::octaves;

    #[test]
    fn scale_bytes_are_correctly_rounded_powers() {
        for byte in 0..=255u8 {
            let exact = ((f64::from(byte) - 128.0) / 8.0).exp2();
            assert_eq!(octaves(byte), exact as f32, "{byte}");
        }
    }
}

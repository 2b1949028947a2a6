//! Levels and scales back to weights: the one place where the formula of the format is computed.

use std::ops::Range;
use std::sync::Arc;

use ecq_format::Result;
use ecq_format::directory::{Coded, Scales, Values};
use ecq_format::pattern::{FloatFormat, Pattern};
use ecq_format::reader::CodedTensor;
use half::f16;

use crate::groups::Groups;

/// Turns levels of a coded tensor into weights: `w = step * (s * t + m) + offset`, in f32, where t is `q + bias` or from a
/// codebook; or the value of the level's bit pattern.
pub struct Dequantizer {
    cols: usize,
    step: f32,
    bias: f32,
    offset: f32,
    /// The centre, and the values of the sixteen levels from there.
    codebook: Option<(i32, [f32; 16])>,
    scales: Table,
}

/// Scales of a tensor as numbers.
pub enum Table {
    /// All are 1.
    None,
    /// Of rows and columns; those that a tensor does not have are 1.
    RowColumn {
        /// One a row.
        row: Vec<f32>,
        /// One a column.
        column: Vec<f32>,
    },
    /// Of groups of columns, for all who compute with them.
    Group(Arc<Groups>),
    /// Levels are floats by their bit patterns; there are no scales.
    Pattern(Pattern),
}

/// The value of a float from its bits, exactly; of 8-bit formats the lower byte counts.
#[inline]
pub fn from_bits(format: FloatFormat, bits: u16) -> f32 {
    match format {
        FloatFormat::Bf16 => f32::from_bits(u32::from(bits) << 16),
        FloatFormat::F16 => f16::from_bits(bits).to_f32(),
        FloatFormat::F8E5M2 => f16::from_bits(bits << 8).to_f32(),
        FloatFormat::F8E4M3 => {
            // moved to the place of a binary16's exponent and mantissa, which is biased by 8 more
            let value = f16::from_bits((bits & 0x7f) << 7).to_f32() * 256.0;
            let value = if bits & 0x7f == 0x7f { f32::NAN } else { value };
            if bits & 0x80 == 0 { value } else { -value }
        }
    }
}

/// The values of floats from their bits, little-endian: [`FloatFormat::bytes`] each.
pub fn from_bytes(format: FloatFormat, bytes: &[u8], out: &mut [f32]) {
    match format {
        FloatFormat::Bf16 | FloatFormat::F16 => {
            // the same loop twice, so that the one for BF16, mere shifts, becomes vector code
            let both = out.iter_mut().zip(bytes.as_chunks::<2>().0);
            if format == FloatFormat::Bf16 {
                both.for_each(|(w, b)| *w = from_bits(FloatFormat::Bf16, u16::from_le_bytes(*b)));
            } else {
                both.for_each(|(w, b)| *w = from_bits(FloatFormat::F16, u16::from_le_bytes(*b)));
            }
        }
        _ => out.iter_mut().zip(bytes).for_each(|(w, &b)| *w = from_bits(format, b.into())),
    }
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
    /// For a tensor of a file. Error: [`Corrupt`](ecq_format::Error::Corrupt).
    pub fn of(tensor: &CodedTensor<'_>) -> Result<Self> {
        Ok(Self::new(tensor.coded(), &tensor.side()?))
    }

    /// For a tensor and the planes of its side data.
    pub fn new(coded: &Coded, planes: &[Vec<u8>]) -> Self {
        let (rows, cols) = (coded.rows as usize, coded.cols as usize);
        let mut made = Self::with(&coded.values, coded.center, (rows, cols), planes);
        if let Some(pattern) = coded.pattern {
            made.scales = Table::Pattern(pattern);
        }
        made
    }

    /// For levels that fold at `center` in a matrix of `(rows, cols)`, and the planes that the values call for.
    pub fn with(values: &Values, center: i32, (rows, cols): (usize, usize), planes: &[Vec<u8>]) -> Self {
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
            grouped => {
                let groups = Groups::new(&grouped, rows, cols, planes);
                groups.map_or(Table::None, |groups| Table::Group(Arc::new(groups)))
            }
        };
        let Values { step, bias, offset, codebook, .. } = *values;
        let codebook = codebook.map(|book| (center, book.0));
        Self { cols, step: step as f32, bias: bias as f32, offset: offset as f32, codebook, scales }
    }

    /// The scales.
    pub fn table(&self) -> &Table {
        &self.scales
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
        if let Table::Pattern(pattern) = &self.scales {
            // the decoder refuses levels without a pattern
            let value = |q| from_bits(pattern.format, pattern.bits(q).unwrap_or(0));
            return out.iter_mut().zip(levels).for_each(|(w, &q)| *w = value(q));
        }
        // as numbers in place, then scaled in place
        match self.codebook {
            None => out.iter_mut().zip(levels).for_each(|(w, &q)| *w = q as f32 + self.bias),
            Some((center, values)) => {
                let value = |q: i32| match usize::try_from(i64::from(q) - i64::from(center)) {
                    Ok(i) if i < 16 => values[i],
                    _ => q as f32 + self.bias,
                };
                out.iter_mut().zip(levels).for_each(|(w, &q)| *w = value(q));
            }
        }
        let value = |t: f32, s: f32, m: f32| self.step * (s * t + m) + self.offset;
        match &self.scales {
            Table::None | Table::Pattern(_) => out.iter_mut().for_each(|w| *w = value(*w, 1.0, 0.0)),
            Table::RowColumn { row: scale, column } => {
                out.iter_mut().zip(column).for_each(|(w, c)| *w = value(*w, scale[row] * c, 0.0));
            }
            Table::Group(groups) if groups.of_column.is_empty() => {
                for (g, out) in out.chunks_mut(groups.size).enumerate() {
                    let (s, m) = groups.of_group(row, g);
                    out.iter_mut().for_each(|w| *w = value(*w, s, m));
                }
            }
            Table::Group(groups) => {
                for (w, &g) in out.iter_mut().zip(&groups.of_column) {
                    let (s, m) = groups.of_group(row, g.into());
                    *w = value(*w, s, m);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_of_eight_bits_have_the_values_of_their_formats() {
        for bits in 0..=255u16 {
            let sign = if bits & 0x80 == 0 { 1.0 } else { -1.0 };
            let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
            let expected = match (exponent, bits & 7) {
                (15, 7) => f32::NAN,
                (0, _) => mantissa * 2f32.powi(-9),
                _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
            };
            let found = from_bits(FloatFormat::F8E4M3, bits);
            assert!(
                found.to_bits() == (sign * expected).to_bits() || (found.is_nan() && expected.is_nan()),
                "{bits:#x}"
            );
            let (exponent, mantissa) = (i32::from(bits >> 2 & 31), f32::from(bits & 3));
            let expected = match (exponent, bits & 3) {
                (31, 0) => f32::INFINITY,
                (31, _) => f32::NAN,
                (0, _) => mantissa * 2f32.powi(-16),
                _ => (4.0 + mantissa) * 2f32.powi(exponent - 17),
            };
            let found = from_bits(FloatFormat::F8E5M2, bits);
            assert!(
                found.to_bits() == (sign * expected).to_bits() || (found.is_nan() && expected.is_nan()),
                "{bits:#x}"
            );
        }
    }

    #[test]
    fn scale_bytes_are_correctly_rounded_powers() {
        for byte in 0..=255u8 {
            let exact = ((f64::from(byte) - 128.0) / 8.0).exp2();
            assert_eq!(octaves(byte), exact as f32, "{byte}");
        }
    }
}

//! What the products `fused` and `plain` have in common: vectors, scales, sums, escapes (`kernels/product.wgsl`).

use ecq_quant::values::octaves;
use half::f16;

use super::streams::Band;
use super::{Buffers, Error, Result, get, put};
use crate::layout::BAND;
use crate::variant::{Escapes, Form, Grouped};

/// What is added up in a band for a vector, in kernels by each lane.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// For each row: its weights times x, before what is the same for all columns.
    rows: [f32; BAND],
    /// Of x times factors of columns, for the constant that all levels lack.
    scaled: f32,
    /// Of x, for the offset of all weights.
    plain: f32,
}

/// A product under way: the vectors, and the sums of a band.
pub struct Product<'a> {
    form: &'a Form,
    b: &'a Buffers<'a>,
    x: &'a [f32],
    /// For each vector.
    sums: Vec<Sums>,
}

impl<'a> Product<'a> {
    /// With the vectors that lie one after another in `x`, for results in `y`, for each of so many strips.
    ///
    /// Error: [`Error::Parameters`] for no whole number of vectors, or for results of another size.
    pub(super) fn new(
        form: &'a Form,
        b: &'a Buffers<'a>,
        x: &'a [f32],
        y: &[f32],
        strips: u32,
    ) -> Result<Self> {
        let (rows, cols) = (b.params.rows as usize, b.params.cols as usize);
        if !x.len().is_multiple_of(cols) {
            let (expected, got) = (format!("a multiple of {cols} numbers"), x.len().to_string());
            return Err(Error::Parameters { what: "x", expected, got });
        }
        let vectors = x.len() / cols;
        if rows.checked_mul(vectors).and_then(|n| n.checked_mul(strips as usize)) != Some(y.len()) {
            let expected = format!("{rows} numbers for each of {vectors} vectors and {strips} strips");
            return Err(Error::Parameters { what: "y", expected, got: y.len().to_string() });
        }
        Ok(Self { form, b, x, sums: vec![Sums::default(); vectors] })
    }

    /// Begins a band.
    pub(super) fn begin(&mut self) {
        self.sums.fill(Sums::default());
    }

    /// Adds the values of a column, one for each row of the band.
    pub(super) fn column(&mut self, band: &Band, col: u32, values: &[f32]) -> Result<()> {
        let (form, p) = (self.form, self.b.params);
        let mut weights = [0.0; BAND];
        for (row, (weight, &value)) in weights.iter_mut().zip(values).enumerate() {
            *weight = match form.groups {
                Some(groups) => {
                    let (factor, summand) = self.scale_of(groups, band.row, row as u32, col)?;
                    factor.mul_add(value + p.constant, summand)
                }
                None => value,
            };
        }
        let factor = self.factor_of(col)?;
        for (i, sums) in self.sums.iter_mut().enumerate() {
            let x = get("x", self.x, i as u64 * u64::from(p.cols) + u64::from(col))?;
            let scaled = x * factor;
            sums.plain += x;
            sums.scaled += scaled;
            for (sum, weight) in sums.rows.iter_mut().zip(weights) {
                *sum = weight.mul_add(scaled, *sum);
            }
        }
        Ok(())
    }

    /// Adds the band's escapes, if this is the first strip, and writes its products.
    pub(super) fn end(&mut self, band: &Band, strip: u32, y: &mut [f32]) -> Result<()> {
        if self.form.escapes != Escapes::None && strip == 0 {
            self.escapes(band)?;
        }
        let (form, p) = (self.form, self.b.params);
        for (i, sums) in self.sums.iter().enumerate() {
            let result = strip as usize * self.sums.len() + i;
            for (row, sum) in sums.rows.iter().enumerate().take(band.rows as usize) {
                let row = u64::from(band.row) + row as u64;
                // with scales of groups the constant is in the weights already
                let constant = form.groups.is_none() && p.constant != 0.0;
                let sum = if constant { sum + p.constant * sums.scaled } else { *sum };
                let mut product = p.step * self.row_factor(row)? * sum;
                if form.offset {
                    product += p.offset * sums.plain;
                }
                put("y", y, result as u64 * u64::from(p.rows) + row, product)?;
            }
        }
        Ok(())
    }

    /// Adds what the levels of escapes have more than their nibbles and raw bits say.
    ///
    /// `escapes` begins with a word for each band of the matrix, where its escapes are, and one for the end. One of them is
    /// a word with column, row in the band and difference, or two, of which the second is the difference as an f32.
    fn escapes(&mut self, band: &Band) -> Result<()> {
        let words = self.b.escapes;
        let index = u64::from(band.row) / BAND as u64;
        let [begin, end] = [index, index + 1].map(|at| get("escapes", words, at));
        for at in u64::from(begin?)..end?.into() {
            let (col, row, more) = if self.form.escapes == Escapes::Wide {
                let place = get("escapes", words, 2 * at)?;
                (place & 0x1fff_ffff, place >> 29, f32::from_bits(get("escapes", words, 2 * at + 1)?))
            } else {
                let place = get("escapes", words, at)?;
                (place & 0xffff, place >> 16 & 7, (place as i32 >> 19) as f32)
            };
            self.escape(band, col, row, more)?;
        }
        Ok(())
    }

    fn escape(&mut self, band: &Band, col: u32, row: u32, more: f32) -> Result<()> {
        let p = self.b.params;
        if col >= p.cols || row >= band.rows {
            let expected = format!("one of {} rows and {} columns", band.rows, p.cols);
            return Err(Error::Parameters {
                what: "escape",
                expected,
                got: format!("row {row}, column {col}"),
            });
        }
        let factor = match self.form.groups {
            Some(groups) => self.scale_of(groups, band.row, row, col)?.0,
            None => self.factor_of(col)?,
        };
        for (i, sums) in self.sums.iter_mut().enumerate() {
            let x = get("x", self.x, i as u64 * u64::from(p.cols) + u64::from(col))?;
            sums.rows[row as usize] += more * factor * x;
        }
        Ok(())
    }

    /// Factor and summand of a column's group in a row of a band.
    fn scale_of(&self, groups: Grouped, band_row: u32, row: u32, col: u32) -> Result<(f32, f32)> {
        let (p, side) = (self.b.params, self.b.side);
        let group = if groups.mapped {
            get("side", side, u64::from(p.map) + u64::from(col))?
        } else {
            col / groups.size
        };
        let row = u64::from(band_row) + u64::from(row);
        let at = (row * u64::from(p.groups)).saturating_add(group.into());
        // halves of a word, or words; with summands two of them, the factor first
        let number = |at: u64| -> Result<f32> {
            Ok(match groups.half {
                true => f16::from_bits((get("side", side, at / 2)? >> (at % 2 * 16)) as u16).to_f32(),
                false => f32::from_bits(get("side", side, at)?),
            })
        };
        match groups.min {
            true => Ok((number(at.saturating_mul(2))?, number(at.saturating_mul(2).saturating_add(1))?)),
            false => Ok((number(at)?, 0.0)),
        }
    }

    /// The factor of a column.
    fn factor_of(&self, col: u32) -> Result<f32> {
        match self.form.columns {
            true => get("side", self.b.side, col.into()).map(f32::from_bits),
            false => Ok(1.0),
        }
    }

    /// The factor of a row: a byte in eighths of octaves.
    fn row_factor(&self, row: u64) -> Result<f32> {
        if !self.form.rows {
            return Ok(1.0);
        }
        let word = get("side", self.b.side, u64::from(self.b.params.row_bytes) + row / 4)?;
        Ok(octaves((word >> (row % 4 * 8)) as u8))
    }
}

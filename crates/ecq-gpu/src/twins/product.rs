//! What the products `fused` and `plain` have in common: vectors, scales, sums, escapes (`kernels/product.wgsl`).

use ecq_quant::values::octaves;

use super::escapes::{self, Escape};
use super::scales::{band_of, scale_of};
use super::streams::Band;
use super::{Buffers, Error, Result, get, put};
use crate::layout::BAND;
use crate::variant::{Form, Value};

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

    /// Makes all of the product, from what `value` says of a row of the part and a column, where weights are in one strip.
    pub(super) fn of_rows(
        &mut self,
        y: &mut [f32],
        mut value: impl FnMut(u32, u32) -> Result<f32>,
    ) -> Result<()> {
        let p = self.b.params;
        for row in (p.first_row..p.end_row).step_by(BAND) {
            let band = Band { row, rows: (p.end_row - row).min(BAND as u32), raw: 0 };
            self.begin();
            for col in 0..p.cols {
                let mut values = [0.0; BAND];
                let values = &mut values[..band.rows as usize];
                for (which, number) in (row - p.first_row..).zip(values.iter_mut()) {
                    *number = value(which, col)?;
                }
                self.column(&band, col, values)?;
            }
            self.end(&band, 0, y)?;
        }
        Ok(())
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
                    let (factor, summand) = scale_of(p, self.b.side, &groups, band.row, row as u32, col)?;
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
        if self.form.escapes && strip == 0 {
            self.escapes(band)?;
        }
        let (form, p) = (self.form, self.b.params);
        for (i, sums) in self.sums.iter().enumerate() {
            let result = strip as usize * self.sums.len() + i;
            for (row, sum) in sums.rows.iter().enumerate().take(band.rows as usize) {
                // with scales of groups the constant is in the weights already
                let constant = form.groups.is_none() && p.constant != 0.0;
                let sum = if constant { sum + p.constant * sums.scaled } else { *sum };
                let mut product = p.step * self.row_factor(band, row)? * sum;
                if form.offset {
                    product += p.offset * sums.plain;
                }
                put("y", y, result as u64 * u64::from(p.rows) + u64::from(band.row) + row as u64, product)?;
            }
        }
        Ok(())
    }

    /// Adds what escapes have more than streams have in their places.
    fn escapes(&mut self, band: &Band) -> Result<()> {
        let b = self.b;
        escapes::each(b.params, b.escapes, band, |escape| self.escape(band, escape))
    }

    fn escape(&mut self, band: &Band, escape: Escape) -> Result<()> {
        let p = self.b.params;
        let Escape { row, col, value, less } = escape;
        if col >= p.cols || row >= band.rows {
            let expected = format!("one of {} rows and {} columns", band.rows, p.cols);
            return Err(Error::Parameters {
                what: "escape",
                expected,
                got: format!("row {row}, column {col}"),
            });
        }
        let factor = match self.form.groups {
            Some(groups) => scale_of(p, self.b.side, &groups, band.row, row, col)?.0,
            None => self.factor_of(col)?,
        };
        for (i, sums) in self.sums.iter_mut().enumerate() {
            let x = factor * get("x", self.x, i as u64 * u64::from(p.cols) + u64::from(col))?;
            let sum = &mut sums.rows[row as usize];
            *sum = match self.form.value {
                Value::Float { .. } => *sum - less * x + value * x,
                _ => *sum + (value - less) * x,
            };
        }
        Ok(())
    }

    /// The factor of a column: a byte in eighths of octaves.
    fn factor_of(&self, col: u32) -> Result<f32> {
        if !self.form.columns {
            return Ok(1.0);
        }
        // behind eight words
        let word = get("side", self.b.side, 8 + u64::from(col / 4))?;
        Ok(octaves((word >> (col % 4 * 8)) as u8))
    }

    /// The factor of a row: likewise.
    fn row_factor(&self, band: &Band, row: usize) -> Result<f32> {
        if !self.form.rows {
            return Ok(1.0);
        }
        let word = get("side", self.b.side, band_of(self.b.params, band.row) + row as u64 / 4)?;
        Ok(octaves((word >> (row % 4 * 8)) as u8))
    }
}

//! The twin of `kernels/fused.wgsl`.

use super::product::Product;
use super::streams::{Stream, start};
use super::values::{raw_bits, value};
use super::{Buffers, Result, nibble};
use crate::layout::BAND;
use crate::variant::{Code, Form};

/// Coded weights of a part × the vectors that lie one after another in `x`, of `p.cols` numbers each.
///
/// Writes the part's rows of `y`: for each strip, for each vector, `p.rows` numbers. With several strips these are sums
/// that [`finish()`](super::finish()) adds up.
///
/// Errors: those of [`Error`](super::Error).
pub fn fused(form: &Form, b: &Buffers<'_>, x: &[f32], y: &mut [f32]) -> Result<()> {
    b.check(form)?;
    let p = b.params;
    let mut product = Product::new(form, b, x, y, p.strips)?;
    if let Code::Nibble { lanes } = form.code {
        return if x.is_empty() { Ok(()) } else { nibble::fused(form, lanes, b, product, y) };
    }
    for stream in 0..p.streams {
        let stream = Stream::find(b, stream)?;
        let mut lanes = start(form.code, b, &stream)?;
        for band in stream.bands(form, p.cols) {
            product.begin();
            for block in stream.blocks() {
                let nibbles = lanes.nibbles(block.len(), band.pairs())?;
                for (lane, col) in block.enumerate() {
                    let mut values = [0.0; BAND];
                    let values = &mut values[..band.rows as usize];
                    for (row, number) in values.iter_mut().enumerate() {
                        let raw = raw_bits(form, b, &band, row, col)?;
                        *number = value(form, b.codes, nibbles[lane][row], raw)?;
                    }
                    product.column(&band, col, values)?;
                }
            }
            product.end(&band, stream.strip, y)?;
        }
    }
    Ok(())
}

//! The twin of `kernels/plain.wgsl`.

use super::product::Product;
use super::values::{mask, packed_place, packed_value};
use super::{Buffers, Result, get};
use crate::layout::BAND;
use crate::variant::Form;

/// Packed weights of a part, as [`decode()`](super::decode()) writes them, × the vectors that lie one after another in `x`.
///
/// Writes the part's rows of `y`: for each vector `p.rows` numbers. Of `b` it reads no words of streams; `b.params` must be
/// those of packed weights.
///
/// Errors: those of [`Error`](super::Error).
pub fn plain(form: &Form, b: &Buffers<'_>, packed: &[u32], x: &[f32], y: &mut [f32]) -> Result<()> {
    b.check(form)?;
    let p = b.params;
    let bits = form.value.packed_bits();
    let words = bits / 4;
    Product::new(form, b, x, y, 1)?.of_rows(y, |row, col| {
        let at = (u64::from(row / BAND as u32) * u64::from(p.cols) + u64::from(col)) * u64::from(words);
        let (word, bit) = packed_place(bits, row % BAND as u32);
        let stored = get("packed", packed, at + u64::from(word))? >> bit & mask(bits);
        packed_value(form, b.codes, stored)
    })
}

//! The twin of `kernels/decode.wgsl`.

use super::streams::{Stream, start};
use super::values::{packed_of, packed_place, raw_bits};
use super::{Buffers, Result, nibble, put};
use crate::layout::BAND;
use crate::variant::{Code, Form};

/// Coded weights of a part to packed ones of [`packed_bits`](crate::variant::Value::packed_bits), 4, 8 or 16.
///
/// `packed` has, for each band of the part and each column, the eight rows side by side: one, two or four words. What
/// stands for rows that the last band does not have means nothing, and may differ from what a kernel leaves there.
///
/// Errors: those of [`Error`](super::Error).
pub fn decode(form: &Form, b: &Buffers<'_>, packed: &mut [u32]) -> Result<()> {
    b.check(form)?;
    let p = b.params;
    if let Code::Nibble { lanes } = form.code {
        return nibble::decode(form, lanes, b, packed);
    }
    let bits = form.value.packed_bits();
    let words = bits / 4;
    for stream in 0..p.streams {
        let stream = Stream::find(b, stream)?;
        let mut lanes = start(form.code, b, &stream)?;
        for band in stream.bands(form, p.cols) {
            for block in stream.blocks() {
                let nibbles = lanes.nibbles(block.len(), band.pairs())?;
                for (lane, col) in block.enumerate() {
                    let mut column = [0; 4];
                    for (row, &nibble) in nibbles[lane].iter().enumerate() {
                        let raw = raw_bits(form, b, &band, row, col)?;
                        let (word, bit) = packed_place(bits, row as u32);
                        column[word as usize] |= packed_of(form, nibble, raw) << bit;
                    }
                    let index = u64::from((band.row - p.first_row) / BAND as u32);
                    let at = (index * u64::from(p.cols) + u64::from(col)) * u64::from(words);
                    for (i, word) in column.iter().enumerate().take(words as usize) {
                        put("packed", packed, at + i as u64, *word)?;
                    }
                }
            }
        }
    }
    Ok(())
}

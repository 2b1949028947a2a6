//! From nibbles and raw bits to what is added up, and to packed weights (`kernels/values.wgsl`).

use ecq_format::pattern::Pattern;
use ecq_quant::values::from_bits;

use super::streams::Band;
use super::{Buffers, Result, get};
use crate::variant::{Code, Field, Form, Value};

/// Raw bits of a row of a band (0..8) in a column: field by field, each with the bits of all columns of the band.
pub(super) fn raw_bits(form: &Form, b: &Buffers<'_>, band: &Band, row: usize, col: u32) -> Result<u32> {
    let (mut raw, mut at) = (0, band.raw);
    for field in Field::of(form.value.raw_bits()) {
        let (word, bit) = field.position(row, col as usize);
        let word = get("words", b.words, at + word as u64)?;
        raw |= (word >> bit & ((1 << field.width) - 1)) << field.low;
        at += field.band_words(b.params.cols.into());
    }
    Ok(raw)
}

/// What `fused` adds up for a level of this nibble and these raw bits. `p.constant` is what it lacks.
pub(super) fn value(form: &Form, codes: &[u32], nibble: u8, raw: u32) -> Result<f32> {
    Ok(match form.value {
        Value::Integer { raw_bits: 0 } => match form.code {
            Code::Prefix | Code::Nibble { .. } => f32::from(nibble) - 7.5, // entries of the table hold it as such
            Code::Rans => sixteen(nibble),
        },
        Value::Integer { raw_bits } => half_integer(integer(nibble, raw, raw_bits)),
        Value::Codebook => book(codes, nibble)?,
        Value::Float { pattern, raw_bits } => float(pattern, float_bits(pattern, nibble, raw, raw_bits)),
    })
}

/// What `decode` stores for a level of this nibble and these raw bits: [`Value::packed_bits`] bits.
pub(super) fn packed_of(form: &Form, nibble: u8, raw: u32) -> u32 {
    match form.value {
        Value::Integer { raw_bits: 0 } | Value::Codebook => nibble.into(),
        Value::Integer { raw_bits } => integer(nibble, raw, raw_bits) as u32 & mask(form.value.packed_bits()),
        Value::Float { pattern, raw_bits } => float_bits(pattern, nibble, raw, raw_bits),
    }
}

/// What `plain` adds up for such bits. `p.constant` of packed weights is what it lacks.
pub(super) fn packed_value(form: &Form, codes: &[u32], bits: u32) -> Result<f32> {
    Ok(match form.value {
        Value::Integer { raw_bits: 0 } => sixteen(bits as u8),
        Value::Integer { .. } => {
            let above = 32 - form.value.packed_bits();
            half_integer((bits << above) as i32 >> above)
        }
        Value::Codebook => book(codes, bits as u8)?,
        Value::Float { pattern, .. } => float(pattern, bits),
    })
}

/// Where packed weights have a row of a band (0..8): which of the words of a column, and from which bit on. Of 4 bits the
/// two rows of a pair are halves of the word.
pub(super) fn packed_place(bits: u32, row: u32) -> (u32, u32) {
    match bits {
        4 => (0, row / 2 * 4 + row % 2 * 16),
        _ => (row * bits / 32, row * bits % 32),
    }
}

/// So many ones.
pub(super) fn mask(bits: u32) -> u32 {
    (1 << bits) - 1
}

/// Nibbles are the highest bits of the mantissa of a number from 16 to 31.
fn sixteen(nibble: u8) -> f32 {
    16.0 + f32::from(nibble)
}

/// A nibble above all raw bits but the highest, which is the sign and says that they are inverted.
fn integer(nibble: u8, raw: u32, raw_bits: u32) -> i32 {
    let low = raw_bits - 1;
    let k = (u32::from(nibble) << low | raw & mask(low)) as i32;
    if raw >> low & 1 == 0 { k } else { !k }
}

/// Half more, which makes levels of both signs alike: k and !k become ±(k + 1/2).
fn half_integer(level: i32) -> f32 {
    level as f32 + 0.5
}

/// `codes` ends with the codebook.
fn book(codes: &[u32], nibble: u8) -> Result<f32> {
    get("codes", codes, codes.len().saturating_sub(16) as u64 + u64::from(nibble)).map(f32::from_bits)
}

/// The bits of a float: its magnitude is counted from the pattern's base, the highest raw bit is the sign.
fn float_bits(pattern: Pattern, nibble: u8, raw: u32, raw_bits: u32) -> u32 {
    let (low, sign) = (raw_bits.saturating_sub(1), pattern.format.bits() - 1);
    let k = u32::from(nibble) << low | raw & mask(low);
    let magnitude = k.wrapping_add(pattern.base) & mask(sign);
    magnitude | (raw >> low & 1) << sign
}

fn float(pattern: Pattern, bits: u32) -> f32 {
    from_bits(pattern.format, bits as u16)
}

//! The twins of `kernels/nibble_fused.wgsl` and `nibble_decode.wgsl`, and the way through streams of the `nibble` codec
//! (`nibble.wgsl`).

use super::product::Product;
use super::values::{packed_of, packed_place, value};
use super::{Buffers, Error, Result, get};
use crate::layout::BAND;
use crate::variant::{Field, Form};

/// Nibble and raw bits of a weight.
type Weight = (u8, u32);

/// A lane of a stream.
struct Lane {
    state: u32,
    /// Symbols that are still to come; the last two are verbatim.
    left: u32,
}

/// A product from coded weights; see [`fused()`](super::fused()).
pub(super) fn fused(
    form: &Form,
    lanes: u32,
    b: &Buffers<'_>,
    mut product: Product<'_>,
    y: &mut [f32],
) -> Result<()> {
    let (weights, cols) = (part(form, lanes, b)?, b.params.cols as usize);
    product.of_rows(y, |row, col| {
        let (nibble, raw) = weights[row as usize * cols + col as usize];
        value(form, b.codes, nibble, raw)
    })
}

/// Coded weights to packed ones; see [`decode()`](super::decode()). Rows behind the last one stay as they were.
pub(super) fn decode(form: &Form, lanes: u32, b: &Buffers<'_>, packed: &mut [u32]) -> Result<()> {
    let (p, bits) = (b.params, form.value.packed_bits());
    let (cols, words) = (p.cols as usize, bits as usize / 4);
    let needed =
        u64::from((p.end_row - p.first_row).div_ceil(BAND as u32)) * u64::from(p.cols) * words as u64;
    let len = packed.len();
    if (len as u64) < needed {
        return Err(Error::Outside { buffer: "packed", at: needed - 1, len });
    }
    for (i, (nibble, raw)) in part(form, lanes, b)?.into_iter().enumerate() {
        let (row, col) = (i / cols, i % cols);
        let (word, bit) = packed_place(bits, (row % BAND) as u32);
        let at = (row / BAND * cols + col) * words + word as usize;
        let mask = ((1u64 << bits) - 1) as u32;
        packed[at] = packed[at] & !(mask << bit) | packed_of(form, nibble, raw) << bit;
    }
    Ok(())
}

/// All weights of a part, row by row.
fn part(form: &Form, lanes: u32, b: &Buffers<'_>) -> Result<Vec<Weight>> {
    if lanes == 0 || lanes > 1024 || !lanes.is_multiple_of(64) {
        let (expected, got) = ("a multiple of 64 up to 1024".into(), lanes.to_string());
        return Err(Error::Parameters { what: "lanes", expected, got });
    }
    let (p, mut weights) = (b.params, Vec::new());
    let mut row = p.first_row;
    for tile in 0..p.streams {
        let rows = (p.end_row - row).min(p.tile_rows);
        let count = rows as usize * p.cols as usize;
        let [raw, stream] = [0, 1].map(|i| get("first", b.first, 2 * u64::from(tile) + i).map(u64::from));
        let nibbles = nibbles(lanes, b, stream?, rows)?;
        let raw = raw?;
        for (position, nibble) in nibbles.into_iter().enumerate() {
            weights.push((nibble, raw_bits(form, b, raw, count as u64, position as u64)?));
        }
        row += rows;
    }
    Ok(weights)
}

/// Raw bits of a position: planes of fields as the file has them.
fn raw_bits(form: &Form, b: &Buffers<'_>, mut plane: u64, count: u64, position: u64) -> Result<u32> {
    let mut raw = 0;
    for Field { width, low } in Field::of(form.value.raw_bits()) {
        let bit = position * u64::from(width);
        let word = get("words", b.words, plane + bit / 32)?;
        raw |= (word >> (bit % 32) & ((1 << width) - 1)) << low;
        plane += (count * u64::from(width)).div_ceil(32);
    }
    Ok(raw)
}

/// The nibbles of a tile. In a step every lane takes a symbol, groups ascending, lanes ascending in each.
fn nibbles(lanes: u32, b: &Buffers<'_>, stream: u64, rows: u32) -> Result<Vec<u8>> {
    let count = rows as usize * b.params.cols as usize;
    // positions of a group
    let strip = rows.div_ceil(lanes / 64) as usize * b.params.cols as usize;
    let first = get("codes", b.codes, 0)?;
    let lone = first & 0x1ff == 256;
    let mut all = Vec::with_capacity(lanes as usize);
    for lane in 0..lanes {
        let word = if lone { 0 } else { get("words", b.words, stream + u64::from(lane / 2))? };
        let state = if lone { 0x100 | ((first >> 28) * 17) } else { word >> (lane % 2 * 16) & 0xffff };
        let symbols = count.saturating_sub(lane as usize / 64 * strip).min(strip);
        let left = (symbols + 63 - lane as usize % 64) / 64;
        all.push(Lane { state, left: left as u32 });
    }
    let (mut nibbles, mut at) = (vec![0; count], if lone { 0 } else { 2 * u64::from(lanes) });
    for step in 0..strip.div_ceil(64) {
        for (number, lane) in all.iter_mut().enumerate().filter(|(_, lane)| lane.left > 0) {
            let position = number / 64 * strip + 64 * step + number % 64;
            nibbles[position] = lane.next(b, stream, &mut at)?;
        }
    }
    Ok(nibbles)
}

impl Lane {
    /// Its next symbol; `at` is the byte of the stream that comes next.
    fn next(&mut self, b: &Buffers<'_>, stream: u64, at: &mut u64) -> Result<u8> {
        self.left -= 1;
        if self.left < 2 {
            let symbol = self.state & 15;
            self.state >>= 4;
            return Ok(symbol as u8);
        }
        let code = get("codes", b.codes, u64::from(self.state & 255))?;
        // states are of 16 bits, unless the table or the stream is damaged
        let state = (code & 0x1ff).wrapping_mul(self.state >> 8).wrapping_add(code >> 9 & 0xff);
        self.state = state;
        if state < 256 {
            let byte = get("words", b.words, stream + *at / 4)? >> (*at % 4 * 8) & 0xff;
            self.state = state << 8 | byte;
            *at += 1;
        }
        Ok((code >> 28) as u8)
    }
}

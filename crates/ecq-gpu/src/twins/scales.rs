//! Scales of groups, the twin of `kernels/scales.wgsl`.

use half::f16;

use super::{Result, get};
use crate::layout::BAND;
use crate::params::Params;
use crate::scales::{Format, Grouped, Number, Record, Rule};

/// The first word of the band of a row in the side data.
pub(super) fn band_of(p: &Params, row: u32) -> u64 {
    u64::from(p.records) + u64::from(row.saturating_sub(p.first_row) / BAND as u32) * u64::from(p.stride)
}

/// `width` bits from a bit on, which is counted from a word.
pub(super) fn bits(buffer: &'static str, words: &[u32], first: u64, bit: u64, width: u32) -> Result<u32> {
    let (word, bit, width) = (first.saturating_add(bit / 32), bit % 32, width.min(32));
    if width == 0 {
        return Ok(0);
    }
    let low = u64::from(get(buffer, words, word)?);
    let high = if bit + u64::from(width) > 32 { get(buffer, words, word.saturating_add(1))? } else { 0 };
    Ok(((u64::from(high) << 32 | low) >> bit & ((1 << width) - 1)) as u32)
}

/// The number that these bits mean.
pub(super) fn value(format: Format, bits: u32) -> f32 {
    match format {
        Format::Half | Format::SmallHalf => f16::from_bits(bits as u16).to_f32(),
        Format::Bf16 => f32::from_bits(bits << 16),
        Format::F32 => f32::from_bits(bits),
        Format::Integer => bits as i32 as f32,
    }
}

/// Reads numbers: what they share from `head` on, their codes from a word and a bit on.
struct Numbers<'a> {
    side: &'a [u32],
    head: u64,
    word: u64,
    bit: u64,
}

impl Numbers<'_> {
    /// The next one, of a row among so many that lie side by side.
    fn next(&mut self, number: &Number, row: u32, rows: u32) -> Result<f32> {
        let mut sum = get("side", self.side, self.head)?;
        self.head += 1;
        for piece in number.pieces.iter().filter(|piece| piece.width > 0) {
            let bit = self.bit.saturating_add(u64::from(row) * u64::from(piece.width));
            let code = bits("side", self.side, self.word, bit, piece.width)?;
            self.bit = self.bit.saturating_add(u64::from(rows) * u64::from(piece.width));
            if piece.table {
                sum = sum.wrapping_add(get("side", self.side, self.head.saturating_add(code.into()))?);
                self.head = self.head.saturating_add(1 << piece.width.min(32));
            } else {
                sum = sum.wrapping_add(code.wrapping_shl(piece.shift));
            }
        }
        Ok(value(number.format, sum))
    }

    /// The numbers of a record, which has this place among those of its band.
    fn record(&mut self, record: &Record, word: u64, index: u32, row: u32) -> Result<(f32, Option<f32>)> {
        let bytes: u32 =
            [Some(&record.factor), record.other.as_ref()].into_iter().flatten().map(Number::bits).sum();
        (self.word, self.bit) = (word, 8 * u64::from(index) * u64::from(bytes));
        let factor = self.next(&record.factor, row, BAND as u32)?;
        let other = record.other.as_ref().map(|other| self.next(other, row, BAND as u32)).transpose()?;
        Ok((factor, other))
    }
}

/// Factor and summand of a column's group in row `row` (0..8) of the band that begins at `band_row`. `side` is the side data
/// of a part with the parameters `p`.
///
/// Error: [`Outside`](super::Error::Outside).
pub fn scale_of(
    p: &Params,
    side: &[u32],
    groups: &Grouped,
    band_row: u32,
    row: u32,
    col: u32,
) -> Result<(f32, f32)> {
    let group = match groups.map_bits {
        0 => col / groups.size,
        width => bits("side", side, groups.head() as u64, u64::from(col) * u64::from(width), width)?,
    };
    let band = band_of(p, band_row);
    let mut numbers = Numbers { side, head: 0, word: 0, bit: 0 };
    let (a, b) = numbers.record(&groups.numbers, band, group, row)?;
    let b = b.unwrap_or(0.0);
    Ok(match groups.rule {
        Rule::Plain => (a, b),
        Rule::Zero => (a, -(a * b)),
        Rule::Nested { supers, shared } => {
            let word = band.saturating_add(p.shared_at.into());
            let (d, e) = numbers.record(&shared, word, group / supers.max(1), row)?;
            (d * a, e.map_or(0.0, |e| -(e * b)))
        }
        Rule::Run { supers, shared } => {
            let offset = f32::from_bits(get("side", side, numbers.head)?);
            numbers.head += 1;
            let row = u64::from(band_row.saturating_sub(p.first_row)) + u64::from(row);
            let group = row.saturating_mul(p.groups.into()).saturating_add(group.into());
            let run = group.saturating_add(p.phase.into()) / u64::from(supers.max(1));
            (numbers.word, numbers.bit) = (p.shared_at.into(), run.saturating_mul(shared.bits().into()));
            (a * numbers.next(&shared, 0, 1)? + offset, 0.0)
        }
    })
}

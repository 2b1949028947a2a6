//! Escapes, the twin of `kernels/escapes.wgsl`.

use super::scales::{bits, value};
use super::streams::Band;
use super::{Error, Result, get};
use crate::layout::BAND;
use crate::params::Params;
use crate::scales::Format;

/// An escape of a band.
#[derive(Clone, Copy, Debug)]
pub(super) struct Escape {
    /// Its row in the band.
    pub row: u32,
    /// Its column.
    pub col: u32,
    /// Its value.
    pub value: f32,
    /// What the stream has in its place.
    pub less: f32,
}

/// A list of escapes: what memory says of it.
struct List {
    columns: u32,
    width: u32,
    /// Whether codes are places in a table.
    table: bool,
    /// Where the least value is, and the table behind it.
    least: u64,
    records: u64,
}

/// Calls `escape` for all escapes of a band.
pub(super) fn each(
    p: &Params,
    words: &[u32],
    band: &Band,
    mut escape: impl FnMut(Escape) -> Result<()>,
) -> Result<()> {
    let word = |at: u64| get("escapes", words, at);
    let [less, plus] = [f32::from_bits(word(0)?), f32::from_bits(word(1)?)];
    let format = format_of(word(2)?)?;
    let index = u64::from((band.row - p.first_row) / BAND as u32);
    let bands = u64::from((p.end_row - p.first_row).div_ceil(BAND as u32));
    for list in (0..u64::from(word(3)?)).map(|list| 4 + 5 * list) {
        let starts = u64::from(word(list)?);
        let columns = word(list + 1)?.min(31);
        let buckets = u64::from((p.cols - 1) >> columns) + 1;
        let (width, table) = (word(list + 2)?.min(32), word(list + 3)? != 0);
        let (least, records) = (u64::from(word(list + 4)?), starts + bands * buckets + 1);
        let list = List { columns, width, table, least, records };
        let start = |bucket: u64| Ok(u64::from(word(starts + index * buckets + bucket)?));
        let mut bucket = 0;
        for at in start(0)?..start(buckets)? {
            while bucket + 1 < buckets && start(bucket + 1)? <= at {
                bucket += 1;
            }
            let (row, col, bits) = list.escape(words, at)?;
            let col = col.saturating_add((bucket << columns) as u32);
            escape(Escape { row, col, value: value(format, bits) + plus, less })?;
        }
    }
    Ok(())
}

impl List {
    /// Row, column in the bucket, and the bits of the value.
    fn escape(&self, words: &[u32], at: u64) -> Result<(u32, u32, u32)> {
        let bit = at * (3 + u64::from(self.columns) + u64::from(self.width));
        let part = |skip: u32, width| bits("escapes", words, self.records, bit + u64::from(skip), width);
        let code = part(3 + self.columns, self.width)?;
        let more = if self.table { get("escapes", words, self.least + 1 + u64::from(code))? } else { code };
        let all = get("escapes", words, self.least)?.wrapping_add(more);
        Ok((part(0, 3)?, part(3, self.columns)?, all))
    }
}

fn format_of(number: u32) -> Result<Format> {
    let all = [Format::Half, Format::SmallHalf, Format::Bf16, Format::F32, Format::Integer];
    let found = all.into_iter().find(|&format| format as u32 == number);
    found.ok_or_else(|| Error::Parameters {
        what: "escapes",
        expected: "numbers of a known format".into(),
        got: number.to_string(),
    })
}

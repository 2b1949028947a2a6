//! What stands between levels and weights: `w = step * (s * t + m) + offset`, arranged for products.
//!
//! t is `q + bias`, or from a codebook, of which [`Book`] makes tables for kernels.
//!
//! With codes d = q - center, a row of a product is
//! `step * (sum of s * (d + center + bias) * x + m * x) + offset * sum of x`: kernels compute the sum in the middle, row
//! scales and the rest come once a row, column scales are multiplied into x.

use std::sync::Arc;

use ecq_format::directory::{Scales, Values};
use ecq_format::pattern::Pattern;
use ecq_format::reader::CodedTensor;
use ecq_format::tile::Frequencies;
use ecq_quant::groups as values;
pub(crate) use ecq_quant::groups::Numbers;
use ecq_quant::values::{Dequantizer, Table, from_bits};

use crate::activations::{Activations, SCALED};
use crate::{BLOCK, LANE, LANES, Precision};

/// Bytes of a scale in memory.
pub(crate) const FLOAT: u64 = size_of::<f32>() as u64;

/// The scales of a tensor, prepared.
pub(crate) struct Scaling {
    rows: usize,
    pub cols: usize,
    /// The level of code 0.
    pub center: i32,
    raw_bits: u32,
    /// What is added to codes of five bits so that none is negative: 8 if they then fit four bits, else 16.
    pub lift: i32,
    /// Set if the weights are floats by their bit patterns; then there are no scales.
    pub pattern: Option<Pattern>,
    bias: f32,
    codebook: Option<[f32; 16]>,
    /// Whether no kernel multiplies its codes.
    by_weight: bool,
    /// Times the unit of the codebook, if there is one and no groups are.
    step: f32,
    offset: f32,
    /// One a row, or none.
    row: Vec<f32>,
    /// One a column, or none.
    pub columns: Arc<[f32]>,
    pub terms: Terms,
}

/// What a kernel needs to know of scales.
pub(crate) struct Terms {
    /// `center + bias`: what is added to a code. 0 with a codebook.
    pub zero: f32,
    /// What codes stand for, if not for themselves; they are then 0..16.
    pub book: Option<Book>,
    pub groups: Option<Groups>,
}

/// A codebook, in units of a 127th of its largest magnitude.
///
/// Scales of groups, or the step if there are none, are multiples of that unit, too. So the numbers fit bytes, rounded to
/// nearest: each is off by at most half a unit, a 254th of the largest. That is the least which products in integers
/// allow, and less than what they cost in the vectors, where it is a 254th of the largest of 32.
pub(crate) struct Book {
    /// The size of a unit.
    unit: f32,
    /// For vectors in f32.
    pub numbers: [f32; 16],
    /// For vectors of integers.
    pub bytes: [i8; 16],
}

impl Book {
    /// `None` if the largest magnitude is so far from 1 that products with the unit could leave the range of f32 where
    /// those with the numbers do not.
    pub fn new(values: &[f32; 16]) -> Option<Self> {
        let most = f64::from(values.iter().fold(0f32, |most, v| most.max(v.abs())));
        let unit = if most == 0.0 { 1.0 } else { (most / 127.0) as f32 };
        let near = (2f32.powi(-30)..=2f32.powi(30)).contains(&unit);
        let number = |v: f32| f64::from(v) / f64::from(unit);
        let (numbers, bytes) = (values.map(|v| number(v) as f32), values.map(|v| number(v).round() as i8));
        near.then_some(Self { unit, numbers, bytes })
    }

    /// How much more a level stands for than code 0, in units. `value` is that of levels beyond the codebook.
    fn more(&self, code: i64, value: f32, precision: Precision) -> f32 {
        let number = |code: usize| match precision {
            Precision::F32 => f64::from(self.numbers[code]),
            Precision::Int8 => f64::from(self.bytes[code]),
        };
        let listed = usize::try_from(code).ok().filter(|&code| code < self.numbers.len());
        (listed.map_or_else(|| f64::from(value) / f64::from(self.unit), number) - number(0)) as f32
    }
}

/// The scales of the rows of a panel, as a kernel needs them.
#[derive(Default)]
pub(crate) struct RowScales {
    /// Of each row one after another, then filling of 16.
    pub scale: Vec<f32>,
    /// Likewise; empty without minima.
    pub min: Vec<f32>,
}

impl RowScales {
    /// s and m of a weight, by the row in the panel.
    pub fn of(&self, groups: &Groups, row: usize, col: usize) -> (f32, f32) {
        let at = row * groups.per_row + (col / groups.size).min(groups.per_row - 1);
        (self.scale[at], self.min.get(at).copied().unwrap_or(0.0))
    }
}

/// Scales of groups of columns.
pub(crate) struct Groups {
    /// Columns of a group.
    pub size: usize,
    /// Groups in a row.
    pub per_row: usize,
    /// The numbers, which the table of embeddings may have in common with the product.
    shared: Arc<values::Groups>,
    /// For each block of 64 columns: its first group in the row, and for each lane of four columns the group from there.
    /// Columns that are filling belong to the row's last group.
    pub lanes: Vec<(u32, [i32; LANES])>,
}

impl Groups {
    fn new(shared: Arc<values::Groups>, cols: usize) -> Self {
        let values::Groups { size, per_row, .. } = *shared;
        let lanes = |block: usize| {
            let first = (block * BLOCK / size).min(per_row - 1);
            let group = |lane: usize| ((block * BLOCK + lane * LANE) / size).min(per_row - 1) - first;
            (first as u32, std::array::from_fn(|lane| group(lane) as i32))
        };
        let blocks = cols.next_multiple_of(2 * BLOCK) / BLOCK;
        let lanes = (0..blocks).map(lanes).collect();
        Self { size, per_row, shared, lanes }
    }

    /// Numbers of all rows.
    pub fn scale(&self) -> &Numbers {
        &self.shared.scale
    }

    /// Likewise.
    pub fn min(&self) -> Option<&Numbers> {
        self.shared.min.as_ref()
    }

    /// Whether all columns of a lane belong to the same group.
    pub fn in_lanes(&self) -> bool {
        self.size.is_multiple_of(LANE)
    }

    /// s and m of a weight.
    pub fn of(&self, row: usize, col: usize) -> (f32, f32) {
        let group = match self.shared.of_column.get(col) {
            Some(&group) => group.into(),
            None => (col / self.size).min(self.per_row - 1),
        };
        self.shared.of_group(row, group)
    }

    /// Copies the scales of rows.
    fn read(&self, rows: impl Iterator<Item = usize>, out: &mut RowScales) {
        let RowScales { scale, min } = out;
        scale.clear();
        min.clear();
        for row in rows {
            for (from, to) in [(Some(self.scale()), &mut *scale), (self.min(), &mut *min)] {
                if let Some(from) = from {
                    let at = to.len();
                    to.resize(at + self.per_row, 0.0);
                    from.read(row * self.per_row, &mut to[at..]);
                }
            }
        }
        scale.extend([0.0; LANES]);
        if self.min().is_some() {
            min.extend([0.0; LANES]);
        }
    }

    /// s and m of each [`SCALED`] columns of a row; `out` is filled up with zeros. Groups must be a multiple of that.
    pub fn units(&self, row: usize, scale: &mut [f32], min: &mut [f32]) {
        let each = self.size / SCALED;
        for (from, out) in [(Some(self.scale()), scale), (self.min(), min)] {
            let len = self.per_row.min(out.len());
            out[len..].fill(0.0);
            match from {
                Some(from) => from.read(row * self.per_row, &mut out[..len]),
                None => out.fill(0.0),
            }
            if each > 1 {
                let last = out.len().min(self.per_row * each);
                (0..last).rev().for_each(|unit| out[unit] = out[unit / each]);
            }
        }
    }
}

impl Scaling {
    /// Of a tensor, from its scales: those that [`Dequantizer::new`] decodes.
    pub fn new(tensor: &CodedTensor<'_>, values: &Dequantizer) -> Self {
        let coded = tensor.coded();
        let Values { step, bias, offset, scales, codebook } = coded.values;
        let (mut row, mut columns, mut groups) = (Vec::new(), Vec::new(), None);
        match (values.table(), scales) {
            (Table::Group(own), _) => groups = Some(own.clone()),
            (
                Table::RowColumn { row: rows, column },
                Scales::RowColumn { row: by_row, column: by_column },
            ) => {
                row = if by_row { rows.clone() } else { row };
                columns = if by_column { column.clone() } else { columns };
            }
            _ => {}
        }
        let codebook = codebook.map(|book| book.0);
        let scattered = groups.as_ref().is_some_and(|groups| !groups.of_column.is_empty());
        let mut by_weight = coded.predictor.is_some() || scattered;
        let book = codebook.as_ref().filter(|_| !by_weight).and_then(Book::new);
        by_weight |= codebook.is_some() && book.is_none();
        let mut step = step as f32;
        if let Some(Book { unit, .. }) = &book {
            match &mut groups {
                Some(groups) => *groups = Arc::new(groups.times(*unit)),
                None => step *= unit,
            }
        }
        let groups = groups.map(|groups| Groups::new(groups, coded.cols as usize));
        let lift = match coded.raw_bits {
            1 if coded.pattern.is_none() && codebook.is_none() => {
                if fits_four(tensor.frequencies()) {
                    8
                } else {
                    16
                }
            }
            _ => 0,
        };
        let center = coded.center - lift;
        let zero = if book.is_some() { 0.0 } else { (f64::from(center) + bias) as f32 };
        Self {
            rows: coded.rows as usize,
            cols: coded.cols as usize,
            center,
            raw_bits: coded.raw_bits,
            lift,
            pattern: coded.pattern,
            bias: bias as f32,
            codebook,
            by_weight,
            step,
            offset: offset as f32,
            row,
            columns: columns.into(),
            terms: Terms { zero, book, groups },
        }
    }

    /// Whether levels must become numbers one by one: they are predicted, or their groups are scattered, or their codebook
    /// is of no size that [`Book`] takes.
    pub fn by_weight(&self) -> bool {
        self.by_weight
    }

    /// `s * t + m` of neighbouring weights of a row, from `col` on: what kernels for weights multiply. Step, row scales and
    /// offset come in [`Self::finish`], column scales are in the vectors.
    pub fn weights(&self, row: usize, col: usize, levels: &[i32], out: &mut [f32]) {
        for (out, &level) in out.iter_mut().zip(levels) {
            let code = self.code(level);
            let value = self.codebook.as_ref().zip(usize::try_from(code).ok()).and_then(|(b, i)| b.get(i));
            *out = value.copied().unwrap_or(level as f32 + self.bias);
        }
        if let Some(groups) = &self.terms.groups {
            for (i, out) in out[..levels.len()].iter_mut().enumerate() {
                let (s, m) = groups.of(row, col + i);
                *out = s * *out + m;
            }
        }
    }

    /// Bytes of the scales.
    pub fn memory(&self) -> u64 {
        let groups = self.terms.groups.as_ref();
        let numbers = groups.map_or(0, |g| g.scale().bytes() + g.min().map_or(0, Numbers::bytes));
        numbers + (self.row.len() + self.columns.len()) as u64 * FLOAT
    }

    /// Codes of this level.
    pub fn code(&self, level: i32) -> i64 {
        i64::from(level) - i64::from(self.center)
    }

    /// What kernels for vectors of integers add to codes, numbers of a codebook among them, so that none is negative.
    pub fn shift(&self) -> f32 {
        if self.terms.book.is_some() || (2..=4).contains(&self.raw_bits) { 128.0 } else { 0.0 }
    }

    /// Whether all codes fit bytes.
    pub fn is_bytes(&self) -> bool {
        self.raw_bits <= 4 && !self.by_weight && self.pattern.is_none()
    }

    /// What codes stand for, if not for themselves, plus [`Self::shift`].
    pub fn bytes(&self) -> Option<[u8; 16]> {
        self.terms.book.as_ref().map(|book| book.bytes.map(|byte| byte as u8 ^ 128))
    }

    /// Adds [`Self::shift`] to codes, after [`Self::bytes`] were looked up.
    pub fn shift_codes(&self, table: Option<&[u8; 16]>, codes: &mut [u8]) {
        match table {
            Some(table) => codes.iter_mut().for_each(|code| *code = table[usize::from(*code & 15)]),
            None if self.shift() > 0.0 => codes.iter_mut().for_each(|code| *code ^= 128),
            None => {}
        }
    }

    /// Rows of the product with one vector from the sums that lines gave, and what [`Self::add_escape`] added up for each (or
    /// nothing).
    pub fn finish_lines(&self, first: usize, x: &Activations, escapes: &[f32], out: &mut [f32]) {
        out.iter_mut().zip(escapes).for_each(|(out, escapes)| *out += escapes);
        for (row, out) in (first..).zip(out) {
            *out = self.finish_sum(row, x, 0, *out);
        }
    }

    /// A number of the product from the sum that a strip or a line gave.
    #[inline]
    pub fn finish_sum(&self, row: usize, x: &Activations, vector: usize, mut sum: f32) -> f32 {
        if self.terms.groups.is_none() {
            sum += (self.terms.zero - self.shift()) * x.totals[vector];
        }
        let scale = self.step * self.row.get(row).copied().unwrap_or(1.0);
        match self.offset {
            0.0 => scale * sum,
            offset => scale * sum + offset * x.sums[vector],
        }
    }

    /// Before the first panel of some rows: their scales.
    pub fn begin(&self, rows: impl Iterator<Item = usize>, scales: &mut RowScales) {
        if let Some(groups) = &self.terms.groups {
            groups.read(rows, scales);
        }
    }

    /// Panics if a product of this shape makes no sense.
    pub fn check(&self, x: &Activations, y: &[f32]) {
        let (rows, cols) = (self.rows, self.cols);
        assert_eq!(x.cols(), cols, "vectors of another length than the matrix has columns");
        assert_eq!(y.len(), rows * x.count(), "y does not hold {} vectors of {rows} rows", x.count());
        assert!(x.has_columns(&self.columns), "vectors prepared for other column scales");
    }

    /// Adds to `out`, one number a vector, what a weight of this level has more than one with code 0.
    pub fn add_escape(&self, row: usize, col: usize, level: i32, x: &Activations, out: &mut [f32]) {
        let scale = self.terms.groups.as_ref().map_or(1.0, |groups| groups.of(row, col).0);
        let code = self.code(level);
        let more = match (self.pattern, &self.terms.book) {
            // levels without a bit pattern were refused when they were read
            (Some(pattern), _) => from_bits(pattern.format, pattern.bits(level).unwrap_or(0)),
            (None, Some(book)) => scale * book.more(code, level as f32 + self.bias, x.precision()),
            (None, None) => scale * code as f32,
        };
        out.iter_mut().enumerate().for_each(|(m, out)| *out += more * x.value(m, col));
    }

    /// A row of the product from sums over lanes, and what [`Self::add_escape`] added up (or nothing). One number a vector.
    pub fn finish(&self, row: usize, x: &Activations, sums: &[f32], escapes: &[f32], out: &mut [f32]) {
        let scale = self.step * self.row.get(row).copied().unwrap_or(1.0);
        // kernels for integers leave this to the end where they can
        let zero = if self.leaves_zero(x) && !self.by_weight() { self.terms.zero } else { 0.0 };
        for (m, (out, lanes)) in out.iter_mut().zip(sums.as_chunks::<LANES>().0).enumerate() {
            let mut sum = add_lanes(lanes) + escapes.get(m).copied().unwrap_or(0.0);
            if zero != 0.0 {
                sum += zero * x.totals[m];
            }
            *out = scale * sum;
            if self.offset != 0.0 {
                *out += self.offset * x.sums[m];
            }
        }
    }

    fn leaves_zero(&self, x: &Activations) -> bool {
        self.terms.groups.is_none() && x.precision() == Precision::Int8
    }
}

/// Whether no nibble is above 7: with a raw bit for the sign, codes are -8..8. Not looked for in pairs.
fn fits_four(frequencies: &Frequencies) -> bool {
    match frequencies {
        Frequencies::Nibble(all) => all.as_array()[8..].iter().all(|&f| f == 0),
        Frequencies::Pairs(_) | Frequencies::Prefix(_) => false,
    }
}

/// The lanes' sum, always in the same order.
fn add_lanes(lanes: &[f32; LANES]) -> f32 {
    let mut sums = *lanes;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    sums[0]
}

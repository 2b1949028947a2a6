//! Scales as kernels read them, and the table of a code.

use ecq_format::directory::{Coded, Scales, Values};
use ecq_format::reader::CodedTensor;
use ecq_quant::groups::Groups;
use ecq_quant::values::octaves;
use half::f16;
use prefix_core::Lengths;
use rans_core::byte;

use crate::layout::{BAND, Escape, Resident, Shape};
use crate::variant::{Code, Escapes, Form, Grouped, Value};

/// The table of a code, as words: what is known of each symbol, then the symbols of 4,096 slots.
pub fn codes_of(about: [u32; 256], slots: impl Iterator<Item = u8>) -> Vec<u32> {
    let mut codes = about.to_vec();
    let symbols: Vec<u8> = slots.collect();
    codes.extend(symbols.as_chunks::<4>().0.iter().map(|&four| u32::from_le_bytes(four)));
    codes
}

/// The table of a prefix code: the length of each symbol's code.
pub fn prefix_codes(lengths: &Lengths) -> Vec<u32> {
    let about = std::array::from_fn(|symbol| lengths.get(symbol as u8).unwrap_or(0));
    codes_of(about, prefix_core::DecodeTable::new(lengths).entries().map(|(symbol, _)| symbol))
}

/// The table of an rANS code: first slot and frequency of each symbol. `None` for a lone symbol, whose frequency kernels
/// have no room for.
pub fn rans_codes(freqs: &byte::Frequencies) -> Option<Vec<u32>> {
    let (mut about, mut slots, mut first) = ([0; 256], Vec::with_capacity(4096), 0);
    for (symbol, &freq) in freqs.as_array().iter().enumerate() {
        if freq == 4096 {
            return None;
        }
        about[symbol] = first << 16 | u32::from(freq);
        first += u32::from(freq);
        slots.resize(first as usize, symbol as u8);
    }
    Some(codes_of(about, slots.into_iter()))
}

/// Everything about a tensor but its tiles and escapes. `codes` is the table of its code.
pub fn resident(
    tensor: &CodedTensor<'_>,
    shape: Shape,
    code: Code,
    mut codes: Vec<u32>,
) -> ecq_format::Result<Resident> {
    let coded = tensor.coded();
    let Values { step, bias, offset, scales, codebook } = coded.values;
    let value = value_of(coded);
    if let Some(book) = codebook {
        codes.extend(book.0.map(f32::to_bits));
    }
    let zero = match value {
        Value::Integer { raw_bits: 0 } => f64::from(coded.center) + 7.5 + bias,
        Value::Integer { .. } => f64::from(coded.center) - 0.5 + bias,
        Value::Codebook | Value::Float { .. } => 0.0,
    };
    let mut made = Resident {
        form: Form {
            code,
            value,
            groups: None,
            columns: false,
            rows: false,
            constant: false,
            offset: offset != 0.0,
            escapes: Escapes::None,
        },
        shape,
        codes,
        side: Vec::new(),
        groups: 0,
        map: 0,
        row_bytes: 0,
        step: step as f32,
        constant: zero as f32,
        offset: offset as f32,
    };
    let planes = tensor.side()?;
    match scales {
        Scales::None => {}
        Scales::RowColumn { row, column } => made.factors(row, column, &planes),
        grouped => {
            if let Some(groups) = Groups::new(&grouped, shape.rows, shape.cols, &planes) {
                made.scales(&groups);
            }
        }
    }
    Ok(made)
}

fn value_of(coded: &Coded) -> Value {
    match (coded.pattern, coded.values.codebook) {
        (Some(pattern), _) => Value::Float { pattern, raw_bits: coded.raw_bits },
        (None, Some(_)) => Value::Codebook,
        (None, None) => Value::Integer { raw_bits: coded.raw_bits },
    }
}

impl Resident {
    fn factors(&mut self, row: bool, column: bool, planes: &[Vec<u8>]) {
        let mut planes = planes.iter();
        let rows = if row { planes.next() } else { None };
        if let (true, Some(columns)) = (column, planes.next()) {
            self.side.extend(columns.iter().map(|&byte| octaves(byte).to_bits()));
        }
        self.row_bytes = self.side.len();
        if let Some(rows) = rows {
            self.side.extend(
                rows.chunks(4)
                    .map(|bytes| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))),
            );
        }
        (self.form.rows, self.form.columns) = (row, column);
    }

    /// Scales of groups, of whole bands: rows that are missing in the last one have some, too.
    fn scales(&mut self, groups: &Groups) {
        let all = self.shape.bands() * BAND * groups.per_row;
        let mut numbers = Vec::with_capacity(2 * all);
        for i in 0..all {
            numbers.push(groups.scale.get(i).copied().unwrap_or(0.0));
            if !groups.min.is_empty() {
                numbers.push(groups.min.get(i).copied().unwrap_or(0.0));
            }
        }
        let exact = |&v: &f32| f16::from_f32(v).to_f32().to_bits() == v.to_bits();
        let half = numbers.iter().all(exact);
        if half {
            let bits = |v: f32| u32::from(f16::from_f32(v).to_bits());
            self.side
                .extend(numbers.chunks(2).map(|two| bits(two[0]) | two.get(1).map_or(0, |&v| bits(v)) << 16));
        } else {
            self.side.extend(numbers.iter().map(|v| v.to_bits()));
        }
        self.map = self.side.len();
        self.side.extend(groups.of_column.iter().map(|&group| u32::from(group)));
        self.groups = groups.per_row;
        self.form.groups = Some(Grouped {
            size: groups.size as u32,
            half,
            min: !groups.min.is_empty(),
            mapped: !groups.of_column.is_empty(),
        });
    }

    /// Escapes as words: for each band where they begin, the end, and they themselves. Sets the form; nothing without any.
    pub fn escapes(&mut self, escapes: &[Escape]) -> Vec<u32> {
        if escapes.is_empty() {
            self.form.escapes = Escapes::None;
            return Vec::new();
        }
        let narrow = escapes.iter().all(|e| e.is_narrow(self.shape.cols));
        self.form.escapes = if narrow { Escapes::Narrow } else { Escapes::Wide };
        let bands = self.shape.bands();
        let mut counts = vec![0u32; bands + 1];
        escapes.iter().for_each(|e| counts[e.row / BAND + 1] += 1);
        // places of narrow ones are counted in words, of wide ones in pairs of words; both from the first word
        let head = if narrow { bands as u32 + 1 } else { (bands as u32 + 1).div_ceil(2) };
        let mut at = head;
        let mut words: Vec<u32> = counts
            .iter()
            .map(|n| {
                at += n;
                at
            })
            .collect();
        words.resize(head as usize * if narrow { 1 } else { 2 }, 0);
        for e in escapes {
            let (row, col) = ((e.row % BAND) as u32, e.col as u32);
            if narrow {
                words.push(col | row << 16 | (e.more as i32 as u32) << 19);
            } else {
                words.extend([col | row << 29, e.more.to_bits()]);
            }
        }
        words
    }
}

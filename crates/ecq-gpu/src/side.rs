//! Scales as kernels read them, and the table of a code.

use std::ops::Range;

use ecq_format::directory::{Coded, Scales, Values};
use ecq_format::reader::CodedTensor;
use ecq_quant::values::octaves;
use prefix_core::Lengths;
use rans_core::byte;

use crate::layout::{BAND, Resident, Shape, words_of};
use crate::scales;
use crate::variant::{Code, Form, Value};

/// The table of a code, as words: what is known of each symbol, then the symbols of 4,096 slots.
fn codes_of(about: [u32; 256], slots: impl Iterator<Item = u8>) -> Vec<u32> {
    let mut codes = about.to_vec();
    codes.extend(words_of(&slots.collect::<Vec<_>>()));
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

/// Everything about a tensor but its tiles and escapes; whether there are any is known once all tiles were decoded. `codes`
/// is the table of its code.
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
    let side = Side::new(&scales, &shape, tensor.side()?);
    let (rows, columns) = match scales {
        Scales::RowColumn { row, column } => (row, column),
        _ => (false, false),
    };
    let form = Form {
        code,
        value,
        groups: side.groups.as_ref().map(|groups| groups.form),
        columns,
        rows,
        constant: false,
        offset: offset != 0.0,
        escapes: false,
    };
    let (step, constant, offset) = (step as f32, zero as f32, offset as f32);
    Ok(Resident { form, shape, codes, side, step, constant, offset })
}

/// Scales of a tensor: what all bands share, and what is cut out for each part of them.
#[derive(Clone, Debug, Default)]
pub struct Side {
    head: Vec<u32>,
    groups: Option<scales::Packed>,
    /// Bytes of factors of rows.
    rows: Vec<u8>,
}

/// Where scales are in the side data of a part: the parameters of kernels for that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Groups of a row.
    pub groups: u32,
    /// Where the first band of the part begins.
    pub records: u32,
    /// Words of a band there.
    pub stride: u32,
    /// Where numbers begin that several groups share: counted from a band's first word, or (runs of groups) in the side
    /// data.
    pub shared: u32,
    /// Groups of the first run that are not in this part.
    pub phase: u32,
}

impl Side {
    fn new(scales: &Scales, shape: &Shape, planes: Vec<Vec<u8>>) -> Self {
        if let Scales::RowColumn { row, column } = *scales {
            let mut planes = planes.into_iter();
            let rows = if row { planes.next() } else { None };
            let columns = if column { planes.next() } else { None };
            let mut head: Vec<u32> = (128..136).map(|byte| octaves(byte).to_bits()).collect();
            head.extend(words_of(&columns.unwrap_or_default()));
            return Self { head, groups: None, rows: rows.unwrap_or_default() };
        }
        let groups = scales::Packed::new(scales, shape, &planes);
        Self { groups, ..Self::default() }
    }

    /// Words that kernels for some whole bands read, and where; no words without scales.
    pub fn part(&self, rows: Range<usize>) -> (Vec<u32>, Places) {
        let bands = rows.start / BAND..rows.end.div_ceil(BAND);
        let Some(groups) = &self.groups else {
            let mut words = self.head.clone();
            let places = Places { records: words.len() as u32, stride: BAND as u32 / 4, ..Places::default() };
            let factors = rows.start.min(self.rows.len())..rows.end.min(self.rows.len());
            words.extend(words_of(&self.rows[factors]));
            if !self.rows.is_empty() {
                // the last band has eight, too
                words.resize(self.head.len() + bands.len() * BAND / 4, 0);
            }
            return (words, places);
        };
        let mut words = groups.head.clone();
        let [own, shared] = groups.band_words();
        let (records, stride) = (words.len() as u32, (own + shared) as u32);
        bands.for_each(|band| groups.band(band, &mut words));
        let mut places =
            Places { groups: groups.per_row as u32, records, stride, shared: own as u32, phase: 0 };
        if let Some((runs, phase)) = groups.runs(rows.start, rows.end) {
            (places.shared, places.phase) = (words.len() as u32, phase);
            words.extend(runs);
        }
        words.push(0); // kernels load a word ahead
        (words, places)
    }

    /// Words for so many rows, at most.
    pub fn words(&self, rows: usize) -> u64 {
        let bands = rows.div_ceil(BAND);
        let more = match &self.groups {
            Some(groups) => {
                groups.head.len()
                    + bands * groups.band_words().iter().sum::<usize>()
                    + groups.run_words(rows)
                    + 1
            }
            None if self.rows.is_empty() => 0,
            None => bands * BAND / 4,
        };
        (self.head.len() + more) as u64
    }
}

fn value_of(coded: &Coded) -> Value {
    match (coded.pattern, coded.values.codebook) {
        (Some(pattern), _) => Value::Float { pattern, raw_bits: coded.raw_bits },
        (None, Some(_)) => Value::Codebook,
        (None, None) => Value::Integer { raw_bits: coded.raw_bits },
    }
}

//! Escapes as kernels read them: those of a band in buckets of columns, each a record of a few bits. Values that are near
//! each other have a list of their own, with smaller numbers.

use std::ops::Range;

use ecq_format::pattern::FloatFormat;
use half::f16;

use crate::layout::{BAND, Escape, Shape};
use crate::scales::{Coded, Format, put};
use crate::variant::Value;

/// Most numbers in a table.
const TABLE: usize = 256;
/// Least bits of a column in a bucket.
const BUCKET: u32 = 5;
/// Bits of a row in its band.
const ROW: u32 = BAND.ilog2();
/// Words at the beginning: the value that streams have for escapes, what all values lack, what numbers are, how many lists
/// there are, and [`LIST`] of each.
const HEAD: usize = 4;
/// Words of a list: where its buckets are, the bits of a column in a bucket, of a code, whether codes are places in a table,
/// and where the least number is, with the table behind it.
const LIST: usize = 5;

/// Escapes of a tensor. How many bits they have is said in memory, so that kernels are the same for all tensors.
pub struct Packed {
    head: Vec<u32>,
    lists: Vec<Numbers>,
    cols: usize,
}

/// A list and what it holds.
struct Numbers {
    /// Bits of a column in its bucket.
    bucket: u32,
    /// Bits of a code: numbers of escapes have a single piece.
    width: u32,
    /// Rows and columns, by bands, then by columns.
    places: Vec<(usize, usize)>,
    numbers: Coded,
}

/// Most words that so many escapes of so many rows take.
pub fn most_words(count: u64, rows: usize, cols: usize) -> u64 {
    if count == 0 {
        return 0;
    }
    let buckets = (rows.div_ceil(BAND) * cols.div_ceil(1 << BUCKET)) as u64;
    let bits = u64::from(ROW + cols.ilog2() + 1 + 32);
    // for each list what numbers share, a word behind the last start, one behind the last escape, and one that is begun
    HEAD as u64 + 2 * (LIST as u64 + 1 + TABLE as u64 + buckets + 3) + (count * bits).div_ceil(32)
}

impl Packed {
    /// `None` without escapes.
    pub fn new(mut escapes: Vec<Escape>, shape: &Shape, value: Value) -> Option<Self> {
        let first = *escapes.first()?;
        escapes.sort_unstable_by_key(|e| (e.row / BAND, e.col, e.row));
        let mut head = vec![0; HEAD + 2 * LIST];
        // kernels take off what streams have for them, which is one number; where it differs, differences are stored, and
        // nothing is taken off
        let whole = escapes.iter().all(|e| e.filler.to_bits() == first.filler.to_bits());
        if whole {
            head[0] = (first.filler as f32).to_bits();
        } else {
            escapes.iter_mut().for_each(|e| e.value -= e.filler);
        }
        let plus = escapes[0].value - escapes[0].value.floor();
        let is_integer = |e: &Escape| (e.value - plus).fract() == 0.0 && e.value.abs() < f64::from(1 << 24);
        let lists = match value {
            Value::Float { pattern, .. } if whole => {
                vec![Numbers::of(&escapes, shape, |all| floats(pattern.format, all))]
            }
            _ if escapes.iter().all(is_integer) => {
                head[1] = (plus as f32).to_bits();
                let integers = |all: &[Escape]| {
                    let bits = all.iter().map(|e| (e.value - plus) as i32 as u32);
                    Coded::whole(Format::Integer, bits.collect(), TABLE)
                };
                let (near, far) = split(&escapes);
                [near, far]
                    .iter()
                    .filter(|all| !all.is_empty())
                    .map(|all| Numbers::of(all, shape, integers))
                    .collect()
            }
            _ => vec![Numbers::of(&escapes, shape, |all| {
                Coded::whole(Format::F32, all.iter().map(|e| (e.value as f32).to_bits()).collect(), TABLE)
            })],
        };
        head[2] = lists.first()?.numbers.format as u32;
        head[3] = lists.len() as u32;
        for (i, list) in lists.iter().enumerate() {
            let piece = list.numbers.number().pieces[0];
            let about = [list.bucket, list.width, u32::from(piece.table), head.len() as u32];
            head[HEAD + i * LIST + 1..HEAD + (i + 1) * LIST].copy_from_slice(&about);
            head.extend(list.numbers.words());
        }
        Some(Self { head, lists, cols: shape.cols })
    }

    /// Words for the rows of some whole bands.
    pub fn part(&self, rows: Range<usize>) -> Vec<u32> {
        let mut words = self.head.clone();
        for (i, list) in self.lists.iter().enumerate() {
            words[HEAD + i * LIST] = words.len() as u32;
            list.part(&rows, self.cols, &mut words);
        }
        words
    }
}

impl Numbers {
    fn of(escapes: &[Escape], shape: &Shape, numbers: impl Fn(&[Escape]) -> Coded) -> Self {
        let numbers = numbers(escapes);
        let width = numbers.number().bits();
        // starts of buckets, and columns in them
        let size = |&bucket: &u32| {
            let starts = shape.bands() * shape.cols.div_ceil(1 << bucket);
            32 * starts + escapes.len() * bucket as usize
        };
        let most = shape.cols.next_power_of_two().ilog2();
        let bucket = (BUCKET.min(most)..=most).rev().min_by_key(size).unwrap_or(most);
        let places = escapes.iter().map(|e| (e.row, e.col)).collect();
        Self { bucket, width, places, numbers }
    }

    fn part(&self, rows: &Range<usize>, cols: usize, words: &mut Vec<u32>) {
        let (bucket, bits) = (self.bucket, (ROW + self.bucket + self.width) as usize);
        let buckets = cols.div_ceil(1 << bucket);
        let [first, last] = [rows.start, rows.end].map(|end| self.places.partition_point(|e| e.0 < end));
        let own = &self.places[first..last];
        let starts = words.len();
        words.resize(starts + rows.len().div_ceil(BAND) * buckets + 1, 0);
        for (row, col) in own {
            words[starts + 1 + (row - rows.start) / BAND * buckets + (col >> bucket)] += 1;
        }
        for i in starts + 1..words.len() {
            words[i] += words[i - 1];
        }
        let records = words.len();
        // kernels load a word ahead
        words.resize(records + (own.len() * bits).div_ceil(32) + 1, 0);
        for (i, ((row, col), &number)) in own.iter().zip(&self.numbers.all[first..last]).enumerate() {
            let place = (row % BAND) as u32 | ((col & ((1 << bucket) - 1)) as u32) << ROW;
            put(&mut words[records..], i * bits, place);
            self.numbers.put(&mut words[records..], i * bits + (ROW + bucket) as usize, number);
        }
    }
}

/// Those within a power of two around the middle one, and all others, so that both lists take the least bits.
fn split(escapes: &[Escape]) -> (Vec<Escape>, Vec<Escape>) {
    let mut values: Vec<f64> = escapes.iter().map(|e| e.value).collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values[values.len() / 2];
    let mut sizes = [0u64; 34];
    values.iter().for_each(|v| sizes[((v - middle).abs() + 1.0).log2().ceil() as usize] += 1);
    let most = sizes.iter().rposition(|&n| n > 0).unwrap_or(0);
    let bits = |width: usize| {
        let near: u64 = sizes[..=width].iter().sum();
        // one more for the sign
        near * (width as u64 + 1) + (values.len() as u64 - near) * (most as u64 + 1)
    };
    let width = (0..=most).rev().min_by_key(|&width| bits(width)).unwrap_or(most);
    let near = |e: &Escape| (e.value - middle).abs() + 1.0 <= f64::from(1u32 << width);
    // a second list must be worth its work
    if bits(width) + 2 * values.len() as u64 > bits(most) {
        return (escapes.to_vec(), Vec::new());
    }
    escapes.iter().partition(|e| near(e))
}

/// Floats of a format, exactly.
fn floats(format: FloatFormat, all: &[Escape]) -> Coded {
    let all = all.iter().map(|e| e.value as f32);
    if format == FloatFormat::Bf16 {
        return Coded::whole(Format::Bf16, all.map(|w| w.to_bits() >> 16).collect(), TABLE);
    }
    // those of 8 bits are halves, too
    Coded::whole(Format::SmallHalf, all.map(|w| f16::from_f32(w).to_bits().into()).collect(), TABLE)
}

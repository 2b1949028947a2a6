//! The reference, and what computes scales of groups whose bounds lie inside lanes.

use super::{Codes, Panel};
use crate::activations::{Activations, Data};
use crate::scaling::{Book, Groups, RowScales, Terms};
use crate::{BLOCK, LANE, LANES};

impl Codes<'_> {
    /// The codes of a block of a row that begins at `row`.
    fn block(&self, row: usize, block: usize) -> [i32; BLOCK] {
        let at = row + block * BLOCK;
        match self {
            Self::Nibble(codes) => std::array::from_fn(|i| i32::from(codes[at + i])),
            Self::I5(codes) | Self::I8(codes) => std::array::from_fn(|i| i32::from(codes[at + i])),
            Self::I16(codes) => std::array::from_fn(|i| i32::from(codes[at + i])),
            Self::F32(_) => unreachable!("weights have a kernel of their own"),
            Self::Int4(codes) => {
                let at = row + block / 2 * BLOCK;
                std::array::from_fn(|i| i32::from(codes[at + i] >> (4 * (block % 2)) & 15))
            }
        }
    }
}

pub(super) fn accumulate(panel: &Panel<'_>, x: &Activations, terms: &Terms, sums: &mut [f32]) {
    let mut sums = sums.as_chunks_mut::<LANES>().0.iter_mut();
    for row in 0..panel.rows {
        for (m, sums) in sums.by_ref().take(x.count()).enumerate() {
            for b in 0..panel.blocks {
                let codes = panel.codes.block(row * panel.pitch, b);
                let block = panel.block + b;
                let at = m * x.padded() + block * BLOCK;
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let codes: &[i32; LANE] = &codes.as_chunks().0[lane];
                    let add = |group: Option<(f32, f32)>, columns| {
                        product(codes, &x.data, at, lane, columns, terms, group)
                    };
                    *sum += match &terms.groups {
                        None => add(None, [true; LANE]),
                        Some(groups) => {
                            grouped((groups, panel.scales), row, block * BLOCK + lane * LANE, add)
                        }
                    };
                }
            }
        }
    }
}

/// The sum of four columns whose groups may differ.
fn grouped(
    (groups, scales): (&Groups, &RowScales),
    row: usize,
    col: usize,
    add: impl Fn(Option<(f32, f32)>, [bool; LANE]) -> f32,
) -> f32 {
    if groups.in_lanes() {
        return add(Some(scales.of(groups, row, col)), [true; LANE]);
    }
    (0..LANE).map(|i| add(Some(scales.of(groups, row, col + i)), std::array::from_fn(|j| i == j))).sum()
}

/// What a code stands for, for vectors of integers.
fn integer(book: Option<&Book>, code: i32) -> i32 {
    book.map_or(code, |book| book.bytes[code as usize & 15].into())
}

/// The sum over some of the four columns of a lane.
fn product(
    codes: &[i32; LANE],
    x: &Data,
    at: usize,
    lane: usize,
    columns: [bool; LANE],
    &Terms { zero, ref book, .. }: &Terms,
    group: Option<(f32, f32)>,
) -> f32 {
    let book = book.as_ref();
    let columns = (0..LANE).filter(|&i| columns[i]);
    match x {
        Data::F32(x) => {
            let x = |i: usize| x[at + i * LANES + lane];
            let number = |code: i32| book.map_or(code as f32 + zero, |book| book.numbers[code as usize & 15]);
            columns
                .map(|i| match group {
                    None => number(codes[i]) * x(i),
                    Some((s, m)) => s * number(codes[i]) * x(i) + m * x(i),
                })
                .sum()
        }
        Data::Int8 { values, scales, .. } => {
            let x = |i: usize| i32::from(values[at + lane * LANE + i]);
            let scale = scales[at / LANE + lane];
            let dot = scale * columns.clone().map(|i| integer(book, codes[i]) * x(i)).sum::<i32>() as f32;
            match group {
                None => dot,
                Some((s, m)) => {
                    let sum = scale * columns.map(x).sum::<i32>() as f32;
                    s * (dot + zero * sum) + m * sum
                }
            }
        }
    }
}

//! Scales as they lie in GPU memory are those of the file, bit by bit: read as kernels read them, without a device.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;

use case::{Case, with_model};
use common::{Draw, sources};
use ecq_format::directory::Scales;
use ecq_format::reader::CodedTensor;
use ecq_gpu::scales::{Format, Number, Record, Rule};
use ecq_gpu::side;
use ecq_gpu::tiles::Tiles;
use ecq_quant::groups::Groups;
use half::f16;

/// `width` bits from a place on.
fn bits(words: &[u32], at: usize, width: u32) -> u32 {
    let both = u64::from(words[at / 32]) | u64::from(words[at / 32 + 1]) << 32;
    (both >> (at % 32) & ((1 << width) - 1)) as u32
}

/// Reads a number, and moves on: in the words that are shared, and in a record of so many rows.
fn number(
    words: &[u32],
    number: &Number,
    head: &mut usize,
    at: &mut usize,
    (row, rows): (usize, usize),
) -> f32 {
    let mut sum = words[*head];
    *head += 1;
    for piece in number.pieces.iter().filter(|piece| piece.width > 0) {
        let code = bits(words, *at + row * piece.width as usize, piece.width);
        *at += rows * piece.width as usize;
        if piece.table {
            sum = sum.wrapping_add(words[*head + code as usize]);
            *head += 1 << piece.width;
        } else {
            sum = sum.wrapping_add(code << piece.shift);
        }
    }
    match number.format {
        Format::Half | Format::SmallHalf => f16::from_bits(sum as u16).to_f32(),
        Format::Bf16 => f32::from_bits(sum << 16),
        Format::F32 => f32::from_bits(sum),
        Format::Integer => sum as i32 as f32,
    }
}

fn check(tensor: &CodedTensor<'_>, what: &str) {
    let coded = tensor.coded();
    let tiles = Tiles::of(tensor).unwrap();
    let (code, codes) = tiles.code();
    let resident = side::resident(tensor, tiles.shape(), code, codes).unwrap();
    let (rows, cols) = (coded.rows as usize, coded.cols as usize);
    let groups = Groups::new(&coded.values.scales, rows, cols, &tensor.side().unwrap()).unwrap();
    let form = resident.form.groups.unwrap();
    assert_eq!(form.size as usize, groups.size);
    // all bands, and those of a part
    for part in [0..rows, 16..rows.min(32)] {
        let (words, places) = resident.side.part(part.clone());
        assert!(words.len() as u64 <= resident.side.words(part.len()), "{what}");
        for row in part.clone() {
            let band = 32 * (places.records as usize + (row - part.start) / 8 * places.stride as usize);
            for group in 0..groups.per_row {
                let mut head = 0;
                let mut read = |record: &Record, first: usize, index: usize| {
                    let mut at = first + 8 * index * record.bytes() as usize;
                    let mut next = |n: &Number| number(&words, n, &mut head, &mut at, (row % 8, 8));
                    let factor = next(&record.factor);
                    (factor, record.other.as_ref().map(next))
                };
                let (a, b) = read(&form.numbers, band, group);
                let (s, m) = match form.rule {
                    Rule::Plain => (a, b.unwrap_or(0.0)),
                    Rule::Zero => (a, -(a * b.unwrap())),
                    Rule::Nested { supers, shared } => {
                        let place = band + 32 * places.shared as usize;
                        let (d, e) = read(&shared, place, group / supers as usize);
                        (d * a, b.map_or(0.0, |b| -(e.unwrap() * b)))
                    }
                    Rule::Run { supers, shared } => {
                        let offset = f32::from_bits(words[head]);
                        head += 1;
                        let run = (row - part.start) * groups.per_row + group + places.phase as usize;
                        let mut at =
                            32 * places.shared as usize + run / supers as usize * shared.bits() as usize;
                        (a * number(&words, &shared, &mut head, &mut at, (0, 1)) + offset, 0.0)
                    }
                };
                let (s0, m0) = groups.of_group(row, group);
                let same = |x: f32, y: f32| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
                assert!(same(s, s0) && same(m, m0), "{what}: {row}, {group}: {s} {m}, not {s0} {m0}");
            }
        }
        let map = words[..places.records as usize].len() - map_words(form.map_bits, cols);
        for (column, &group) in groups.of_column.iter().enumerate() {
            let at = 32 * map + column * form.map_bits as usize;
            assert_eq!(bits(&words, at, form.map_bits), u32::from(group), "{what}");
        }
    }
}

fn map_words(bits: u32, cols: usize) -> usize {
    (cols * bits as usize).div_ceil(32)
}

#[test]
fn numbers_are_those_of_the_file() {
    let mut draw = Draw(5);
    for (size, rows, cols) in [(3, 37, 75), (32, 43, 200), (1, 24, 300)] {
        let groups = [false, true].map(|min| Scales::Group { size, min });
        for scales in sources::scales(size).into_iter().chain(groups) {
            let case = Case { rows, cols, scales, ..Case::PLAIN };
            // as models have them, any bits, few numbers, and ever the same
            for kind in 0..4u32 {
                let mut model = case.model();
                if kind > 0 {
                    model.coded[0].planes = sources::planes(scales, rows, cols, &mut draw);
                }
                let mapped = matches!(scales, Scales::Numbers { mapped: true, .. });
                if kind > 1 && !mapped {
                    let planes = model.coded[0].planes.iter_mut().flatten();
                    planes.for_each(|byte| *byte = if kind == 2 { *byte % 3 * 50 } else { 0x2c });
                }
                with_model(&model, |tensor| check(tensor, &format!("{case:?} {kind}")));
            }
        }
    }
}

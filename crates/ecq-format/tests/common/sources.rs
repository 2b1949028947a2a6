//! Tensors with what version 3 of the format has: scales as sources have them, codebooks, predictions.
#![allow(dead_code)] // each test binary uses its part

use ecq_format::directory::{Codebook, Min, NumberFormat, Scales, Values};
use ecq_format::encode::Profile;
use ecq_format::predict::Predictor;

use super::{Coded, Draw, Matrix};

/// NF4, as bitsandbytes has it: increasing, with a 0 inside, and not symmetric.
pub const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Every kind of scales that is new, with groups of `size` columns.
pub fn scales(size: u64) -> Vec<Scales> {
    let mut all = Vec::new();
    for format in [NumberFormat::F16, NumberFormat::Bf16, NumberFormat::F32] {
        for min in [Min::None, Min::Number, Min::Zero] {
            all.extend([false, true].map(|mapped| Scales::Numbers { size, format, min, mapped }));
        }
    }
    for (supers, bias) in [(1, 0), (3, -128), (8, -32), (1000, -1)] {
        all.extend([false, true].map(|min| Scales::Nested { size, supers, bias, min }));
    }
    all.extend([1, 3, 1000].map(|supers| Scales::Lookup { size, supers, offset: 0.375 }));
    all.push(Scales::Lookup { size, supers: 7, offset: f64::from(-0.1f32) });
    all
}

/// Random planes: any bits, but groups of the map that there are.
pub fn planes(scales: Scales, rows: usize, cols: usize, draw: &mut Draw) -> Vec<Vec<u8>> {
    let of = |size: u64| cols.div_ceil(size as usize);
    match scales {
        Scales::None => vec![],
        Scales::RowColumn { row, column } => {
            let all = [(row, rows), (column, cols)].into_iter().filter(|p| p.0);
            all.map(|p| draw.bytes(p.1)).collect()
        }
        Scales::Group { size, min } => random(if min { 4 } else { 2 }, rows * of(size), draw),
        Scales::Numbers { size, format, min, mapped } => {
            let width = if format == NumberFormat::F32 { 4 } else { 2 };
            let of_min = [(Min::None, 0), (Min::Number, width), (Min::Zero, 1)];
            let of_min = of_min.into_iter().find(|m| m.0 == min).unwrap().1;
            let mut all = random(width + of_min, rows * of(size), draw);
            if mapped {
                let map: Vec<u16> = (0..cols).map(|_| draw.below(of(size) as u32) as u16).collect();
                all.push(map.iter().map(|group| (group >> 8) as u8).collect());
                all.push(map.iter().map(|&group| group as u8).collect());
            }
            all
        }
        Scales::Nested { size, supers, min, .. } => {
            let count = if min { 2 } else { 1 };
            let mut all = random(count, rows * of(size), draw);
            all.extend(random(2 * count, rows * of(size).div_ceil(supers as usize), draw));
            all
        }
        Scales::Lookup { size, supers, .. } => {
            let groups = rows * of(size);
            let mut all = random(1, groups, draw);
            all.extend(random(4, 256, draw));
            all.extend(random(4, groups.div_ceil(supers as usize), draw));
            all
        }
    }
}

fn random(count: usize, len: usize, draw: &mut Draw) -> Vec<Vec<u8>> {
    (0..count).map(|_| draw.bytes(len)).collect()
}

/// A tensor of random levels around `center`, most of them within 16, with some far off.
pub fn tensor(
    name: String,
    (rows, cols): (usize, usize),
    profile: Profile,
    scales: Scales,
    codebook: Option<[f32; 16]>,
    draw: &mut Draw,
) -> Coded {
    let center = [0, -8, 1000][draw.below(3) as usize];
    let matrix = Matrix::new(rows, cols, || match draw.below(40) {
        0 => draw.bits() as i32 >> draw.below(25),
        // around the ends of a codebook, in and out
        n => center - 2 + (n % 20) as i32,
    });
    let raw_bits = if codebook.is_some() { 0..=0 } else { 0..=8 };
    let codebook = codebook.map(Codebook);
    let values = Values { step: f64::from(0.1f32), bias: -8.5, offset: 0.25, scales, codebook };
    let planes = planes(scales, rows, cols, draw);
    let shape = vec![rows as u64, cols as u64];
    Coded { name, shape, matrix, profile, center, raw_bits, values, planes, predictor: None }
}

/// A tensor of levels of 8 bits that its predictor helps, but for some of any size.
pub fn predicted(
    name: String,
    (rows, cols): (usize, usize),
    profile: Profile,
    predictor: Predictor,
    raw_bits: u32,
    draw: &mut Draw,
) -> Coded {
    let mut position = 0..;
    let matrix = Matrix::new(rows, cols, || {
        let position: usize = position.next().unwrap();
        let (row, col) = ((position / cols) as i32, (position % cols) as i32);
        let smooth = 3 * row + 2 * col + draw.below(3) as i32; // wraps around again and again
        i32::from(if draw.below(50) == 0 { draw.bits() as i8 } else { smooth as i8 })
    });
    let center = if raw_bits == 0 { -8 } else { 0 };
    let values = Values { step: 0.5, bias: 0.5, ..Values::ONE };
    let (raw_bits, predictor) = (raw_bits..=raw_bits, Some(predictor));
    let shape = vec![rows as u64, cols as u64];
    Coded { name, shape, matrix, profile, center, raw_bits, values, planes: vec![], predictor }
}

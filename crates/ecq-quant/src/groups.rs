//! Scales and minima of groups of columns, in whatever form a file has them, as f32.

use ecq_format::directory::{Min, NumberFormat, Scales};
use ecq_format::pattern::FloatFormat;
use half::f16;
use multiversion::multiversion;

use crate::values::from_bits;

/// s and m of every group of a matrix.
pub struct Groups {
    /// Columns of a group; the last of a row may be shorter.
    pub size: usize,
    /// Groups in a row.
    pub per_row: usize,
    /// s of all groups, row by row.
    pub scale: Numbers,
    /// m of all groups, unless it is 0.
    pub min: Option<Numbers>,
    /// The group of each column in its row; empty where `size` tells.
    pub of_column: Vec<u16>,
}

impl Groups {
    /// From the planes of a matrix of rows x cols; planes must be those that the scales list. `None` without groups.
    ///
    /// Every product and sum is rounded to f32 by itself, as the format says.
    pub fn new(scales: &Scales, rows: usize, cols: usize, planes: &[Vec<u8>]) -> Option<Self> {
        let size = scales.size()? as usize;
        let per_row = cols.div_ceil(size);
        let (mut min, mut of_column) = (None, Vec::new());
        let scale = match *scales {
            Scales::None | Scales::RowColumn { .. } => return None,
            Scales::Group { min: has_min, .. } => {
                min = has_min.then(|| numbers(NumberFormat::F16, &planes[2..4]));
                numbers(NumberFormat::F16, &planes[..2])
            }
            Scales::Numbers { format, min: kind, mapped, .. } => {
                let bytes = format.bytes();
                let scale = numbers(format, &planes[..bytes]);
                match kind {
                    Min::None => {}
                    Min::Number => min = Some(numbers(format, &planes[bytes..2 * bytes])),
                    Min::Zero => {
                        let number = |(i, &z): (usize, &u8)| -(scale.at(i) * f32::from(z));
                        min = Some(Numbers::new(planes[bytes].iter().enumerate().map(number).collect()));
                    }
                }
                if let (true, [.., high, low]) = (mapped, planes) {
                    of_column = high.iter().zip(low).map(|(&h, &l)| u16::from_be_bytes([h, l])).collect();
                }
                scale
            }
            Scales::Nested { supers, bias, min: has_min, .. } => {
                let shared = |number: usize| numbers(NumberFormat::F16, &planes[number..number + 2]);
                let first = 1 + usize::from(has_min);
                let each = |plane: &[u8], shared: &Numbers, bias: i32| -> Vec<f32> {
                    let supers_per_row = per_row.div_ceil(supers as usize);
                    let number = |(g, &c): (usize, &u8)| {
                        let at = g / per_row * supers_per_row + g % per_row / supers as usize;
                        shared.at(at) * (i32::from(c) + bias) as f32
                    };
                    plane.iter().enumerate().map(number).collect()
                };
                if has_min {
                    let all = each(&planes[1], &shared(first + 2), 0);
                    min = Some(Numbers::new(all.iter().map(|m| -m).collect()));
                }
                Numbers::new(each(&planes[0], &shared(first), bias))
            }
            Scales::Lookup { supers, offset, .. } => {
                let table = numbers(NumberFormat::F32, &planes[1..5]);
                let shared = numbers(NumberFormat::F32, &planes[5..9]);
                let number = |(g, &c): (usize, &u8)| {
                    table.at(usize::from(c)) * shared.at(g / supers as usize) + offset as f32
                };
                Numbers::new(planes[0].iter().enumerate().map(number).collect())
            }
        };
        debug_assert_eq!(scale.len(), rows * per_row);
        Some(Self { size, per_row, scale, min, of_column })
    }

    /// s and m of a group of a row.
    #[inline]
    pub fn of_group(&self, row: usize, group: usize) -> (f32, f32) {
        let at = row * self.per_row + group;
        (self.scale.at(at), self.min.as_ref().map_or(0.0, |min| min.at(at)))
    }

    /// The same groups with s times a factor, rounded to f32, and m as it is.
    pub fn times(&self, factor: f32) -> Self {
        let Self { size, per_row, scale, min, of_column } = self;
        let (min, of_column) = (min.clone(), of_column.clone());
        Self { size: *size, per_row: *per_row, scale: scale.times(factor), min, of_column }
    }
}

/// Scales or minima: as halves where these hold all of them exactly, which takes half the memory.
#[derive(Clone, Debug)]
pub enum Numbers {
    /// Bits of halves.
    Half(Vec<u16>),
    /// As f32.
    Single(Vec<f32>),
}

impl Numbers {
    /// Of these numbers.
    pub fn new(all: Vec<f32>) -> Self {
        let exact = |v: &f32| f16::from_f32(*v).to_f32().to_bits() == v.to_bits();
        if all.iter().all(exact) {
            Self::Half(all.into_iter().map(|v| f16::from_f32(v).to_bits()).collect())
        } else {
            Self::Single(all)
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Half(all) => all.len(),
            Self::Single(all) => all.len(),
        }
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Half(all) => size_of_val(all.as_slice()) as u64,
            Self::Single(all) => size_of_val(all.as_slice()) as u64,
        }
    }

    /// One of them.
    #[inline]
    pub fn at(&self, at: usize) -> f32 {
        match self {
            Self::Half(all) => single(all[at]),
            Self::Single(all) => all[at],
        }
    }

    /// Each times a factor, rounded to f32.
    fn times(&self, factor: f32) -> Self {
        Self::Single(match self {
            Self::Half(all) => all.iter().map(|&half| single(half) * factor).collect(),
            Self::Single(all) => all.iter().map(|number| number * factor).collect(),
        })
    }

    /// Copies numbers from `at` on.
    pub fn read(&self, at: usize, out: &mut [f32]) {
        match self {
            Self::Half(all) => singles(&all[at..][..out.len()], out),
            Self::Single(all) => out.copy_from_slice(&all[at..][..out.len()]),
        }
    }
}

/// A half as a float. As plain integers and one product, which the compiler makes vectors of.
#[inline(always)]
fn single(half: u16) -> f32 {
    let bits = u32::from(half);
    // subnormal halves become subnormal floats, and all are scaled by 2^112
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    let beyond = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | beyond | (bits & 0x8000) << 16)
}

#[multiversion(targets = "simd")]
fn singles(halves: &[u16], out: &mut [f32]) {
    for (out, half) in out.iter_mut().zip(halves) {
        *out = single(*half);
    }
}

/// Numbers from the planes of their bytes, highest first.
fn numbers(format: NumberFormat, planes: &[Vec<u8>]) -> Numbers {
    let halves = |i: usize| planes[i].iter().zip(&planes[i + 1]).map(|(&h, &l)| u16::from_be_bytes([h, l]));
    match format {
        NumberFormat::F16 => Numbers::Half(halves(0).collect()),
        NumberFormat::Bf16 => {
            Numbers::new(halves(0).map(|bits| from_bits(FloatFormat::Bf16, bits)).collect())
        }
        NumberFormat::F32 => {
            let all = halves(0).zip(halves(2));
            let number = |(high, low)| f32::from_bits(u32::from(high) << 16 | u32::from(low));
            Numbers::new(all.map(number).collect())
        }
    }
}

/// The planes of the bytes of numbers, highest first: [`Groups::new`] reads them.
pub fn planes_of<const BYTES: usize>(numbers: impl Iterator<Item = [u8; BYTES]> + Clone) -> Vec<Vec<u8>> {
    (0..BYTES).map(|i| numbers.clone().map(|bytes| bytes[i]).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(numbers: &Numbers, count: usize) -> Vec<f32> {
        let mut all = vec![0.0; count];
        numbers.read(0, &mut all);
        assert!((0..count).all(|i| numbers.at(i).to_bits() == all[i].to_bits()));
        all
    }

    fn halves(values: &[f32]) -> Vec<Vec<u8>> {
        planes_of(values.iter().map(|&v| f16::from_f32(v).to_bits().to_be_bytes()))
    }

    #[test]
    fn halves_are_the_numbers_that_they_stand_for() {
        for bits in 0..=u16::MAX {
            let (found, expected) = (single(bits), f16::from_bits(bits).to_f32());
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "{bits:#x}: {found}, not {expected}");
        }
    }

    #[test]
    fn nested_scales_share_their_number_within_a_row() {
        // two rows of three groups, two of which share a number
        let scales = Scales::Nested { size: 2, supers: 2, bias: -4, min: true };
        let mut planes = vec![vec![4, 5, 6, 7, 8, 9], vec![0, 1, 2, 3, 4, 5]];
        planes.extend(halves(&[1.0, 2.0, 3.0, 4.0]));
        planes.extend(halves(&[0.5, 1.0, 1.5, 2.0]));
        let groups = Groups::new(&scales, 2, 6, &planes).unwrap();
        assert_eq!(all(&groups.scale, 6), [0.0, 1.0, 4.0, 9.0, 12.0, 20.0]);
        assert_eq!(all(&groups.min.unwrap(), 6), [-0.0, -0.5, -2.0, -4.5, -6.0, -10.0]);
    }

    #[test]
    fn zero_points_and_maps_of_columns_are_what_they_say() {
        let scales = Scales::Numbers { size: 2, format: NumberFormat::Bf16, min: Min::Zero, mapped: true };
        let mut planes = planes_of([1.5f32, 2.0].iter().map(|v| ((v.to_bits() >> 16) as u16).to_be_bytes()));
        planes.push(vec![8, 7]);
        planes.extend([vec![0, 0, 0, 0], vec![1, 0, 1, 0]]);
        let groups = Groups::new(&scales, 1, 4, &planes).unwrap();
        assert_eq!(
            (all(&groups.scale, 2), all(&groups.min.unwrap(), 2)),
            (vec![1.5, 2.0], vec![-12.0, -14.0])
        );
        assert_eq!(groups.of_column, [1, 0, 1, 0]);
    }

    #[test]
    fn looked_up_scales_count_groups_through_the_tensor() {
        let scales = Scales::Lookup { size: 1, supers: 3, offset: 0.25 };
        let mut planes = vec![vec![0, 1, 2, 255]];
        planes.extend(planes_of((0..256).map(|i| (i as f32).to_be_bytes())));
        planes.extend(planes_of([2.0f32, 10.0].iter().map(|v| v.to_be_bytes())));
        let groups = Groups::new(&scales, 2, 2, &planes).unwrap();
        assert_eq!(all(&groups.scale, 4), [0.25, 2.25, 4.25, 2550.25]);
    }
}

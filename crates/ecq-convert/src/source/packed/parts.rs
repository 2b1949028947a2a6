//! Scales, zero points and maps of columns beside packed levels: from the bytes of a source to planes, and back.

use ecq_format::directory::{Coded, Min, NumberFormat, Scales, Values};

use super::layout::{AWQ_ORDER, Layout, NIBBLES, nibbles};

/// Values of a byte, which the map of nested scales has an entry for.
const TABLE: usize = 256;

/// The form of a part's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Numbers of all groups, little-endian.
    Numbers(NumberFormat),
    /// Zero points of four bits, packed along the outputs.
    Zeros,
    /// `i32` group of each column.
    Map,
    /// A byte for each group.
    Bytes,
    /// The binary32 table that those bytes index.
    Table,
    /// binary32 numbers, each of several groups.
    Shared,
}

impl Form {
    /// The type that a source's tensor of this form has, as safetensors names it.
    pub fn dtype(self) -> &'static str {
        match self {
            Self::Numbers(NumberFormat::F16) => "F16",
            Self::Numbers(NumberFormat::Bf16) => "BF16",
            Self::Numbers(NumberFormat::F32) | Self::Table | Self::Shared => "F32",
            Self::Zeros | Self::Map => "I32",
            Self::Bytes => "U8",
        }
    }
}

/// A matrix, its groups, and where its parts are.
#[derive(Clone, Copy, Debug)]
pub struct Grouping {
    /// How levels are packed.
    pub layout: Layout,
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Where scales come from.
    pub scales: Scales,
}

impl Grouping {
    /// `None` if a tensor of these values is not one that the layout has.
    ///
    /// Only the values are looked at: planes have the lengths that [`Coded::side_planes`] gives.
    pub fn new(layout: Layout, rows: u64, cols: u64, values: &Values) -> Option<Self> {
        let Values { step, bias, offset, scales, codebook } = *values;
        let size = scales.size()?;
        let book = layout == Layout::Nf4;
        // GPTQ's first version stores zero points less one
        let biased = bias == 0.0 || layout == Layout::Gptq4 && bias == -1.0;
        let formed = match (layout, scales) {
            (Layout::Mlx4 | Layout::Mlx8, Scales::Numbers { min: Min::Number, mapped, .. }) => !mapped,
            (Layout::Gptq4, Scales::Numbers { format, min: Min::Zero, .. }) => format != NumberFormat::F32,
            (Layout::Awq4, Scales::Numbers { format, min: Min::Zero, mapped, .. }) => {
                format != NumberFormat::F32 && !mapped
            }
            (Layout::Nf4, Scales::Numbers { format, min: Min::None, mapped, .. }) => {
                format == NumberFormat::F32 && !mapped
            }
            (Layout::Nf4, Scales::Lookup { .. }) => true,
            _ => false,
        };
        // groups of NF4 run on through the matrix, so they must end where rows do
        let whole = !book || size > 0 && cols.is_multiple_of(size);
        let plain = step == 1.0 && offset == 0.0 && biased && codebook.is_some() == book;
        let fits = plain && formed && whole && size > 0 && layout.fits(rows, cols);
        let (rows, cols) = (usize::try_from(rows).ok()?, usize::try_from(cols).ok()?);
        fits.then_some(Self { layout, rows, cols, scales })
    }

    /// Of a tensor in a file.
    pub fn of(coded: &Coded) -> Option<Self> {
        let layout = Layout::of_scheme(&coded.scheme)?;
        Self::new(layout, coded.rows, coded.cols, &coded.values).filter(|_| coded.pattern.is_none())
    }

    /// Groups in a row.
    pub fn per_row(&self) -> usize {
        self.scales.size().map_or(0, |size| self.cols.div_ceil(size as usize))
    }

    /// The forms of all parts that the layout can have, by their index.
    pub fn forms(&self) -> Vec<Form> {
        match self.scales {
            Scales::Numbers { format, min: Min::Number, .. } => vec![Form::Numbers(format); 2],
            Scales::Numbers { format, min: Min::Zero, .. } if self.layout == Layout::Gptq4 => {
                vec![Form::Numbers(format), Form::Zeros, Form::Map]
            }
            Scales::Numbers { format, min: Min::Zero, .. } => vec![Form::Numbers(format), Form::Zeros],
            Scales::Numbers { format, .. } => vec![Form::Numbers(format)],
            Scales::Lookup { .. } => vec![Form::Bytes, Form::Shared, Form::Table],
            _ => Vec::new(),
        }
    }

    /// Elements of a part in the source; of zero points, words.
    pub fn elements(&self, form: Form) -> usize {
        let groups = self.rows.saturating_mul(self.per_row());
        match form {
            Form::Numbers(_) | Form::Bytes => groups,
            Form::Zeros => groups / NIBBLES,
            Form::Map => self.cols,
            Form::Table => TABLE,
            Form::Shared => match self.scales {
                Scales::Lookup { supers, .. } => groups.div_ceil((supers as usize).max(1)),
                _ => 0,
            },
        }
    }

    /// The planes that a part is in.
    fn planes_of(&self, index: usize) -> std::ops::Range<usize> {
        match (self.scales, index) {
            (Scales::Numbers { format, .. }, 0) => 0..format.bytes(),
            (Scales::Numbers { format, min: Min::Number, .. }, _) => format.bytes()..2 * format.bytes(),
            (Scales::Numbers { format, min: Min::Zero, .. }, 1) => format.bytes()..format.bytes() + 1,
            (Scales::Numbers { format, mapped: true, .. }, 2) => format.bytes() + 1..format.bytes() + 3,
            (Scales::Lookup { .. }, 0) => 0..1,
            (Scales::Lookup { .. }, 1) => 5..9,
            (Scales::Lookup { .. }, 2) => 1..5,
            _ => 0..0,
        }
    }

    /// Planes from the bytes of all parts, in the order of their indices; a map of columns may be missing.
    ///
    /// # Panics
    /// When a part has not [`Self::elements`].
    pub fn planes(&self, parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut planes: Vec<(usize, Vec<u8>)> = Vec::new();
        for (index, (form, bytes)) in self.forms().into_iter().zip(parts).enumerate() {
            let made = match form {
                Form::Numbers(format) => self.split(bytes, format.bytes(), true),
                Form::Shared | Form::Table => self.split(bytes, 4, false),
                Form::Bytes => vec![bytes.to_vec()],
                Form::Zeros => vec![self.unpack_zeros(bytes)],
                // in range, which was checked; what the group size says already takes no plane
                Form::Map => {
                    [1, 0].map(|byte| bytes.as_chunks::<4>().0.iter().map(|word| word[byte]).collect()).into()
                }
            };
            planes.extend(self.planes_of(index).zip(made));
        }
        planes.sort_by_key(|p| p.0);
        planes.into_iter().map(|p| p.1).collect()
    }

    /// The bytes of a part from the planes of a tensor; `None` if it has no such part, or a plane holds what the part
    /// cannot.
    pub fn part(&self, planes: &[Vec<u8>], index: u32) -> Option<Vec<u8>> {
        let index = index as usize;
        let form = *self.forms().get(index)?;
        let planes = planes.get(self.planes_of(index))?;
        match form {
            Form::Numbers(_) => Some(self.join(planes, true)),
            Form::Shared | Form::Table => Some(self.join(planes, false)),
            Form::Bytes => planes.first().cloned(),
            Form::Zeros => self.pack_zeros(planes.first()?),
            Form::Map => {
                let size = self.scales.size()? as usize;
                let groups: Vec<i32> = match planes {
                    [high, low] => {
                        high.iter().zip(low).map(|(&h, &l)| u16::from_be_bytes([h, l]).into()).collect()
                    }
                    _ => (0..self.cols).map(|column| (column / size) as i32).collect(),
                };
                Some(groups.iter().flat_map(|group| group.to_le_bytes()).collect())
            }
        }
    }

    /// Where in a plane the i-th number of a source is: sources that are transposed have outputs side by side.
    fn place(&self, i: usize) -> usize {
        i % self.rows * self.per_row() + i / self.rows
    }

    /// Planes of the bytes of little-endian numbers, highest first.
    fn split(&self, bytes: &[u8], width: usize, of_groups: bool) -> Vec<Vec<u8>> {
        let transposed = of_groups && self.layout.transposed();
        let mut planes = vec![vec![0; bytes.len() / width]; width];
        for (i, number) in bytes.chunks_exact(width).enumerate() {
            let at = if transposed { self.place(i) } else { i };
            planes.iter_mut().zip(number.iter().rev()).for_each(|(plane, &byte)| plane[at] = byte);
        }
        planes
    }

    fn join(&self, planes: &[Vec<u8>], of_groups: bool) -> Vec<u8> {
        let transposed = of_groups && self.layout.transposed();
        let count = planes.first().map_or(0, Vec::len);
        let mut bytes = Vec::with_capacity(count * planes.len());
        for i in 0..count {
            let at = if transposed { self.place(i) } else { i };
            bytes.extend(planes.iter().rev().map(|plane| plane[at]));
        }
        bytes
    }

    /// The output of the nibble at a place of a word.
    fn output(&self, place: usize) -> usize {
        if self.layout == Layout::Awq4 { AWQ_ORDER[place] } else { place }
    }

    fn unpack_zeros(&self, bytes: &[u8]) -> Vec<u8> {
        let mut plane = vec![0; NIBBLES * bytes.len() / 4];
        for (i, word) in bytes.as_chunks().0.iter().enumerate() {
            for (place, &zero) in nibbles(*word).iter().enumerate() {
                plane[self.place(NIBBLES * i + self.output(place))] = zero;
            }
        }
        plane
    }

    fn pack_zeros(&self, plane: &[u8]) -> Option<Vec<u8>> {
        if plane.iter().any(|&zero| zero > 15) {
            return None;
        }
        let word = |i: usize| {
            let zero = |place: usize| u32::from(plane[self.place(NIBBLES * i + self.output(place))]);
            (0..NIBBLES).fold(0, |word, place| word | zero(place) << (4 * place))
        };
        Some((0..plane.len() / NIBBLES).flat_map(|i| word(i).to_le_bytes()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecq_format::directory::Codebook;

    fn values(scales: Scales, nf4: bool) -> Values {
        Values { scales, codebook: nf4.then_some(Codebook([0.5; 16])), ..Values::ONE }
    }

    fn numbers(format: NumberFormat, min: Min, mapped: bool) -> Scales {
        Scales::Numbers { size: 16, format, min, mapped }
    }

    #[test]
    fn parts_come_back_from_planes() {
        let lookup = Scales::Lookup { size: 16, supers: 5, offset: 0.25 };
        let cases = [
            (Layout::Mlx4, numbers(NumberFormat::Bf16, Min::Number, false)),
            (Layout::Mlx8, numbers(NumberFormat::F32, Min::Number, false)),
            (Layout::Gptq4, numbers(NumberFormat::F16, Min::Zero, false)),
            (Layout::Gptq4, numbers(NumberFormat::F16, Min::Zero, true)),
            (Layout::Awq4, numbers(NumberFormat::F16, Min::Zero, false)),
            (Layout::Nf4, numbers(NumberFormat::F32, Min::None, false)),
            (Layout::Nf4, lookup),
        ];
        for (layout, scales) in cases {
            let grouping = Grouping::new(layout, 24, 48, &values(scales, layout == Layout::Nf4)).unwrap();
            let mapped = matches!(scales, Scales::Numbers { mapped: true, .. });
            let part = |form: Form| -> Vec<u8> {
                let n = grouping.elements(form);
                match form {
                    Form::Map => (0..n as i32)
                        .map(|c| if mapped { c * 7 % 3 } else { c / 16 })
                        .flat_map(i32::to_le_bytes)
                        .collect(),
                    Form::Bytes => (0..n).map(|i| (i * 37) as u8).collect(),
                    Form::Numbers(f) => (0..n * f.bytes()).map(|i| (i * 73 + i / 256) as u8).collect(),
                    Form::Zeros | Form::Table | Form::Shared => (0..n * 4).map(|i| (i * 91) as u8).collect(),
                }
            };
            let parts: Vec<Vec<u8>> = grouping.forms().into_iter().map(part).collect();
            let planes = grouping.planes(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            for (i, expected) in parts.iter().enumerate() {
                assert_eq!(grouping.part(&planes, i as u32).as_ref(), Some(expected), "{layout:?}, part {i}");
            }
            assert_eq!(grouping.part(&planes, parts.len() as u32), None);
        }
    }

    #[test]
    fn scales_and_zero_points_of_transposed_tensors_are_row_by_row() {
        let scales = Scales::Numbers { size: 8, format: NumberFormat::F16, min: Min::Zero, mapped: false };
        for (layout, place) in [(Layout::Gptq4, 1), (Layout::Awq4, 4)] {
            let grouping = Grouping::new(layout, 8, 16, &values(scales, false)).unwrap();
            let mut numbers = vec![0; 2 * 16]; // [2 groups, 8 outputs]
            numbers[2 * (8 + 1)..][..2].copy_from_slice(&[0x34, 0x12]); // group 1 of output 1
            let zeros = [0u32, 7 << (4 * place)].map(u32::to_le_bytes).concat();
            let planes = grouping.planes(&[&numbers, &zeros]);
            let at = |plane: &Vec<u8>| {
                plane.iter().enumerate().filter(|p| *p.1 != 0).map(|p| (p.0, *p.1)).collect()
            };
            let found: Vec<Vec<(usize, u8)>> = planes.iter().map(at).collect();
            assert_eq!(found, [[(3, 0x12)], [(3, 0x34)], [(3, 7)]], "{layout:?}");
        }
    }

    #[test]
    fn values_that_a_layout_does_not_have_are_refused() {
        let mlx = numbers(NumberFormat::Bf16, Min::Number, false);
        let good = values(mlx, false);
        assert!(Grouping::new(Layout::Mlx4, 8, 64, &good).is_some());
        let wrong = [
            Values { step: 2.0, ..good },
            Values { bias: -1.0, ..good },
            Values { offset: 1.0, ..good },
            Values { scales: Scales::None, ..good },
            Values { scales: numbers(NumberFormat::Bf16, Min::Zero, false), ..good },
            Values { scales: numbers(NumberFormat::Bf16, Min::Number, true), ..good },
            values(mlx, true),
        ];
        for values in wrong {
            assert!(Grouping::new(Layout::Mlx4, 8, 64, &values).is_none(), "{values:?}");
        }
        assert!(Grouping::new(Layout::Mlx4, 8, 60, &good).is_none());
        let zero = values(numbers(NumberFormat::F16, Min::Zero, false), false);
        assert!(Grouping::new(Layout::Awq4, 9, 64, &zero).is_none());
        let nf4 = values(numbers(NumberFormat::F32, Min::None, false), true);
        assert!(Grouping::new(Layout::Nf4, 8, 40, &nf4).is_none(), "groups across rows");
        let grouping = Grouping::new(Layout::Awq4, 8, 64, &zero).unwrap();
        let planes = vec![vec![0; 32], vec![0; 32], vec![16; 32]];
        assert_eq!(grouping.part(&planes, 1), None, "a zero point of five bits");
    }
}

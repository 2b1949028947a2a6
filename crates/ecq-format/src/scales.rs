//! From level to weight: step, codebook and scales, and the planes of side data that scales are stored in.

use serde::{Deserialize, Serialize};

use crate::directory::Coded;
use crate::levels::Split;

/// From level q to weight: `w = step * (s * t + m) + offset`, in that order, in f32.
///
/// t is `q + bias`, or the codebook's value. s and m are 1 and 0, or come from `scales`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Values {
    /// Factor of everything; an f32 value written as the f64 that equals it.
    pub step: f64,
    /// 0; 0.5 where levels lie between the multiples of the step; -8 for codes around 8.
    pub bias: f64,
    /// Added at the end; an f32 value.
    pub offset: f64,
    /// Where s and m come from.
    pub scales: Scales,
    /// The values t of the sixteen levels from the centre on; levels beyond them have `q + bias`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub codebook: Option<Codebook>,
}

impl Values {
    /// Weights are levels.
    pub const ONE: Self = Self { step: 1.0, bias: 0.0, offset: 0.0, scales: Scales::None, codebook: None };

    /// Checks that every number is a finite f32, and that codebook and scales fit the split and the columns.
    pub(crate) fn check(&self, split: Split, cols: u64) -> Result<(), String> {
        let exact = |x: f64| x.is_finite() && f64::from(x as f32) == x;
        if [self.step, self.bias, self.offset].iter().any(|&x| !exact(x)) {
            return Err("step, bias or offset is not a finite f32".into());
        }
        if let Some(Codebook(values)) = self.codebook {
            if split.raw_bits != 0 {
                return Err(format!("a codebook beside {} raw bits", split.raw_bits));
            }
            if values.iter().any(|v| !v.is_finite()) {
                return Err("a value of the codebook is not a finite f32".into());
            }
        }
        self.scales.check(cols)
    }

    /// The version of the format that this needs.
    pub(crate) fn version(&self) -> u32 {
        match self.scales {
            Scales::None | Scales::RowColumn { .. } | Scales::Group { .. } if self.codebook.is_none() => 1,
            _ => 3,
        }
    }
}

/// Sixteen values that levels stand for: a quantizer's own, or the centroids of a uniform one's intervals.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(into = "Vec<f64>", try_from = "Vec<f64>")]
pub struct Codebook(pub [f32; 16]);

impl From<Codebook> for Vec<f64> {
    fn from(book: Codebook) -> Self {
        book.0.iter().map(|&v| v.into()).collect()
    }
}

impl TryFrom<Vec<f64>> for Codebook {
    type Error = String;

    fn try_from(values: Vec<f64>) -> Result<Self, String> {
        let narrow: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        let exact = values.iter().zip(&narrow).all(|(&a, &b)| a.is_finite() && f64::from(b) == a);
        match <[f32; 16]>::try_from(narrow) {
            Ok(narrow) if exact => Ok(Self(narrow)),
            _ => Err("a codebook is sixteen finite f32".into()),
        }
    }
}

/// Where scales come from. Their bytes are the planes of the side data, in the order given here.
///
/// Groups are runs of `size` columns in a row (the last of a row may be shorter), counted row by row.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Scales {
    /// s = 1, m = 0. No side data.
    None,
    /// s = row\[r\] * column\[c\], each `2^((byte - 128) / 8)` or 1 where absent. A plane of bytes for each present.
    RowColumn {
        /// One byte a row.
        row: bool,
        /// One byte a column.
        column: bool,
    },
    /// s is the binary16 of the weight's group, m is 0 or a second binary16. Planes: high bytes of all s, low bytes of
    /// all s, then of all m.
    Group {
        /// Columns of a group.
        size: u64,
        /// Whether there is an m.
        min: bool,
    },
    /// s is a number of the group. Planes: the bytes of all s, highest first, each a plane; what `min` says; if `mapped`,
    /// high and low bytes of the group in its row of each column.
    Numbers {
        /// Columns of a group.
        size: u64,
        /// Format of the numbers.
        format: NumberFormat,
        /// Where m comes from.
        min: Min,
        /// Whether columns say which group of their row they belong to.
        mapped: bool,
    },
    /// s is `d * (c + bias)` with a byte c of the group and a binary16 d of `supers` neighbouring groups of the row; m is 0
    /// or `-(dmin * e)`. Planes: all c; all e; high bytes of all d, low bytes; those of all dmin.
    Nested {
        /// Columns of a group.
        size: u64,
        /// Groups that share a d.
        supers: u64,
        /// Added to c.
        bias: i32,
        /// Whether there is an m.
        min: bool,
    },
    /// s is `table[c] * d + offset` with a byte c of the group and a binary32 d of `supers` neighbouring groups of the
    /// tensor. Planes: all c; the four bytes of the table's 256 binary32 numbers, highest first, each a plane; those of
    /// all d.
    Lookup {
        /// Columns of a group.
        size: u64,
        /// Groups that share a d.
        supers: u64,
        /// Added to the product; an f32 value.
        offset: f64,
    },
}

/// Where m of a group comes from.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Min {
    /// m = 0.
    None,
    /// A number in the format of s. Planes as of s.
    Number,
    /// `-(s * z)` with a byte z of the group. A plane.
    Zero,
}

/// Format of scales.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum NumberFormat {
    /// binary16.
    F16,
    /// The upper half of a binary32 number.
    Bf16,
    /// binary32.
    F32,
}

impl NumberFormat {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Values of a byte that indexes the table of [`Scales::Lookup`].
const TABLE: u64 = 256;

impl Scales {
    /// Columns of a group, if there are groups.
    pub fn size(&self) -> Option<u64> {
        match *self {
            Self::None | Self::RowColumn { .. } => None,
            Self::Group { size, .. }
            | Self::Numbers { size, .. }
            | Self::Nested { size, .. }
            | Self::Lookup { size, .. } => Some(size),
        }
    }

    fn check(&self, cols: u64) -> Result<(), String> {
        if let Some(size) = self.size().filter(|&size| size == 0 || size > cols) {
            return Err(format!("groups of {size} columns in rows of {cols}"));
        }
        match *self {
            Self::RowColumn { row: false, column: false } => Err("neither row nor column scales".into()),
            Self::Nested { supers: 0, .. } | Self::Lookup { supers: 0, .. } => {
                Err("a number for every 0 groups".into())
            }
            Self::Nested { bias, .. } if !(-128..=0).contains(&bias) => {
                Err(format!("scales with a bias of {bias}, expected -128 to 0"))
            }
            Self::Lookup { offset, .. } if !offset.is_finite() || f64::from(offset as f32) != offset => {
                Err("the offset of the scales is not a finite f32".into())
            }
            Self::Numbers { size, mapped: true, .. } if cols.div_ceil(size) > 1 << 16 => {
                Err(format!("a map to {} groups, at most 65536", cols.div_ceil(size)))
            }
            _ => Ok(()),
        }
    }

    /// Lengths of the planes for a matrix of this shape. Counts that overflow become the largest there are, and are then
    /// over every limit.
    pub(crate) fn planes(&self, rows: u64, cols: u64) -> Vec<u64> {
        let groups = self.size().map_or(0, |size| cols.div_ceil(size));
        let all = groups.saturating_mul(rows);
        match *self {
            Self::None => vec![],
            Self::RowColumn { row, column } => {
                [(row, rows), (column, cols)].iter().filter(|p| p.0).map(|p| p.1).collect()
            }
            Self::Group { min, .. } => vec![all; 2 + 2 * usize::from(min)],
            Self::Numbers { format, min, mapped, .. } => {
                let of_min = match min {
                    Min::None => 0,
                    Min::Number => format.bytes(),
                    Min::Zero => 1,
                };
                let columns = if mapped { vec![cols; 2] } else { vec![] };
                [vec![all; format.bytes() + of_min], columns].concat()
            }
            Self::Nested { supers, min, .. } => {
                let numbers = 1 + usize::from(min);
                let shared = groups.div_ceil(supers).saturating_mul(rows);
                [vec![all; numbers], vec![shared; 2 * numbers]].concat()
            }
            Self::Lookup { supers, .. } => {
                [vec![all], vec![TABLE; 4], vec![all.div_ceil(supers); 4]].concat()
            }
        }
    }

    /// Checks decoded planes: a map must name groups that there are.
    pub(crate) fn check_planes(&self, cols: u64, planes: &[Vec<u8>]) -> Result<(), String> {
        let (Self::Numbers { size, mapped: true, .. }, [.., high, low]) = (*self, planes) else {
            return Ok(());
        };
        let groups = cols.div_ceil(size);
        let of = |(&high, &low): (&u8, &u8)| u64::from(u16::from_be_bytes([high, low]));
        match high.iter().zip(low).map(of).position(|group| group >= groups) {
            Some(column) => Err(format!("column {column} belongs to none of the {groups} groups")),
            None => Ok(()),
        }
    }
}

impl Coded {
    /// Lengths of the planes of the side data.
    pub fn side_planes(&self) -> Vec<usize> {
        let lengths = self.values.scales.planes(self.rows, self.cols);
        lengths.into_iter().map(|n| usize::try_from(n).unwrap_or(usize::MAX)).collect()
    }
}

//! A joined tensor as levels and as weights.

use std::ops::Range;

use ecq_format::directory::Values;
use ecq_format::encode::Levels;
use ecq_format::levels::Split;
use ecq_format::plan::{Histogram, Plan};
use ecq_quant::values::Dequantizer;

use super::super::{Source, SourceTensor};
use super::{Grouping, Layout, Packed};

/// The levels and scales of a packed tensor.
pub struct PackedMatrix<'a> {
    grouping: Grouping,
    values: Values,
    bytes: &'a [u8],
    parts: Vec<&'a [u8]>,
    /// Planes of its scales.
    planes: Vec<Vec<u8>>,
    dequantizer: Dequantizer,
}

impl<'a> PackedMatrix<'a> {
    /// Reads the scales of a tensor of a source that was joined to `packed`.
    pub fn new(source: &'a Source, tensor: &SourceTensor, packed: &Packed) -> Self {
        let grouping = packed.grouping;
        let parts: Vec<&[u8]> = packed.parts.iter().map(|&i| source.data(&source.tensors()[i])).collect();
        let planes = grouping.planes(&parts);
        let shape = (grouping.rows, grouping.cols);
        let dequantizer = Dequantizer::with(&packed.values, 0, shape, &planes);
        Self { grouping, values: packed.values, bytes: source.data(tensor), parts, planes, dequantizer }
    }

    /// The scheme's name in files.
    pub fn scheme(&self) -> &'static str {
        self.grouping.layout.scheme()
    }

    /// From level to weight.
    pub fn values(&self) -> Values {
        self.values
    }

    /// Planes of its scales.
    pub fn planes(&self) -> &[Vec<u8>] {
        &self.planes
    }

    /// The level at which signs fold.
    pub fn center(&self) -> i32 {
        self.grouping.layout.highest() / 2 + 1
    }

    /// The cheapest way to code its levels; `None` if there are none.
    pub fn plan(&self, histogram: &Histogram) -> Option<Plan> {
        match self.grouping.layout {
            // a codebook's values are those of the sixteen nibbles
            Layout::Nf4 => Plan::for_split(histogram, Split { raw_bits: 0, center: 0 }),
            _ => Plan::cheapest(histogram, 0..=8),
        }
    }

    /// Whether every part comes back from the planes byte for byte.
    pub fn is_exact(&self) -> bool {
        (0..)
            .zip(&self.parts)
            .all(|(index, &bytes)| self.grouping.part(&self.planes, index).is_some_and(|part| part == bytes))
    }

    /// Bytes of the tensor and its parts in the source.
    pub fn source_bytes(&self) -> u64 {
        self.parts.iter().fold(self.bytes.len(), |sum, part| sum + part.len()) as u64
    }

    /// Writes the weights of whole rows.
    pub fn weights(&self, rows: Range<usize>, out: &mut [f32]) {
        let mut levels = vec![0; out.len()];
        self.fill(rows.clone(), &mut levels);
        self.dequantizer.fill(rows, &levels, out);
    }
}

impl Levels for PackedMatrix<'_> {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        let Grouping { layout, rows: all, cols, .. } = self.grouping;
        layout.levels(self.bytes, (all, cols), rows, out);
    }
}

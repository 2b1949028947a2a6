//! A source's tensors as the quantizers and the format want them: weights or levels, a few rows at a time.

use std::ops::Range;

use ecq_format::directory::{Coded, Values, matrix};
use ecq_format::encode::Levels;
use ecq_format::pattern::FloatFormat;
use ecq_format::plan::{Histogram, Plan};
use ecq_quant::weights::Weights;

use crate::blocks::{BlockError, BlockType, to_f32};
use crate::source::{Source, SourceFile, SourceTensor, SourceType};

/// Fewest weights of a tensor that is worth coding: below, start states and tables outweigh the gain.
pub const SMALLEST: u64 = 1024;
/// Most columns of a tensor that is coded: a tile holds at least a row.
pub const MOST_COLUMNS: u64 = 1 << 22;

/// A tensor of a source, seen as a matrix.
pub struct SourceMatrix<'a> {
    rows: usize,
    cols: usize,
    dtype: &'a SourceType,
    block: Option<BlockType>,
    row_bytes: usize,
    bytes: &'a [u8],
    file: &'a SourceFile,
}

impl<'a> SourceMatrix<'a> {
    /// `None` for tensors that are stored as they are: other types, fewer than two dimensions, too small, too wide.
    pub fn new(source: &'a Source, tensor: &'a SourceTensor) -> Option<Self> {
        let SourceTensor { shape, dtype, file, .. } = tensor;
        let (bytes, file) = (source.data(tensor), &source.files()[*file]);
        let (rows, cols) = matrix(shape)?;
        let block = dtype.block();
        let row_bytes = match block {
            Some(b) if cols.is_multiple_of(b.weights() as u64) => {
                cols / b.weights() as u64 * b.bytes() as u64
            }
            None => cols.checked_mul(dtype.float_bytes()? as u64)?,
            _ => return None,
        };
        let coded = shape.len() >= 2 && rows.checked_mul(cols)? >= SMALLEST && cols <= MOST_COLUMNS;
        let whole = rows.checked_mul(row_bytes)? == bytes.len() as u64;
        (coded && whole).then_some(Self {
            rows: rows as usize,
            cols: cols as usize,
            dtype,
            block,
            row_bytes: row_bytes as usize,
            bytes,
            file,
        })
    }

    /// The format and all bytes, if the weights are floats that are coded by their bit patterns.
    pub fn floats(&self) -> Option<(FloatFormat, &'a [u8])> {
        Some((self.dtype.pattern_format()?, self.bytes))
    }

    /// Tells that some rows were read for the last time, or one of few. Returns their bytes.
    pub fn used(&self, rows: Range<usize>) -> u64 {
        let bytes = (rows.len() * self.row_bytes) as u64;
        self.file.used(bytes);
        bytes
    }

    /// The block format, if the weights are quantized already.
    pub fn block(&self) -> Option<BlockType> {
        self.block
    }

    fn slice(&self, rows: Range<usize>) -> &'a [u8] {
        self.used(rows.clone());
        &self.bytes[rows.start * self.row_bytes..rows.end * self.row_bytes]
    }
}

impl Weights for SourceMatrix<'_> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn fill(&self, rows: Range<usize>, out: &mut [f32]) {
        let bytes = self.slice(rows);
        let done = match self.block {
            Some(block) => block.dequantize(bytes, out),
            None => to_f32(self.dtype, bytes, out),
        };
        done.expect("whole rows, whose length was checked");
    }
}

/// A block-quantized tensor, to be coded without loss.
pub struct BlockTensor<'a> {
    matrix: &'a SourceMatrix<'a>,
    block: BlockType,
    /// The best plan for its levels.
    pub plan: Plan,
    /// How often each level occurs.
    pub histogram: Histogram,
    /// Planes of its scales and minima.
    pub planes: Vec<Vec<u8>>,
}

impl<'a> BlockTensor<'a> {
    /// `None` if the matrix is not block-quantized.
    pub fn new(matrix: &'a SourceMatrix<'a>) -> Option<Self> {
        let block = matrix.block?;
        let planes = block.planes(matrix.bytes).expect("whole blocks, whose length was checked");
        let levels = BlockLevels { matrix, block };
        let histogram = ecq_format::encode::histogram(&levels, matrix.rows, matrix.cols, block.center());
        let plan = Plan::cheapest(&histogram, 0..=8)?;
        Some(Self { matrix, block, plan, histogram, planes })
    }

    /// The scheme's name in files.
    pub fn scheme(&self) -> &'static str {
        self.block.scheme()
    }

    /// From level to weight.
    pub fn values(&self) -> Values {
        self.block.values()
    }
}

impl Levels for BlockTensor<'_> {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        BlockLevels { matrix: self.matrix, block: self.block }.fill(rows, out);
    }
}

struct BlockLevels<'a> {
    matrix: &'a SourceMatrix<'a>,
    block: BlockType,
}

impl Levels for BlockLevels<'_> {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        self.block.levels(self.matrix.slice(rows), out).expect("whole rows, whose length was checked");
    }
}

/// Packs decoded levels of a lossless scheme into the bytes that the source had.
pub struct Packer {
    block: BlockType,
    blocks_per_row: usize,
    planes: Vec<Vec<u8>>,
}

impl Packer {
    /// For a coded tensor and the planes of its side data.
    ///
    /// # Errors
    /// When the scheme is not one whose source can be packed again, or values, columns or planes are not those of its blocks.
    pub fn new(coded: &Coded, planes: Vec<Vec<u8>>) -> Result<Self, BlockError> {
        let Coded { scheme, rows, cols, values, pattern, .. } = coded;
        let block = BlockType::of_scheme(scheme).ok_or_else(|| BlockError::Scheme(scheme.clone()))?;
        let weights = block.weights();
        if *values != block.values() || pattern.is_some() || !cols.is_multiple_of(weights as u64) {
            return Err(BlockError::Values { scheme: block.scheme(), cols: *cols, weights });
        }
        let blocks_per_row = *cols as usize / weights;
        block.check_planes(*rows as usize * blocks_per_row, planes.iter().map(Vec::len))?;
        Ok(Self { block, blocks_per_row, planes })
    }

    /// The bytes of a tensor that the source stores beside the codes; `None` if the scheme has no such part.
    pub fn part(&self, _index: u32) -> Option<Vec<u8>> {
        None // a block has all of its parameters in it
    }

    /// Writes the bytes of whole rows of levels over `out`.
    ///
    /// # Errors
    /// When a block cannot hold a level or an integer scale.
    pub fn pack(&self, rows: Range<usize>, levels: &[i32], out: &mut Vec<u8>) -> Result<(), BlockError> {
        let blocks = rows.start * self.blocks_per_row..rows.end * self.blocks_per_row;
        let bytes = self.block.plane_bytes();
        let planes: Vec<&[u8]> =
            self.planes.iter().zip(bytes).map(|(p, n)| &p[blocks.start * n..blocks.end * n]).collect();
        out.resize(blocks.len() * self.block.bytes(), 0);
        self.block.pack(levels, &planes, out)
    }
}

//! A source's tensors as the quantizers and the format want them: weights or levels, a few rows at a time.

use std::ops::Range;

use ecq_format::directory::{Coded, Values, matrix};
use ecq_format::encode::Levels;
use ecq_format::pattern::FloatFormat;
use ecq_format::plan::{Histogram, Plan};
use ecq_quant::weights::Weights;

use crate::blocks::{BlockError, BlockType, to_f32};
use crate::source::packed::{Grouping, Layout, PackedMatrix, Role};
use crate::source::{Source, SourceFile, SourceTensor, SourceType};

/// Fewest weights of a tensor that is worth coding: below, start states and tables outweigh the gain.
pub const SMALLEST: u64 = 1024;
/// Most columns of a tensor that is coded: a tile holds at least a row.
pub const MOST_COLUMNS: u64 = 1 << 22;

/// A tensor of a source, seen as a matrix.
pub struct SourceMatrix<'a> {
    shape: &'a [u64],
    rows: usize,
    cols: usize,
    dtype: &'a SourceType,
    form: Form<'a>,
    row_bytes: usize,
    bytes: &'a [u8],
    file: &'a SourceFile,
}

/// How weights are stored.
enum Form<'a> {
    Floats,
    Blocks(BlockType),
    Packed(Box<PackedMatrix<'a>>),
}

impl<'a> SourceMatrix<'a> {
    /// Weights. `None` for tensors that are stored as they are: other types, fewer than two dimensions, too small, too wide;
    /// and for numbers that belong to packed tensors.
    pub fn new(source: &'a Source, tensor: &'a SourceTensor) -> Option<Self> {
        match source.role(tensor) {
            Role::Free | Role::Main(_) => Self::any(source, tensor),
            Role::Member | Role::Kept => None,
        }
    }

    /// Weights, or other numbers that can be coded without loss. `None` as for [`Self::new`].
    pub fn any(source: &'a Source, tensor: &'a SourceTensor) -> Option<Self> {
        let SourceTensor { shape, dtype, file, .. } = tensor;
        let (bytes, file) = (source.data(tensor), &source.files()[*file]);
        let packed = match source.role(tensor) {
            Role::Main(packed) => Some(packed),
            _ => None,
        };
        let shape = packed.map_or(shape, |p| &p.shape);
        let (rows, cols) = matrix(shape)?;
        if shape.len() < 2 || rows.checked_mul(cols)? < SMALLEST || cols > MOST_COLUMNS {
            return None;
        }
        let (form, row_bytes) = match (packed, dtype.block()) {
            // whole bytes, as was checked when it was joined
            (Some(p), _) => {
                (Form::Packed(Box::new(PackedMatrix::new(source, tensor, p))), bytes.len() as u64 / rows)
            }
            (None, Some(b)) if cols.is_multiple_of(b.weights() as u64) => {
                (Form::Blocks(b), cols / b.weights() as u64 * b.bytes() as u64)
            }
            (None, None) => (Form::Floats, cols.checked_mul(dtype.float_bytes()? as u64)?),
            _ => return None,
        };
        let whole = rows.checked_mul(row_bytes)? == bytes.len() as u64;
        let (rows, cols, row_bytes) = (rows as usize, cols as usize, row_bytes as usize);
        whole.then_some(Self { shape, rows, cols, dtype, form, row_bytes, bytes, file })
    }

    /// Shape of the tensor that the weights are of; not that of packed levels.
    pub fn shape(&self) -> &'a [u64] {
        self.shape
    }

    /// Bytes in the source, parts of a packed tensor included.
    pub fn source_bytes(&self) -> u64 {
        match &self.form {
            Form::Packed(packed) => packed.source_bytes(),
            _ => self.bytes.len() as u64,
        }
    }

    /// The format and all bytes, if the weights are floats that are coded by their bit patterns.
    pub fn floats(&self) -> Option<(FloatFormat, &'a [u8])> {
        match self.form {
            Form::Floats => Some((self.dtype.pattern_format()?, self.bytes)),
            _ => None,
        }
    }

    /// Tells that some rows were read for the last time, or one of few. Returns their bytes.
    pub fn used(&self, rows: Range<usize>) -> u64 {
        let bytes = (rows.len() * self.row_bytes) as u64;
        self.file.used(bytes);
        bytes
    }

    /// The block format, if the weights are in GGUF blocks.
    pub fn block(&self) -> Option<BlockType> {
        match self.form {
            Form::Blocks(block) => Some(block),
            _ => None,
        }
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
        let done = match &self.form {
            Form::Floats => to_f32(self.dtype, self.slice(rows), out),
            Form::Blocks(block) => block.dequantize(self.slice(rows), out),
            Form::Packed(packed) => {
                self.used(rows.clone());
                packed.weights(rows, out);
                Ok(())
            }
        };
        done.expect("whole rows, whose length was checked");
    }
}

/// A tensor that is quantized already, to be coded without loss.
pub struct BlockTensor<'a> {
    levels: SourceLevels<'a>,
    /// The scheme's name in files.
    pub scheme: &'static str,
    /// From level to weight.
    pub values: Values,
    /// The best plan for its levels.
    pub plan: Plan,
    /// How often each level occurs.
    pub histogram: Histogram,
    /// Planes of its scales and minima.
    pub planes: Vec<Vec<u8>>,
}

impl<'a> BlockTensor<'a> {
    /// `None` if the matrix is of floats, or does not come back byte for byte.
    pub fn new(matrix: &'a SourceMatrix<'a>) -> Option<Self> {
        let levels = SourceLevels(matrix);
        let count = |center| ecq_format::encode::histogram(&levels, matrix.rows, matrix.cols, center);
        match &matrix.form {
            Form::Floats => None,
            Form::Blocks(block) => {
                let planes = block.planes(matrix.bytes).expect("whole blocks, whose length was checked");
                let histogram = count(block.center());
                let plan = Plan::cheapest(&histogram, 0..=8)?;
                let (scheme, values) = (block.scheme(), block.values());
                Some(Self { levels, scheme, values, plan, histogram, planes })
            }
            Form::Packed(packed) if packed.is_exact() => {
                let histogram = count(packed.center());
                let plan = packed.plan(&histogram)?;
                let (scheme, values) = (packed.scheme(), packed.values());
                Some(Self { levels, scheme, values, plan, histogram, planes: packed.planes().to_vec() })
            }
            Form::Packed(_) => None,
        }
    }
}

impl Levels for BlockTensor<'_> {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        self.levels.fill(rows, out);
    }
}

/// The levels of a matrix that is not of floats.
struct SourceLevels<'a>(&'a SourceMatrix<'a>);

impl Levels for SourceLevels<'_> {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        let matrix = self.0;
        match &matrix.form {
            Form::Floats => out.fill(0),
            Form::Blocks(block) => {
                block.levels(matrix.slice(rows), out).expect("whole rows, whose length was checked");
            }
            Form::Packed(packed) => {
                matrix.used(rows.clone());
                packed.fill(rows, out);
            }
        }
    }
}

/// Packs decoded levels of a lossless scheme into the bytes that the source had.
pub enum Packer {
    /// Into GGUF blocks.
    Blocks(BlockPacker),
    /// Into packed levels; scales and zero points are other tensors.
    Packed(Grouping, Vec<Vec<u8>>),
}

impl Packer {
    /// For a coded tensor and the planes of its side data.
    ///
    /// # Errors
    /// When the scheme is not one whose source can be packed again, or values, columns or planes are not those of it.
    pub fn new(coded: &Coded, planes: Vec<Vec<u8>>) -> Result<Self, BlockError> {
        let Some(layout) = Layout::of_scheme(&coded.scheme) else {
            return BlockPacker::new(coded, planes).map(Self::Blocks);
        };
        let lengths = planes.iter().map(Vec::len).eq(coded.side_planes());
        match Grouping::of(coded).filter(|_| lengths) {
            Some(grouping) => Ok(Self::Packed(grouping, planes)),
            None => Err(BlockError::Packed { scheme: layout.scheme(), rows: coded.rows, cols: coded.cols }),
        }
    }

    /// The bytes of a tensor that the source stores beside the levels, and their type; `None` if the scheme has no such part.
    pub fn part(&self, index: u32) -> Option<(Vec<u8>, &'static str)> {
        match self {
            Self::Blocks(_) => None, // a block has all of its parameters in it
            Self::Packed(grouping, planes) => {
                let form = *grouping.forms().get(index as usize)?;
                Some((grouping.part(planes, index)?, form.dtype()))
            }
        }
    }

    /// Writes over `out` the bytes of whole rows of levels, or what [`Whole`] takes of them.
    ///
    /// # Errors
    /// When the source's form cannot hold a level or an integer scale.
    pub fn pack(&self, rows: Range<usize>, levels: &[i32], out: &mut Vec<u8>) -> Result<(), BlockError> {
        match self {
            Self::Blocks(blocks) => blocks.pack(rows, levels, out),
            Self::Packed(grouping, _) => {
                grouping.layout.pack((grouping.rows, grouping.cols), rows, levels, out)
            }
        }
    }

    /// What takes packed rows if their bytes are scattered over the tensor, so that it must be put together as a whole.
    /// `len` is the length that the tensor shall have.
    ///
    /// # Errors
    /// When the length is another.
    pub fn whole(&self, len: u64) -> Result<Option<Whole<'_>>, BlockError> {
        let Self::Packed(grouping, _) = self else { return Ok(None) };
        if !grouping.layout.transposed() {
            return Ok(None);
        }
        let expected = grouping.layout.bytes(grouping.rows as u64, grouping.cols as u64);
        if expected != Some(len) {
            let Grouping { layout, rows, cols, .. } = *grouping;
            let (rows, cols) = (rows as u64, cols as u64);
            return Err(BlockError::Packed { scheme: layout.scheme(), rows, cols });
        }
        Ok(Some(Whole { grouping, bytes: vec![0; len as usize] }))
    }
}

/// A transposed tensor that is put together row by row.
pub struct Whole<'a> {
    grouping: &'a Grouping,
    bytes: Vec<u8>,
}

impl Whole<'_> {
    /// Takes what [`Packer::pack`] made of some rows.
    pub fn place(&mut self, rows: &Range<usize>, packed: &[u8]) {
        let Grouping { layout, rows: all, cols, .. } = *self.grouping;
        layout.place((all, cols), rows, packed, &mut self.bytes);
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Packs levels into GGUF blocks.
pub struct BlockPacker {
    block: BlockType,
    blocks_per_row: usize,
    planes: Vec<Vec<u8>>,
}

impl BlockPacker {
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

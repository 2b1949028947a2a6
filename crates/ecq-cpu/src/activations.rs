//! Vectors to multiply with, prepared once for any number of matrices.

use std::sync::Arc;

use crate::{BLOCK, LANE, LANES};

/// Columns that share a scale in [`Precision::Int8`].
pub(crate) const SCALED: usize = 32;
/// Columns are filled up with zeros to a multiple of this.
const FILL: usize = 2 * BLOCK;
/// 1.5 * 2^23: added to a small number, it leaves the nearest integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// How vectors are held, and so in which arithmetic products are computed: with weights that are floats always in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// As they are. Every product and sum is in f32.
    F32,
    /// As integers -127..=127, blocks of 32 columns sharing an f32 scale: the largest magnitude of a block becomes 127.
    /// Four products at a time are summed exactly, the rest is in f32. Blocks of magnitudes below
    /// 2^-119 become zeros.
    ///
    /// The numbers of a codebook are rounded likewise: each is off by at most a 254th of the largest magnitude in the
    /// codebook. For NF4 that is 45 dB below the weights, where the rounding to NF4 itself is some 20 dB below.
    Int8,
}

/// One or more vectors of `cols` numbers, ready for [`Matrix::multiply`](crate::Matrix::multiply).
///
/// They serve every matrix of as many columns with the same column scales, which most tensors do not have.
#[derive(Clone, Debug)]
pub struct Activations {
    cols: usize,
    count: usize,
    padded: usize,
    columns: Arc<[f32]>,
    pub(crate) data: Data,
    /// Of each vector: the sum of what `data` holds.
    pub(crate) totals: Vec<f32>,
    /// Of each vector: the sum before column scales.
    pub(crate) sums: Vec<f32>,
}

/// Vectors one after another, each [`Activations::padded`] columns long.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// In each block of 64, element `16 k + i` is column `4 i + k`: lane i of the k-th vector.
    F32(Vec<f32>),
    /// Integers in order of columns, and a scale for each four columns.
    Int8 { values: Vec<i8>, scales: Vec<f32>, units: Units },
}

/// Of each [`SCALED`] columns of each vector: their scale, and the sum of what they stand for. A vector's numbers are filled up
/// with zeros to [`Units::pitch`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Units {
    pub pitch: usize,
    pub scales: Vec<f32>,
    pub sums: Vec<f32>,
}

impl Activations {
    /// Prepares `x.len() / cols` vectors that lie one after another.
    ///
    /// # Panics
    /// If `x` is empty or not a whole number of vectors.
    pub fn new(precision: Precision, cols: usize, x: &[f32]) -> Self {
        Self::with_columns(precision, cols, x, &Arc::from([]))
    }

    /// Multiplies columns with these scales first, if there are any.
    pub(crate) fn with_columns(precision: Precision, cols: usize, x: &[f32], columns: &Arc<[f32]>) -> Self {
        assert!(
            cols > 0 && !x.is_empty() && x.len().is_multiple_of(cols),
            "{} numbers for {cols} columns",
            x.len()
        );
        let (count, padded) = (x.len() / cols, cols.next_multiple_of(FILL));
        let mut all = Self {
            cols,
            count,
            padded,
            columns: columns.clone(),
            data: match precision {
                Precision::F32 => Data::F32(Vec::with_capacity(count * padded)),
                Precision::Int8 => Data::Int8 {
                    values: Vec::with_capacity(count * padded),
                    scales: Vec::with_capacity(count * padded / LANE),
                    units: Units { pitch: (padded / SCALED).next_multiple_of(LANES), ..Units::default() },
                },
            },
            totals: Vec::with_capacity(count),
            sums: Vec::with_capacity(count),
        };
        let mut scaled = vec![0.0; padded];
        for x in x.chunks_exact(cols) {
            all.sums.push(sum(x));
            scaled[..cols].copy_from_slice(x);
            scaled.iter_mut().zip(columns.iter()).for_each(|(x, c)| *x *= c);
            all.push(&scaled);
        }
        all
    }

    fn push(&mut self, x: &[f32]) {
        let total = match &mut self.data {
            Data::F32(data) => {
                for block in x.as_chunks::<BLOCK>().0 {
                    data.extend((0..BLOCK).map(|i| block[LANE * (i % LANES) + i / LANES]));
                }
                sum(x)
            }
            Data::Int8 { values, scales, units } => {
                let mut total = 0.0;
                for block in x.as_chunks::<SCALED>().0 {
                    let (codes, scale) = quantize(block);
                    values.extend(codes);
                    scales.extend([scale; SCALED / LANE]);
                    let sum: i32 = codes.iter().map(|&v| i32::from(v)).sum();
                    units.scales.push(scale);
                    units.sums.push(scale * sum as f32);
                    total += f64::from(scale) * f64::from(sum);
                }
                let filled = units.scales.len().next_multiple_of(units.pitch);
                units.scales.resize(filled, 0.0);
                units.sums.resize(filled, 0.0);
                total as f32
            }
        };
        self.totals.push(total);
    }

    /// Columns of each vector.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Number of vectors.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How they are held.
    pub fn precision(&self) -> Precision {
        match self.data {
            Data::F32(_) => Precision::F32,
            Data::Int8 { .. } => Precision::Int8,
        }
    }

    /// The number at a column as products see it: column scales in it, and rounded.
    pub fn value(&self, vector: usize, col: usize) -> f32 {
        assert!(vector < self.count && col < self.cols);
        let at = vector * self.padded + col;
        match &self.data {
            Data::F32(data) => {
                let (block, i) = (at / BLOCK * BLOCK, at % BLOCK);
                data[block + i % LANE * LANES + i / LANE]
            }
            Data::Int8 { values, scales, .. } => scales[at / LANE] * f32::from(values[at]),
        }
    }

    /// Columns with filling: a multiple of 128.
    pub(crate) fn padded(&self) -> usize {
        self.padded
    }

    /// Whether these are the column scales that the vectors were multiplied with.
    pub(crate) fn has_columns(&self, columns: &Arc<[f32]>) -> bool {
        Arc::ptr_eq(&self.columns, columns) || self.columns == *columns
    }
}

/// In f64, for it happens once a vector.
fn sum(x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for block in blocks {
        sums.iter_mut().zip(block).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    (sums.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x)).sum::<f64>()) as f32
}

/// The integers of a block; and its scale, NaN if a number is not finite.
fn quantize(block: &[f32; SCALED]) -> ([i8; SCALED], f32) {
    // as integers, magnitudes compare like the numbers, with infinities and NaNs on top
    let most = block.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff));
    if most >= f32::INFINITY.to_bits() {
        return ([0; SCALED], f32::NAN);
    }
    let most = f32::from_bits(most);
    // below this the scale would be denormal and its inverse soon no number
    let factor = if most < 128.0 * f32::MIN_POSITIVE { 0.0 } else { 127.0 / most };
    let codes = block.map(|x| (((x * factor).clamp(-127.0, 127.0)) + ROUND).to_bits() as i8);
    (codes, if factor == 0.0 { 0.0 } else { most / 127.0 })
}

//! A coded tensor to multiply with.

use ecq_format::reader::CodedTensor;
use ecq_format::{Error, Result};
use ecq_quant::values::Dequantizer;
use rans_core::Isa;

use crate::activations::{Activations, Precision};
use crate::scaling::Scaling;
use crate::spread::{Threads, Work, spread};
use crate::tile::{self, Stored};

/// A coded tensor as a matrix of rows x columns. Its weights stay coded; its scales are decoded once.
pub struct Matrix<'a> {
    isa: Isa,
    tensor: Tensor<'a>,
    scaling: Scaling,
}

/// A tensor, or where it is.
enum Tensor<'a> {
    Borrowed(&'a CodedTensor<'a>),
    Owned(Box<CodedTensor<'a>>),
}

impl<'a> Tensor<'a> {
    fn get(&self) -> &CodedTensor<'a> {
        match self {
            Self::Borrowed(tensor) => tensor,
            Self::Owned(tensor) => tensor,
        }
    }
}

impl<'a> Matrix<'a> {
    /// Decodes the scales. Error: [`Corrupt`](ecq_format::Error::Corrupt).
    pub fn new(tensor: &'a CodedTensor<'a>) -> Result<Self> {
        Self::with_isa(Isa::best(), tensor)
    }

    /// [`Self::new`] with a given instruction set.
    pub fn with_isa(isa: Isa, tensor: &'a CodedTensor<'a>) -> Result<Self> {
        let scaling = Scaling::new(tensor, &Dequantizer::of(tensor)?);
        Ok(Self { isa, tensor: Tensor::Borrowed(tensor), scaling })
    }

    /// [`Self::new`] for a tensor that it keeps, of a reader that is borrowed, and whose scales are decoded already: groups of
    /// them are shared.
    pub fn owning(tensor: Box<CodedTensor<'a>>, values: &Dequantizer) -> Self {
        let scaling = Scaling::new(&tensor, values);
        Self { isa: Isa::best(), tensor: Tensor::Owned(tensor), scaling }
    }

    /// Number of rows: the length of a product.
    pub fn rows(&self) -> usize {
        self.tensor.get().coded().rows as usize
    }

    /// Number of columns: the length of a vector.
    pub fn cols(&self) -> usize {
        self.scaling.cols
    }

    /// Bytes that it takes beside those of the file; [`memory::matrix`](crate::memory::matrix) foretells them.
    pub fn memory(&self) -> u64 {
        self.scaling.memory()
    }

    /// Prepares vectors for this matrix, and for all with the same column scales.
    ///
    /// # Panics
    /// If `x` is empty or not a whole number of vectors.
    pub fn activations(&self, precision: Precision, x: &[f32]) -> Activations {
        Activations::with_columns(precision, self.scaling.cols, x, &self.scaling.columns)
    }

    /// `y = W x` for each vector of `x`, on the current rayon pool. `y` has [`Self::rows`] numbers for each, one vector
    /// after another. The result does not depend on the number of threads.
    ///
    /// Error: [`Corrupt`](ecq_format::Error::Corrupt), naming the file, the tensor and the tile; then the contents of
    /// `y` are unspecified.
    ///
    /// # Panics
    /// If `x` or `y` do not fit the matrix, or `x` was prepared for other column scales.
    pub fn multiply(&self, x: &Activations, y: &mut [f32]) -> Result<()> {
        self.run(Threads::Pool, x, y)
    }

    /// [`Self::multiply`] on the caller's thread.
    pub fn multiply_serial(&self, x: &Activations, y: &mut [f32]) -> Result<()> {
        self.run(Threads::One, x, y)
    }

    fn run(&self, threads: Threads, x: &Activations, y: &mut [f32]) -> Result<()> {
        spread(threads, vec![self.work(x, y)])
    }

    /// Whether vectors were prepared for a matrix with the same column scales.
    pub(crate) fn fits(&self, x: &Activations) -> bool {
        x.has_columns(&self.scaling.columns)
    }

    /// The product, to be computed in pieces.
    pub(crate) fn work<'b>(&'b self, x: &'b Activations, y: &'b mut [f32]) -> Work<'b, Error> {
        self.scaling.check(x, y);
        let tensor = self.tensor.get();
        let height = tensor.coded().tile_rows as usize;
        let task = move |i: usize, y: &mut [&mut [f32]]| {
            tile::multiply(self.isa, tensor, &self.scaling, &Stored::new(tensor, i)?, x, y)
        };
        Work { height, vectors: x.count(), y, task: Box::new(task) }
    }
}

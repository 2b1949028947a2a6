//! A coded tensor to multiply with.

use std::borrow::Borrow;
use std::marker::PhantomData;

use ecq_format::Result;
use ecq_format::reader::CodedTensor;
use rans_core::Isa;

use crate::activations::{Activations, Precision};
use crate::scaling::Scaling;
use crate::spread::{Threads, spread};
use crate::tile;

/// A coded tensor as a matrix of rows x columns. Its weights stay coded; its scales are decoded once.
///
/// It borrows the tensor, or owns it: `T` is `&CodedTensor`, `CodedTensor` or a box of it.
pub struct Matrix<'a, T = &'a CodedTensor<'a>> {
    isa: Isa,
    tensor: T,
    scaling: Scaling,
    of: PhantomData<CodedTensor<'a>>,
}

impl<'a, T: Borrow<CodedTensor<'a>> + Sync> Matrix<'a, T> {
    /// Decodes the scales. Error: [`Corrupt`](ecq_format::Error::Corrupt).
    pub fn new(tensor: T) -> Result<Self> {
        Self::with_isa(Isa::best(), tensor)
    }

    /// [`Self::new`] with a given instruction set.
    pub fn with_isa(isa: Isa, tensor: T) -> Result<Self> {
        let scaling = Scaling::new(tensor.borrow())?;
        Ok(Self { isa, tensor, scaling, of: PhantomData })
    }

    /// Number of rows: the length of a product.
    pub fn rows(&self) -> usize {
        self.tensor.borrow().coded().rows as usize
    }

    /// Number of columns: the length of a vector.
    pub fn cols(&self) -> usize {
        self.scaling.cols
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
        self.scaling.check(x, y);
        let tensor = self.tensor.borrow();
        let height = tensor.coded().tile_rows as usize;
        spread(threads, height, x.count(), y, |i, out| {
            tile::multiply(self.isa, tensor, &self.scaling, i, x, out)
        })
    }
}

//! Several products at once: pieces of all of them go to the same threads.

use ecq_format::Result;

use crate::spread::{Threads, spread};
use crate::{Activations, Matrix, Packed, Precision};

/// A matrix in either form.
#[derive(Clone, Copy)]
pub enum Factor<'a> {
    /// Coded.
    Matrix(&'a Matrix<'a>),
    /// Decoded.
    Packed(&'a Packed),
}

impl Factor<'_> {
    /// Whether vectors were prepared for a matrix with the same column scales.
    fn fits(&self, x: &Activations) -> bool {
        match self {
            Self::Matrix(matrix) => matrix.fits(x),
            Self::Packed(packed) => packed.fits(x),
        }
    }

    fn activations(&self, precision: Precision, x: &[f32]) -> Activations {
        match self {
            Self::Matrix(matrix) => matrix.activations(precision, x),
            Self::Packed(packed) => packed.activations(precision, x),
        }
    }
}

/// `y = W x` for each matrix W and vector of `x`, as [`Matrix::multiply`] does it with one; vectors are prepared once for all
/// matrices with the same column scales. On the threads of [`awake`](crate::team::awake), or on rayon's current pool.
///
/// Error: [`Corrupt`](ecq_format::Error::Corrupt).
///
/// # Panics
/// If `x` or a `y` does not fit a matrix.
pub fn multiply_all(precision: Precision, x: &[f32], products: Vec<(Factor<'_>, &mut [f32])>) -> Result<()> {
    let mut prepared: Vec<Activations> = Vec::new();
    let mut which = Vec::with_capacity(products.len());
    for (factor, _) in &products {
        let found = prepared.iter().position(|x| factor.fits(x));
        which.push(found.unwrap_or(prepared.len()));
        if found.is_none() {
            prepared.push(factor.activations(precision, x));
        }
    }
    let work = products.into_iter().zip(which).map(|((factor, y), which)| match factor {
        Factor::Matrix(matrix) => matrix.work(&prepared[which], y),
        Factor::Packed(packed) => packed.work(&prepared[which], y),
    });
    spread(Threads::Pool, work.collect())
}

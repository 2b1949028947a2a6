//! A product of [`Weights`](super::Weights), whose kernels are bound to their buffers once.

use wgpu::{Buffer, BufferSlice};

use super::Id;
use crate::dispatch::Dispatch;
use crate::engine::Engine;
use crate::error::Result;
use crate::matrix::{Matrix, Packed, Vectors};
use crate::variant::Input;

/// Places where a matrix is decoded, at most: the rooms of [`Strategy::Prefetch`](super::Strategy::Prefetch).
const PLACES: usize = 2;

/// A product that [`Weights::product`](super::Weights::product) made ready. It keeps the buffers of its vectors, and what
/// kernels are bound to.
pub struct Product {
    pub(super) id: Id,
    x: Span,
    input: Input,
    y: Span,
    /// From the coded weights, once they were used.
    coded: Option<Vec<Dispatch>>,
    /// From packed weights in these buffers.
    packed: Vec<(Vec<Buffer>, Vec<Dispatch>)>,
}

/// A part of a buffer.
struct Span {
    buffer: Buffer,
    offset: u64,
    size: u64,
}

impl Span {
    fn new(slice: BufferSlice<'_>) -> Self {
        Self { buffer: slice.buffer().clone(), offset: slice.offset(), size: slice.size() }
    }

    fn slice(&self) -> BufferSlice<'_> {
        self.buffer.slice(self.offset..self.offset + self.size)
    }
}

impl Product {
    pub(super) fn new(id: Id, x: Vectors<'_>, y: BufferSlice<'_>) -> Self {
        let (input, x, y) = (x.input, Span::new(x.slice), Span::new(y));
        Self { id, x, input, y, coded: None, packed: Vec::new() }
    }

    pub(super) fn x(&self) -> Vectors<'_> {
        Vectors { slice: self.x.slice(), input: self.input }
    }

    pub(super) fn y(&self) -> BufferSlice<'_> {
        self.y.slice()
    }

    /// Its kernels for the coded weights. Errors as for [`Matrix::record`].
    pub(super) fn coded(&mut self, engine: &Engine, matrix: &Matrix) -> Result<&[Dispatch]> {
        let made = match self.coded.take() {
            Some(made) => made,
            None => matrix.product(engine, self.x(), self.y())?,
        };
        Ok(self.coded.insert(made))
    }

    /// Its kernels for packed weights. Errors as for [`Packed::record`].
    pub(super) fn packed(
        &mut self,
        engine: &Engine,
        matrix: &Matrix,
        packed: &Packed,
    ) -> Result<&[Dispatch]> {
        // if they were decoded for good since, their streams are needed no more
        self.coded = None;
        let found = self.packed.iter().position(|(buffers, _)| buffers == packed.buffers());
        let at = match found {
            Some(at) => at,
            None => {
                let made = packed.product(engine, matrix, self.x(), self.y())?;
                if self.packed.len() == PLACES {
                    self.packed.remove(0);
                }
                self.packed.push((packed.buffers().to_vec(), made));
                self.packed.len() - 1
            }
        };
        Ok(&self.packed[at].1)
    }
}

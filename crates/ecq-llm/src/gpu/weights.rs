//! Tensors in GPU memory: matrices to multiply with, and vectors.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use ecq_format::Reader;
use ecq_format::reader::CodedTensor;
use ecq_gpu::upload::{buffer, words};
use ecq_gpu::wgpu::{BindingResource, Buffer, BufferBinding, BufferSlice, BufferUsages};
use ecq_gpu::{Engine, Id, Weights};

use super::kernels::{Kernel, Kernels, PRODUCT_VECTORS, grid};
use super::steps::Step;
use crate::error::{Error, Result};
use crate::weights;

/// Tensors on their way to a device, and how much they may take there.
pub struct Loader<'a> {
    pub reader: &'a Reader,
    pub engine: &'a Engine,
    pub weights: Weights,
    /// Bytes of what is not among `weights`.
    pub others: u64,
    /// Bytes that all may take.
    pub budget: u64,
}

/// A matrix, and what is added to its products.
pub struct Projection {
    matrix: Matrix,
    bias: Option<Bias>,
    pub rows: usize,
    pub cols: usize,
}

enum Matrix {
    Coded(Id),
    /// f32, as the file has it; some rows in each part.
    Plain(Vec<Part>),
}

struct Part {
    weights: Buffer,
    params: Buffer,
    rows: u32,
}

struct Bias {
    numbers: Buffer,
    params: Buffer,
}

impl Loader<'_> {
    /// A matrix of this shape, and its bias if there is one. Errors: [`Error::Format`], [`Error::Model`], [`Error::Gpu`];
    /// [`Error::Argument`] if the budget does not suffice.
    pub fn projection(&mut self, name: &str, shape: [usize; 2]) -> Result<Projection> {
        let mut made = self.matrix(&format!("{name}.weight"), shape)?;
        let bias = format!("{name}.bias");
        if weights::has(self.reader, &bias) {
            let numbers = self.vector(&bias, shape[0])?;
            let params = self.on_gpu(&bias, |engine| uniform(engine, &bias, &[shape[0] as u32, 0]))?;
            made.bias = Some(Bias { numbers, params });
        }
        Ok(made)
    }

    /// A matrix of this shape. Errors as above.
    pub fn matrix(&mut self, name: &str, [rows, cols]: [usize; 2]) -> Result<Projection> {
        let matrix = match weights::tensor(self.reader, name, &[rows, cols])? {
            weights::Numbers::Coded(tensor) => Matrix::Coded(self.coded(name, &tensor)?),
            weights::Numbers::Plain(numbers) => Matrix::Plain(self.plain(name, &numbers, [rows, cols])?),
        };
        self.check()?;
        Ok(Projection { matrix, bias: None, rows, cols })
    }

    fn coded(&mut self, name: &str, tensor: &CodedTensor<'_>) -> Result<Id> {
        self.weights.add(name, tensor).map_err(|e| failed(self.reader.path(), format!("tensor {name}"), e))
    }

    fn plain(&mut self, name: &str, numbers: &[f32], [rows, cols]: [usize; 2]) -> Result<Vec<Part>> {
        let limits = self.engine.limits();
        let bytes = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let most = (bytes / (4 * cols as u64)).clamp(1, limits.max_compute_workgroups_per_dimension.into());
        let mut parts = Vec::new();
        for (i, part) in numbers.chunks(most as usize * cols).enumerate() {
            let params = [rows as u32, cols as u32, (i as u64 * most) as u32];
            parts.push(self.on_gpu(name, |engine| {
                let made = Part {
                    weights: words(engine, name, bytemuck::cast_slice(part))?,
                    params: uniform(engine, name, &params)?,
                    rows: (part.len() / cols) as u32,
                };
                // what is on its way is sent before more of it is staged
                engine.queue().submit([]);
                engine.wait().map(|()| made)
            })?);
        }
        self.others += size_of_val(numbers) as u64;
        Ok(parts)
    }

    /// A vector of this length. Errors as above.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Buffer> {
        let numbers = weights::vector(self.reader, name, len)?;
        self.others += 4 * len as u64;
        self.on_gpu(name, |engine| words(engine, name, bytemuck::cast_slice(&numbers)))
    }

    /// Does something for a tensor. Error: [`Error::Gpu`].
    fn on_gpu<T>(&self, name: &str, run: impl FnOnce(&Engine) -> ecq_gpu::Result<T>) -> Result<T> {
        let done = self.engine.guard(name, || run(self.engine));
        done.map_err(|e| failed(self.reader.path(), format!("tensor {name}"), e))
    }

    /// Error: [`Error::Argument`] if all that is there by now takes more than it may.
    pub fn check(&self) -> Result<()> {
        let needs = self.weights.memory().total() + self.others;
        if needs <= self.budget {
            return Ok(());
        }
        Err(Error::Argument {
            what: "the memory",
            expected: format!(
                "more than {needs} bytes, which the weights that were loaded so far take on the GPU with the cache"
            ),
            got: format!("{} bytes", self.budget),
        })
    }
}

/// An error on the device.
pub fn failed(path: &Path, what: String, source: ecq_gpu::Error) -> Error {
    Error::Gpu { path: PathBuf::from(path), what, source: Box::new(source) }
}

/// A uniform buffer. Errors: [`ecq_gpu::Error::OutOfMemory`].
pub fn uniform(engine: &Engine, what: &str, words: &[u32]) -> ecq_gpu::Result<Buffer> {
    // their sizes are multiples of 16
    let made = buffer(engine, what, (4 * words.len() as u64).next_multiple_of(16), BufferUsages::UNIFORM)?;
    engine.queue().write_buffer(&made, 0, bytemuck::cast_slice(words));
    Ok(made)
}

impl Projection {
    /// The steps of `y = W x`, plus the bias, for each vector of `x`.
    pub fn steps(
        &self,
        kernels: &Kernels,
        weights: &Weights,
        [x, y]: [BufferSlice<'_>; 2],
        steps: &mut Vec<Step>,
    ) -> ecq_gpu::Result<()> {
        let count = (x.size() / (4 * self.cols as u64)) as usize;
        match &self.matrix {
            Matrix::Coded(id) => steps.push(Step::Multiply(weights.product(*id, x, y)?)),
            Matrix::Plain(parts) => {
                let groups = (count as u32).div_ceil(PRODUCT_VECTORS);
                for part in parts {
                    let buffers =
                        [part.params.as_entire_binding(), part.weights.as_entire_binding(), bind(x), bind(y)];
                    steps.push(Step::Run(kernels.dispatch(Kernel::Product, buffers, [part.rows, groups])?));
                }
            }
        }
        if let Some(bias) = &self.bias {
            let buffers = [bias.params.as_entire_binding(), bias.numbers.as_entire_binding(), bind(y)];
            steps.push(Step::Run(kernels.dispatch(Kernel::Add, buffers, grid(self.rows, count))?));
        }
        Ok(())
    }
}

/// The first numbers of a buffer.
pub fn first(buffer: &Buffer, numbers: usize) -> BufferSlice<'_> {
    buffer.slice(..4 * numbers as u64)
}

/// Binds a part of a buffer.
pub fn bind(slice: BufferSlice<'_>) -> BindingResource<'_> {
    let (buffer, offset, size) = (slice.buffer(), slice.offset(), NonZero::new(slice.size()));
    BindingResource::Buffer(BufferBinding { buffer, offset, size })
}

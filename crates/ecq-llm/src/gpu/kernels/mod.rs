//! Kernels of what a decoder computes beside its products with coded weights: one a file, for any GPU of WebGPU.

use ecq_gpu::shader::{Binding, pipeline};
use ecq_gpu::wgpu::{BindingResource, ComputePipeline};
use ecq_gpu::{Dispatch, Engine, Error, Result};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

/// A kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// `out = x / sqrt(mean of squares + epsilon) * weight`
    Norm,
    /// `x += y`
    Add,
    /// `gate = silu(gate) * up`
    Gate,
    /// Rotary embedding.
    Rotate,
    /// Keys and values into the cache.
    Store,
    /// Values of all positions, by the softmax of what their keys say.
    Attend,
    /// `y = W x` of weights that are f32.
    Product,
}

/// Invocations of a workgroup of kernels that take a number each.
pub const THREADS: u32 = 256;
/// Most numbers of a head.
pub const MOST_HEAD: usize = 256;
/// Vectors that a workgroup of [`Kernel::Product`] takes.
pub const PRODUCT_VECTORS: u32 = 8;

impl Kernel {
    /// All kernels.
    pub const ALL: [Self; 7] =
        [Self::Norm, Self::Add, Self::Gate, Self::Rotate, Self::Store, Self::Attend, Self::Product];

    /// Its name: that of its entry point and of its file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Norm => "norm",
            Self::Add => "add",
            Self::Gate => "gate",
            Self::Rotate => "rotate",
            Self::Store => "store",
            Self::Attend => "attend",
            Self::Product => "product",
        }
    }

    /// Its source in WGSL.
    pub fn source(self) -> String {
        let reduce = include_str!("reduce.wgsl");
        match self {
            Self::Norm => [include_str!("norm.wgsl"), reduce].concat(),
            Self::Add => include_str!("add.wgsl").into(),
            Self::Gate => include_str!("gate.wgsl").into(),
            Self::Rotate => include_str!("rotate.wgsl").into(),
            Self::Store => include_str!("store.wgsl").into(),
            Self::Attend => [include_str!("attend.wgsl"), reduce].concat(),
            Self::Product => [include_str!("product.wgsl"), reduce].concat(),
        }
    }

    /// Its buffers, in the order of their numbers.
    pub fn bindings(self) -> Vec<Binding> {
        use Binding::{Read, Uniform, Write};
        match self {
            Self::Norm | Self::Product => vec![Uniform(0), Read(1), Read(2), Write(3)],
            Self::Add | Self::Gate | Self::Rotate => vec![Uniform(0), Read(1), Write(2)],
            Self::Store => vec![Uniform(0), Uniform(1), Read(2), Read(3), Write(4), Write(5)],
            Self::Attend => vec![Uniform(0), Uniform(1), Read(2), Read(3), Read(4), Write(5)],
        }
    }
}

/// Workgroups of kernels that take a number each: so many numbers of so many tokens.
pub fn grid(numbers: usize, tokens: usize) -> [u32; 2] {
    [(numbers as u32).div_ceil(THREADS), tokens as u32]
}

/// The kernels, compiled for a device.
pub struct Kernels {
    engine: Engine,
    pipelines: Vec<ComputePipeline>,
}

impl Kernels {
    /// Compiles all of them. Error: [`Error::Shader`].
    pub fn new(engine: &Engine) -> Result<Self> {
        let make = |kernel: Kernel| {
            pipeline(engine.device(), kernel.name(), &kernel.source(), &kernel.bindings(), true)
        };
        Ok(Self {
            engine: engine.clone(),
            pipelines: Kernel::ALL.into_par_iter().map(make).collect::<Result<_>>()?,
        })
    }

    /// A kernel over so many workgroups, with buffers in the order of [`Kernel::bindings`].
    /// Error: [`Error::Limit`] for more workgroups than the device allows.
    pub fn dispatch<const N: usize>(
        &self,
        kernel: Kernel,
        buffers: [BindingResource<'_>; N],
        [x, y]: [u32; 2],
    ) -> Result<Dispatch> {
        let limit = self.engine.limits().max_compute_workgroups_per_dimension;
        if x.max(y) > limit {
            return Err(Error::Limit {
                what: format!("the kernel {}", kernel.name()),
                unit: "workgroups in a dimension",
                needs: x.max(y).into(),
                limit: limit.into(),
                name: "max_compute_workgroups_per_dimension",
            });
        }
        let pipeline = &self.pipelines[kernel as usize];
        Ok(Dispatch::new(&self.engine, kernel.name(), pipeline, (0..).zip(buffers), [x, y, 1]))
    }
}

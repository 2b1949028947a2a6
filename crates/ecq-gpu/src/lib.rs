//! Products of matrices that stay entropy-coded, on any GPU that `wgpu` reaches: Metal on Apple machines, Vulkan elsewhere.
//!
//! An [`Engine`] works on a device that belongs to the caller ([`Gpu`] opens one for programs without). A [`Matrix`] is a coded
//! tensor of an `.ecq` file in GPU memory, which takes hardly more of it than of the file; a product is recorded into the
//! caller's encoder, and submitted by the caller. [`Weights`] holds the matrices of a model with a [`Strategy`] for where
//! decoded weights are: nowhere, in memory, or there for a while.
//!
//! ```no_run
//! use ecq_format::reader::Tensor;
//! use ecq_format::{Limits, Reader};
//! use ecq_gpu::{Engine, Gpu, Matrix, Options, wgpu};
//!
//! let gpu = Gpu::open(None)?;
//! let engine = Engine::new(&gpu.device, &gpu.queue, Options::default())?;
//! let file = Reader::open("model.ecq".as_ref(), Limits::default())?;
//! if let Tensor::Coded(tensor) = file.tensor("model.layers.0.mlp.up_proj.weight")? {
//!     let matrix = Matrix::new(&engine, "up_proj", &tensor)?;
//!     let buffer = |numbers: usize| {
//!         let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
//!         let (label, size, mapped_at_creation) = (None, 4 * numbers as u64, false);
//!         gpu.device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation })
//!     };
//!     // one vector, or several one after another
//!     let (x, y) = (buffer(matrix.cols()), buffer(matrix.rows()));
//!     let mut encoder = gpu.device.create_command_encoder(&Default::default());
//!     matrix.record(&engine, &mut encoder, x.slice(..), y.slice(..))?;
//!     gpu.queue.submit([encoder.finish()]);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Products are within 1e-5 of the exact ones, relative to the norm of their vector, and the same bits each time on one
//! device. How kernels work, what they cost and what that predicts for real chips: `docs/gpu.md` of the project.
//!
//! Programs need what this page has, [`gpu`], [`engine`], [`clock`], [`dispatch`], [`strategy`] and [`error`]. The other modules are for
//! those who port kernels, and for tests: [`host`] and [`layout`] have a tensor as words, [`variant`] the source of a kernel,
//! [`plan`] its buffers and workgroups, [`twins`] the same in plain Rust.
#![deny(unsafe_code)] // but for shaders without bounds checks in `shader.rs`

pub mod clock;
pub mod dispatch;
pub mod engine;
pub mod error;
pub mod escapes;
pub mod gpu;
pub mod host;
pub mod layout;
pub mod matrix;
mod nibble;
pub mod params;
pub mod plan;
pub mod prompt;
pub mod scales;
#[allow(unsafe_code)]
pub mod shader;
pub mod side;
pub mod strategy;
pub mod tiles;
pub mod twins;
pub mod upload;
pub mod variant;

pub use clock::Clock;
pub use dispatch::Dispatch;
pub use engine::{Engine, Options};
pub use error::{Error, Result};
pub use gpu::Gpu;
pub use matrix::{Matrix, Packed, Vectors};
pub use strategy::{Id, Memory, Product, Strategy, Weights};
pub use wgpu;

//! Products of matrices that stay entropy-coded, on any GPU that `wgpu` reaches: Metal on Apple machines, Vulkan elsewhere.
#![deny(unsafe_code)] // but for shaders without bounds checks in `shader.rs`

pub mod engine;
pub mod error;
pub mod gpu;
pub mod layout;
pub mod matrix;
pub mod plan;
#[allow(unsafe_code)]
pub mod shader;
pub mod side;
pub mod strategy;
pub mod tiles;
pub mod upload;
pub mod variant;

pub use engine::{Engine, Options};
pub use error::{Error, Result};
pub use gpu::Gpu;
pub use matrix::{Matrix, Packed};
pub use strategy::{Id, Memory, Strategy, Weights};
pub use wgpu;

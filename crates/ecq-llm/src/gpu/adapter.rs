//! What models run on.

use std::sync::Arc;

use ecq_gpu::wgpu::DeviceType;
use ecq_gpu::{Engine, Gpu};

use super::kernels::Kernels;
use crate::error::{Error, Result};

/// A GPU, opened. A clone is the same one; models on it share the kernels that were compiled for them.
#[derive(Clone)]
pub struct Adapter {
    name: String,
    is_cpu: bool,
    pub(super) engine: Engine,
    pub(super) kernels: Arc<Kernels>,
}

impl Adapter {
    /// The adapter whose name contains `name`, or the fastest one. Error: [`Error::NoGpu`].
    pub fn open(name: Option<&str>) -> Result<Self> {
        Self::new(&Gpu::open(name).map_err(|source| Error::NoGpu { source: Box::new(source) })?)
    }

    /// On a device of the caller's. Error: [`Error::NoGpu`] if it allows less than WebGPU promises, or refuses kernels.
    pub fn new(gpu: &Gpu) -> Result<Self> {
        let info = gpu.adapter.get_info();
        let made = Engine::new(&gpu.device, &gpu.queue, ecq_gpu::Options::default()).and_then(|engine| {
            let kernels = Arc::new(Kernels::new(&engine)?);
            Ok(Self { name: info.name, is_cpu: info.device_type == DeviceType::Cpu, engine, kernels })
        });
        made.map_err(|source| Error::NoGpu { source: Box::new(source) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a driver that computes on the CPU.
    pub fn is_cpu(&self) -> bool {
        self.is_cpu
    }
}

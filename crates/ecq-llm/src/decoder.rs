//! The decoder of a model on the device that was asked for.

use ecq_format::Reader;
use ecq_gpu::{Gpu, wgpu::DeviceType};

use crate::cache::Memory;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::gpu;
use crate::network;
use crate::options::{Device, Options};

/// A decoder, on one device.
pub enum Decoder<'a> {
    Cpu(Box<network::Network<'a>>),
    Gpu(Box<gpu::Network<'a>>),
}

impl<'a> Decoder<'a> {
    /// Loads the tensors of a model to where they will be used: on this GPU, if one is given and the CPU is not asked for.
    pub fn load(reader: &'a Reader, config: &Config, options: &Options, gpu: Option<&Gpu>) -> Result<Self> {
        let on_cpu = || {
            let network = network::Network::load(reader, config, options.precision, options.decode)?;
            Ok(Self::Cpu(Box::new(network)))
        };
        let on_gpu = |gpu: &Gpu| Ok(Self::Gpu(Box::new(gpu::Network::load(reader, config, options, gpu)?)));
        match (options.device, gpu) {
            (Device::Cpu, _) => on_cpu(),
            (Device::Gpu, Some(gpu)) => on_gpu(gpu),
            (Device::Gpu, None) => {
                on_gpu(&Gpu::open(None).map_err(|e| Error::NoGpu { source: Box::new(e) })?)
            }
            (Device::Auto, given) => {
                let opened = if given.is_none() { Gpu::open(None).ok() } else { None };
                let real = |gpu: &&Gpu| gpu.adapter.get_info().device_type != DeviceType::Cpu;
                match given.or(opened.as_ref()).filter(real).map(on_gpu) {
                    None => on_cpu(),
                    Some(Err(error)) if error.is_for_room() => on_cpu(),
                    Some(loaded) => loaded,
                }
            }
        }
    }

    /// An empty cache for so many positions.
    pub fn cache(&self, positions: usize) -> Result<Memory> {
        Ok(match self {
            Self::Cpu(network) => Memory::Cpu(network.cache(positions)),
            Self::Gpu(network) => Memory::Gpu(network.cache(positions)?),
        })
    }

    /// Passes tokens through, as [`network::Network::run`] does. The cache is one of this decoder.
    pub fn run(
        &self,
        tokens: &[u32],
        cache: &mut Memory,
        all: bool,
        stop: &dyn Fn() -> bool,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<()> {
        match (self, cache) {
            (Self::Cpu(network), Memory::Cpu(cache)) => network.run(tokens, cache, all, stop, each),
            (Self::Gpu(network), Memory::Gpu(cache)) => network.run(tokens, cache, all, stop, each),
            _ => Err(Error::Argument {
                what: "the cache",
                expected: "one of this model's device".into(),
                got: "one of another".into(),
            }),
        }
    }
}

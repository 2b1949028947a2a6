//! The decoder of a model on the device that was asked for.

use ecq_format::Reader;

use crate::cache::Memory;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::gpu::kernels::MOST_HEAD;
use crate::gpu::{self, Adapter};
use crate::network;
use crate::options::{Device, Options};

/// A decoder, on one device.
pub enum Decoder<'a> {
    Cpu(Box<network::Network<'a>>),
    Gpu(Box<gpu::Network<'a>>),
}

impl<'a> Decoder<'a> {
    /// Loads the tensors of a model to where they will be used. A GPU is this one, if one is given.
    pub fn load(
        reader: &'a Reader,
        config: &Config,
        options: &Options,
        adapter: Option<&Adapter>,
    ) -> Result<Self> {
        let on_cpu = || {
            let network = network::Network::load(reader, config, options.precision, options.decode)?;
            Ok(Self::Cpu(Box::new(network)))
        };
        let open = || adapter.map_or_else(|| Adapter::open(None), |adapter| Ok(adapter.clone()));
        let on_gpu = |adapter: &Adapter| {
            Ok(Self::Gpu(Box::new(gpu::Network::load(reader, config, options, adapter)?)))
        };
        match options.device {
            Device::Cpu => on_cpu(),
            Device::Gpu => on_gpu(&open()?),
            Device::Auto => match open() {
                Ok(adapter) if !adapter.is_cpu() && config.head <= MOST_HEAD => match on_gpu(&adapter) {
                    Err(error) if error.is_for_room() => on_cpu(),
                    loaded => loaded,
                },
                _ => on_cpu(),
            },
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

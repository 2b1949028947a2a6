//! The decoder of a model on the device that was asked for.

use ecq_format::Reader;

use crate::cache::{Memory, Sequence};
use crate::choice::{Choice, Sizes};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::gpu::kernels::MOST_HEAD;
use crate::gpu::{self, Adapter};
use crate::network;
use crate::options::{Device, Options};

/// A decoder, on one device.
pub struct Decoder<'a> {
    network: Network<'a>,
    /// What it runs on, and how.
    pub choice: Choice,
}

enum Network<'a> {
    Cpu(Box<network::Network<'a>>),
    Gpu(Box<gpu::Network<'a>>),
}

impl<'a> Decoder<'a> {
    /// Loads the tensors of a model to where they will be used. A GPU is this one, if one is given.
    pub fn load(
        reader: &'a Reader,
        config: &Config,
        options: &Options,
        sizes: Sizes,
        adapter: Option<&Adapter>,
    ) -> Result<Self> {
        let on_cpu = || {
            let choice = sizes.choose(&Options { device: Device::Cpu, ..*options })?;
            let network = network::Network::load(reader, config, options.precision, choice.decode)?;
            Ok(Self { network: Network::Cpu(Box::new(network)), choice })
        };
        let open = || adapter.map_or_else(|| Adapter::open(None), |adapter| Ok(adapter.clone()));
        let on_gpu = |adapter: &Adapter| {
            let network = gpu::Network::load(reader, config, options, adapter)?;
            let bytes = network.resident() + gpu::Cache::bytes(config, options.positions);
            let choice = Choice { device: Device::Gpu, decode: options.decode, bytes };
            Ok(Self { network: Network::Gpu(Box::new(network)), choice })
        };
        // drivers are not loaded unless one may be taken
        let may = || adapter.map_or_else(gpu::present, |adapter| !adapter.is_cpu());
        match options.device {
            Device::Cpu => on_cpu(),
            Device::Gpu => on_gpu(&open()?),
            Device::Auto if config.head > MOST_HEAD || !may() => on_cpu(),
            Device::Auto => match open().and_then(|adapter| on_gpu(&adapter)) {
                Err(error) if error.is_for_room() => on_cpu(),
                loaded => loaded,
            },
        }
    }

    /// The network on a GPU, if it runs on one.
    pub fn gpu(&self) -> Option<&gpu::Network<'a>> {
        match &self.network {
            Network::Cpu(_) => None,
            Network::Gpu(network) => Some(network),
        }
    }

    /// An empty cache for so many positions.
    pub fn cache(&self, positions: usize) -> Result<Memory> {
        Ok(match &self.network {
            Network::Cpu(network) => Memory::Cpu(network.cache(positions)),
            Network::Gpu(network) => Memory::Gpu(network.cache(positions)?),
        })
    }

    /// Passes tokens of sequences through, as [`network::Network::run`] does; on a GPU one sequence after another. The caches are
    /// of this decoder.
    pub fn run(
        &self,
        sequences: Vec<Sequence<'_, Memory>>,
        all: bool,
        stop: &dyn Fn() -> bool,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<()> {
        let other = || Error::Argument {
            what: "the cache",
            expected: "one of this model's device".into(),
            got: "one of another".into(),
        };
        match &self.network {
            Network::Cpu(network) => {
                let on_cpu = |Sequence { tokens, cache }| match cache {
                    Memory::Cpu(cache) => Ok(Sequence { tokens, cache }),
                    Memory::Gpu(_) => Err(other()),
                };
                let sequences = sequences.into_iter().map(on_cpu).collect::<Result<_>>()?;
                network.run(sequences, all, stop, each)
            }
            Network::Gpu(network) => {
                sequences.into_iter().try_for_each(|Sequence { tokens, cache }| match cache {
                    Memory::Gpu(cache) => network.run(tokens, cache, all, stop, each),
                    Memory::Cpu(_) => Err(other()),
                })
            }
        }
    }
}

//! How a model is run.

use ecq_cpu::Precision;

/// What computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// A GPU, the fastest that there is.
    Gpu,
    /// A GPU if there is one that is no CPU itself, else the CPU.
    Auto,
}

impl Device {
    /// [`Self::Cpu`] or [`Self::Gpu`]: what [`Self::Auto`] takes, as long as there is room.
    pub fn resolved(self) -> Self {
        match self {
            Self::Auto if crate::gpu::present() => Self::Gpu,
            Self::Auto => Self::Cpu,
            device => device,
        }
    }
}

/// How weights are kept in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decode {
    /// Coded as in the file; decoded again for each product.
    #[default]
    Fused,
    /// Decoded once to plain integers, where there are such.
    Cached,
    /// Decoded into one of two rooms while the other is computed with. For GPUs.
    Prefetch,
    /// Decoded and kept until memory is needed for others. For GPUs.
    Lru,
    /// What is fastest within the memory that there may be; where that is not said, within half of what is available.
    Auto,
}

impl Decode {
    /// All that a device has, but for [`Self::Auto`].
    pub fn of(device: Device) -> &'static [Self] {
        match device {
            Device::Cpu => &[Self::Fused, Self::Cached],
            Device::Gpu | Device::Auto => &[Self::Fused, Self::Cached, Self::Prefetch, Self::Lru],
        }
    }

    /// Lower-case name: "fused", "cached", "prefetch", "lru", "auto".
    pub fn name(self) -> &'static str {
        match self {
            Self::Fused => "fused",
            Self::Cached => "cached",
            Self::Prefetch => "prefetch",
            Self::Lru => "lru",
            Self::Auto => "auto",
        }
    }
}

/// How a model is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What computes.
    pub device: Device,
    /// How weights are kept.
    pub decode: Decode,
    /// How vectors are held in products on the CPU.
    pub precision: Precision,
    /// Bytes that weights and the cache may take. `None`: as many as they need.
    pub memory: Option<u64>,
    /// Positions that the cache will have, for which `memory` must have room.
    pub positions: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            decode: Decode::Fused,
            precision: Precision::Int8,
            memory: None,
            positions: 0,
        }
    }
}

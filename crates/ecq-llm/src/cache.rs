//! Keys and values of earlier tokens, where the model that computes with them has them.

use crate::config::Config;
use crate::{attention, gpu};

/// Keys and values of earlier tokens, as f32, in the memory of the device that its model runs on.
pub struct Cache {
    /// Number of the model that made it: others have no use for it.
    pub(crate) model: u64,
    pub(crate) memory: Memory,
}

/// Tokens of a sequence, to pass through behind those of its cache, which has room for them.
pub(crate) struct Sequence<'a, C> {
    pub tokens: &'a [u32],
    pub cache: &'a mut C,
}

/// Where they are.
pub(crate) enum Memory {
    Cpu(attention::Cache),
    Gpu(gpu::Cache),
}

impl Cache {
    /// Bytes that one for so many positions takes on the CPU, once they are filled.
    pub fn bytes(config: &Config, positions: usize) -> u64 {
        attention::Cache::memory(config, positions)
    }

    /// Positions that are filled.
    pub fn len(&self) -> usize {
        match &self.memory {
            Memory::Cpu(cache) => cache.len(),
            Memory::Gpu(cache) => cache.len,
        }
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions that there are.
    pub fn positions(&self) -> usize {
        match &self.memory {
            Memory::Cpu(cache) => cache.positions(),
            Memory::Gpu(cache) => cache.positions,
        }
    }

    /// Forgets all positions from this one on.
    pub fn truncate(&mut self, len: usize) {
        match &mut self.memory {
            Memory::Cpu(cache) => cache.truncate(len),
            Memory::Gpu(cache) => cache.len = cache.len.min(len),
        }
    }
}

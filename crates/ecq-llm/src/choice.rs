//! What a model will take in memory, and the strategy that fits: from sizes alone, before anything is loaded.

use ecq_cpu::memory;
use ecq_format::Reader;
use ecq_format::directory::TensorRecord;

use crate::attention::Cache;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::names::Names;
use crate::options::{Decode, Device, Options};
use crate::system::SystemMemory;
use crate::weights::has;

/// Bytes that a model takes on the CPU, beside what any program takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Weights with [`Decode::Fused`]: as in the file, and their scales as numbers.
    pub fused: u64,
    /// Weights with [`Decode::Cached`], where their tensors can be held so.
    pub cached: u64,
    /// Keys and values of all positions.
    pub cache: u64,
}

/// What computes, and how weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The CPU or a GPU.
    pub device: Device,
    /// Not [`Decode::Auto`].
    pub decode: Decode,
    /// Bytes that weights and cache will take.
    pub bytes: u64,
}

impl Sizes {
    /// Those of a file's model.
    pub(crate) fn of(reader: &Reader, config: &Config, positions: usize) -> Self {
        let names = Names::of(reader);
        let tensors = &reader.directory().tensors;
        let tied = !names.output().is_some_and(|name| has(reader, name));
        let stored = tensors.iter().map(|record| (record, reader.stored_bytes(record)));
        Self::new(stored, names.embedding(), tied, Cache::memory(config, positions))
    }

    /// Of tensors with their bytes in the file. `tied`: the table of embeddings is multiplied with, too.
    fn new<'a>(
        tensors: impl Iterator<Item = (&'a TensorRecord, u64)>,
        table: &str,
        tied: bool,
        cache: u64,
    ) -> Self {
        let mut sizes = Self { fused: 0, cached: 0, cache };
        for (record, stored) in tensors.filter(|(record, _)| record.part.is_none()) {
            let twice = record.name == table && tied;
            let numbers = record.shape.iter().fold(size_of::<f32>() as u64, |n, &d| n.saturating_mul(d));
            let (fused, cached) = match &record.coded {
                Some(coded) if record.shape.len() > 1 => {
                    let scales = memory::matrix(coded);
                    let fused = stored.saturating_add(scales);
                    let packed = memory::packed(coded);
                    match (record.name == table, twice) {
                        (false, _) => (fused, packed.unwrap_or(fused)),
                        // rows of embeddings are taken from the coded form, which two can share
                        (true, false) => (fused, fused),
                        // so they can the scales, but for those that are turned into units of a codebook
                        (true, true) => {
                            let own = if coded.values.codebook.is_some() { scales } else { 0 };
                            let integers = packed.map_or(own, |all| all - scales + own);
                            [own, integers].map(|n| fused.saturating_add(n)).into()
                        }
                    }
                }
                _ => [numbers.saturating_mul(1 + u64::from(twice)); 2].into(),
            };
            sizes.fused = sizes.fused.saturating_add(fused);
            sizes.cached = sizes.cached.saturating_add(cached);
        }
        sizes
    }

    /// Bytes of weights and cache together with a strategy of the CPU.
    fn total(&self, decode: Decode) -> u64 {
        self.cache.saturating_add(if decode == Decode::Cached { self.cached } else { self.fused })
    }

    /// The strategy to take. On the CPU [`Decode::Auto`] takes plain integers if there is memory for them, else weights as they
    /// are coded; where nobody says how much memory there may be, half of what is available may be taken for integers. On a
    /// GPU every strategy stays as it is: how much memory it takes there is known, and refused, as the model is loaded.
    ///
    /// Error: [`Error::Argument`] for a strategy that there is not, and for too little memory.
    pub fn choose(&self, options: &Options) -> Result<Choice> {
        let device = options.device.resolved();
        if device == Device::Gpu {
            return Ok(Choice { device, decode: options.decode, bytes: self.total(options.decode) });
        }
        // the other half is for what the system and other programs need
        let half = || SystemMemory::now().available / 2;
        let fits = |decode| options.memory.is_none_or(|memory| self.total(decode) <= memory);
        let decode = match options.decode {
            Decode::Prefetch | Decode::Lru => {
                return Err(Error::Argument {
                    what: "the strategy",
                    expected: "fused, cached or auto: prefetch and lru are for GPUs, this runs on the CPU"
                        .into(),
                    got: options.decode.name().into(),
                });
            }
            Decode::Auto if self.total(Decode::Cached) <= options.memory.unwrap_or_else(half) => {
                Decode::Cached
            }
            Decode::Auto | Decode::Fused => Decode::Fused,
            Decode::Cached => Decode::Cached,
        };
        if fits(decode) {
            return Ok(Choice { device: Device::Cpu, decode, bytes: self.total(decode) });
        }
        Err(Error::Argument {
            what: "the memory",
            expected: format!(
                "at least {} for weights with fused, {} with cached, each with {} for the cache of {} positions",
                bytes(self.total(Decode::Fused)),
                bytes(self.total(Decode::Cached)),
                bytes(self.cache),
                options.positions,
            ),
            got: bytes(options.memory.unwrap_or(0)),
        })
    }
}

/// In megabytes and exactly.
fn bytes(n: u64) -> String {
    format!("{:.1} MB ({n} bytes)", n as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use ecq_format::directory::{Codec, Coded, Extent, Scales, Values};

    use super::*;

    const MEBI: u64 = 1 << 20;

    /// A tensor in groups of 32 with minima, or stored as it was.
    fn record(name: &str, shape: &[u64], raw_bits: Option<u32>) -> TensorRecord {
        let scales = Scales::Group { size: 32, min: true };
        let coded = raw_bits.map(|raw_bits| Coded {
            scheme: "q4_1".into(),
            rows: shape[0],
            cols: shape[1],
            tile_rows: 64,
            codec: Codec::Nibble(64),
            raw_bits,
            center: 8,
            values: Values { scales, ..Values::ONE },
            pattern: None,
            predictor: None,
        });
        let source = Extent { file: 0, offset: 0, len: 0 };
        let (name, shape, dtype) = (name.into(), shape.into(), "Q4_1".into());
        TensorRecord { name, shape, dtype, source, coded, part: None, crc: 0 }
    }

    fn sizes(tied: bool) -> Sizes {
        let tensors = [
            (record("table", &[1024, 1024], Some(0)), MEBI / 2),
            (record("matrix", &[1024, 1000], Some(1)), MEBI),
            (record("norm", &[1024], None), 2048),
        ];
        Sizes::new(tensors.iter().map(|(record, stored)| (record, *stored)), "table", tied, 3000)
    }

    #[test]
    fn sizes_follow_from_shapes() {
        // of 32 weights: two numbers of 2 bytes
        let (table, matrix, norm) = (MEBI / 8, 1024 * 32 * 4, 4096);
        let apart = Sizes {
            fused: MEBI / 2 + table + MEBI + matrix + norm,
            // rows of 1,000 bytes are filled up to 1,024
            cached: MEBI / 2 + table + (1024 * 1024 + matrix) + norm,
            cache: 3000,
        };
        assert_eq!(sizes(false), apart);
        assert_eq!(sizes(true), Sizes { cached: apart.cached + MEBI / 2, ..apart });
    }

    #[test]
    fn the_fastest_that_fits_is_taken() {
        let sizes = Sizes { fused: 1000, cached: 2000, cache: 100 };
        let choose = |decode, memory| {
            let options = Options { decode, memory, device: Device::Cpu, ..Options::default() };
            sizes.choose(&options).map(|choice| (choice.decode, choice.bytes))
        };
        assert_eq!(choose(Decode::Auto, Some(2100)).unwrap(), (Decode::Cached, 2100));
        assert_eq!(choose(Decode::Auto, Some(2099)).unwrap(), (Decode::Fused, 1100));
        assert_eq!(choose(Decode::Auto, Some(1100)).unwrap(), (Decode::Fused, 1100));
        assert_eq!(choose(Decode::Auto, None).unwrap(), (Decode::Cached, 2100));
        let vast = Sizes { cached: u64::MAX, ..sizes };
        let options = Options { decode: Decode::Auto, ..Options::default() };
        assert_eq!(vast.choose(&options).unwrap().decode, Decode::Fused);
        assert_eq!(choose(Decode::Fused, Some(9999)).unwrap(), (Decode::Fused, 1100));
        assert_eq!(choose(Decode::Cached, None).unwrap(), (Decode::Cached, 2100));
        for (decode, memory, says) in [
            (Decode::Auto, Some(1099), "1100 bytes) for weights with fused, 0.0 MB (2100 bytes) with cached"),
            (Decode::Fused, Some(0), "1100 bytes)"),
            (Decode::Cached, Some(2099), "(2099 bytes)"),
            (Decode::Prefetch, None, "prefetch and lru are for GPUs"),
            (Decode::Lru, Some(9999), "got lru"),
        ] {
            let error = choose(decode, memory).unwrap_err().to_string();
            assert!(error.contains(says), "{decode:?} {memory:?}: {error}");
        }
    }
}

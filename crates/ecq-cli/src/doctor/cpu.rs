//! What the CPU can do.

use std::io::Write;

use anyhow::Result;
use ecq_cpu::{InstructionSet, Isa};
use serde::Serialize;
use sysinfo::System;

#[derive(Serialize)]
pub struct Cpu {
    name: String,
    architecture: &'static str,
    /// Cores, and what the system counts as such with several threads on each.
    cores: Option<usize>,
    threads: usize,
    features: Vec<Feature>,
    /// The instruction set of the kernels that run.
    kernels: &'static str,
    meaning: &'static str,
}

/// An extension of the instruction set that kernels use.
#[derive(Serialize)]
struct Feature {
    name: &'static str,
    present: bool,
    meaning: &'static str,
}

impl Cpu {
    pub fn find(system: &System) -> Self {
        let name = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned());
        let set = Isa::best().set();
        Self {
            name: name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".into()),
            architecture: std::env::consts::ARCH,
            cores: System::physical_core_count(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            features: features(),
            kernels: set.name(),
            meaning: match set {
                InstructionSet::Avx512 => "the fastest: 64 nibbles are decoded at once",
                InstructionSet::Avx2 => "decodes at about a third of the speed of AVX-512",
                InstructionSet::Neon => "vector kernels of 64-bit ARM",
                InstructionSet::Scalar => "plain code: correct, and many times slower than vector kernels",
            },
        }
    }

    /// What a user can do about it.
    pub fn advice(&self) -> Option<String> {
        let vectors = self.kernels != InstructionSet::Scalar.name();
        let advice = "a CPU with AVX2 (x86, since 2013) or NEON (64-bit ARM); in a virtual machine, let it see the CPU \
                      of the host (-cpu host)";
        (!vectors).then(|| advice.into())
    }

    pub fn print(&self, out: &mut impl Write) -> Result<()> {
        let cores = self.cores.map_or("?".into(), |cores| cores.to_string());
        writeln!(
            out,
            "CPU: {} ({}), {cores} cores, {} threads for ecq",
            self.name, self.architecture, self.threads
        )?;
        for Feature { name, present, meaning } in &self.features {
            writeln!(out, "  {name:<14} {:<4} {meaning}", if *present { "yes" } else { "no" })?;
        }
        writeln!(out, "  kernels that run: {}, {}", self.kernels, self.meaning)?;
        Ok(())
    }
}

/// Those that [`Isa`] asks for.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<Feature> {
    macro_rules! found {
        ($($name:tt: $meaning:literal),* $(,)?) => {
            vec![$(Feature { name: $name, present: std::arch::is_x86_feature_detected!($name), meaning: $meaning }),*]
        };
    }
    found! {
        "avx2": "vectors of 32 bytes: the least that fast kernels need",
        "fma": "products with f32 vectors; needed beside avx2",
        "f16c": "scales in half precision; needed beside avx2",
        "bmi2": "raw bits of levels; needed beside avx2",
        "popcnt": "refilling the decoder's lanes; needed beside avx2",
        "avx512f": "vectors of 64 bytes",
        "avx512bw": "bytes and words in them",
        "avx512dq": "raw bits in them",
        "avx512vl": "the same instructions for shorter vectors",
        "avx512vbmi": "tables of a code in registers",
        "avx512vbmi2": "refills 16 lanes of the decoder in one instruction: the fastest nibble decode",
        "avx512vnni": "products of 8-bit integers, four to a lane",
    }
}

/// Those that [`Isa`] asks for.
#[cfg(target_arch = "aarch64")]
fn features() -> Vec<Feature> {
    let present = std::arch::is_aarch64_feature_detected!("neon");
    vec![Feature { name: "neon", present, meaning: "vectors of 16 bytes: what the kernels need" }]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<Feature> {
    Vec::new()
}

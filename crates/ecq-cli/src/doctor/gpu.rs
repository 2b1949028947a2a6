//! What GPUs there are, and what they can do.

use std::io::Write;

use anyhow::Result;
use ecq_gpu::variant::Lanes;
use ecq_gpu::wgpu::{self, DeviceType, Features};
use ecq_gpu::{Engine, Gpu, Options};
use serde::Serialize;

use crate::output::{self, clean};

#[derive(Serialize)]
pub struct Adapter {
    name: String,
    backend: String,
    driver: String,
    kind: &'static str,
    /// Whether it is a program that computes on the CPU.
    is_cpu: bool,
    subgroup_sizes: [u32; 2],
    half_precision: bool,
    timestamps: bool,
    limits: Limits,
    /// Which kernels products get.
    kernels: Option<&'static str>,
    /// Why there are none.
    problem: Option<String>,
    /// Size of subgroups that was found by running a kernel.
    subgroup_size: Option<u32>,
    strategies: &'static [&'static str],
}

/// In bytes, but for the last.
#[derive(Serialize)]
struct Limits {
    buffer: u64,
    binding: u64,
    workgroup_memory: u32,
    workgroup_invocations: u32,
}

/// All that wgpu reaches; none without a driver.
pub fn adapters() -> Vec<Adapter> {
    ecq_gpu::gpu::adapters().into_iter().map(find).collect()
}

fn find(adapter: wgpu::Adapter) -> Adapter {
    let (info, features, limits) = (adapter.get_info(), adapter.features(), adapter.limits());
    let engine = pollster::block_on(Gpu::of(adapter))
        .and_then(|gpu| Engine::new(&gpu.device, &gpu.queue, Options::default()));
    let lanes = engine.map(|engine| engine.lanes());
    Adapter {
        name: clean(&info.name, 80),
        backend: info.backend.to_string(),
        driver: clean(format!("{} {}", info.driver, info.driver_info).trim(), 80),
        kind: match info.device_type {
            DeviceType::DiscreteGpu => "a card with memory of its own",
            DeviceType::IntegratedGpu => "shares the CPU's memory",
            DeviceType::VirtualGpu => "of a virtual machine",
            DeviceType::Cpu => "a program on the CPU",
            DeviceType::Other => "of no known kind",
        },
        is_cpu: info.device_type == DeviceType::Cpu,
        subgroup_sizes: [info.subgroup_min_size, info.subgroup_max_size],
        half_precision: features.contains(Features::SHADER_F16),
        timestamps: features.contains(Features::TIMESTAMP_QUERY),
        limits: Limits {
            buffer: limits.max_buffer_size,
            binding: limits.max_storage_buffer_binding_size,
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        },
        subgroup_size: match lanes {
            Ok(Lanes::Subgroups(size)) => Some(size),
            _ => None,
        },
        strategies: if lanes.is_ok() { &["fused", "cached", "prefetch", "lru"] } else { &[] },
        kernels: match lanes {
            Ok(Lanes::Subgroups(_)) => Some("with subgroups"),
            Ok(Lanes::Barriers) => Some("with barriers"),
            Err(_) => None,
        },
        problem: lanes.err().map(|error| clean(&error.to_string(), 200)),
    }
}

/// What a user can do about them.
pub fn advice(adapters: &[Adapter]) -> Vec<String> {
    let mut advice = Vec::new();
    let drivers = if cfg!(target_vendor = "apple") {
        "a GPU with Metal"
    } else if cfg!(windows) {
        "a GPU whose driver speaks Vulkan: install the driver of its maker"
    } else {
        "a GPU whose driver speaks Vulkan: mesa-vulkan-drivers for AMD and Intel, NVIDIA's own driver with libvulkan1 for \
         NVIDIA; in a container the device must be passed in, too"
    };
    if adapters.iter().all(|adapter| adapter.is_cpu) {
        advice.push(format!("{drivers}. Models run on the CPU without one"));
    }
    for Adapter { name, problem, .. } in adapters {
        if let Some(why) = problem {
            advice.push(format!("{name} cannot be used: {why}; a newer driver may help"));
        }
    }
    advice
}

pub fn print(adapters: &[Adapter], out: &mut impl Write) -> Result<()> {
    if adapters.is_empty() {
        writeln!(out, "\nGPU: none that Vulkan or Metal reaches")?;
    }
    for adapter in adapters {
        let Adapter { name, backend, driver, kind, limits, .. } = adapter;
        writeln!(out, "\nGPU: {name}, {kind} ({backend}, {driver})")?;
        if adapter.is_cpu {
            writeln!(
                out,
                "  computes on the CPU: good for tests; the CPU itself is faster, and --device auto takes it"
            )?;
        }
        let [least, most] = adapter.subgroup_sizes;
        match (adapter.subgroup_size, &adapter.problem) {
            (Some(size), _) => {
                writeln!(out, "  subgroups      of {size} ({least} to {most}): the fastest kernels")?;
            }
            (None, Some(why)) => writeln!(out, "  kernels        none: {why}")?,
            (None, None) => {
                writeln!(out, "  subgroups      none that can be relied on: kernels with barriers, slower")?;
            }
        }
        let yes = |has| if has { "yes" } else { "no" };
        writeln!(out, "  half precision {}: vectors of f16", yes(adapter.half_precision))?;
        writeln!(
            out,
            "  timestamps     {}: what benchmarks measure with, else whole submissions",
            yes(adapter.timestamps)
        )?;
        writeln!(
            out,
            "  limits         {} a binding, {} a buffer: larger matrices are split; {} bytes and {} invocations a workgroup",
            output::mb(limits.binding),
            output::mb(limits.buffer),
            limits.workgroup_memory,
            limits.workgroup_invocations
        )?;
        writeln!(out, "  strategies     {}", adapter.strategies.join(", "))?;
    }
    Ok(())
}

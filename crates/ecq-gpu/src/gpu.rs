//! A device of one's own, for programs without one.

use wgpu::{
    Adapter, Backends, Device, DeviceDescriptor, ExperimentalFeatures, Features, Instance,
    InstanceDescriptor, Queue,
};

use crate::error::{Error, Result};

/// Features that kernels and their benchmark use where the adapter has them.
pub fn useful_features() -> Features {
    let timestamps = Features::TIMESTAMP_QUERY | Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
    Features::SUBGROUP | Features::SHADER_F16 | timestamps
}

/// All adapters that there are, those that compute on the CPU among them; none without a driver.
pub fn adapters() -> Vec<Adapter> {
    pollster::block_on(all())
}

async fn all() -> Vec<Adapter> {
    let instance = Instance::new(InstanceDescriptor {
        backends: Backends::PRIMARY,
        ..InstanceDescriptor::new_without_display_handle()
    });
    instance.enumerate_adapters(Backends::PRIMARY).await
}

/// An adapter with its device and queue.
pub struct Gpu {
    /// The adapter.
    pub adapter: Adapter,
    /// The device, with all limits of the adapter and the features of [`useful_features`] that it has.
    pub device: Device,
    /// Its queue.
    pub queue: Queue,
}

impl Gpu {
    /// Opens the adapter whose name contains `name` (upper and lower case alike), or the fastest one.
    ///
    /// Errors: [`Error::NoAdapter`], [`Error::NoDevice`].
    pub fn open(name: Option<&str>) -> Result<Self> {
        pollster::block_on(Self::open_async(name))
    }

    /// [`Self::open`] for callers that wait otherwise.
    pub async fn open_async(name: Option<&str>) -> Result<Self> {
        let adapters = all().await;
        let names: Vec<_> = adapters.iter().map(|a| a.get_info().name).collect();
        let wanted = |adapter: &Adapter| {
            let own = adapter.get_info().name.to_lowercase();
            name.is_none_or(|name| own.contains(&name.to_lowercase()))
        };
        let rank = |adapter: &Adapter| match adapter.get_info().device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        };
        let Some(adapter) = adapters.into_iter().filter(wanted).min_by_key(rank) else {
            return Err(Error::NoAdapter(match (name, names.as_slice()) {
                (_, []) => "there is none".into(),
                (name, names) => format!("none is called {:?} of {}", name.unwrap_or(""), names.join(", ")),
            }));
        };
        Self::of(adapter).await
    }

    /// A device of an adapter.
    pub async fn of(adapter: Adapter) -> Result<Self> {
        let descriptor = DeviceDescriptor {
            label: Some("ecq"),
            required_features: adapter.features() & useful_features(),
            required_limits: adapter.limits(),
            experimental_features: ExperimentalFeatures::disabled(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        };
        let fail = |e: wgpu::RequestDeviceError| Error::NoDevice {
            adapter: adapter.get_info().name,
            why: e.to_string(),
        };
        let (device, queue) = adapter.request_device(&descriptor).await.map_err(fail)?;
        Ok(Self { adapter, device, queue })
    }
}

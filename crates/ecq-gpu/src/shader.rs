//! From a source in WGSL to a pipeline.

use std::borrow::Cow;

use wgpu::{
    BindGroupLayoutDescriptor, BindGroupLayoutEntry, BindingType, BufferBindingType, ComputePipeline, Device,
    PipelineCompilationOptions, ShaderModuleDescriptor, ShaderRuntimeChecks, ShaderSource, ShaderStages,
};

use crate::engine::refused;
use crate::error::{Error, Result};

/// A buffer that a kernel uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Uniform parameters.
    Uniform(u32),
    /// A storage buffer that it reads.
    Read(u32),
    /// A storage buffer that it writes.
    Write(u32),
}

impl Binding {
    /// Its number in group 0.
    pub fn number(self) -> u32 {
        match self {
            Self::Uniform(i) | Self::Read(i) | Self::Write(i) => i,
        }
    }

    fn entry(self) -> BindGroupLayoutEntry {
        let (binding, ty) = match self {
            Self::Uniform(i) => (i, BufferBindingType::Uniform),
            Self::Read(i) => (i, BufferBindingType::Storage { read_only: true }),
            Self::Write(i) => (i, BufferBindingType::Storage { read_only: false }),
        };
        BindGroupLayoutEntry {
            binding,
            visibility: ShaderStages::COMPUTE,
            ty: BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        }
    }
}

/// Compiles a kernel; its bind group 0 has these bindings. Errors: [`Error::Shader`],
/// [`Error::OutOfMemory`].
pub fn pipeline(
    device: &Device,
    name: &str,
    source: &str,
    bindings: &[Binding],
    checked: bool,
) -> Result<ComputePipeline> {
    let (pipeline, refused) = refused(device, || compiled(device, name, source, bindings, checked));
    match refused {
        None => Ok(pipeline),
        Some(wgpu::Error::OutOfMemory { .. }) => {
            Err(Error::OutOfMemory { what: format!("the shader {name}"), bytes: None })
        }
        Some(why) => Err(Error::Shader { kernel: name.into(), why: why.to_string() }),
    }
}

fn compiled(
    device: &Device,
    name: &str,
    source: &str,
    bindings: &[Binding],
    checked: bool,
) -> ComputePipeline {
    let descriptor =
        ShaderModuleDescriptor { label: Some(name), source: ShaderSource::Wgsl(Cow::Borrowed(source)) };
    let module = if checked {
        device.create_shader_module(descriptor)
    } else {
        // SAFETY: The kernels of this crate index their buffers with what was validated on the CPU when a tensor was
        // uploaded: streams that decode without an error, escapes within their rows, columns whose groups there are
        // (`CodedTensor::side` checks maps), codes that were made for their tables, and dispatches that were planned for
        // these buffers. Their loops count up to such numbers.
        unsafe { device.create_shader_module_trusted(descriptor, ShaderRuntimeChecks::unchecked()) }
    };
    let entries: Vec<_> = bindings.iter().map(|b| b.entry()).collect();
    let group =
        device.create_bind_group_layout(&BindGroupLayoutDescriptor { label: Some(name), entries: &entries });
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(name),
        bind_group_layouts: &[Some(&group)],
        immediate_size: 0,
    });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(name),
        layout: Some(&layout),
        module: &module,
        entry_point: Some(name),
        // one invocation would do it on Metal; kernels write what they read
        compilation_options: PipelineCompilationOptions {
            constants: &[],
            zero_initialize_workgroup_memory: false,
        },
        cache: None,
    })
}

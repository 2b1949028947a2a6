//! Kernels with their buffers, made once and recorded as often as they are needed.

use wgpu::{BindGroup, BindGroupDescriptor, BindGroupEntry, BindingResource, ComputePass, ComputePipeline};

use crate::engine::Engine;

/// A kernel with its buffers, over so many workgroups. It keeps the buffers: they are freed once it is dropped, too.
#[derive(Clone)]
pub struct Dispatch {
    pipeline: ComputePipeline,
    group: BindGroup,
    grid: [u32; 3],
}

impl Dispatch {
    /// For bindings with these numbers in group 0, over so many workgroups in each dimension. What the device does not
    /// take is an error of the guard around this ([`Engine::guard`]).
    pub fn new<'a>(
        engine: &Engine,
        label: &str,
        pipeline: &ComputePipeline,
        bindings: impl IntoIterator<Item = (u32, BindingResource<'a>)>,
        grid: [u32; 3],
    ) -> Self {
        let bindings = bindings.into_iter();
        let entries: Vec<_> =
            bindings.map(|(binding, resource)| BindGroupEntry { binding, resource }).collect();
        let group = engine.device().create_bind_group(&BindGroupDescriptor {
            label: Some(label),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Self { pipeline: pipeline.clone(), group, grid }
    }

    /// Records it.
    pub fn record(&self, pass: &mut ComputePass<'_>) {
        let [x, y, z] = self.grid;
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

/// Records some of them, one after another: each sees what those before it wrote.
pub fn record(all: &[Dispatch], pass: &mut ComputePass<'_>) {
    all.iter().for_each(|dispatch| dispatch.record(pass));
}

//! Tensors that are more than one binding, whose scales and escapes are shared out with their rows.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
mod check;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod reference;
mod support;

use case::{Case, with_model};
use check::From;
use ecq_format::directory::{Min, NumberFormat, PairCode, Pairs, Scales};
use ecq_format::encode::Profile;
use ecq_gpu::{Engine, Error, Matrix, Options};

/// An engine on a device with limits that are changed.
fn engine_with(change: impl FnOnce(&mut wgpu::Limits)) -> Option<ecq_gpu::Result<Engine>> {
    let gpu = support::gpu()?;
    let mut limits = gpu.adapter.limits();
    change(&mut limits);
    let descriptor = wgpu::DeviceDescriptor {
        required_features: gpu.adapter.features() & ecq_gpu::gpu::useful_features(),
        required_limits: limits,
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(gpu.adapter.request_device(&descriptor)).unwrap();
    Some(Engine::new(&device, &queue, Options::default()))
}

/// An engine on a device whose bindings have this size.
fn engine(bytes: u64) -> Option<Engine> {
    engine_with(|limits| limits.max_storage_buffer_binding_size = bytes).map(Result::unwrap)
}

/// Limits that leave no kernel a chance are named.
#[test]
fn devices_for_no_kernel_are_refused() {
    type Change = fn(&mut wgpu::Limits);
    let changes: [(&str, Change); 6] = [
        ("max_compute_workgroups_per_dimension", |l| l.max_compute_workgroups_per_dimension = 0),
        ("max_storage_buffer_binding_size", |l| l.max_storage_buffer_binding_size = 64),
        ("max_compute_invocations_per_workgroup", |l| l.max_compute_workgroup_size_x = 64),
        ("max_storage_buffers_per_shader_stage", |l| l.max_storage_buffers_per_shader_stage = 0),
        ("max_compute_workgroup_storage_size", |l| l.max_compute_workgroup_storage_size = 1 << 10),
        ("max_bind_groups", |l| l.max_bind_groups = 0),
    ];
    for (limit, change) in changes {
        let Some(engine) = engine_with(change) else { return };
        let refused = matches!(&engine, Err(Error::Limit { name, .. }) if *name == limit);
        assert!(refused, "{limit}: {:?}", engine.err());
    }
}

#[test]
fn scales_and_escapes_in_several_buffers() {
    let Some(engine) = engine(28 << 10) else { return };
    // twins try all kinds of scales in parts; these two have everything that a kernel asks the parameters for
    let cases = [
        (Scales::Lookup { size: 2, supers: 7, offset: 0.25 }, 60),
        (Scales::RowColumn { row: true, column: true }, 9),
    ];
    for (scales, escapes) in cases {
        let case = Case { rows: 203, cols: 576, scales, escapes, profile: Profile::Gpu, ..Case::PLAIN };
        let mut model = case.model();
        model.pairs = Some((Pairs { code: PairCode::Prefix, band: 8, strip: 320 }, 8));
        with_model(&model, |tensor| {
            let matrix = check::products(&engine, tensor, &[1], From::Both, &format!("{case:?}"));
            assert!(matrix.packed_sizes().len() > 2, "{:?}", matrix.packed_sizes());
        });
    }
}

#[test]
fn what_fits_nowhere_is_refused() {
    let Some(engine) = engine(28 << 10) else { return };
    let scales = Scales::Numbers { size: 1, format: NumberFormat::F32, min: Min::Number, mapped: false };
    let case = Case { rows: 8, cols: 1200, scales, ..Case::PLAIN };
    with_model(&case.model(), |tensor| {
        let refused = Matrix::new(&engine, "w", tensor).map(drop);
        assert!(matches!(refused, Err(Error::Limit { needs, limit, .. }) if needs > limit), "{refused:?}");
    });
}

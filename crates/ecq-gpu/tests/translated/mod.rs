//! Whether a kernel is valid where it is promised to run, is translated for every back end, and keeps their limits.

use ecq_gpu::shader::Binding;
use naga::back::{hlsl, msl, spv};
use naga::proc::Layouter;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module};

/// What a kernel asks of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    pub subgroups: bool,
    pub f16: bool,
    /// Bytes of workgroup memory.
    pub memory: u32,
    /// Invocations of a workgroup.
    pub threads: u32,
}

/// What WebGPU promises everywhere: the least of all machines.
pub const EVERYWHERE: Needs = Needs { subgroups: false, f16: false, memory: 16_384, threads: 256 };

/// Storage buffers that WebGPU promises to a kernel.
const STORAGE_BUFFERS: usize = 8;

impl Needs {
    fn capabilities(self) -> Capabilities {
        // halves packed in a word are in every machine; f16 as a type is not
        let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        capabilities.set(Capabilities::SUBGROUP | Capabilities::SUBGROUP_BARRIER, self.subgroups);
        capabilities.set(Capabilities::SHADER_FLOAT16, self.f16);
        capabilities
    }
}

/// Checks one kernel.
pub fn check(name: &str, wgsl: &str, needs: Needs) -> Result<(), String> {
    let module =
        naga::front::wgsl::parse_str(wgsl).map_err(|e| format!("{name}: {}", e.emit_to_string(wgsl)))?;
    let info = Validator::new(ValidationFlags::all(), needs.capabilities())
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|e| format!("{name}: {}", e.emit_to_string(wgsl)))?;
    check_limits(&module, &info, needs).map_err(|e| format!("{name}: {e}"))?;
    to_spirv(&module, &info, needs).map_err(|e| format!("{name} for Vulkan: {e}"))?;
    to_metal(&module, &info, needs).map_err(|e| format!("{name} for Metal: {e}"))?;
    to_hlsl(&module, &info, needs).map_err(|e| format!("{name} for Direct3D: {e}"))
}

/// What the entry point takes fits into what the kernel says, and that into what there is anywhere.
fn check_limits(module: &Module, info: &ModuleInfo, needs: Needs) -> Result<(), String> {
    let [entry] = module.entry_points.as_slice() else {
        return Err(format!("{} entry points", module.entry_points.len()));
    };
    let threads: u32 = entry.workgroup_size.iter().product();
    let mut layouts = Layouter::default();
    layouts.update(module.to_ctx()).map_err(|e| e.to_string())?;
    let used = info.get_entry_point(0);
    let in_use = |space: fn(AddressSpace) -> bool| {
        module.global_variables.iter().filter(move |(h, v)| space(v.space) && !used[*h].is_empty())
    };
    let shared = in_use(|space| space == AddressSpace::WorkGroup);
    let memory: u32 = shared.map(|(_, v)| layouts[v.ty].size.next_multiple_of(16)).sum();
    let storage = in_use(|space| matches!(space, AddressSpace::Storage { .. })).count();
    let limits = [
        ("bytes of workgroup memory", memory, needs.memory.min(32_768)), // Apple's
        ("invocations", threads, needs.threads.min(1_024)),              // Apple's
        ("storage buffers", storage as u32, STORAGE_BUFFERS as u32),
    ];
    match limits.iter().find(|(_, is, limit)| is > limit) {
        Some((what, is, limit)) => Err(format!("{is} {what}, more than {limit}")),
        None => Ok(()),
    }
}

fn to_spirv(module: &Module, info: &ModuleInfo, needs: Needs) -> Result<(), String> {
    use spv::Capability;
    let mut capabilities = vec![Capability::Shader];
    if needs.subgroups {
        capabilities.extend([
            Capability::GroupNonUniform,
            Capability::GroupNonUniformBallot,
            Capability::GroupNonUniformArithmetic,
            Capability::GroupNonUniformShuffle,
            Capability::GroupNonUniformShuffleRelative,
        ]);
    }
    if needs.f16 {
        capabilities.extend([Capability::Float16, Capability::StorageBuffer16BitAccess]);
        capabilities.extend([Capability::UniformAndStorageBuffer16BitAccess]);
    }
    let options = spv::Options {
        lang_version: if needs.subgroups { (1, 3) } else { (1, 0) },
        capabilities: Some(capabilities.into_iter().collect()),
        use_storage_input_output_16: false,
        ..Default::default()
    };
    let words = spv::write_vec(module, info, &options, None).map_err(|e| e.to_string())?;
    (words.first() == Some(&0x0723_0203)).then_some(()).ok_or_else(|| "not SPIR-V".to_owned())
}

fn to_metal(module: &Module, info: &ModuleInfo, needs: Needs) -> Result<(), String> {
    let options =
        msl::Options { lang_version: if needs.subgroups { (2, 4) } else { (2, 0) }, ..Default::default() };
    let (_, written) =
        msl::write_string(module, info, &options, &Default::default()).map_err(|e| e.to_string())?;
    written.entry_point_names.iter().try_for_each(|name| name.as_ref().map(|_| ()).map_err(|e| e.to_string()))
}

fn to_hlsl(module: &Module, info: &ModuleInfo, needs: Needs) -> Result<(), String> {
    let model = if needs.f16 { hlsl::ShaderModel::V6_2 } else { hlsl::ShaderModel::V6_0 };
    let options = hlsl::Options { shader_model: model, fake_missing_bindings: true, ..Default::default() };
    let pipeline = hlsl::PipelineOptions::default();
    let mut text = String::new();
    let written = hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(module, info, None)
        .map_err(|e| e.to_string())?;
    written.entry_point_names.iter().try_for_each(|name| name.as_ref().map(|_| ()).map_err(|e| e.to_string()))
}

/// Pipelines are made with the declared bindings, and the entry point by its name.
pub fn check_declared(name: &str, wgsl: &str, entry: &str, mut declared: Vec<Binding>) -> Result<(), String> {
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| e.to_string())?;
    let mut bound: Vec<_> = module.global_variables.iter().filter_map(binding).collect();
    bound.sort_by_key(|b| b.number());
    declared.sort_by_key(|b| b.number());
    let found = &module.entry_points[0].name;
    if bound != declared || entry != found {
        return Err(format!("{name} declares {declared:?}, and the source of {found} has {bound:?}"));
    }
    Ok(())
}

fn binding((_, variable): (naga::Handle<naga::GlobalVariable>, &naga::GlobalVariable)) -> Option<Binding> {
    let number = variable.binding?.binding;
    Some(match variable.space {
        AddressSpace::Uniform => Binding::Uniform(number),
        AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => {
            Binding::Write(number)
        }
        _ => Binding::Read(number),
    })
}

//! WGSL to Metal source, and to the C++ that calls its entry point as its parameters want it.

use std::fmt::Write;

use naga::back::msl;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy, Layouter};
use naga::valid::{Capabilities, FunctionInfo, ValidationFlags, Validator};
use naga::{AddressSpace, BuiltIn, Handle, Module, StorageAccess, TypeInner};

use super::Policy;

/// A kernel in the runner's languages.
pub struct Translated {
    pub metal: String,
    /// Includes the kernel and defines what `runner.hpp` asks for.
    pub call: String,
    pub bindings: Vec<Binding>,
}

/// A buffer of group 0.
pub struct Binding {
    pub number: u32,
    /// By the entry point, directly or not.
    pub used: bool,
    pub written: bool,
}

/// Translates a kernel.
///
/// # Errors
///
/// What is wrong with the WGSL or not supported here.
pub fn translate(wgsl: &str, policy: Policy) -> Result<Translated, String> {
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| e.emit_to_string(wgsl))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(wgsl))?;
    let [entry] = module.entry_points.as_slice() else {
        return Err(format!("a kernel has one entry point, this has {}", module.entry_points.len()));
    };
    if !module.overrides.is_empty() {
        return Err("overrides have no values here: render constants instead".to_owned());
    }
    let bindings = bindings(&module, info.get_entry_point(0))?;
    let options = options(policy, &entry.name, &bindings);
    let (metal, written) = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
        .map_err(|e| format!("naga cannot write Metal: {e}"))?;
    let name = match written.entry_point_names.first() {
        Some(Ok(name)) => name,
        Some(Err(e)) => return Err(format!("naga cannot write the entry point: {e}")),
        None => return Err("naga wrote no entry point".to_owned()),
    };
    let call = call(&module, info.get_entry_point(0), name, policy)?;
    Ok(Translated { metal, call, bindings })
}

/// As wgpu's Metal back end sets them.
fn options(policy: Policy, entry: &str, bindings: &[Binding]) -> msl::Options {
    let checked = policy == Policy::Checked;
    let bounds = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    let target = |b: &Binding| {
        let place = naga::ResourceBinding { group: 0, binding: b.number };
        let slot = u8::try_from(b.number).ok();
        (place, msl::BindTarget { buffer: slot, mutable: b.written, ..Default::default() })
    };
    let resources = msl::EntryPointResources {
        resources: bindings.iter().map(target).collect(),
        sizes_buffer: Some(30), // Metal's last
        ..Default::default()
    };
    msl::Options {
        lang_version: (2, 4),
        per_entry_point_map: [(entry.to_owned(), resources)].into(),
        fake_missing_bindings: false,
        bounds_check_policies: BoundsCheckPolicies {
            index: bounds,
            buffer: bounds,
            image_load: bounds,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: checked,
        force_loop_bounding: checked,
        ..Default::default()
    }
}

/// The number of a buffer's binding.
fn number(variable: &naga::GlobalVariable) -> Result<u32, String> {
    let name = variable.name.as_deref().unwrap_or("a variable");
    match variable.binding {
        Some(naga::ResourceBinding { group: 0, binding }) => Ok(binding),
        Some(other) => Err(format!("{name} is in group {}: kernels bind in group 0", other.group)),
        None => Err(format!("{name} has no binding")),
    }
}

fn bindings(module: &Module, info: &FunctionInfo) -> Result<Vec<Binding>, String> {
    let mut all = Vec::new();
    for (handle, variable) in module.global_variables.iter() {
        let written = match variable.space {
            AddressSpace::Uniform => false,
            AddressSpace::Storage { access } => access.contains(StorageAccess::STORE),
            _ => continue,
        };
        all.push(Binding { number: number(variable)?, used: !info[handle].is_empty(), written });
    }
    Ok(all)
}

/// The C++ that defines what `runner.hpp` asks for. naga passes the built-in values, then the globals that are used in the
/// order of their declaration, then the sizes of buffers.
fn call(module: &Module, info: &FunctionInfo, name: &str, policy: Policy) -> Result<String, String> {
    let entry = &module.entry_points[0];
    let mut layouts = Layouter::default();
    layouts.update(module.to_ctx()).map_err(|e| format!("naga cannot lay out the types: {e}"))?;
    let (mut shared, mut sized, mut needs_sizes) = (0, Vec::new(), false);
    let mut arguments = built_ins(module)?;
    let uses_shared = |(handle, v): (Handle<naga::GlobalVariable>, &naga::GlobalVariable)| {
        v.space == AddressSpace::WorkGroup && !info[handle].is_empty()
    };
    // naga zeroes workgroup memory by the thread's index, and asks for it if the kernel does not
    let zeroes = policy == Policy::Checked && module.global_variables.iter().any(uses_shared);
    if zeroes && !arguments.iter().any(|a| a == INDEX) {
        arguments.push(INDEX.to_owned());
    }
    for (handle, variable) in module.global_variables.iter() {
        let has_size = module.types[variable.ty].inner.needs_host_buffer_byte_size(&module.types);
        if has_size {
            sized.push(number(variable)?.to_string());
        }
        if info[handle].is_empty() {
            continue;
        }
        needs_sizes |= has_size;
        match variable.space {
            AddressSpace::Uniform | AddressSpace::Storage { .. } => {
                arguments.push(format!("emu::buffer({})", number(variable)?));
            }
            AddressSpace::WorkGroup => {
                let bytes = layouts[variable.ty].size.next_multiple_of(16);
                arguments.push(format!("emu::shared({shared}, {bytes})"));
                shared += bytes;
            }
            AddressSpace::Private => {}
            space => return Err(format!("variables in {space:?} are not supported here")),
        }
    }
    if needs_sizes {
        arguments.push(format!("emu::sizes<{}>()", sized.join(", ")));
    }
    let [x, y, z] = entry.workgroup_size;
    let mut text = String::from("#include <metal_stdlib>\n\n#include \"runner.hpp\"\n");
    text.push_str("namespace shader {\n#include \"kernel.metal\"\n}\n");
    let _ = writeln!(text, "const unsigned emu::workgroup_size[3] = {{{x}, {y}, {z}}};");
    let _ = writeln!(text, "const size_t emu::shared_bytes = {shared};");
    let arguments = arguments.join(",\n    ");
    let _ = writeln!(
        text,
        "void emu::call(const emu::invocation& at) {{\n  shader::{name}(\n    {arguments});\n}}"
    );
    Ok(text)
}

const INDEX: &str = "at.index";

/// The values of the entry point's parameters; structs come member by member.
fn built_ins(module: &Module) -> Result<Vec<String>, String> {
    let mut bindings = Vec::new();
    for argument in &module.entry_points[0].function.arguments {
        match &module.types[argument.ty].inner {
            TypeInner::Struct { members, .. } => bindings.extend(members.iter().map(|m| &m.binding)),
            _ => bindings.push(&argument.binding),
        }
    }
    let value = |binding: &Option<naga::Binding>| match binding {
        Some(naga::Binding::BuiltIn(built_in)) => built_in_value(*built_in),
        other => Err(format!("a parameter of the entry point is {other:?}, not a built-in value")),
    };
    bindings.into_iter().map(value).collect()
}

fn built_in_value(built_in: BuiltIn) -> Result<String, String> {
    let three = |f: &dyn Fn(usize) -> String| format!("uint3({}, {}, {})", f(0), f(1), f(2));
    Ok(match built_in {
        BuiltIn::WorkGroupId => three(&|i| format!("at.group[{i}]")),
        BuiltIn::NumWorkGroups => three(&|i| format!("at.groups[{i}]")),
        BuiltIn::WorkGroupSize => three(&|i| format!("emu::workgroup_size[{i}]")),
        BuiltIn::LocalInvocationId => three(&|i| format!("at.local[{i}]")),
        BuiltIn::GlobalInvocationId => {
            three(&|i| format!("at.group[{i}] * emu::workgroup_size[{i}] + at.local[{i}]"))
        }
        BuiltIn::LocalInvocationIndex => INDEX.to_owned(),
        BuiltIn::SubgroupId => "at.simdgroup".to_owned(),
        BuiltIn::NumSubgroups => "at.simdgroups".to_owned(),
        BuiltIn::SubgroupInvocationId => "at.lane".to_owned(),
        BuiltIn::SubgroupSize => "at.simd_width".to_owned(),
        other => return Err(format!("the built-in value {other:?} is not supported here")),
    })
}

//! A kernel as Vulkan takes it.

use anyhow::{Context, Result, anyhow, bail};
use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, ShaderStage};

/// A compute shader with one entry point.
pub struct Kernel {
    /// SPIR-V.
    pub code: Vec<u32>,
    pub entry_point: String,
    /// The buffers of group 0.
    pub buffers: Vec<Buffer>,
}

pub struct Buffer {
    pub binding: u32,
    pub uniform: bool,
}

/// Translates WGSL as wgpu does for shader modules that are trusted: nothing is checked at run time.
///
/// # Errors
///
/// What is wrong with the WGSL or not supported here.
pub fn translate(wgsl: &str) -> Result<Kernel> {
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| anyhow!("{}", e.emit_to_string(wgsl)))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .map_err(|e| anyhow!("{}", e.emit_to_string(wgsl)))?;
    let [entry] = module.entry_points.as_slice() else {
        bail!("a kernel has one entry point, this has {}", module.entry_points.len());
    };
    if entry.stage != ShaderStage::Compute {
        bail!("{} is no compute shader", entry.name);
    }
    let mut buffers = Vec::new();
    for (_, variable) in module.global_variables.iter() {
        let uniform = match variable.space {
            AddressSpace::Uniform => true,
            AddressSpace::Storage { .. } => false,
            AddressSpace::WorkGroup | AddressSpace::Private => continue,
            space => bail!("variables in {space:?} are not supported here"),
        };
        let name = variable.name.as_deref().unwrap_or("a variable");
        match variable.binding {
            Some(naga::ResourceBinding { group: 0, binding }) => buffers.push(Buffer { binding, uniform }),
            _ => bail!("{name} is not bound in group 0"),
        }
    }
    let unchecked = BoundsCheckPolicy::Unchecked;
    let options = spv::Options {
        lang_version: (1, 5),
        flags: spv::WriterFlags::empty(),
        fake_missing_bindings: true, // the numbers of WGSL serve
        bounds_check_policies: BoundsCheckPolicies {
            index: unchecked,
            buffer: unchecked,
            image_load: unchecked,
            binding_array: unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        ..Default::default()
    };
    let code = spv::write_vec(&module, &info, &options, None).context("naga cannot write SPIR-V")?;
    Ok(Kernel { code, entry_point: entry.name.clone(), buffers })
}

//! Mesa's Vulkan driver for AMD's chips, as a compiler for one that is not there.
//!
//! wgpu does not open such a device, so this speaks Vulkan itself.

use std::ffi::CString;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ash::vk;

use crate::kernel::Kernel;

/// The packages of the driver and of the loader, and where they come from.
const INSTALL: &str =
    "Debian 12: apt-get install libvulkan1 mesa-vulkan-drivers/bookworm-backports; Mesa 23 or newer";

/// Where distributions say what the driver's library is.
const DRIVERS: [&str; 2] =
    ["/usr/share/vulkan/icd.d/radeon_icd.json", "/usr/share/vulkan/icd.d/radeon_icd.x86_64.json"];

/// The environment in which the driver compiles for RDNA 3 and prints what it made; `VK_DRIVER_FILES` is obeyed if set.
///
/// # Errors
///
/// There is no such driver.
pub fn environment() -> Result<Vec<(&'static str, String)>> {
    let set = std::env::var("VK_DRIVER_FILES").ok().filter(|files| !files.is_empty());
    let found = || DRIVERS.iter().find(|file| Path::new(file).is_file()).map(|file| (*file).to_owned());
    let driver = set.or_else(found).with_context(|| format!("Mesa's RADV is missing ({INSTALL})"))?;
    Ok(vec![
        ("VK_DRIVER_FILES", driver.clone()),
        ("VK_ICD_FILENAMES", driver), // older loaders
        ("RADV_FORCE_FAMILY", "navi31".to_owned()),
        ("RADV_DEBUG", "shaders,nocache".to_owned()),
    ])
}

/// Compiles a kernel for subgroups of this size. The driver prints it on standard error.
///
/// # Errors
///
/// The driver is missing, older than the chip, or refuses the kernel.
pub fn compile(kernel: &Kernel, subgroup: u32) -> Result<()> {
    let entry_point = CString::new(kernel.entry_point.as_str())?;
    // SAFETY: every structure that is passed lives until the call returns, every handle is one that the driver has just
    // given, and naga has validated the shader. Nothing is destroyed: the process ends here.
    unsafe {
        let vulkan = ash::Entry::load().with_context(|| format!("Vulkan's loader is missing ({INSTALL})"))?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let instance = vk::InstanceCreateInfo::default().application_info(&application);
        let instance = vulkan
            .create_instance(&instance, None)
            .with_context(|| format!("no Vulkan driver ({INSTALL})"))?;
        let devices = instance.enumerate_physical_devices().context("the driver lists no chips")?;
        let Some(&chip) = devices.first() else { bail!("the driver does not know RDNA 3 ({INSTALL})") };
        let device = open(&instance, chip)?;
        let module = vk::ShaderModuleCreateInfo::default().code(&kernel.code);
        let module = device.create_shader_module(&module, None).context("the driver refuses the shader")?;
        let layout = layout(&device, kernel)?;
        let mut size =
            vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo::default().required_subgroup_size(subgroup);
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(&entry_point)
            .push_next(&mut size);
        let pipeline = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout)];
        device
            .create_compute_pipelines(vk::PipelineCache::null(), &pipeline, None)
            .map_err(|(_, error)| error)
            .context("the driver does not compile the shader")?;
    }
    Ok(())
}

/// The chip with all its features.
///
/// # Safety
///
/// `chip` is one of `instance`.
unsafe fn open(instance: &ash::Instance, chip: vk::PhysicalDevice) -> Result<ash::Device> {
    let mut features11 = vk::PhysicalDeviceVulkan11Features::default();
    let mut features12 = vk::PhysicalDeviceVulkan12Features::default();
    let mut features13 = vk::PhysicalDeviceVulkan13Features::default();
    let mut features = vk::PhysicalDeviceFeatures2::default()
        .push_next(&mut features11)
        .push_next(&mut features12)
        .push_next(&mut features13);
    // SAFETY: the structures live through both calls, and `chip` is one of `instance`
    unsafe {
        instance.get_physical_device_features2(chip, &mut features);
        let priorities = [1.0];
        let queues =
            [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&priorities)];
        let device = vk::DeviceCreateInfo::default().queue_create_infos(&queues).push_next(&mut features);
        instance.create_device(chip, &device, None).context("the driver does not open the chip")
    }
}

/// The layout of the kernel's buffers.
///
/// # Safety
///
/// `device` is open.
unsafe fn layout(device: &ash::Device, kernel: &Kernel) -> Result<vk::PipelineLayout> {
    let binding = |buffer: &crate::kernel::Buffer| {
        let uniform = vk::DescriptorType::UNIFORM_BUFFER;
        vk::DescriptorSetLayoutBinding::default()
            .binding(buffer.binding)
            .descriptor_count(1)
            .stage_flags(vk::ShaderStageFlags::COMPUTE)
            .descriptor_type(if buffer.uniform { uniform } else { vk::DescriptorType::STORAGE_BUFFER })
    };
    let bindings: Vec<_> = kernel.buffers.iter().map(binding).collect();
    let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
    // SAFETY: the structures live through both calls
    unsafe {
        let sets = [device.create_descriptor_set_layout(&set, None).context("no layout of buffers")?];
        let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
        device.create_pipeline_layout(&layout, None).context("no layout of the kernel")
    }
}

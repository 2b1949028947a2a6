//! The step `gpu`: ecq-gpu's tests on drivers that compute on the CPU, at every size of subgroups that these have.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::shell;
use crate::test::Outcome;

/// Where drivers for Vulkan say that they are there.
const DRIVERS: &str = "/usr/share/vulkan/icd.d";
const SWIFTSHADER: &str = "/usr/lib/chromium/vk_swiftshader_icd.json";
/// Mesa's vectors in bits, and the subgroups that they make.
const WIDTHS: [(&str, u32); 3] = [("128", 4), ("256", 8), ("512", 16)];
/// Tests of kernels with subgroups. What needs none, and how products are recorded, is tested once, with all others.
const TESTS: [&str; 4] = ["products", "nibble", "prompts", "canaries"];
/// Parts of the names of those in which the size of subgroups matters. It does not for scales and codebooks: every lane does
/// the same with its weights.
const NAMES: [&str; 7] =
    ["native_rans", "shapes", "vectors", "raw_bits", "lanes_and_tiles", "levels", "canaries"];

/// Runs them.
pub fn run() -> Result<Outcome> {
    let Some(mesa) = mesa() else {
        let advice = format!(
            "ecq-gpu's tests without a GPU: no lvp_icd*.json in {DRIVERS} (Debian: apt-get install libvulkan1 mesa-vulkan-drivers)"
        );
        return Outcome::not_run(advice);
    };
    for (width, subgroup) in WIDTHS {
        on(&mesa, "llvmpipe", subgroup, Some(width), &[])?;
    }
    // not required: it comes with browsers only
    if Path::new(SWIFTSHADER).exists() {
        println!("not on SwiftShader: rANS, a kernel of which its compiler does not finish in two minutes");
        on(Path::new(SWIFTSHADER), "SwiftShader", 4, None, &["--skip", "rans"])?;
    } else {
        println!("not on SwiftShader: no {SWIFTSHADER}");
    }
    Ok(Outcome::Done)
}

/// Mesa's driver that computes on the CPU.
fn mesa() -> Option<PathBuf> {
    let files = fs::read_dir(DRIVERS).ok()?.flatten().map(|entry| entry.path());
    let mut found: Vec<_> = files
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lvp_icd")))
        .collect();
    found.sort();
    found.into_iter().next()
}

/// Runs the tests with a driver alone; they fail on another adapter or size of subgroups.
fn on(driver: &Path, adapter: &str, subgroup: u32, width: Option<&str>, skip: &[&str]) -> Result<()> {
    println!("-- {adapter}, subgroups of {subgroup} ({})", driver.display());
    let mut cargo = shell::cargo();
    cargo
        .args(["test", "--package", "ecq-gpu"])
        .args(TESTS.iter().flat_map(|test| ["--test", test]))
        .arg("--")
        .args(NAMES)
        .args(skip);
    // older loaders know the second name only
    cargo.env("VK_DRIVER_FILES", driver).env("VK_ICD_FILENAMES", driver);
    cargo.env("ECQ_ADAPTER", adapter).env("ECQ_SUBGROUP", subgroup.to_string()).env_remove("ECQ_NO_GPU");
    if let Some(width) = width {
        cargo.env("LP_NATIVE_VECTOR_WIDTH", width);
    }
    shell::run(&mut cargo)
}

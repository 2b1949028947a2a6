//! The step `tidy`: rules about the tree that no compiler checks.
//!
//! All rules are checked before the step fails, so that one run shows everything that is to be done.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::CommandFactory;
use serde_json::Value;

use crate::{demo, shell};

/// Lines that a Rust file may have.
const MAX_LINES: usize = 600;

/// Where unsafe code may stand, how often (tests included), and what for. Everything else may not have any.
const UNSAFE_ALLOWED: [(&str, usize, &str); 14] = [
    ("crates/rans-core/src/arch/", 36, "vector instructions"),
    ("crates/prefix-core/src/arch/", 14, "vector instructions"),
    ("crates/ecq-cpu/src/arch/", 57, "vector instructions"),
    ("crates/ecq-cpu/src/team.rs", 1, "lends work on the stack to waiting threads"),
    ("crates/ecq-format/src", 14, "maps files, and hears of those that are cut short"),
    ("crates/ecq-gpu/src/shader.rs", 1, "shaders without bounds checks"),
    ("crates/ecq-gpu/examples/cubecl", 1, "lengths of CubeCL's buffers"),
    ("crates/rans-core/bare-metal/", 3, "talks to the debugger"),
    ("crates/ecq-format/tests", 9, "an allocator that counts"),
    ("crates/ecq-convert/tests", 5, "an allocator that counts"),
    ("benches/ggml.rs", 2, "calls llama.cpp's library"),
    ("benches/ops/radv.rs", 5, "speaks Vulkan"),
    ("crates/rans-core/tests/guarded", 14, "pages that nobody may touch"),
    ("crates/ecq-cli/src/memory.rs", 13, "an allocator that ends the program where there is no memory"),
];

/// The keyword in two pieces, so that this file does not break its own rule.
const UNSAFE: &str = concat!("un", "safe");

/// Libraries; those that run models, and what stands on them, may depend on all before.
const LAYERS: &[&str] = &[
    "rans-core",
    "prefix-core",
    "ecq-format",
    "ecq-quant",
    "ecq-cpu",
    "ecq-gpu",
    "ecq-convert",
    "ecq-llm",
    "ecq-calibrate",
];

/// What each crate may depend on of this workspace (tests and benchmarks may use more).
const MAY_DEPEND_ON: [(&str, &[&str]); 10] = [
    ("rans-core", &[]),
    ("prefix-core", &[]),
    ("ecq-format", &["rans-core", "prefix-core"]),
    ("ecq-quant", &["rans-core", "prefix-core", "ecq-format"]),
    ("ecq-cpu", &["rans-core", "prefix-core", "ecq-format", "ecq-quant"]),
    ("ecq-gpu", &["rans-core", "prefix-core", "ecq-format", "ecq-quant"]),
    ("ecq-convert", &["rans-core", "prefix-core", "ecq-format", "ecq-quant"]),
    ("ecq-llm", LAYERS.split_at(7).0),
    ("ecq-calibrate", LAYERS.split_at(8).0),
    ("ecq-cli", LAYERS),
];

/// The lock file of the example with CubeCL's device.
const SHARED_DEVICE: &str = "crates/ecq-gpu/examples/cubecl/Cargo.lock";

/// Crates without any dependency: they run on bare metal.
const NEED_NOTHING: [&str; 2] = ["rans-core", "prefix-core"];

/// Checks all rules.
pub fn run() -> Result<()> {
    let root = shell::root();
    let mut broken = Vec::new();
    let mut counts = [0; UNSAFE_ALLOWED.len()];
    for path in rust_files(&root)? {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        check_file(&name, &text, &mut counts, &mut broken);
    }
    check_unsafe(&counts, &mut broken);
    check_dependencies(&shell::metadata()?, &mut broken)?;
    check_minimum_version(&mut broken)?;
    check_architecture(&root, &mut broken)?;
    check_readme(&root, &mut broken)?;
    check_shared_device(&root, &mut broken)?;
    if broken.is_empty() {
        return Ok(());
    }
    bail!("{} broken:\n  {}", if broken.len() == 1 { "a rule is" } else { "rules are" }, broken.join("\n  "))
}

/// Every Rust file that is ours.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                files.extend(rust_files(&path)?);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn check_file(name: &str, text: &str, counts: &mut [usize], broken: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > MAX_LINES {
        broken.push(format!("{name} has {lines} lines, more than {MAX_LINES}: split it"));
    }
    // a word of web pages' security policies is not the keyword
    let code_of = |line| code(line).replace("'unsafe-inline'", "");
    let found = text.lines().map(|line| words(&code_of(line)).filter(|&word| word == UNSAFE).count());
    let found: Vec<usize> = found.collect();
    let place = UNSAFE_ALLOWED.iter().position(|(folder, ..)| name.starts_with(folder));
    match (place, found.iter().position(|&n| n > 0)) {
        (Some(place), _) => counts[place] += found.iter().sum::<usize>(),
        (None, Some(line)) => broken.push(format!(
            "{name}:{} is {UNSAFE} code where none is allowed (UNSAFE_ALLOWED in xtask/src/tidy.rs)",
            line + 1
        )),
        (None, None) => {}
    }
}

/// Lists unsafe code. More than is allowed, or less, is a change that somebody shall have looked at.
fn check_unsafe(counts: &[usize], broken: &mut Vec<String>) {
    println!("{UNSAFE} code: {} places", counts.iter().sum::<usize>());
    for ((folder, allowed, why), found) in UNSAFE_ALLOWED.iter().zip(counts) {
        println!("{found:>6}  {folder:<34}{why}");
        if found != allowed {
            broken.push(format!(
                "{folder} has {UNSAFE} code in {found} places, UNSAFE_ALLOWED in xtask/src/tidy.rs says {allowed}"
            ));
        }
    }
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or("")
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// The directions of dependency: the codecs need nothing, and nobody needs what stands above it.
fn check_dependencies(metadata: &Value, broken: &mut Vec<String>) -> Result<()> {
    let packages = metadata["packages"].as_array().context("cargo metadata: no packages")?;
    let name = |package: &Value| package["name"].as_str().unwrap_or_default().to_owned();
    let ours: Vec<_> = packages.iter().map(name).collect();
    for package in packages {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        if Path::new(manifest).parent().and_then(Path::parent) != Some(&shell::root().join("crates")) {
            continue; // chores and benchmarks may use everything
        }
        let crate_name = name(package);
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(n, _)| *n == crate_name) else {
            broken.push(format!("say in MAY_DEPEND_ON (xtask/src/tidy.rs) what {crate_name} may depend on"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().context("cargo metadata: no dependencies")?;
        for dependency in dependencies.iter().filter(|d| d["kind"] != "dev") {
            let used = name(dependency);
            if ours.contains(&used) && !allowed.contains(&used.as_str()) {
                broken.push(format!("{crate_name} must not depend on {used}"));
            } else if NEED_NOTHING.contains(&crate_name.as_str()) {
                broken.push(format!("{crate_name} must have no dependency, and has {used}"));
            }
        }
    }
    Ok(())
}

/// No dependency asks for a newer compiler than we do. That our own code does not is clippy's `incompatible_msrv`.
fn check_minimum_version(broken: &mut Vec<String>) -> Result<()> {
    let arguments = ["metadata", "--format-version", "1", "--locked"];
    let metadata: Value = serde_json::from_str(&shell::read(shell::cargo().args(arguments))?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata: no packages")?;
    let version = |package: &Value| -> Option<Vec<u32>> {
        package["rust_version"].as_str()?.split('.').take(2).map(|part| part.parse().ok()).collect()
    };
    let name = |package: &Value| package["name"].as_str().unwrap_or_default().to_owned();
    let own = packages.iter().find(|package| name(package) == "rans-core").and_then(version);
    let own = own.context("rans-core states no rust-version")?;
    for package in packages {
        if let Some(needed) = version(package).filter(|needed| *needed > own) {
            broken.push(format!("{} needs Rust {needed:?}, we promise {own:?}", name(package)));
        }
    }
    Ok(())
}

/// The architecture page names every crate.
fn check_architecture(root: &Path, broken: &mut Vec<String>) -> Result<()> {
    let page = fs::read_to_string(root.join("docs/architecture.md")).unwrap_or_default();
    for entry in fs::read_dir(root.join("crates"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().join("Cargo.toml").is_file() && !page.contains(&name) {
            broken.push(format!("docs/architecture.md does not mention crates/{name}"));
        }
    }
    Ok(())
}

/// The example that shares CubeCL's device has one wgpu, and ours: it is a workspace of its own, and its device would be of
/// another type.
fn check_shared_device(root: &Path, broken: &mut Vec<String>) -> Result<()> {
    let versions = |lock: &str| -> Result<Vec<String>> {
        let text = fs::read_to_string(root.join(lock)).with_context(|| format!("cannot read {lock}"))?;
        Ok(versions_of("wgpu", &text))
    };
    let (ours, its) = (versions("Cargo.lock")?, versions(SHARED_DEVICE)?);
    if ours.len() != 1 || ours != its {
        broken.push(format!(
            "{SHARED_DEVICE} has wgpu {}, Cargo.lock {}: both must have one, and the same",
            its.join(" and "),
            ours.join(" and ")
        ));
    }
    Ok(())
}

/// Versions of a package in the text of a lock file.
fn versions_of(package: &str, lock: &str) -> Vec<String> {
    let name = format!("name = \"{package}\"");
    let lines: Vec<_> = lock.lines().collect();
    let versions = lines.windows(2).filter(|two| two[0] == name);
    versions
        .filter_map(|two| Some(two[1].strip_prefix("version = \"")?.strip_suffix('"')?.to_owned()))
        .collect()
}

/// The commands that the README tells people to type exist.
fn check_readme(root: &Path, broken: &mut Vec<String>) -> Result<()> {
    let Ok(readme) = fs::read_to_string(root.join("README.md")) else {
        broken.push("README.md is missing".to_owned());
        return Ok(());
    };
    let xtask = crate::Cli::command();
    let (mut chores, mut subcommands) = commands(&readme);
    chores.retain(|chore| xtask.find_subcommand(chore).is_none());
    broken.extend(chores.iter().map(|c| format!("README.md: there is no `cargo xtask {c}`")));
    // the command's own help decides; if ecq cannot be built at all, this fails with the compiler's words
    if !subcommands.is_empty() {
        let ecq = demo::ecq(demo::Profile::Dev)?;
        subcommands.retain(|c| !shell::works(shell::command(&ecq).args([c.as_str(), "--help"])));
        broken.extend(subcommands.iter().map(|c| format!("README.md: there is no `ecq {c}`")));
    }
    Ok(())
}

/// The xtask commands and the `ecq` subcommands in a document's code, each once.
fn commands(document: &str) -> (Vec<String>, Vec<String>) {
    let (mut chores, mut subcommands) = (Vec::new(), Vec::new());
    for code in code_spans(document) {
        let mut tokens = code.split_whitespace().skip_while(|t| *t == "$" || t.contains('='));
        let (list, name) = match (tokens.next(), tokens.next()) {
            (Some("cargo"), Some("xtask")) => (&mut chores, tokens.next()),
            (Some("ecq"), name) => (&mut subcommands, name),
            _ => continue,
        };
        let Some(name) = name.filter(|n| n.starts_with(|c: char| c.is_ascii_lowercase())) else { continue };
        if !list.iter().any(|known| known == name) {
            list.push(name.to_owned());
        }
    }
    (chores, subcommands)
}

/// Lines of fenced code, and `inline` code.
fn code_spans(document: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut spans = Vec::new();
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            spans.push(line);
        } else {
            spans.extend(line.split('`').skip(1).step_by(2));
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_code_only() {
        let document = "type cargo xtask lunch or `cargo xtask test --list`\n```sh\n$ ecq convert a b\n\
                        RUST_LOG=info ecq info x\ncargo xtask demo # shows\n```\n`ecq` alone, `ecq --help`";
        let (chores, subcommands) = commands(document);
        assert_eq!(chores, ["test", "demo"]);
        assert_eq!(subcommands, ["convert", "info"]);
    }

    #[test]
    fn lock_files_say_versions() {
        let package = |name, version| format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n\n");
        let lock =
            [package("wgpu", "30.0.1"), package("wgpu-core", "1.0.0"), package("wgpu", "31.0.0")].concat();
        assert_eq!(versions_of("wgpu", &lock), ["30.0.1", "31.0.0"]);
        assert!(versions_of("naga", &lock).is_empty());
    }

    #[test]
    fn rules_about_files() {
        let (mut counts, mut broken) = ([0; UNSAFE_ALLOWED.len()], Vec::new());
        let mut check = |name, text: &str| check_file(name, text, &mut counts, &mut broken);
        check("xtask/src/a.rs", &format!("// {UNSAFE}\n#![forbid({UNSAFE}_code)]\n"));
        check("crates/ecq-format/src/a.rs", &format!("{UNSAFE} {{ {UNSAFE} {{}} }}\n{UNSAFE} fn"));
        check("crates/rans-core/src/a.rs", &format!("\n{UNSAFE} {{}}"));
        check("xtask/src/b.rs", &"\n".repeat(601));
        assert!(broken.len() == 2 && broken[0].contains("a.rs:2"), "{broken:?}");
        assert_eq!(counts.iter().sum::<usize>(), 3);
    }

    #[test]
    fn dependencies_point_one_way() {
        let manifest = |name: &str| shell::root().join("crates").join(name).join("Cargo.toml");
        let package = |name: &str, dependencies: Value| {
            let manifest = manifest(name);
            serde_json::json!({"name": name, "manifest_path": manifest, "dependencies": dependencies})
        };
        let metadata = serde_json::json!({"packages": [
            package("rans-core", serde_json::json!([{"name": "libc", "kind": null}, {"name": "rand", "kind": "dev"}])),
            package("ecq-format", serde_json::json!([{"name": "ecq-quant", "kind": "build"}])),
            package("ecq-quant", serde_json::json!([{"name": "ecq-format", "kind": null}])),
            package("ecq-new", serde_json::json!([])),
        ]});
        let mut broken = Vec::new();
        check_dependencies(&metadata, &mut broken).unwrap();
        assert_eq!(broken.len(), 3, "{broken:?}");
    }
}

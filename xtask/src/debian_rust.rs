//! Debian's own Rust compiler with the source of `core`, for targets that the installed toolchain lacks.
//!
//! Nothing is installed: the packages are unpacked into the cache. For bare cores that compiler builds `core`, and the
//! installed toolchain lends cargo and the linker; for 64-bit ARM there is a package with a whole `std`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::shell::{self, Scratch};

/// `cargo build`, set up to build `core` first.
pub fn cargo_build() -> Result<Command> {
    let home = unpacked()?;
    let source = source(&home)?.join("library");
    let linker = host_linker()?;
    let mut build = shell::cargo();
    build
        .env("RUSTC", home.join("usr/bin/rustc"))
        .env("LD_LIBRARY_PATH", library_path(&home))
        .env("RUSTC_BOOTSTRAP", "1") // -Zbuild-std is not stable
        .env("__CARGO_TESTS_ONLY_SRC_ROOT", source)
        .env("CARGO_TARGET_THUMBV6M_NONE_EABI_LINKER", &linker)
        .env("CARGO_TARGET_THUMBV7EM_NONE_EABI_LINKER", &linker)
        .env_remove("RUSTC_WRAPPER");
    build.args(["build", "-Zbuild-std=core"]);
    Ok(build)
}

/// cargo for 64-bit ARM, which builds into a folder of its own.
pub fn cargo_arm64() -> Result<Command> {
    let home = with_arm64()?;
    let mut cargo = shell::cargo();
    cargo
        .env("RUSTC", home.join("usr/bin/rustc"))
        .env("LD_LIBRARY_PATH", library_path(&home))
        .env("CARGO_TARGET_DIR", shell::target_dir("debian-rust")?)
        .env_remove("RUSTC_WRAPPER");
    Ok(cargo)
}

/// The folder of the compiler, which finds the `std` of 64-bit ARM beside its own.
fn with_arm64() -> Result<PathBuf> {
    const TARGET: &str = "usr/lib/rustlib/aarch64-unknown-linux-gnu";
    let home = unpacked()?;
    if home.join(TARGET).is_dir() {
        return Ok(home);
    }
    let packages = || Ok(vec!["libstd-rust-web-dev:arm64".to_owned()]);
    let std = fetched("rust-web-arm64", packages).context(
        "Debian's std for ARM cannot be fetched; try dpkg --add-architecture arm64 && apt-get update",
    )?;
    let (from, to) = (std.join(TARGET), home.join(TARGET));
    fs::rename(&from, &to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))?;
    fs::remove_dir_all(&std).with_context(|| format!("cannot remove {}", std.display()))?;
    Ok(home)
}

/// The folder of the compiler.
fn unpacked() -> Result<PathBuf> {
    fetched("rust-web", packages)
}

/// The folder of this name with the unpacked packages; fetches them if need be.
fn fetched(name: &str, packages: impl Fn() -> Result<Vec<String>>) -> Result<PathBuf> {
    let cache = shell::cache();
    let home = cache.join(name);
    if home.is_dir() {
        return Ok(home);
    }
    ensure!(shell::works(shell::command("apt-get").arg("--version")), "this is no Debian");
    let packages = packages()?;
    println!("fetching Debian packages into {}: {}", home.display(), packages.join(" "));
    let scratch = Scratch::new(&cache)?;
    let mut fetch = Command::new("apt-get");
    // root's own downloads need not go through the user _apt, who may not read the cache
    fetch.args(["-qq", "-o", "APT::Sandbox::User=root", "download"]).args(&packages);
    shell::read(fetch.current_dir(scratch.path()))?;
    let root = scratch.path().join("root");
    for entry in fs::read_dir(scratch.path())? {
        let package = entry?.path();
        if package.extension().is_some_and(|e| e == "deb") {
            shell::run(shell::command("dpkg").arg("-x").arg(package).arg(&root))?;
        }
    }
    fs::rename(&root, &home).with_context(|| format!("cannot move the packages to {}", home.display()))?;
    Ok(home)
}

/// The compiler's packages. Some bear a version in their name, which changes with Debian's updates: they are found
/// by following the dependencies.
fn packages() -> Result<Vec<String>> {
    let mut packages = vec!["rustc-web".to_owned(), "rust-web-src".to_owned()];
    let mut next = 0;
    while let Some(package) = packages.get(next) {
        let listed = shell::read(shell::command("apt-cache").args(["depends", "--important", package]))?;
        for dependency in listed.lines().filter_map(|l| l.trim().strip_prefix("Depends: ")) {
            let wanted = dependency.starts_with("libstd-rust-web") || dependency.starts_with("libllvm");
            if wanted && !packages.iter().any(|p| p == dependency) {
                packages.push(dependency.to_owned());
            }
        }
        next += 1;
    }
    if packages.len() < 4 {
        bail!("apt-get finds no rustc-web; try apt-get update");
    }
    Ok(packages)
}

fn library_path(home: &Path) -> String {
    let usr = home.join("usr/lib");
    let native = usr.join(format!("{}-linux-gnu", std::env::consts::ARCH));
    format!("{}:{}", native.display(), usr.display())
}

/// The folder that the package rust-web-src put the source into.
fn source(home: &Path) -> Result<PathBuf> {
    let parent = home.join("usr/src");
    let folders = fs::read_dir(&parent).with_context(|| format!("cannot read {}", parent.display()))?;
    let mut sources = folders.filter_map(|entry| entry.ok().map(|e| e.path()));
    sources.find(|path| path.join("library").is_dir()).context("rust-web-src holds no library folder")
}

/// The linker rust-lld of the installed toolchain, which knows ARM.
fn host_linker() -> Result<PathBuf> {
    let libdir = shell::read(shell::command("rustc").args(["--print", "target-libdir"]))?;
    let linker = Path::new(libdir.trim()).with_file_name("bin").join("rust-lld");
    ensure!(linker.is_file(), "the installed toolchain has no {}", linker.display());
    Ok(linker)
}

//! Where things are, and commands that say what went wrong.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// The repository's root.
pub fn root() -> PathBuf {
    // at run time, so that a moved checkout does not look where it was built
    let xtask = env::var_os("CARGO_MANIFEST_DIR").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    xtask.parent().map_or_else(|| xtask.clone(), Path::to_path_buf)
}

/// The folder for what is fetched and can be fetched again: `.cache`, or what `ECQ_CACHE` names.
pub fn cache() -> PathBuf {
    match env::var_os("ECQ_CACHE") {
        Some(folder) if !folder.is_empty() => root().join(folder),
        _ => root().join(".cache"),
    }
}

/// Whether this is a CI run, where nothing may be left out for lack of a tool.
pub fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|v| !v.is_empty() && v != "false" && v != "0")
}

/// A command in the repository's root.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or("cargo".into()))
}

/// Words of a command line, for messages.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a command that writes to our terminal.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Runs a command for its standard output; what it said on standard error goes into the error.
pub fn read(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status}): {}", line(command), String::from_utf8_lossy(&stderr).trim());
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Whether a command can be started and succeeds; its output is dropped.
pub fn works(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// A folder that is removed when it goes out of scope.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes an empty folder inside `parent`, on whose file system finished files are then renamed.
    pub fn new(parent: &Path) -> Result<Self> {
        let folder = parent.join(format!(".partial-{}", std::process::id()));
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self(folder))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where cargo puts a program; `folder` is that of its profile.
pub fn built(folder: &str, program: &str) -> Result<PathBuf> {
    Ok(target_dir(folder)?.join(format!("{program}{}", env::consts::EXE_SUFFIX)))
}

/// `cargo metadata` of the workspace, without its dependencies' dependencies.
pub fn metadata() -> Result<serde_json::Value> {
    let text = read(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    serde_json::from_str(&text).context("cargo metadata does not print JSON")
}

/// A folder of this name in the workspace's target folder.
pub fn target_dir(name: &str) -> Result<PathBuf> {
    let metadata = metadata()?;
    let target = metadata["target_directory"].as_str().context("cargo metadata: no target_directory")?;
    Ok(Path::new(target).join(name))
}

/// Whether the installed toolchain has the libraries of this target.
pub fn has_target(target: &str) -> bool {
    let libdir = read(command("rustc").args(["--print", "target-libdir", "--target", target]));
    libdir.is_ok_and(|folder| Path::new(folder.trim()).is_dir())
}

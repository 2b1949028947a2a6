//! Metal without a Mac: the Metal source that naga makes of a kernel, compiled by g++ against a stand-in for Apple's header
//! and run thread by thread.
//!
//! That proves the translation right and finds what other back ends forgive: threads that diverge, barriers that are missing,
//! workgroup memory that is read before it is written, accesses behind a buffer's end. It says nothing of speed, and Apple's
//! compiler is not tried.
#![allow(dead_code)] // not every test uses all of it

mod translate;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What naga adds to a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// What WebGPU demands: bounds of buffers and arrays are kept, workgroup memory starts as zeros, loops are bounded.
    Checked,
    /// Nothing, as for shader modules that are trusted.
    Trusted,
}

/// The files of the stand-in and the runner: name and text.
const FILES: [(&str, &str); 6] = [
    ("metal_stdlib", include_str!("metal_stdlib")),
    ("vectors.hpp", include_str!("vectors.hpp")),
    ("threads.hpp", include_str!("threads.hpp")),
    ("runner.hpp", include_str!("runner.hpp")),
    ("runner.cpp", include_str!("runner.cpp")),
    ("simd/simd.h", ""), // naga includes it always, and uses nothing of it
];

/// As few liberties as Apple's compiler is given: signed numbers wrap, and an array of one element is any array.
const COMPILE: [&str; 9] = [
    "-std=gnu++20",
    "-O1",
    "-fwrapv",
    "-fno-strict-aliasing",
    "-fno-aggressive-loop-optimizations",
    "-ffp-contract=off",
    "-w", // attributes of Metal, and what naga leaves unused
    "-I.",
    "-o",
];

/// A kernel, compiled.
pub struct Kernel {
    folder: TempDir,
    bindings: Vec<translate::Binding>,
}

impl Kernel {
    /// Translates and compiles WGSL with one entry point; its bindings are those of group 0.
    ///
    /// # Errors
    ///
    /// That the WGSL is not valid, what of it the stand-in does not know, or that g++ is missing.
    pub fn new(wgsl: &str, policy: Policy) -> Result<Self, String> {
        let translated = translate::translate(wgsl, policy)?;
        let folder = TempDir::new().map_err(|e| format!("no temporary folder: {e}"))?;
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            let parent = path.parent().unwrap_or(folder.path());
            std::fs::create_dir_all(parent)
                .and_then(|()| std::fs::write(&path, text))
                .map_err(|e| format!("cannot write {}: {e}", path.display()))
        };
        for (name, text) in FILES {
            write(name, text)?;
        }
        write("kernel.metal", &translated.metal)?;
        write("kernel.cpp", &translated.call)?;
        let mut compiler = Command::new("g++");
        compiler.args(COMPILE).args(["kernel", "kernel.cpp", "runner.cpp"]).current_dir(folder.path());
        let output = compiler.output().map_err(|e| {
            format!(
                "cannot start g++, which compiles kernels for these tests (Debian: apt-get install g++): {e}"
            )
        })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("g++ does not compile what naga wrote:\n{said}\n{}", translated.metal));
        }
        Ok(Self { folder, bindings: translated.bindings })
    }

    /// Runs workgroups on (binding, bytes), and changes the bytes of those that the kernel may write.
    ///
    /// It runs twice, with threads and workgroups in ascending and in descending order.
    ///
    /// # Errors
    ///
    /// A binding without a buffer or the reverse; what the kernel did wrong, with thread and line of the Metal source; that
    /// the result depends on the order.
    pub fn run(&self, simd: u32, workgroups: [u32; 3], buffers: &mut [(u32, Vec<u8>)]) -> Result<(), String> {
        if let Some(missing) =
            self.bindings.iter().find(|b| b.used && !buffers.iter().any(|(n, _)| *n == b.number))
        {
            return Err(format!("the kernel uses binding {}, and there is no buffer for it", missing.number));
        }
        for (number, _) in buffers.iter() {
            if !self.bindings.iter().any(|b| b.number == *number) {
                return Err(format!(
                    "there is a buffer for binding {number}, which the kernel does not declare"
                ));
            }
        }
        let up = self.run_once("up", simd, workgroups, buffers)?;
        let down = self.run_once("down", simd, workgroups, buffers)?;
        for (((number, buffer), up), down) in buffers.iter_mut().zip(up).zip(down) {
            if let Some(at) = up.iter().zip(&down).position(|(u, d)| u != d) {
                return Err(format!(
                    "buffer {number} depends on the order of threads from byte {at} on: a barrier is missing, or two \
                     threads write to one place"
                ));
            }
            *buffer = up;
        }
        Ok(())
    }

    /// The buffers after a run in one order.
    fn run_once(
        &self,
        order: &str,
        simd: u32,
        workgroups: [u32; 3],
        buffers: &[(u32, Vec<u8>)],
    ) -> Result<Vec<Vec<u8>>, String> {
        let folder = self.folder.path();
        let mut command = Command::new(folder.join("kernel"));
        command.arg(simd.to_string()).args(workgroups.map(|n| n.to_string())).arg(order);
        for (number, bytes) in buffers {
            let path = buffer_file(folder, *number);
            std::fs::write(&path, bytes).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
            let written = self.bindings.iter().any(|b| b.number == *number && b.written);
            let mut word = OsString::from(format!("{}{number}=", if written { 'w' } else { 'r' }));
            word.push(&path);
            command.arg(word);
        }
        let output = command.output().map_err(|e| format!("cannot start the compiled kernel: {e}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("the kernel failed ({}): {}", output.status, said.trim_end()));
        }
        let read = |(number, _): &(u32, Vec<u8>)| {
            let path = buffer_file(folder, *number);
            std::fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))
        };
        buffers.iter().map(read).collect()
    }
}

fn buffer_file(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("buffer{number}"))
}

/// Translates, compiles and runs a kernel: [`Kernel::new`] and [`Kernel::run`].
///
/// # Errors
///
/// Those of both.
pub fn run(
    wgsl: &str,
    simd: u32,
    workgroups: [u32; 3],
    buffers: &mut [(u32, Vec<u8>)],
    policy: Policy,
) -> Result<(), String> {
    Kernel::new(wgsl, policy)?.run(simd, workgroups, buffers)
}

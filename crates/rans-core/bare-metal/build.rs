//! Hands the memory map to the linker.

fn main() {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("memory.x");
    println!("cargo:rustc-link-arg-bins=-T{}", script.display());
    println!("cargo:rerun-if-changed={}", script.display());
}

//! The kernels beside those of `ecq-gpu` are valid on the least of all machines, and are translated for every back end.
#![allow(clippy::unwrap_used, missing_docs)]

use ecq_llm::gpu::kernels::Kernel;
use translated::{EVERYWHERE, check, check_declared};

#[path = "../../ecq-gpu/tests/translated/mod.rs"]
mod translated;

#[test]
fn all_kernels() {
    for kernel in Kernel::ALL {
        let (name, source) = (kernel.name(), kernel.source());
        check(name, &source, EVERYWHERE).unwrap();
        check_declared(name, &source, name, kernel.bindings()).unwrap();
    }
}

//! Memory of the machine.

use sysinfo::System;

/// Bytes of memory that a program may have: of the machine, or of the control group it runs in, whichever is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemMemory {
    /// In all.
    pub total: u64,
    /// Free, or to be had without taking it from other programs.
    pub available: u64,
}

impl SystemMemory {
    /// As it is now.
    pub fn now() -> Self {
        let mut system = System::new();
        system.refresh_memory();
        let own = Self { total: system.total_memory(), available: system.available_memory() };
        match system.cgroup_limits() {
            Some(limits) => Self {
                total: own.total.min(limits.total_memory),
                available: own.available.min(limits.free_memory),
            },
            None => own,
        }
    }
}

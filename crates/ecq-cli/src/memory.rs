//! Memory that the system refuses ends the program with a line that says so and exit code 1.
//!
//! Rust would end it with a signal. What is left of an unfinished file has no name, and the next run removes it.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

#[global_allocator]
static ALLOCATOR: OrExit = OrExit;

const MESSAGE: &[u8] =
    b"\necq: the system refuses more memory; free some, raise the limit (ulimit -v), or use fewer --threads\n";

/// The system's allocator, which never returns without memory. Whoever wants to try for some asks the system.
struct OrExit;

impl OrExit {
    fn checked(memory: *mut u8) -> *mut u8 {
        if memory.is_null() {
            // SAFETY: both are system calls that need no memory; the bytes are there for ever.
            unsafe {
                libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len());
                libc::_exit(1);
            }
        }
        memory
    }
}

// SAFETY: everything is the system's allocator's, which keeps the promises.
unsafe impl GlobalAlloc for OrExit {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        Self::checked(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        Self::checked(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        Self::checked(unsafe { System.realloc(memory, layout, size) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

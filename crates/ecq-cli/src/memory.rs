//! Memory that the system refuses ends the program with a line that says so and exit code 1.
//!
//! Rust would end it with a signal. What is left of an unfinished file has no name, and the next run removes it.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

#[global_allocator]
static ALLOCATOR: OrExit = OrExit;

const MESSAGE: &[u8] =
    b"\necq: the system refuses more memory; free some, raise the limit (ulimit -v), or use fewer --threads\n";

/// What the program takes before it looks at a model.
const BASE: usize = 4 << 20;
/// Address space that a thread takes as it starts: its stack of 2 MiB, and what the system's libraries keep for it.
const THREAD: usize = 3 << 20;

/// To be called first: ends the program with a line where it could not even start. Rust and the system's library would end it
/// with a signal where they find no room for a few bytes of their own.
pub fn begin() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: it writes to what is lent to it.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) } == 0;
    if known && limit.rlim_cur != libc::RLIM_INFINITY {
        // or the allocator takes 64 MiB of addresses for each thread
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        // SAFETY: two numbers; there are no other threads yet.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
        if room(BASE).is_err() {
            refused();
        }
    }
}

/// Whether there is memory to start so many threads, asked before any is started: where a little is missing, the process would
/// end within a new one, and no error would come back.
pub fn room_for(threads: usize) -> std::io::Result<()> {
    room(BASE.saturating_add(threads.saturating_mul(THREAD)))
}

/// Takes so many bytes, and gives them back.
fn room(bytes: usize) -> std::io::Result<()> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new pages, which nobody else knows of, and all of them are given back.
    unsafe {
        let map = libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0);
        if map == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        libc::munmap(map, bytes);
    }
    Ok(())
}

/// Says it, and ends the program.
fn refused() -> ! {
    // SAFETY: both are system calls that need no memory; the bytes are there for ever.
    unsafe {
        libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len());
        libc::_exit(1);
    }
}

/// The system's allocator, which never returns without memory. Whoever wants to try for some asks the system.
struct OrExit;

impl OrExit {
    fn checked(memory: *mut u8) -> *mut u8 {
        if memory.is_null() {
            refused();
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

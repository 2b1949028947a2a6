//! Buffers beside which nobody may read or write: a read or a write of one byte too many ends the process.
//!
//! Such a buffer touches one of two forbidden pages, so what is tried, is tried at each [`Edge`].
#![allow(dead_code)] // each test binary uses its part

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// Bytes on each side that nobody may touch: a whole number of pages on every system, whose pages have 4, 16 or 64 KiB.
const FORBIDDEN: usize = 1 << 16;

/// Where a buffer touches a forbidden page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Its first byte is the first that may be touched.
    Start,
    /// Its last byte is the last that may be touched.
    End,
}

impl Edge {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Start, Self::End];
}

/// Room for a buffer, with forbidden pages on both sides.
#[derive(Debug)]
pub struct Room {
    /// Where the first forbidden page begins.
    base: NonNull<c_void>,
    /// Bytes between the forbidden pages, a whole number of pages.
    room: usize,
}

// SAFETY: the mapping is its own, and is reached through references to it only
unsafe impl Send for Room {}

impl Room {
    /// Room for buffers of up to so many bytes.
    pub fn new(bytes: usize) -> Self {
        let room = bytes.max(1).next_multiple_of(FORBIDDEN);
        let size = NonZeroUsize::new(room + 2 * FORBIDDEN).unwrap();
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_ANON;
        // SAFETY: a new mapping, where the system likes; what is then opened lies within it
        let base = unsafe {
            let base = mmap_anonymous(None, size, ProtFlags::PROT_NONE, flags).unwrap();
            let open = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            mprotect(base.byte_add(FORBIDDEN), room, open).unwrap();
            base
        };
        Self { base, room }
    }

    /// Where a buffer of so many bytes begins.
    fn place(&self, edge: Edge, len: usize) -> *mut u8 {
        assert!(len <= self.room, "{len} bytes, and there is room for {}", self.room);
        let before = if edge == Edge::Start { 0 } else { self.room - len };
        self.base.as_ptr().cast::<u8>().wrapping_add(FORBIDDEN + before)
    }

    /// A buffer of so many bytes, which are what they were.
    pub fn bytes(&mut self, edge: Edge, len: usize) -> &mut [u8] {
        // SAFETY: so many bytes are open from there on, mapped as zeros, and borrowed as `self` is
        unsafe { std::slice::from_raw_parts_mut(self.place(edge, len), len) }
    }

    /// A buffer that holds these bytes.
    pub fn copy(&mut self, edge: Edge, bytes: &[u8]) -> &mut [u8] {
        let buffer = self.bytes(edge, bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// A value, for tables that are read without bounds. It is not dropped.
    pub fn value<T: Clone>(&mut self, edge: Edge, value: &T) -> &T {
        assert!(!std::mem::needs_drop::<T>());
        let place: *mut T = self.place(edge, size_of::<T>()).cast();
        assert!(place.is_aligned());
        // SAFETY: it fits, is aligned as is its size, and is borrowed as `self` is
        unsafe {
            place.write(value.clone());
            &*place
        }
    }

    /// In a process of its own, reads or writes the byte at this distance from a buffer's begin; returns the signal of which
    /// that process died.
    pub fn died_of(&mut self, edge: Edge, len: usize, at: isize, write: bool) -> Option<Signal> {
        let place = self.place(edge, len).wrapping_offset(at);
        // SAFETY: the child asks the system for no core and no message, touches one byte, if it may, and ends without any of
        // this process's clean-up
        unsafe {
            match fork().unwrap() {
                ForkResult::Child => {
                    let none = nix::libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                    nix::libc::setrlimit(nix::libc::RLIMIT_CORE, &none);
                    nix::libc::close(2);
                    let byte = place.read_volatile();
                    if write {
                        place.write_volatile(byte);
                    }
                    nix::libc::_exit(0);
                }
                ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
                    WaitStatus::Signaled(_, signal, _) => Some(signal),
                    WaitStatus::Exited(_, 0) => None,
                    other => panic!("{other:?}"),
                },
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, to which there are no references any more
        unsafe { munmap(self.base, self.room + 2 * FORBIDDEN).unwrap() }
    }
}

//! An allocator that puts each allocation between forbidden pages, for code whose buffers are its own. A read or a write of
//! one byte beyond an allocation ends the process, as far as alignment leaves nothing between.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// Smaller allocations are the system's: no kernel's, and of these there are very many.
const LEAST: usize = 32;

thread_local! {
    static AT_START: Cell<bool> = const { Cell::new(false) };
}

/// The allocator.
pub struct Fence;

/// Whether allocations of this thread from now on begin behind a forbidden page, instead of ending before one.
pub fn at_start(at_start: bool) {
    AT_START.set(at_start);
}

/// Bytes of a page.
fn page() -> usize {
    // SAFETY: it only asks
    unsafe { nix::libc::sysconf(nix::libc::_SC_PAGESIZE) as usize }
}

fn fenced(layout: Layout) -> bool {
    layout.size() >= LEAST && layout.align() <= page()
}

/// Bytes of the mapping of an allocation: its own, in whole pages, and a page on each side.
fn mapping(layout: Layout) -> NonZeroUsize {
    let size = layout.size().next_multiple_of(page()).saturating_add(2 * page());
    NonZeroUsize::new(size).unwrap_or(NonZeroUsize::MAX)
}

// SAFETY: an allocation lies within the open pages of a mapping of its own, at the first byte of the first one or at the last
// multiple of its alignment after which there is room for it, which is in the first page, too. So its mapping begins a page
// before the page that it begins in, and has the length that its layout says.
unsafe impl GlobalAlloc for Fence {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !fenced(layout) {
            // SAFETY: the caller's promise
            return unsafe { System.alloc(layout) };
        }
        let (page, size) = (page(), mapping(layout));
        let room = size.get() - 2 * page;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_ANON;
        let open = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, the middle of which is opened
        unsafe {
            let Ok(base) = mmap_anonymous(None, size, ProtFlags::PROT_NONE, flags) else {
                return std::ptr::null_mut();
            };
            let first = base.byte_add(page);
            if mprotect(first, room, open).is_err() {
                return std::ptr::null_mut();
            }
            let before = if AT_START.get() { 0 } else { room - layout.size() };
            first.as_ptr().cast::<u8>().add(before / layout.align() * layout.align())
        }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        if !fenced(layout) {
            // SAFETY: the caller's promise
            return unsafe { System.dealloc(place, layout) };
        }
        let base = place.wrapping_sub(place.addr() % page() + page());
        if let Some(base) = NonNull::new(base.cast()) {
            // SAFETY: the mapping that was made for this allocation, as said above
            let unmapped = unsafe { munmap(base, mapping(layout).get()) };
            debug_assert!(unmapped.is_ok());
        }
    }
}

//! A file in memory, without being held there.

use std::fs::File;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;

/// Bytes that are read before all pages are given back.
const HELD: u64 = 256 << 20;

/// The bytes of a file, memory-mapped.
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
    /// Bytes that were read, again and again ones too.
    used: AtomicU64,
}

impl Mapped {
    /// Maps a regular file.
    ///
    /// It must not be changed while it is mapped; what another process writes into it is seen at once, and a file cut
    /// short under a reader ends the process with SIGBUS.
    #[allow(unsafe_code)]
    pub fn new(file: &File) -> std::io::Result<Self> {
        // SAFETY: the map is only read, as bytes, of which every pattern is valid; that nobody changes the file meanwhile
        // is asked of the caller above.
        let map = unsafe { Mmap::map(file) }?;
        Ok(Self { map, used: AtomicU64::new(0) })
    }

    /// Is told how many bytes were read. Now and then the memory of all pages is given back, so that a process that
    /// reads a whole model does not hold it; pages that are read again come from the system's cache or the disk.
    pub fn used(&self, bytes: u64) {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        if before / HELD != before.wrapping_add(bytes) / HELD {
            self.give_back();
        }
    }

    /// Gives the memory of all pages back, where the system lets a program do so.
    #[allow(unsafe_code)]
    pub fn give_back(&self) {
        #[cfg(unix)]
        {
            // SAFETY: the map is of a file and is never written to, so that a page that is dropped is read again with the
            // same bytes; the file stays as it is by the same promise that the map rests on.
            let dropped = unsafe { self.map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            // a system that keeps the pages needs more memory at worst
            drop(dropped);
        }
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_same_after_their_pages_were_given_back() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        let mapped = Mapped::new(&file).unwrap();
        for _ in 0..3 {
            assert!(*mapped == bytes[..]);
            mapped.used(HELD);
        }
    }
}

//! A file in memory, without being held there.

use std::fs::File;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use memmap2::Mmap;

use crate::signals::Watched;

/// Bytes that are read before all pages are given back.
const HELD: u64 = 256 << 20;

/// The bytes of a file, memory-mapped.
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
    /// The same file, whatever its name now stands for.
    file: File,
    /// When it was last written, where the system knows.
    written: Option<SystemTime>,
    watched: &'static Watched,
    /// Bytes that were read, again and again ones too.
    used: AtomicU64,
}

impl Mapped {
    /// Maps a regular file.
    ///
    /// It should not be changed while it is mapped: what another process writes into it is seen at once. A file cut short
    /// under a reader, or a disk that cannot read it, ends the process with SIGBUS, but in a program that called
    /// [`signals::into_errors`](crate::signals::into_errors): there, zeros are read. [`Self::check`] tells of both.
    #[allow(unsafe_code)]
    pub fn new(file: File) -> std::io::Result<Self> {
        // asked before anything is read, so that no change is missed
        let written = file.metadata()?.modified().ok();
        // SAFETY: the map is only read, as bytes, of which every pattern is valid; that nobody changes the file meanwhile
        // is asked of the caller above.
        let map = unsafe { Mmap::map(&file) }?;
        let watched = Watched::claim(&map);
        Ok(Self { map, file, written, watched, used: AtomicU64::new(0) })
    }

    /// Whether all that was read so far is what the file held when it was mapped. To be asked before anything is made of
    /// it, and now and then, so that nobody works on for long in vain.
    ///
    /// What other processes write is known by the file's length and its time of change: within the tick of the system's
    /// clock (some milliseconds) in which the file had been written before, or by a process that has mapped it too, a
    /// change may be missed.
    ///
    /// The error says what happened.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.watched.failed() {
            return Err("was cut short, or the disk could not read it, while it was being read; check both");
        }
        let about = self.file.metadata().map_err(|_| "cannot be read any more; check the disk")?;
        if about.len() != self.map.len() as u64 || about.modified().ok() != self.written {
            return Err("was changed while it was being read; wait until nothing writes to it");
        }
        Ok(())
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

impl Drop for Mapped {
    fn drop(&mut self) {
        self.watched.release();
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
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    fn file() -> (File, Vec<u8>) {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        (file, bytes)
    }

    #[test]
    fn a_change_of_the_file_is_noticed() {
        let (file, _) = file();
        let mut writer = file.try_clone().unwrap();
        let mapped = Mapped::new(file).unwrap();
        assert_eq!(mapped.check(), Ok(()));
        std::thread::sleep(Duration::from_millis(50)); // clocks of file systems have ticks
        writer.write_all(b"more").unwrap();
        assert!(mapped.check().unwrap_err().contains("was changed"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_cut_short_reads_as_zeros_and_is_known_by_it() {
        crate::signals::into_errors().unwrap();
        let maps: Vec<_> = (0..5)
            .map(|_| {
                let (file, bytes) = file();
                let cut = file.try_clone().unwrap();
                (Mapped::new(file).unwrap(), cut, bytes)
            })
            .collect();
        for (i, (mapped, cut, bytes)) in maps.iter().enumerate() {
            let kept = [0, 1, 4096, 50_000, 99_999][i];
            cut.set_len(kept).unwrap();
            // up to the end of its last page, zeros are the system's own
            let kept = kept as usize;
            assert!(mapped[..kept] == bytes[..kept] && mapped[kept..].iter().all(|&b| b == 0), "{kept}");
            let why = mapped.check().unwrap_err();
            let page = 4096 << 4; // of the largest pages in use
            assert!(
                why.contains("cut short") || (kept + page > bytes.len() && why.contains("changed")),
                "{why}"
            );
        }
        drop(maps);
        // what they left is used again
        let (file, bytes) = file();
        let mapped = Mapped::new(file).unwrap();
        assert!(*mapped == bytes[..]);
        assert_eq!(mapped.check(), Ok(()));
    }

    #[test]
    fn bytes_are_the_same_after_their_pages_were_given_back() {
        let (file, bytes) = file();
        let mapped = Mapped::new(file).unwrap();
        for _ in 0..3 {
            assert!(*mapped == bytes[..]);
            mapped.used(HELD);
        }
    }
}

//! A folder for hostile files, and an allocator that remembers its largest request.
#![allow(dead_code)] // each test binary uses its part

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use ecq_format::Error;

use crate::common::{Model, read};

/// The largest single request since the start: the tests of this file must all stay below [`MOST`].
static LARGEST: AtomicUsize = AtomicUsize::new(0);
/// The levels of the largest tile that the format allows take exactly this.
const MOST: usize = 64 << 20;

struct Watch;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Watch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static WATCH: Watch = Watch;

/// A folder for one test, which checks at its end what was allocated.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("hostile.ecq")
    }

    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub fn written(&self, model: &Model) -> Vec<u8> {
        model.write(&self.path(), true, 0).unwrap();
        fs::read(self.path()).unwrap()
    }

    /// The error that reading all of these bytes gives: its kind, and its text without the path.
    pub fn error(&self, bytes: &[u8]) -> (&'static str, String) {
        fs::write(self.path(), bytes).unwrap();
        match read(&self.path()) {
            Ok(_) => ("none", String::new()),
            Err(e) => (kind(&e), e.to_string().replace(&self.path().display().to_string(), "")),
        }
    }

    /// Asserts that reading these bytes fails with this kind of error and these words in it.
    pub fn expect(&self, what: &str, bytes: &[u8], kind: &str, words: &str) {
        let (found, text) = self.error(bytes);
        assert!(
            found == kind && text.contains(words),
            "{what}: {kind} with '{words}', found {found}: {text}"
        );
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let largest = LARGEST.load(Ordering::Relaxed);
        assert!(largest <= MOST || std::thread::panicking(), "{largest} bytes in one request");
    }
}

/// The kind of an error in a word or two.
pub fn kind(error: &Error) -> &'static str {
    match error {
        Error::Io { .. } => "io",
        Error::NotEcq { .. } => "not ecq",
        Error::Version { .. } => "version",
        Error::Header { .. } => "header",
        Error::Corrupt { .. } => "corrupt",
        Error::Limit { .. } => "limit",
        _ => "other",
    }
}

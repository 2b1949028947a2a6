//! Where files lie that are read from disk.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A folder of this process in memory, if the system has one.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // the thread that asks is the only one that works: findings come from the input alone
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
        one.build_global().expect("nobody has started threads");
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("ecq-fuzz.").tempdir_in(parent);
        folder.expect("a folder for files").keep()
    })
}

/// The path of a file of this name.
pub fn path(name: &str) -> PathBuf {
    folder().join(name)
}

/// Writes a file and returns its path. What had the name before stays as it was for whoever has it open.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = path(name);
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, bytes).expect("room for a small file");
    path
}

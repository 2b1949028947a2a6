//! Every bit of small files that have every kind of tensor, flipped: `verify` finds each of them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ecq_convert::Silent;
use ecq_convert::verify::verify;
use ecq_format::{Limits, Reader};

/// The bases of the hostile catalogue: all codecs, versions and kinds of scales, parts, blobs of both kinds, a lossless source.
const FILES: [&str; 6] = ["v1.ecq", "v2.ecq", "v3.ecq", "v4-prefix.ecq", "v4-rans.ecq", "lossless.ecq"];

fn verified(path: &Path) -> ecq_convert::Result<()> {
    verify(&Reader::open(path, Limits::default())?, None, &Silent).map(drop)
}

/// Places (byte, bit) whose flip `verify` does not notice.
fn unnoticed(bytes: &[u8]) -> Vec<(usize, usize)> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flipped.ecq");
        let mut flipped = bytes.to_vec();
        // one thread of the pool for all tiles, so that files are what is checked side by side
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= bytes.len() {
                return;
            }
            for bit in 0..8 {
                flipped[at] ^= 1 << bit;
                fs::write(&path, &flipped).unwrap();
                if pool.install(|| verified(&path)).is_ok() {
                    found.lock().unwrap().push((at, bit));
                }
                flipped[at] ^= 1 << bit;
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    found.into_inner().unwrap()
}

#[test]
fn every_flipped_bit_is_an_error_of_verify() {
    for name in FILES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/hostile/base").join(name);
        verified(&path).unwrap();
        let bytes = fs::read(path).unwrap();
        let unnoticed = unnoticed(&bytes);
        println!("{name}: {} flips, {} without an error", 8 * bytes.len(), unnoticed.len());
        assert_eq!(unnoticed, [], "{name}: flips (byte, bit) without an error");
    }
}

//! Every vector path between guard pages: each buffer that it reads or writes ends directly before a page that nobody may
//! touch, and then begins directly behind one. A read or a write of one byte too many ends the process with a signal.
//!
//! The default run takes all lane counts, all lengths up to [`DENSE`] steps, and beyond them one of each [`EVERY`]. All
//! lengths up to [`LONGEST`] steps, which takes minutes:
//!
//!     cargo test -p rans-core --test guarded -- --include-ignored
#![cfg(all(unix, not(miri)))] // Miri knows the bounds of every allocation
#![allow(clippy::unwrap_used)]

mod bytes;
#[path = "../isa/cases.rs"]
mod cases;
mod nibbles;
mod pages;

use cases::Random;
use nix::sys::signal::Signal;
use pages::{Edge, Room};
use rans_core::{InstructionSet, Isa};

/// Steps of the longest streams.
const LONGEST: usize = 2048;
/// Up to here, every length is tried by default.
const DENSE: usize = 128;
/// Beyond, one of so many.
const EVERY: usize = 16;
/// The same where `ECQ_EMULATED` says that instructions are emulated, which takes thirty times as long.
const EVERY_EMULATED: usize = 512;

/// Fills what a decoder has to write.
const UNTOUCHED: u8 = 0xee;

/// Lengths in steps.
fn lengths(all: bool, random: &mut Random) -> Vec<usize> {
    if all {
        return (1..=LONGEST).collect();
    }
    let every = if std::env::var_os("ECQ_EMULATED").is_some() { EVERY_EMULATED } else { EVERY };
    let beyond =
        (DENSE..LONGEST).step_by(every).map(|length| (length + 1 + random.below(every)).min(LONGEST));
    (1..=DENSE).chain(beyond).collect()
}

/// A test that passes everywhere would prove nothing: a byte beyond the buffer is death, the buffer's own bytes are not.
#[test]
fn a_byte_too_many_is_death() {
    let mut room = Room::new(5000);
    for edge in Edge::ALL {
        for len in [1, 63, 4096, 5000] {
            for write in [false, true] {
                let mut died_of = |at| room.died_of(edge, len, at, write);
                let last = len as isize - 1;
                assert_eq!([died_of(0), died_of(last)], [None; 2], "{edge:?} {len}");
                let beyond = if edge == Edge::Start { -1 } else { last + 1 };
                let signal = died_of(beyond);
                assert!(
                    matches!(signal, Some(Signal::SIGSEGV | Signal::SIGBUS)),
                    "{edge:?} {len}: {signal:?}"
                );
            }
        }
    }
}

#[test]
fn instruction_sets() {
    let (here, lacking): (Vec<_>, Vec<_>) =
        InstructionSet::ALL.into_iter().partition(|&set| Isa::new(set).is_some());
    println!("between guard pages: {here:?}; this CPU lacks {lacking:?}");
    assert_eq!(Isa::all().count(), here.len());
}

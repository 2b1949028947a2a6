//! Every instruction set that this CPU has against the scalar reference: results, errors and symbols.
//!
//! Needs no other crate, so that it can be cross-built with a bare compiler. `ECQ_ISA` names instruction sets that must
//! not be missing, with commas between them: `ECQ_ISA=avx2,avx512 cargo test -p rans-core --test isa`.
//!
//! Reads beyond a stream, which is at the end of its allocation, show under a checker. Miri knows AVX2 when told that the
//! CPU has it (a small part of the suite, minutes); the address sanitizer runs everything on the CPU itself:
//!
//!     RUSTFLAGS=-Ctarget-feature=+avx2,+fma,+f16c,+bmi2,+popcnt MIRIFLAGS=-Zmiri-env-forward=ECQ_ISA ECQ_ISA=avx2 \
//!         cargo +nightly miri test -p rans-core --test isa
//!     RUSTFLAGS=-Zsanitizer=address \
//!         cargo +nightly test -p rans-core --test isa --target x86_64-unknown-linux-gnu

#![allow(clippy::unwrap_used)]

mod arguments;
mod bytes;
mod cases;
mod nibbles;

use cases::{Random, SHAPES, frequencies, symbols};
use rans_core::{InstructionSet, Isa};

/// The vector paths to test.
fn fast() -> impl Iterator<Item = Isa> {
    Isa::all().filter(|&isa| isa != Isa::SCALAR)
}

/// A test goes through every so many of its cases: under Miri a few, as it is a thousand times slower.
const EVERY: usize = if cfg!(miri) { 13 } else { 1 };

/// A stream and its damaged relatives: cut anywhere, with bytes behind it, each byte changed (if `each`; else some),
/// a low start state, and nothing but noise.
fn damaged(stream: &[u8], head: usize, each: bool, random: &mut Random, mut check: impl FnMut(&[u8])) {
    let cuts = stream.len().min(if each { usize::MAX } else { 250 });
    for i in 0..cuts {
        let at = if each { i } else { random.below(stream.len()) };
        check(&stream[..at]);
        let mut bad = stream.to_vec();
        bad[at] ^= 1 + random.below(255) as u8;
        check(&bad);
        bad[random.below(stream.len())] ^= 1 + random.below(255) as u8;
        check(&bad);
    }
    for more in [1, 2, 3, 64, 1000] {
        check(&[stream, &random.bytes(more)].concat());
        check(&[stream, &vec![0; more]].concat());
    }
    if !stream.is_empty() {
        let mut low = stream.to_vec();
        let lane = random.below(head / 4);
        low[4 * lane..4 * lane + 4].fill(0);
        check(&low);
    }
    for len in [0, 1, head, head + 1, stream.len()] {
        let mut noise = random.bytes(len);
        check(&noise);
        noise.iter_mut().take(head).for_each(|b| *b |= 1); // no state is below its bound
        check(&noise);
    }
}

#[test]
fn the_instruction_sets_asked_for_are_here() {
    let (here, lacking): (Vec<_>, Vec<_>) =
        InstructionSet::ALL.into_iter().partition(|&set| Isa::new(set).is_some());
    let names = |sets: &[InstructionSet]| sets.iter().map(|s| s.name()).collect::<Vec<_>>().join(", ");
    println!("run here: {}; not run here: {}", names(&here), names(&lacking));
    let wanted = std::env::var("ECQ_ISA").unwrap_or_default();
    for name in wanted.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        assert!(here.iter().any(|set| set.name() == name), "ECQ_ISA wants {name}, which this CPU lacks");
    }
    assert_eq!(Isa::best(), Isa::all().last().unwrap());
}

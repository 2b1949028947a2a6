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
mod nibbles;

use rans_core::{Frequencies, InstructionSet, Isa};

/// A generator with a seed of its own for each test.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 32) as usize) % n
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// The vector paths to test.
fn fast() -> impl Iterator<Item = Isa> {
    Isa::all().filter(|&isa| isa != Isa::SCALAR)
}

/// A test goes through every so many of its cases: under Miri a few, as it is a thousand times slower.
const EVERY: usize = if cfg!(miri) { 13 } else { 1 };

/// How many shapes of frequencies there are.
const SHAPES: usize = 10;

/// Frequencies of every shape: flat, nearly one symbol, exactly one, two of several sizes, random ones, random even ones.
fn frequencies<const N: usize, const TOTAL: u32>(shape: usize, random: &mut Random) -> Frequencies<N, TOTAL> {
    let total = TOTAL as u16;
    let mut freqs = [0; N];
    let place = random.below(N);
    let other = (place + 1 + random.below(N - 1)) % N;
    let mut two = |f: u16| (freqs[place], freqs[other]) = (f, total - f);
    match shape {
        0 => freqs = [total / N as u16; N],
        // every symbol but one is rare, the frequent one the first or the last or in between
        1..=3 => {
            freqs = [1; N];
            freqs[[0, N - 1, place][shape - 1]] = total + 1 - N as u16;
        }
        4 => two(total),
        5 => two(total - 1),
        6 => two(total / 2),
        7 => two(total / 2 + 1 + random.below(usize::from(total) / 2 - 1) as u16),
        _ => {
            let unit = if shape == 8 { 2 } else { 1 };
            let mut left = total / unit;
            while left > 0 {
                let parts = 1 + random.below(8);
                let f = 1 + random.below(usize::from(left).div_ceil(parts)) as u16;
                freqs[random.below(N)] += unit * f;
                left -= f;
            }
        }
    }
    Frequencies::new(freqs).unwrap()
}

/// Symbols as these frequencies have them.
fn symbols<const N: usize, const TOTAL: u32>(
    freqs: &Frequencies<N, TOTAL>,
    n: usize,
    random: &mut Random,
) -> Vec<u8> {
    let all = freqs.as_array().iter().enumerate();
    let slots: Vec<u8> = all.flat_map(|(s, &f)| vec![s as u8; usize::from(f)]).collect();
    (0..n).map(|_| slots[random.below(TOTAL as usize)]).collect()
}

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

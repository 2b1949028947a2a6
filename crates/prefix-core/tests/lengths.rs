//! Codes against an independent search for the cheapest one, and tables that are none.

#![allow(clippy::unwrap_used)]

use prefix_core::{DecodeTable, Error, Lengths};
use proptest::prelude::*;

/// Bits of the best code of at most 12 bits, by dynamic programming over the windows that codes take.
///
/// In an optimal code a more frequent symbol has no longer a code, but even that is not assumed here.
fn least_bits(counts: &[u64]) -> u64 {
    const WINDOWS: usize = 4096;
    let mut best = vec![u64::MAX; WINDOWS + 1];
    best[0] = 0;
    for &count in counts {
        let mut next = vec![u64::MAX; WINDOWS + 1];
        for taken in (0..WINDOWS).filter(|&taken| best[taken] < u64::MAX) {
            for bits in 1..=12 {
                let taken_then = taken + (WINDOWS >> bits);
                if taken_then <= WINDOWS {
                    next[taken_then] = next[taken_then].min(best[taken] + count * bits);
                }
            }
        }
        best = next;
    }
    best.into_iter().min().unwrap()
}

/// Puts counts on symbols that are spread over the alphabet.
fn spread(counts: &[u64]) -> [u64; 256] {
    let mut all = [0; 256];
    counts.iter().enumerate().for_each(|(i, &count)| all[i * 37 % 256] = count);
    all
}

/// What must be so for any counts.
fn check(counts: &[u64; 256]) -> Lengths {
    let lengths = Lengths::from_counts(counts).unwrap();
    for s in 0..=255 {
        assert_eq!(lengths.get(s).is_some(), counts[usize::from(s)] > 0);
    }
    let mut bytes = [0xaa; 130];
    assert_eq!(lengths.write(&mut bytes), Ok(Lengths::BYTES));
    assert_eq!(bytes[128..], [0xaa; 2]);
    assert_eq!(Lengths::read(&bytes), Ok((lengths, 128)), "complete");
    let table = DecodeTable::new(&lengths);
    let mut windows = [0u32; 256];
    table.entries().for_each(|(symbol, bits)| {
        assert_eq!(lengths.get(symbol), Some(bits));
        windows[usize::from(symbol)] += 1;
    });
    for s in 0..=255u8 {
        assert_eq!(windows[usize::from(s)], lengths.get(s).map_or(0, |bits| 4096 >> bits));
    }
    lengths
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 150 }))]

    #[test]
    fn small_alphabets_are_optimal(
        counts in prop::collection::vec((0..40u32, 1..16u64), 2..if cfg!(miri) { 4 } else { 24 })
    ) {
        // magnitudes of many sizes, so that the limit matters
        let counts: Vec<u64> = counts.into_iter().map(|(shift, c)| c << shift).collect();
        let all = spread(&counts);
        prop_assert_eq!(check(&all).cost(&all), Some(least_bits(&counts)));
    }

    #[test]
    fn any_counts_have_a_code(counts in prop::collection::vec(prop_oneof![Just(0), 1..9u64, any::<u64>()], 256)) {
        let counts: [u64; 256] = counts.try_into().unwrap();
        prop_assume!(counts.iter().any(|&c| c > 0));
        check(&counts);
    }

    #[test]
    fn any_table_is_complete_or_refused(bytes in prop::collection::vec(any::<u8>(), 128), few: bool) {
        let bytes: Vec<u8> = bytes.iter().map(|&b| if few && b > 8 { 0 } else { b }).collect();
        if let Ok((lengths, _)) = Lengths::read(&bytes) {
            let covered: u32 = (0..=255).filter_map(|s| lengths.get(s)).map(|bits| 4096 >> bits).sum();
            prop_assert_eq!(covered, 4096);
        }
    }
}

#[test]
fn alphabets_at_the_limit() {
    if cfg!(miri) {
        return;
    }
    // an unlimited code of powers of two or of Fibonacci numbers is as long as it gets
    let mut fibonacci = vec![1u64, 1];
    while fibonacci.len() < 40 {
        fibonacci.push(fibonacci[fibonacci.len() - 1] + fibonacci[fibonacci.len() - 2]);
    }
    let powers: Vec<u64> = (0..45).map(|i| 1 << i).collect();
    for counts in [&fibonacci, &powers, &vec![1; 60], &vec![7; 64]] {
        for n in [2, 3, 11, 12, 13, 14, 20, counts.len()] {
            let all = spread(&counts[..n.min(counts.len())]);
            assert_eq!(check(&all).cost(&all), Some(least_bits(&counts[..n.min(counts.len())])));
        }
    }
}

#[test]
fn all_256_symbols() {
    let flat = check(&[1; 256]);
    assert!((0..=255).all(|s| flat.get(s) == Some(8)));
    let steep = check(&std::array::from_fn(|s| 1u64 << (s / 4)));
    assert_eq!((0..=255).filter_map(|s| steep.get(s)).max(), Some(12));
    // sums of these do not fit into 64 bits
    let largest = check(&[u64::MAX; 256]);
    assert_eq!(largest, flat);
    assert_eq!(largest.cost(&[u64::MAX; 256]), Some(u64::MAX));
}

#[test]
fn none_and_one() {
    assert_eq!(Lengths::from_counts(&[0; 256]), Err(Error::NoSymbols));
    let one = check(&spread(&[9]));
    assert_eq!(one.cost(&spread(&[9])), Some(0));
    assert_eq!(one.cost(&spread(&[9, 1])), None);
    assert_eq!(one.get(0), Some(0));
    let mut bytes = [0; 128];
    one.write(&mut bytes).unwrap();
    assert_eq!(bytes[..2], [15, 0]);
    assert_eq!(one.write(&mut [0; 127]), Err(Error::BufferTooSmall { needed: 128, given: 127 }));
}

#[test]
fn tables_that_are_no_code() {
    let table = |lengths: &[u8]| {
        let mut bytes = [0; 128];
        lengths.iter().enumerate().for_each(|(i, l)| bytes[i / 2] |= l << (4 * (i % 2)));
        Lengths::read(&bytes).map(|_| ())
    };
    let incomplete = |covered| Err(Error::Incomplete { covered });
    assert_eq!(table(&[1, 2, 2]), Ok(()));
    assert_eq!(table(&[0, 0, 15]), Ok(()));
    assert_eq!(table(&[]), incomplete(0));
    assert_eq!(table(&[1]), incomplete(2048));
    assert_eq!(table(&[1, 2]), incomplete(3072));
    assert_eq!(table(&[1, 1, 12]), incomplete(4097));
    assert_eq!(table(&[15, 15]), incomplete(8192));
    assert_eq!(table(&[15, 1, 1]), incomplete(8192));
    assert_eq!(table(&[1, 1, 13]), Err(Error::LengthTable { at: 1 }));
    assert_eq!(table(&[1, 1, 0, 14]), Err(Error::LengthTable { at: 1 }));
    assert_eq!(Lengths::read(&[0x11; 127]).map(|_| ()), Err(Error::LengthTable { at: 127 }));
}

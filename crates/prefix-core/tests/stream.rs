//! Streams against an oracle that codes every lane on its own, and then deals the lanes' words as lanes ask for them;
//! on every instruction set of this CPU.
//!
//! `ECQ_ISA` names instruction sets that must not be missing, with commas between them:
//! `ECQ_ISA=avx2,avx512 cargo test -p prefix-core`. Miri knows AVX2:
//!
//!     RUSTFLAGS=-Ctarget-feature=+avx2,+popcnt MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-env-forward=ECQ_ISA" \
//!         ECQ_ISA=avx2 cargo +nightly miri test -p prefix-core --test stream

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use prefix_core::{
    Blocks, DecodeTable, EncodeTable, Error, InstructionSet, Isa, Lengths, decode, decode_with, encode,
    max_len,
};
use proptest::prelude::*;

/// The code of each symbol as text, its first bit first.
fn codes(lengths: &Lengths) -> Vec<Option<String>> {
    let mut order: Vec<_> = (0..=255u8).filter_map(|s| Some((lengths.get(s)?, s))).collect();
    order.sort();
    let mut codes = vec![None; 256];
    let (mut code, mut before) = (0u32, 0);
    for (bits, symbol) in order {
        code <<= bits - before;
        before = bits;
        let text: String = (0..bits).rev().map(|b| if code >> b & 1 == 1 { '1' } else { '0' }).collect();
        codes[usize::from(symbol)] = Some(text);
        code += 1;
    }
    codes
}

/// The widths and heights of all blocks, in order.
fn blocks_of(cols: usize, bands: usize, pairs: usize, last_pairs: usize) -> Vec<(usize, usize)> {
    let mut heights = vec![pairs; bands];
    heights.push(last_pairs);
    heights
        .iter()
        .flat_map(|&h| (0..cols).step_by(32).map(move |c| ((cols - c).min(32), h)))
        .filter(|&(_, h)| h > 0)
        .collect()
}

fn oracle(lengths: &Lengths, blocks: &[(usize, usize)], symbols: &[u8]) -> Vec<u8> {
    let codes = codes(lengths);
    let mut strings = vec!["00".to_owned(); 32];
    // how many bits of codes each lane has used at each refill point
    let mut used: Vec<[usize; 32]> = Vec::new();
    let mut symbol = symbols.iter();
    for &(width, height) in blocks {
        for step in 0..height {
            for string in &mut strings[..width] {
                string.push_str(codes[usize::from(*symbol.next().unwrap())].as_ref().unwrap());
            }
            if step % 2 == 1 || step + 1 == height {
                used.push(std::array::from_fn(|lane| strings[lane].len() - 2));
            }
        }
    }
    // each word with whether it holds a bit of a code
    let mut words: Vec<VecDeque<(u32, bool)>> = strings
        .iter()
        .map(|s| {
            let chunks = s.as_bytes().chunks(32).enumerate();
            let word = |c: &[u8]| (0..c.len()).map(|i| u32::from(c[i] == b'1') << i).sum::<u32>();
            chunks.map(|(k, c)| (word(c), k > 0 || c.len() > 2)).collect()
        })
        .collect();
    let mut asked = [2usize; 32];
    let mut stream = Vec::new();
    let lanes = (0..32).chain(0..32);
    let mut deal = |lane: usize| stream.push(words[lane].pop_front().unwrap_or((0, false)));
    lanes.for_each(&mut deal);
    for used in used {
        for lane in 0..32 {
            if used[lane] >= 32 * (asked[lane] - 1) {
                asked[lane] += 1;
                deal(lane);
            }
        }
    }
    assert!(words.iter().all(VecDeque::is_empty), "all words are dealt");
    while stream.last().is_some_and(|&(_, holds)| !holds) {
        stream.pop();
    }
    stream.iter().flat_map(|(word, _)| word.to_le_bytes()).collect()
}

fn counts(symbols: &[u8]) -> [u64; 256] {
    let mut counts = [0; 256];
    symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
    counts
}

/// Symbols of an alphabet, from flat to nearly constant: each is the smallest of `skew` uniform draws.
fn skewed(alphabet: usize, skew: usize, len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let mut draw = || {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((x >> 33) as usize % alphabet) as u8
    };
    (0..len).map(|_| (0..skew).map(|_| draw()).min().unwrap()).collect()
}

/// Decodes on every instruction set of this CPU: all say the same. Returns what.
fn decoded(table: &DecodeTable, blocks: &Blocks, stream: &[u8]) -> Result<Vec<u8>, Error> {
    let stream = stream.to_vec().into_boxed_slice(); // nothing behind it, for those who watch reads
    let [expected, others @ ..] = &Isa::all()
        .map(|isa| {
            let mut out = vec![0xee; blocks.symbols()].into_boxed_slice();
            decode_with(isa, table, blocks, &stream, &mut out).map(|()| out.into_vec())
        })
        .collect::<Vec<_>>()[..]
    else {
        panic!("there is always the reference");
    };
    others.iter().for_each(|other| assert!(other == expected, "{blocks:?}"));
    expected.clone()
}

/// Codes and decodes, and compares with the oracle; returns the stream.
fn there_and_back(lengths: &Lengths, shape: [usize; 4], symbols: &[u8]) -> Vec<u8> {
    let [cols, bands, pairs, last] = shape;
    let blocks = Blocks::new(cols, bands, pairs, last).unwrap();
    let mut coded = vec![0xaa; max_len(&blocks)];
    let len = encode(&EncodeTable::new(lengths), &blocks, symbols, &mut coded).unwrap();
    coded.truncate(len);
    assert_eq!(coded, oracle(lengths, &blocks_of(cols, bands, pairs, last), symbols), "{shape:?}");
    // exactly as much room is enough, and a word less is not
    let mut tight = vec![0x55; len];
    assert_eq!(encode(&EncodeTable::new(lengths), &blocks, symbols, &mut tight), Ok(len));
    assert_eq!(tight, coded);
    if len > 0 {
        let small = encode(&EncodeTable::new(lengths), &blocks, symbols, &mut tight[1..]);
        assert_eq!(small, Err(Error::BufferTooSmall { needed: max_len(&blocks), given: len - 1 }));
    }
    let back = decoded(&DecodeTable::new(lengths), &blocks, &coded);
    assert_eq!(back.as_deref(), Ok(symbols), "{shape:?}");
    coded
}

/// Bounds of cases; under Miri, which is a thousand times slower, small ones.
const COLS: usize = if cfg!(miri) { 40 } else { 130 };
const BANDS: usize = if cfg!(miri) { 2 } else { 4 };
const SKEW: usize = if cfg!(miri) { 4 } else { 30 };
const BYTES: usize = if cfg!(miri) { 300 } else { 3000 };
const SEEN: usize = if cfg!(miri) { 200 } else { 2000 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 300 }))]

    #[test]
    fn equals_the_oracle(
        cols in 0..COLS, bands in 0..BANDS, pairs in 0..10usize, last in 0..9usize,
        alphabet in 1..=256usize, skew in 1..SKEW, seed: u64
    ) {
        let symbols = skewed(alphabet, skew, cols * (bands * pairs + last), seed);
        prop_assume!(!symbols.is_empty());
        let lengths = Lengths::from_counts(&counts(&symbols)).unwrap();
        there_and_back(&lengths, [cols, bands, pairs, last], &symbols);
    }

    #[test]
    fn any_bytes_decode_or_are_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..BYTES), alphabet in 1..=256usize, skew in 1..SKEW,
        cols in 0..COLS, bands in 0..BANDS, pairs in 0..9usize, last in 0..9usize
    ) {
        let lengths = Lengths::from_counts(&counts(&skewed(alphabet, skew, SEEN, 3))).unwrap();
        let blocks = Blocks::new(cols, bands, pairs, last).unwrap();
        let bytes = &bytes[..bytes.len() & !3];
        if let Ok(out) = decoded(&DecodeTable::new(&lengths), &blocks, bytes) {
            // there is one stream for these symbols
            let mut again = vec![0; max_len(&blocks)];
            let len = encode(&EncodeTable::new(&lengths), &blocks, &out, &mut again).unwrap();
            prop_assert_eq!(&again[..len], bytes);
        }
    }
}

/// Counts of which an unlimited code would have codes of many more bits than 12.
fn steep() -> [u64; 256] {
    std::array::from_fn(|s| 1u64 << (63 - s.min(63)))
}

#[test]
fn every_width_and_height() {
    for cols in (1..=33).chain([63, 64, 65, 96, 127]) {
        for (bands, pairs, last) in
            [(1, 1, 0), (0, 0, 1), (2, 3, 2), (2, 8, 7), (30, 8, 7), (1, 300, 0), (2, 151, 1)]
        {
            if cfg!(miri) && (cols % 32 != 1 || bands * pairs > 20) {
                continue;
            }
            let symbols = skewed(200, 9, cols * (bands * pairs + last), cols as u64);
            let lengths = Lengths::from_counts(&counts(&symbols)).unwrap();
            there_and_back(&lengths, [cols, bands, pairs, last], &symbols);
        }
    }
}

#[test]
fn one_symbol_needs_no_bytes() {
    let lengths = Lengths::from_counts(&counts(&[77])).unwrap();
    assert_eq!((lengths.get(77), lengths.get(0)), (Some(0), None));
    let coded = there_and_back(&lengths, [100, 2, 4, 3], &[77; 1100]);
    assert!(coded.is_empty());
    let blocks = Blocks::new(100, 2, 4, 3).unwrap();
    let table = DecodeTable::new(&lengths);
    assert_eq!(decoded(&table, &blocks, &[0; 8]), Err(Error::TrailingBytes { left: 4 }));
    assert_eq!(decoded(&table, &blocks, &[0; 400]), Err(Error::TrailingBytes { left: 400 - 256 }));
}

#[test]
fn two_symbols_are_a_bit_each() {
    let lengths = Lengths::from_counts(&counts(&[3, 3, 3, 200])).unwrap();
    assert_eq!((lengths.get(3), lengths.get(200)), (Some(1), Some(1)));
    // 30 symbols and the lead fill a word of each lane
    let symbols: Vec<u8> = (0..32 * 30).map(|i| if i % 3 == 0 { 3 } else { 200 }).collect();
    assert_eq!(there_and_back(&lengths, [32, 1, 30, 0], &symbols).len(), 128);
    assert_eq!(there_and_back(&lengths, [1, 1, 30, 0], &symbols[..30]).len(), 4);
    assert_eq!(there_and_back(&lengths, [1, 1, 31, 0], &symbols[..31]).len(), 4 * 33);
    assert_eq!(there_and_back(&lengths, [32, 1, 0, 0], &[]).len(), 0);
}

#[test]
fn the_longest_codes() {
    let lengths = Lengths::from_counts(&steep()).unwrap();
    assert_eq!((0..=255).filter_map(|s| lengths.get(s)).max(), Some(12));
    for shape in [[32, 1, 64, 0], [45, 3, 8, 5], [7, 9, 3, 1]] {
        let n = shape[0] * (shape[1] * shape[2] + shape[3]);
        // only the rarest, only the most frequent, and all of them
        there_and_back(&lengths, shape, &vec![255; n]);
        there_and_back(&lengths, shape, &vec![0; n]);
        there_and_back(&lengths, shape, &(0..n).map(|i| i as u8).collect::<Vec<_>>());
    }
}

/// Every bit flipped, every length: an error, or the one stream of other symbols.
#[test]
#[cfg_attr(miri, ignore = "takes hours")]
fn damage_is_an_error_or_other_symbols() {
    let shapes =
        [([40, 2, 4, 3], 256, 12), ([5, 3, 8, 1], 9, 2), ([32, 1, 30, 0], 2, 1), ([45, 5, 8, 5], 256, 3)];
    for (shape, alphabet, skew) in shapes {
        let n = shape[0] * (shape[1] * shape[2] + shape[3]);
        let symbols = skewed(alphabet, skew, n, 5);
        let lengths = Lengths::from_counts(&counts(&symbols)).unwrap();
        let mut coded = there_and_back(&lengths, shape, &symbols);
        let blocks = Blocks::new(shape[0], shape[1], shape[2], shape[3]).unwrap();
        let (table, encoder) = (DecodeTable::new(&lengths), EncodeTable::new(&lengths));
        for cut in 0..coded.len() {
            let cut_off = decoded(&table, &blocks, &coded[..cut]);
            if cut % 4 == 0 {
                assert!(matches!(cut_off, Err(Error::Truncated { .. })), "{cut}: {cut_off:?}");
            } else {
                assert_eq!(cut_off, Err(Error::StreamLength { given: cut }));
            }
        }
        let mut longer = coded.clone();
        longer.extend([0; 4]);
        let trailing = decoded(&table, &blocks, &longer);
        assert!(matches!(trailing, Err(Error::TrailingBytes { .. })), "{trailing:?}");
        let mut again = vec![0; max_len(&blocks)];
        for bit in 0..8 * coded.len() {
            coded[bit / 8] ^= 1 << (bit % 8);
            if let Ok(out) = decoded(&table, &blocks, &coded) {
                assert_ne!(out, symbols);
                let len = encode(&encoder, &blocks, &out, &mut again).unwrap();
                assert_eq!(again[..len], coded);
            }
            coded[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn arguments_that_do_not_fit() {
    let lengths = Lengths::from_counts(&counts(&[1, 2])).unwrap();
    let (encoder, table) = (EncodeTable::new(&lengths), DecodeTable::new(&lengths));
    let blocks = Blocks::new(33, 1, 2, 0).unwrap();
    let mut out = vec![0; max_len(&blocks)];
    let layout = Err(Error::Layout { holds: 66, given: 65 });
    assert_eq!(encode(&encoder, &blocks, &[1; 65], &mut out).map(|_| ()), layout);
    assert_eq!(decode(&table, &blocks, &[], &mut [0; 65]), layout);
    let mut symbols = [1; 66];
    symbols[65] = 3;
    let no_code = Err(Error::SymbolWithoutCode { position: 65, symbol: 3 });
    assert_eq!(encode(&encoder, &blocks, &symbols, &mut out), no_code);
    for shape in [[usize::MAX, 2, 1, 0], [3, usize::MAX, 2, 0], [1, usize::MAX, 1, 1]] {
        let [cols, bands, pairs, last] = shape;
        assert_eq!(Blocks::new(cols, bands, pairs, last), Err(Error::TooManySymbols));
    }
    // blocks without symbols, as many as they may be
    for shape in [[usize::MAX, usize::MAX, 0, 0], [0, usize::MAX, 1, 0], [0, 1, 1, usize::MAX - 1]] {
        let [cols, bands, pairs, last] = shape;
        let blocks = Blocks::new(cols, bands, pairs, last).unwrap();
        assert_eq!((blocks.symbols(), max_len(&blocks)), (0, 0));
        assert_eq!(encode(&encoder, &blocks, &[], &mut []), Ok(0));
        assert_eq!(decode(&table, &blocks, &[], &mut []), Ok(()));
    }
    assert_eq!(max_len(&Blocks::new(1, usize::MAX, 1, 0).unwrap()), usize::MAX);
}

#[test]
fn leads_that_are_not_zero() {
    let lengths = Lengths::from_counts(&counts(&[1, 2])).unwrap();
    let blocks = Blocks::new(1, 1, 1, 0).unwrap();
    for (word, decoded) in [(0, Ok(())), (4, Ok(())), (1, Err(Error::Filling { lane: 0 }))] {
        let word: u32 = word;
        assert_eq!(decode(&DecodeTable::new(&lengths), &blocks, &word.to_le_bytes(), &mut [0]), decoded);
    }
}

#[test]
fn instruction_sets() {
    assert_eq!(InstructionSet::ALL.map(InstructionSet::name), ["scalar", "avx2", "avx512"]);
    assert_eq!(Isa::all().next(), Some(Isa::SCALAR));
    assert_eq!(Isa::all().last(), Some(Isa::best()));
    let wanted = std::env::var("ECQ_ISA").unwrap_or_default();
    for name in wanted.split(',').filter(|name| !name.is_empty()) {
        assert!(Isa::all().any(|isa| isa.set().name() == name), "ECQ_ISA wants {name}, which this CPU lacks");
    }
}

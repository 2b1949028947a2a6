//! Both codecs against an oracle that codes every lane on its own and then weaves the lanes together.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rans_core::{Error, byte, nibble};

/// One rANS lane as it stands in the textbook, in 64-bit arithmetic: refills tagged with the step that reads them.
struct OracleLane {
    state: u64,
    refills: Vec<(usize, u64)>,
}

/// `slots[s]` lists the slots of symbol s in rank order; `bits` of probability, `unit` bits a refill.
fn oracle_lane(symbols: &[u8], slots: &[Vec<u64>], bits: u32, unit: u32, symbol_bits: u32) -> OracleLane {
    let low = 1u64 << unit;
    let carried = symbols.len().min(2);
    let coded = symbols.len() - carried;
    let tail: u64 = (0..carried).map(|i| u64::from(symbols[coded + i]) << (symbol_bits * i as u32)).sum();
    let mut lane = OracleLane { state: low + tail, refills: Vec::new() };
    for step in (0..coded).rev() {
        let own = &slots[usize::from(symbols[step])];
        let f = own.len() as u64;
        if lane.state >= f << (2 * unit - bits) {
            lane.refills.push((step, lane.state & (low - 1)));
            lane.state >>= unit;
        }
        lane.state = ((lane.state / f) << bits) + own[(lane.state % f) as usize];
    }
    lane
}

/// Start states, then all refills by (step, lane).
fn weave(lanes: &[OracleLane], unit_bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    lanes.iter().for_each(|l| out.extend(&l.state.to_le_bytes()[..2 * unit_bytes]));
    let mut all: Vec<_> = lanes
        .iter()
        .enumerate()
        .flat_map(|(i, l)| l.refills.iter().map(move |&(step, v)| (step, i, v)))
        .collect();
    all.sort();
    all.iter().for_each(|(_, _, v)| out.extend(&v.to_le_bytes()[..unit_bytes]));
    out
}

fn nibble_oracle(freqs: &[u16; 16], lanes: usize, strip: usize, symbols: &[u8]) -> Vec<u8> {
    let mut order: Vec<_> = (0..16usize).flat_map(|s| (0..freqs[s]).map(move |r| (s, r))).collect();
    // (r + 1/2) / f, exactly, over the common denominator 2 * lcm(1..=256) would overflow: compare crosswise
    order.sort_by(|a, b| {
        let cross = |x: &(usize, u16), y: &(usize, u16)| u64::from(2 * x.1 + 1) * u64::from(freqs[y.0]);
        cross(a, b).cmp(&cross(b, a)).then(a.0.cmp(&b.0))
    });
    let mut slots = vec![Vec::new(); 16];
    order.iter().enumerate().for_each(|(k, &(s, _))| slots[s].push(k as u64));
    let lane = |lane: usize| {
        let piece = symbols.chunks(strip.max(1)).nth(lane / 64).unwrap_or(&[]);
        let own: Vec<u8> = piece.iter().copied().skip(lane % 64).step_by(64).collect();
        oracle_lane(&own, &slots, 8, 8, 4)
    };
    weave(&(0..lanes).map(lane).collect::<Vec<_>>(), 1)
}

fn byte_oracle(freqs: &[u16; 256], full: usize, width: usize, symbols: &[u8]) -> Vec<u8> {
    let mut next = 0;
    let slots: Vec<Vec<u64>> = freqs
        .iter()
        .map(|&f| {
            next += u64::from(f);
            (next - u64::from(f)..next).collect()
        })
        .collect();
    let (wide, narrow) = symbols.split_at(full * 32);
    let lane = |lane: usize| {
        let mut own: Vec<u8> = wide.iter().copied().skip(lane).step_by(32).collect();
        if lane < width {
            own.extend(narrow.iter().copied().skip(lane).step_by(width));
        }
        oracle_lane(&own, &slots, 12, 16, 8)
    };
    weave(&(0..32).map(lane).collect::<Vec<_>>(), 2)
}

fn counts<const N: usize>(symbols: &[u8]) -> [u64; N] {
    let mut counts = [0; N];
    symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
    counts
}

/// Symbols from flat to nearly constant: each is the smallest of `skew` uniform draws below `alphabet`.
fn skewed(alphabet: u16, longest: usize) -> impl Strategy<Value = Vec<u8>> {
    (1..=alphabet, 1..12usize, 0..=longest, any::<u64>()).prop_map(|(alphabet, skew, len, seed)| {
        let mut x = seed | 1;
        let mut draw = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((x >> 33) % u64::from(alphabet)) as u8
        };
        (0..len).map(|_| (0..skew).map(|_| draw()).min().unwrap()).collect()
    })
}

/// Under Miri, which is a thousand times slower, one short case of each.
const CASES: u32 = if cfg!(miri) { 1 } else { 300 };
/// Most symbols are divided by this.
const SHORTER: usize = if cfg!(miri) { 10 } else { 1 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn nibble_equals_the_oracle(symbols in skewed(16, 6000 / SHORTER), groups in 1..=16usize, more in 0..200usize) {
        prop_assume!(!symbols.is_empty());
        let lanes = 64 * groups;
        let strip = symbols.len().div_ceil(groups) + more;
        let freqs = nibble::Frequencies::from_counts(&counts(&symbols)).unwrap();
        let strips = nibble::Strips::new(lanes, strip, symbols.len()).unwrap();
        let mut coded = vec![0; nibble::max_len(&strips)];
        let len = nibble::encode(&nibble::EncodeTable::new(&freqs), &strips, &symbols, &mut coded).unwrap();
        coded.truncate(len);
        if freqs.single().is_none() {
            prop_assert_eq!(&coded, &nibble_oracle(freqs.as_array(), lanes, strip, &symbols));
        } else {
            prop_assert_eq!(len, 0);
        }
        let mut back = vec![0xee; symbols.len()];
        nibble::decode(&nibble::DecodeTable::new(&freqs), &strips, &coded, &mut back).unwrap();
        prop_assert_eq!(back, symbols);
    }

    #[test]
    fn byte_equals_the_oracle(symbols in skewed(256, 4000 / SHORTER), width in 0..32usize, narrow in 1..6usize) {
        let narrow = if width * narrow <= symbols.len() { narrow } else { 0 };
        let full = (symbols.len() - narrow * width) / 32;
        let symbols = &symbols[..full * 32 + narrow * width];
        prop_assume!(!symbols.is_empty());
        let freqs = byte::Frequencies::from_counts(&counts(symbols)).unwrap();
        let steps = byte::Steps::new(full, narrow, width).unwrap();
        let mut coded = vec![0; byte::max_len(symbols.len())];
        let len = byte::encode(&byte::EncodeTable::new(&freqs), &steps, symbols, &mut coded).unwrap();
        coded.truncate(len);
        let width = if narrow == 0 { 0 } else { width };
        prop_assert_eq!(&coded, &byte_oracle(freqs.as_array(), full, width, symbols));
        let mut back = vec![0xee; symbols.len()];
        byte::decode(&byte::DecodeTable::new(&freqs), &steps, &coded, &mut back).unwrap();
        prop_assert_eq!(back, symbols);
    }

    #[test]
    fn runs_with_contexts_come_back(symbols in skewed(256, 3000 / SHORTER), contexts in skewed(5, 3000 / SHORTER), payload: [u16; 32]) {
        let n = symbols.len().min(contexts.len());
        let (symbols, contexts) = (&symbols[..n], &contexts[..n]);
        let freqs: Vec<_> = (0..5u8)
            .map(|c| {
                let own: Vec<u8> = (0..n).filter(|&i| contexts[i] == c).map(|i| symbols[i]).collect();
                byte::Frequencies::from_counts(&counts(if own.is_empty() { &[0] } else { &own })).unwrap()
            })
            .collect();
        let first = byte::Frequencies::from_counts(&counts(if n == 0 { &[0] } else { contexts })).unwrap();
        let mut coded = vec![0; byte::max_len(2 * n)];
        let mut encoder = byte::Encoder::new(payload, &mut coded).unwrap();
        let tables: Vec<_> = freqs.iter().map(byte::EncodeTable::new).collect();
        encoder.run_with_contexts(&tables, contexts, symbols).unwrap();
        encoder.run(&byte::EncodeTable::new(&first), contexts).unwrap();
        let len = encoder.finish();
        let mut decoder = byte::Decoder::new(&coded[..len]).unwrap();
        let (mut c, mut s) = (vec![9; n], vec![9; n]);
        decoder.run(&byte::DecodeTable::new(&first), &mut c).unwrap();
        prop_assert_eq!(&c, contexts);
        let tables: Vec<_> = freqs.iter().map(byte::DecodeTable::new).collect();
        decoder.run_with_contexts(&tables, &c, &mut s).unwrap();
        prop_assert_eq!(&s, symbols);
        prop_assert_eq!(decoder.finish().unwrap(), payload);
    }

    #[test]
    fn any_bytes_decode_or_are_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..3000 / SHORTER), seen in skewed(16, 200), n in 0..2000 / SHORTER
    ) {
        prop_assume!(!seen.is_empty());
        let freqs = nibble::Frequencies::from_counts(&counts(&seen)).unwrap();
        let strips = nibble::Strips::flat(128, n).unwrap();
        let mut out = vec![0; n];
        if nibble::decode(&nibble::DecodeTable::new(&freqs), &strips, &bytes, &mut out).is_ok() {
            prop_assert!(out.iter().all(|&s| s < 16));
        }
        let freqs = byte::Frequencies::from_counts(&counts(&seen)).unwrap();
        let _ = byte::decode(&byte::DecodeTable::new(&freqs), &byte::Steps::flat(n), &bytes, &mut out);
    }
}

fn sample(n: usize) -> Vec<u8> {
    (0..n as u32).map(|i| (i.wrapping_mul(2654435761) >> 28) as u8 & (i >> 3) as u8 & 15).collect()
}

#[test]
#[cfg_attr(miri, ignore = "takes hours")]
fn damaged_nibble_streams_are_named_errors() {
    let symbols = sample(5000);
    let freqs = nibble::Frequencies::from_counts(&counts(&symbols)).unwrap();
    let (encode, decode) = (nibble::EncodeTable::new(&freqs), nibble::DecodeTable::new(&freqs));
    let strips = nibble::Strips::flat(128, symbols.len()).unwrap();
    let mut coded = vec![0; nibble::max_len(&strips)];
    let len = nibble::encode(&encode, &strips, &symbols, &mut coded).unwrap();
    coded.truncate(len);
    let mut out = vec![0; symbols.len()];
    for cut in 0..len {
        assert!(matches!(
            nibble::decode(&decode, &strips, &coded[..cut], &mut out),
            Err(Error::Truncated { .. })
        ));
    }
    let mut long = coded.clone();
    long.push(0);
    assert_eq!(nibble::decode(&decode, &strips, &long, &mut out), Err(Error::TrailingBytes { left: 1 }));
    let mut low = coded.clone();
    low[2 * 77 + 1] = 0;
    assert_eq!(nibble::decode(&decode, &strips, &low, &mut out), Err(Error::StateBelowBound { lane: 77 }));
    let mut flipped_unseen = 0;
    for bit in 0..8 * len {
        let mut bad = coded.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if nibble::decode(&decode, &strips, &bad, &mut out).is_ok() {
            assert_ne!(out, symbols, "bit {bit}");
            flipped_unseen += 1;
        }
    }
    // a lane that goes astray still ends in a possible end state once in about eight: the rest is for checksums
    assert!(flipped_unseen * 3 < 8 * len, "{flipped_unseen} of {}", 8 * len);
}

#[test]
#[cfg_attr(miri, ignore = "takes hours")]
fn damaged_byte_streams_are_named_errors() {
    let symbols = sample(3001);
    let freqs = byte::Frequencies::from_counts(&counts(&symbols)).unwrap();
    let (encode, decode) = (byte::EncodeTable::new(&freqs), byte::DecodeTable::new(&freqs));
    let steps = byte::Steps::flat(symbols.len());
    let mut coded = vec![0; byte::max_len(symbols.len())];
    let len = byte::encode(&encode, &steps, &symbols, &mut coded).unwrap();
    coded.truncate(len);
    let mut out = vec![0; symbols.len()];
    for cut in 0..len {
        assert!(matches!(
            byte::decode(&decode, &steps, &coded[..cut], &mut out),
            Err(Error::Truncated { .. })
        ));
    }
    let mut long = coded.clone();
    long.extend([0, 0]);
    assert_eq!(byte::decode(&decode, &steps, &long, &mut out), Err(Error::TrailingBytes { left: 2 }));
    let mut low = coded.clone();
    low[4 * 5 + 2..4 * 5 + 4].fill(0);
    assert_eq!(byte::decode(&decode, &steps, &low, &mut out), Err(Error::StateBelowBound { lane: 5 }));
}

#[test]
#[cfg_attr(miri, ignore = "takes hours")]
fn short_buffers_and_unknown_symbols_are_named_errors() {
    let symbols = sample(1000);
    let freqs = nibble::Frequencies::from_counts(&counts(&symbols)).unwrap();
    let table = nibble::EncodeTable::new(&freqs);
    let strips = nibble::Strips::flat(64, symbols.len()).unwrap();
    let mut coded = vec![0; nibble::max_len(&strips)];
    let len = nibble::encode(&table, &strips, &symbols, &mut coded).unwrap();
    for short in 0..len {
        let refused = nibble::encode(&table, &strips, &symbols, &mut coded[..short]);
        assert!(matches!(refused, Err(Error::BufferTooSmall { .. })), "{short}");
    }
    assert_eq!(nibble::encode(&table, &strips, &symbols, &mut coded[..len]), Ok(len));
    let mut strange = symbols.clone();
    strange[500] = 16;
    let refused = nibble::encode(&table, &strips, &strange, &mut coded);
    assert_eq!(refused, Err(Error::SymbolWithoutFrequency { position: 500, symbol: 16 }));

    let freqs = byte::Frequencies::from_counts(&counts(&symbols)).unwrap();
    let table = byte::EncodeTable::new(&freqs);
    let steps = byte::Steps::flat(symbols.len());
    let mut coded = vec![0; byte::max_len(symbols.len())];
    let len = byte::encode(&table, &steps, &symbols, &mut coded).unwrap();
    for short in 0..len {
        assert!(matches!(
            byte::encode(&table, &steps, &symbols, &mut coded[..short]),
            Err(Error::BufferTooSmall { .. })
        ));
    }
    let refused = byte::encode(&table, &steps, &strange, &mut coded);
    assert_eq!(refused, Err(Error::SymbolWithoutFrequency { position: 500, symbol: 16 }));
}

#[test]
fn impossible_layouts_are_named_errors() {
    for lanes in [0, 1, 63, 65, 1088, usize::MAX] {
        assert_eq!(nibble::Strips::new(lanes, 10, 10), Err(Error::LaneCount { lanes }));
    }
    assert_eq!(nibble::Strips::new(128, 4, 9), Err(Error::Layout { holds: 8, given: 9 }));
    assert!(nibble::Strips::new(128, usize::MAX, usize::MAX).is_ok());
    assert!(byte::Steps::new(0, 1, 32).is_err());
    assert!(byte::Steps::new(usize::MAX, 1, 1).is_err());
    assert_eq!(byte::Steps::new(3, usize::MAX, 0).unwrap().symbols(), 96);
}

#[test]
#[cfg_attr(miri, ignore = "takes hours")]
fn rates_are_those_of_the_method() {
    // absmax int4 of a Gaussian: the loss of 8-bit spread slots and of 12 bits against the entropy
    let mut x = 88172645463325252u64;
    let mut uniform = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 11) as f64 / (1u64 << 53) as f64
    };
    let symbols: Vec<u8> = (0..1 << 20)
        .map(|_| {
            let g = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
            ((g / 0.38).round() + 8.0).clamp(0.0, 15.0) as u8
        })
        .collect();
    let n = symbols.len() as f64;
    let c: [u64; 16] = counts(&symbols);
    let entropy: f64 = c.iter().filter(|&&c| c > 0).map(|&c| c as f64 / n * (n / c as f64).log2()).sum();
    let freqs = nibble::Frequencies::from_counts(&c).unwrap();
    let strips = nibble::Strips::flat(512, symbols.len()).unwrap();
    let mut coded = vec![0; nibble::max_len(&strips)];
    let len = nibble::encode(&nibble::EncodeTable::new(&freqs), &strips, &symbols, &mut coded).unwrap();
    let loss = len as f64 * 8.0 / n / entropy - 1.0;
    assert!(loss < 0.0015, "nibble loses {:.3} %", loss * 100.0);
    let freqs = byte::Frequencies::from_counts(&counts(&symbols)).unwrap();
    let mut coded = vec![0; byte::max_len(symbols.len())];
    let steps = byte::Steps::flat(symbols.len());
    let len = byte::encode(&byte::EncodeTable::new(&freqs), &steps, &symbols, &mut coded).unwrap();
    let loss = len as f64 * 8.0 / n / entropy - 1.0;
    assert!(loss < 0.0005, "byte loses {:.3} %", loss * 100.0);
}

//! Both codecs on every instruction set, on symbols like those of absmax int4 with groups of 32, in cache. Rates are
//! weights a second: a byte symbol is a pair of weights.

#![allow(missing_docs)] // criterion's macros make public functions without any

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ecq_benches::gaussian_nibbles;
use rans_core::{Isa, byte, nibble};

const WEIGHTS: usize = 1 << 18;
/// Streams for `byte::decode_many`.
const STREAMS: usize = 8;

fn nibbles(c: &mut Criterion) {
    let symbols = gaussian_nibbles(WEIGHTS);
    let mut group = c.benchmark_group("nibble");
    group.throughput(Throughput::Elements(WEIGHTS as u64));
    let mut counts = [0u64; 16];
    symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
    let strips = nibble::Strips::flat(512, WEIGHTS).expect("a valid layout");
    let best = nibble::Frequencies::from_counts(&counts).expect("there are symbols");
    let fast = nibble::fast_frequencies(&counts).expect("there are symbols");
    for (name, freqs) in [("best frequencies", best), ("fast frequencies", fast)] {
        let (encode, decode) = (nibble::EncodeTable::new(&freqs), nibble::DecodeTable::new(&freqs));
        let mut coded = vec![0; nibble::max_len(&strips)];
        let len = nibble::encode(&encode, &strips, &symbols, &mut coded).expect("it fits");
        let stream = coded[..len].to_vec();
        let mut out = vec![0; WEIGHTS];
        for isa in Isa::all() {
            nibble::decode_with(isa, &decode, &strips, &stream, &mut out).expect("it decodes");
            assert_eq!(out, symbols, "the answer comes before the time");
            group.bench_function(format!("decode, {name}, {}", isa.set().name()), |b| {
                b.iter(|| nibble::decode_with(isa, &decode, &strips, &stream, &mut out))
            });
            group.bench_function(format!("encode, {name}, {}", isa.set().name()), |b| {
                b.iter(|| nibble::encode_with(isa, &encode, &strips, &symbols, &mut coded))
            });
        }
    }
    group.finish();
}

fn pairs(c: &mut Criterion) {
    let pairs: Vec<u8> = gaussian_nibbles(WEIGHTS).chunks_exact(2).map(|p| p[0] | p[1] << 4).collect();
    let mut group = c.benchmark_group("byte pairs");
    group.throughput(Throughput::Elements(WEIGHTS as u64));
    let mut counts = [0u64; 256];
    pairs.iter().for_each(|&s| counts[usize::from(s)] += 1);
    let freqs = byte::Frequencies::from_counts(&counts).expect("there are symbols");
    let (encode, decode) = (byte::EncodeTable::new(&freqs), byte::DecodeTable::new(&freqs));
    let code = |pairs: &[u8]| {
        let mut coded = vec![0; byte::max_len(pairs.len())];
        let steps = byte::Steps::flat(pairs.len());
        let len = byte::encode(&encode, &steps, pairs, &mut coded).expect("it fits");
        coded[..len].to_vec()
    };
    let mut out = vec![0; pairs.len()];
    for count in [1, STREAMS] {
        let piece = pairs.len() / count;
        let streams: Vec<_> = pairs.chunks(piece).map(code).collect();
        let run = |isa: Isa, out: &mut [u8]| {
            let steps = byte::Steps::flat(piece);
            let both = streams.iter().zip(out.chunks_mut(piece));
            let mut jobs: Vec<_> = both.map(|(stream, out)| byte::Job::new(steps, stream, out)).collect();
            byte::decode_many(isa, &decode, &mut jobs);
            assert!(jobs.iter().all(|job| job.result().is_ok()), "it decodes");
        };
        for isa in Isa::all() {
            run(isa, &mut out);
            assert_eq!(out, pairs, "the answer comes before the time");
            let name = format!("decode, streams: {count}, {}", isa.set().name());
            group.bench_function(name, |b| b.iter(|| run(isa, &mut out)));
        }
    }
    group.bench_function("encode, scalar", |b| b.iter(|| code(&pairs)));
    group.finish();
}

criterion_group!(benches, nibbles, pairs);
criterion_main!(benches);

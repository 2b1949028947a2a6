//! Scalar encode and decode of both codecs, on symbols like those of absmax int4 with groups of 32.

#![allow(missing_docs)] // criterion's macros make public functions without any

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ecq_benches::gaussian_nibbles;
use rans_core::{byte, nibble};

fn codecs(c: &mut Criterion) {
    let symbols = gaussian_nibbles(1 << 20);
    let mut group = c.benchmark_group("scalar");
    group.throughput(Throughput::Elements(symbols.len() as u64));

    let mut counts = [0u64; 16];
    symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
    let freqs = nibble::Frequencies::from_counts(&counts).expect("there are symbols");
    let (encode, decode) = (nibble::EncodeTable::new(&freqs), nibble::DecodeTable::new(&freqs));
    let strips = nibble::Strips::flat(512, symbols.len()).expect("a valid layout");
    let mut coded = vec![0; nibble::max_len(&strips)];
    let len = nibble::encode(&encode, &strips, &symbols, &mut coded).expect("it fits");
    let stream = coded[..len].to_vec();
    let mut out = vec![0; symbols.len()];
    nibble::decode(&decode, &strips, &stream, &mut out).expect("it decodes");
    assert_eq!(out, symbols, "the answer comes before the time");
    group.bench_function("nibble encode", |b| {
        b.iter(|| nibble::encode(&encode, &strips, &symbols, &mut coded))
    });
    group.bench_function("nibble decode", |b| b.iter(|| nibble::decode(&decode, &strips, &stream, &mut out)));

    let pairs: Vec<u8> = symbols.chunks_exact(2).map(|p| p[0] | p[1] << 4).collect();
    let mut counts = [0u64; 256];
    pairs.iter().for_each(|&s| counts[usize::from(s)] += 1);
    let freqs = byte::Frequencies::from_counts(&counts).expect("there are symbols");
    let (encode, decode) = (byte::EncodeTable::new(&freqs), byte::DecodeTable::new(&freqs));
    let steps = byte::Steps::flat(pairs.len());
    let mut coded = vec![0; byte::max_len(pairs.len())];
    let len = byte::encode(&encode, &steps, &pairs, &mut coded).expect("it fits");
    let stream = coded[..len].to_vec();
    let mut out = vec![0; pairs.len()];
    byte::decode(&decode, &steps, &stream, &mut out).expect("it decodes");
    assert_eq!(out, pairs, "the answer comes before the time");
    group.bench_function("byte pairs encode", |b| {
        b.iter(|| byte::encode(&encode, &steps, &pairs, &mut coded))
    });
    group
        .bench_function("byte pairs decode", |b| b.iter(|| byte::decode(&decode, &steps, &stream, &mut out)));
    group.finish();
}

criterion_group!(benches, codecs);
criterion_main!(benches);

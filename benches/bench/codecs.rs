//! Both codecs of `rans-core`, on every instruction set that this CPU has, with rivals.

use std::cell::RefCell;
use std::time::Duration;

use constriction::stream::Decode;
use constriction::stream::model::{
    SmallContiguousCategoricalEntropyModel, SmallContiguousLookupDecoderModel,
};
use constriction::stream::stack::SmallAnsCoder;
use ecq_benches::{gaussian_nibbles, uniform_nibbles};
use ecq_format::levels::Split;
use ecq_format::plan::{Histogram, Plan};
use rans_core::{InstructionSet, Isa, byte, nibble};

use crate::report::{Ratio, Report};
use crate::timing::{Contestant, race};

/// Symbols of a tile, as large tensors have them.
const TILE: usize = 1 << 19;
const LANES: usize = 512;
/// Pairs of a tile, as the file has them.
const PAIRS: usize = 1 << 15;
/// A tile that stays in the second-level cache, with its stream.
const SMALL: usize = 1 << 18;

/// Symbols coded tile by tile.
struct Coded {
    symbols: Vec<u8>,
    decode: nibble::DecodeTable,
    encode: nibble::EncodeTable,
    strips: nibble::Strips,
    streams: Vec<Vec<u8>>,
}

impl Coded {
    /// Symbols that are too rare for a frequency would be escapes in a file; here they become the most frequent one.
    fn new(mut symbols: Vec<u8>, tile: usize) -> Self {
        let mut histogram = Histogram::new(8);
        symbols.iter().for_each(|&s| histogram.add(s.into()));
        let plan = Plan::for_split(&histogram, Split { raw_bits: 0, center: 0 }).expect("there are symbols");
        let freqs = plan.freqs;
        symbols.iter_mut().filter(|s| freqs.as_array()[usize::from(**s)] == 0).for_each(|s| *s = plan.filler);
        let (encode, decode) = (nibble::EncodeTable::new(&freqs), nibble::DecodeTable::new(&freqs));
        let strips = nibble::Strips::flat(LANES, tile).expect("a valid layout");
        let mut buffer = vec![0; nibble::max_len(&strips)];
        let code = |tile: &[u8]| {
            let len =
                nibble::encode(&encode, &strips, tile, &mut buffer).expect("all symbols have frequencies");
            buffer[..len].to_vec()
        };
        let streams = symbols.chunks_exact(tile).map(code).collect();
        Self { symbols, decode, encode, strips, streams }
    }

    fn bits(&self) -> f64 {
        8.0 * self.streams.iter().map(Vec::len).sum::<usize>() as f64 / self.symbols.len() as f64
    }

    fn decode(&self, isa: Isa, tiles: usize, out: &mut [u8]) {
        for (out, stream) in out.chunks_exact_mut(self.strips.symbols()).zip(&self.streams).take(tiles) {
            nibble::decode_with(isa, &self.decode, &self.strips, stream, out).expect("it decodes");
        }
    }

    /// Decoding `tiles` tiles, `times` times; the answer is checked here, before any time is taken. All write to the
    /// same buffer.
    fn contestant<'a>(
        &'a self,
        name: String,
        isa: Isa,
        (tiles, times): (usize, usize),
        out: &'a RefCell<Vec<u8>>,
    ) -> Contestant<'a> {
        let n = tiles * self.strips.symbols();
        let decode = move || self.decode(isa, tiles, &mut out.borrow_mut()[..n]);
        decode();
        assert!(out.borrow()[..n] == self.symbols[..n], "{name}: decoded symbols differ");
        Contestant::new(name, times * n, move || (0..times).for_each(|_| decode()))
    }
}

/// `n` symbols: a piece of Gaussian weights over and over.
fn repeated(n: usize, piece: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    piece(n.min(1 << 21)).into_iter().cycle().take(n).collect()
}

/// Its name, and what makes a number of symbols of it.
type Set<'a> = (&'a str, &'a dyn Fn(usize) -> Vec<u8>);

/// Decoding and encoding of nibbles.
pub fn nibbles(report: &mut Report, n: usize, time: Duration) {
    let sets: [Set<'_>; 3] = [
        ("absmax int4 g32", &gaussian_nibbles),
        ("uniform, 2.6 bits", &|n| uniform_nibbles(n, 0.68)),
        ("uniform, 1.7 bits", &|n| uniform_nibbles(n, 1.27)),
    ];
    for (i, (name, set)) in sets.iter().enumerate() {
        let streaming = Coded::new(repeated(n, set), TILE);
        let small = Coded::new(repeated(SMALL, set), SMALL);
        let out = RefCell::new(vec![0; n]);
        let mut rows = Vec::new();
        for isa in Isa::all() {
            let (what, slow) = (isa.set().name(), isa == Isa::SCALAR);
            let tiles = if slow { 1 } else { streaming.streams.len() };
            rows.push(streaming.contestant(format!("{what}, streaming"), isa, (tiles, 1), &out));
            if !slow {
                // long enough for the CPU to wake its wide units up and to forget the other contestants
                rows.push(small.contestant(format!("{what}, in cache"), isa, (1, 100), &out));
            }
        }
        let (bits, entropy) = (streaming.bits(), ecq_benches::entropy(&streaming.symbols));
        let section = format!("Decode nibbles: {name}, entropy {entropy:.3}, {bits:.3} bits coded");
        if i == 0 {
            rows.push(zstd_rival(&streaming.symbols));
            rows.push(constriction_rival(&streaming.symbols[..TILE]));
            rows.push(copy_rival(&streaming.symbols, &out));
        }
        report.rates(&section, "G weights/s", &race(time, rows), Some("zstd -1"));
    }
    encoders(report, n, time);
}

/// zstd at its fastest level, a symbol a byte.
fn zstd_rival(symbols: &[u8]) -> Contestant<'_> {
    let packed: Vec<_> =
        symbols.chunks(TILE).map(|t| zstd::bulk::compress(t, 1).expect("zstd compresses")).collect();
    let mut decoder = zstd::bulk::Decompressor::new().expect("zstd begins");
    let mut out = vec![0; TILE];
    for (packed, tile) in packed.iter().zip(symbols.chunks(TILE)) {
        decoder.decompress_to_buffer(packed, &mut out).expect("zstd decompresses");
        assert!(out[..tile.len()] == *tile, "zstd: decoded symbols differ");
    }
    Contestant::new("zstd -1", symbols.len(), move || {
        for packed in &packed {
            decoder.decompress_to_buffer(packed, &mut out).expect("zstd decompresses");
        }
    })
}

/// The ANS coder of the crate `constriction`, with a look-up table.
fn constriction_rival(symbols: &[u8]) -> Contestant<'_> {
    let mut counts = [0f64; 16];
    symbols.iter().for_each(|&s| counts[usize::from(s)] += 1.0);
    let model = SmallContiguousCategoricalEntropyModel::<Vec<u16>>::from_floating_point_probabilities_fast(
        &counts, None,
    )
    .expect("valid probabilities");
    let mut coder = SmallAnsCoder::new();
    coder.encode_iid_symbols_reverse(symbols.iter().map(|&s| usize::from(s)), &model).expect("it encodes");
    let words = coder.into_compressed().expect("into memory");
    let lookup: SmallContiguousLookupDecoderModel = model.to_lookup_decoder_model();
    let mut out = vec![0u8; symbols.len()];
    let mut decode = move || {
        let mut coder = SmallAnsCoder::from_compressed(words.clone()).expect("a whole stream");
        for (out, symbol) in out.iter_mut().zip(coder.decode_iid_symbols(symbols.len(), &lookup)) {
            *out = symbol.expect("it decodes") as u8;
        }
        out == symbols
    };
    assert!(decode(), "constriction: decoded symbols differ");
    Contestant::new("constriction, ANS", symbols.len(), move || {
        std::hint::black_box(decode());
    })
}

/// A copy of as many bytes as a decoder writes.
fn copy_rival<'a>(symbols: &'a [u8], out: &'a RefCell<Vec<u8>>) -> Contestant<'a> {
    Contestant::new("memory copy", symbols.len(), move || {
        let mut out = out.borrow_mut();
        out.copy_from_slice(symbols);
        std::hint::black_box(&out);
    })
}

fn encoders(report: &mut Report, n: usize, time: Duration) {
    let coded = Coded::new(repeated(n, gaussian_nibbles), TILE);
    let rows = Isa::all().filter(|isa| [InstructionSet::Scalar, InstructionSet::Avx512].contains(&isa.set()));
    let row = |isa: Isa| {
        let tiles = if isa == Isa::SCALAR { 1 } else { coded.streams.len() };
        let mut out = vec![0; nibble::max_len(&coded.strips)];
        let mut encode = |symbols: &[u8]| {
            nibble::encode_with(isa, &coded.encode, &coded.strips, symbols, &mut out).expect("it encodes")
        };
        for (symbols, stream) in coded.symbols.chunks_exact(TILE).zip(&coded.streams).take(tiles) {
            assert_eq!(encode(symbols), stream.len(), "{}: another length", isa.set().name());
        }
        let mut out = vec![0; nibble::max_len(&coded.strips)];
        let coded = &coded;
        Contestant::new(format!("{}, streaming", isa.set().name()), tiles * TILE, move || {
            for symbols in coded.symbols.chunks_exact(TILE).take(tiles) {
                nibble::encode_with(isa, &coded.encode, &coded.strips, symbols, &mut out)
                    .expect("it encodes");
            }
        })
    };
    let mut rows: Vec<_> = rows.map(row).collect();
    let symbols = &coded.symbols;
    let mut packer = zstd::bulk::Compressor::new(1).expect("zstd begins");
    rows.push(Contestant::new("zstd -1", symbols.len() / 8, move || {
        symbols[..symbols.len() / 8].chunks(TILE).for_each(|tile| {
            std::hint::black_box(packer.compress(tile).expect("zstd compresses"));
        });
    }));
    report.rates("Encode nibbles: absmax int4 g32", "G weights/s", &race(time, rows), Some("zstd -1"));
    let bits = coded.bits();
    let entropy = ecq_benches::entropy(&coded.symbols);
    let ratio = Ratio { value: bits / entropy, to: "entropy".into() };
    report.figure("Encode nibbles: absmax int4 g32", "coded size", bits, "bits/weight", Some(ratio));
}

/// Decoding of pairs of nibbles by the byte codec: streams alone, and side by side.
pub fn pairs(report: &mut Report, n: usize, time: Duration) {
    let pairs: Vec<u8> =
        repeated(n, gaussian_nibbles).as_chunks::<2>().0.iter().map(|[a, b]| a | b << 4).collect();
    let mut counts = [0u64; 256];
    pairs.iter().for_each(|&s| counts[usize::from(s)] += 1);
    let freqs = byte::Frequencies::from_counts(&counts).expect("there are symbols");
    let (encode, table) = (byte::EncodeTable::new(&freqs), byte::DecodeTable::new(&freqs));
    let steps = byte::Steps::flat(PAIRS);
    let mut buffer = vec![0; byte::max_len(PAIRS)];
    let code = |tile: &[u8]| {
        let len = byte::encode(&encode, &steps, tile, &mut buffer).expect("all pairs have frequencies");
        buffer[..len].to_vec()
    };
    let streams: Vec<_> = pairs.chunks_exact(PAIRS).map(code).collect();
    let bits = 4.0 * streams.iter().map(Vec::len).sum::<usize>() as f64 / pairs.len() as f64;
    let decode = |isa: Isa, at_once: usize, out: &mut [u8]| {
        for (out, streams) in out.chunks_mut(at_once * PAIRS).zip(streams.chunks(at_once)) {
            let jobs = out.chunks_mut(PAIRS).zip(streams).map(|(out, s)| byte::Job::new(steps, s, out));
            let mut jobs: Vec<_> = jobs.collect();
            byte::decode_many(isa, &table, &mut jobs);
            assert!(jobs.iter().all(|job| job.result().is_ok()), "it decodes");
        }
    };
    let row = |(isa, at_once): (Isa, usize)| {
        let name = format!("{}, {at_once} at a time", isa.set().name());
        let n = if isa == Isa::SCALAR { 4 * PAIRS } else { pairs.len() };
        let mut out = vec![0; n];
        decode(isa, at_once, &mut out);
        assert!(out == pairs[..n], "{name}: decoded pairs differ");
        let decode = &decode;
        Contestant::new(name, 2 * n, move || decode(isa, at_once, &mut out))
    };
    // alone, and as many side by side as the path takes
    let most = |isa: Isa| match isa.set() {
        InstructionSet::Avx512 => vec![1, 4],
        InstructionSet::Avx2 => vec![1, 2],
        _ => vec![1],
    };
    let rows = Isa::all().flat_map(|isa| most(isa).into_iter().map(move |n| (isa, n)));
    let rows: Vec<_> = rows.map(row).collect();
    let section = format!("Decode pairs: absmax int4 g32, {bits:.3} bits a weight coded");
    report.rates(&section, "G weights/s", &race(time, rows), Some("scalar, 1 at a time"));
}

//! The `byte` codec.

use rans_core::byte::{
    DecodeTable, Decoder, EncodeTable, Frequencies, Job, LANES, Steps, decode_many, decode_with, encode,
    max_len,
};
use rans_core::{Error, Isa};

use crate::cases::{Random, SHAPES, frequencies, symbols};
use crate::pages::{Edge, Room};
use crate::{LONGEST, UNTOUCHED, lengths};

/// Streams that are decoded at the same time, and one that waits for a place.
const TOGETHER: usize = 5;
/// Symbols of the longest stream.
const MOST: usize = LANES * LONGEST;

/// Symbols of each kind of frequencies.
struct Source {
    freqs: Frequencies,
    encode: EncodeTable,
    decode: DecodeTable,
    symbols: Vec<u8>,
}

impl Source {
    fn all(random: &mut Random) -> Vec<Self> {
        let one = |shape| {
            let freqs = frequencies(shape, random);
            let symbols = symbols(&freqs, 2 * MOST, random);
            Self { encode: EncodeTable::new(&freqs), decode: DecodeTable::new(&freqs), freqs, symbols }
        };
        (0..SHAPES).map(one).collect()
    }

    /// Some symbols.
    fn some(&self, count: usize, random: &mut Random) -> &[u8] {
        &self.symbols[random.below(self.symbols.len() - count + 1)..][..count]
    }
}

/// What is between pages.
struct Rooms {
    edge: Edge,
    symbols: Room,
    coded: Room,
    streams: [Room; TOGETHER],
    outs: [Room; TOGETHER],
    table: Room,
}

impl Rooms {
    fn new(edge: Edge) -> Self {
        let rooms = |bytes| std::array::from_fn(|_| Room::new(bytes));
        let coded = max_len(MOST) + 4096;
        let (symbols, table) = (Room::new(MOST), Room::new(size_of::<DecodeTable>()));
        Self { edge, symbols, coded: Room::new(coded), streams: rooms(coded), outs: rooms(MOST), table }
    }

    /// Codes symbols: the stream of job `i`.
    fn encode(&mut self, i: usize, table: &EncodeTable, steps: &Steps, symbols: &[u8]) -> usize {
        let symbols = self.symbols.copy(self.edge, symbols);
        let coded = self.coded.bytes(self.edge, max_len(symbols.len()));
        let len = encode(table, steps, symbols, coded).unwrap();
        self.streams[i].copy(self.edge, &coded[..len]);
        len
    }

    /// Decodes the first job's stream of `len` bytes.
    fn alone(&mut self, isa: Isa, table: &DecodeTable, steps: &Steps, len: usize) -> Result<&[u8], Error> {
        let stream = self.streams[0].bytes(self.edge, len);
        let out = self.outs[0].bytes(self.edge, steps.symbols());
        out.fill(UNTOUCHED);
        decode_with(isa, self.table.value(self.edge, table), steps, stream, out)?;
        Ok(out)
    }

    /// Decodes several streams of these shapes and lengths side by side.
    fn together(
        &mut self,
        isa: Isa,
        table: &DecodeTable,
        jobs: &[(Steps, usize)],
    ) -> Vec<Result<&[u8], Error>> {
        let edge = self.edge;
        let rooms = self.streams.iter_mut().zip(&mut self.outs);
        let mut all: Vec<_> = jobs
            .iter()
            .zip(rooms)
            .map(|(&(steps, len), (stream, out))| {
                let out = out.bytes(edge, steps.symbols());
                out.fill(UNTOUCHED);
                Job::new(steps, stream.bytes(edge, len), out)
            })
            .collect();
        decode_many(isa, self.table.value(edge, table), &mut all);
        let results: Vec<_> = all.iter().map(Job::result).collect();
        let outs = jobs.iter().zip(&mut self.outs);
        let outs = outs.map(|((steps, _), out)| &*out.bytes(edge, steps.symbols()));
        results.into_iter().zip(outs).map(|(result, out)| result.map(|()| out)).collect()
    }
}

/// A shape of so many steps of which the last has `width` lanes: a plain sequence, a rectangle, or bands.
fn shape(length: usize, width: usize, random: &mut Random) -> Steps {
    match random.below(3) {
        0 => Ok(Steps::flat(LANES * (length - 1) + width)),
        1 => {
            let narrow = random.below(length.min(9) + 1);
            Steps::new(length - narrow, narrow, width % LANES)
        }
        _ => {
            let (blocks, pairs) = (random.below(4), 1 + random.below(length.min(8)));
            let blocks_of = blocks + usize::from(width < LANES || blocks == 0);
            let bands = length / pairs / blocks_of;
            let cols = if width < LANES { blocks * LANES + width } else { blocks_of * LANES };
            Steps::banded(cols, bands, pairs, (length / blocks_of) % pairs)
        }
    }
    .unwrap()
}

/// All lengths, each with one width or with all.
fn sweep(edge: Edge, all: bool) {
    let mut random = Random::new(41 + edge as u64);
    let sources = Source::all(&mut random);
    let mut rooms = Rooms::new(edge);
    let (mut pairs, mut count) = (0, 0);
    for length in 1..=LONGEST {
        let widths = if all { 1..=LANES } else { (1 + length % LANES)..=(1 + length % LANES) };
        for width in widths {
            let source = &sources[random.below(SHAPES)];
            let steps = shape(length, width, &mut random);
            let symbols = source.some(steps.symbols(), &mut random);
            let len = rooms.encode(0, &source.encode, &steps, symbols);
            let few = |lot: &mut Random| length < 64 || lot.below(32) == 0;
            for isa in Isa::all().filter(|&isa| isa != Isa::SCALAR || few(&mut random)) {
                let found = rooms.alone(isa, &source.decode, &steps, len);
                assert!(found == Ok(symbols), "{isa:?} {steps:?} {:?}", source.freqs);
            }
            (pairs, count) = (pairs + 1, count + steps.symbols());
        }
    }
    println!("{pairs} pairs of steps and widths at the {edge:?} of their buffers, {count} symbols");
}

#[test]
fn streams_before_a_forbidden_page() {
    sweep(Edge::End, false);
}

#[test]
fn streams_behind_a_forbidden_page() {
    sweep(Edge::Start, false);
}

#[test]
#[ignore = "all 65,536 pairs of lengths and widths: a minute"]
fn all_streams_before_a_forbidden_page() {
    sweep(Edge::End, true);
}

#[test]
#[ignore = "all 65,536 pairs of lengths and widths: a minute"]
fn all_streams_behind_a_forbidden_page() {
    sweep(Edge::Start, true);
}

/// One to five streams at a time, of any lengths; some of them cut or changed.
#[test]
fn streams_side_by_side() {
    for edge in Edge::ALL {
        let mut random = Random::new(51 + edge as u64);
        let sources = Source::all(&mut random);
        let mut rooms = Rooms::new(edge);
        for (round, length) in lengths(false, &mut random).into_iter().enumerate() {
            let source = &sources[random.below(SHAPES)];
            let mut jobs = Vec::new();
            let mut expected = Vec::new();
            for i in 0..1 + round % TOGETHER {
                let length = 1 + (length + random.below(9)) % LONGEST;
                let steps = shape(length, 1 + random.below(LANES), &mut random);
                let symbols = source.some(steps.symbols(), &mut random);
                let len = rooms.encode(i, &source.encode, &steps, symbols);
                let mut stream = rooms.streams[i].bytes(edge, len).to_vec();
                match random.below(4) {
                    0 => stream.truncate(random.below(len)),
                    1 => stream[random.below(len)] ^= 0x55,
                    _ => {}
                }
                rooms.streams[0].copy(edge, &stream);
                let alone = rooms.alone(Isa::SCALAR, &source.decode, &steps, stream.len());
                expected.push((alone.map(<[u8]>::to_vec), stream.clone()));
                jobs.push((steps, stream.len()));
            }
            for (room, (_, stream)) in rooms.streams.iter_mut().zip(&expected) {
                room.copy(edge, stream);
            }
            for isa in Isa::all() {
                let found = rooms.together(isa, &source.decode, &jobs);
                let same = found.iter().zip(&expected).all(|(a, (b, _))| *a == b.as_deref().map_err(|&e| e));
                assert!(same, "{isa:?} {jobs:?}");
            }
        }
    }
}

/// The decoder run by run, which has no vectors but shares the buffers.
#[test]
fn runs() {
    let mut random = Random::new(61);
    for edge in Edge::ALL {
        let source = &Source::all(&mut random)[9];
        let mut rooms = Rooms::new(edge);
        for count in (0..200).chain([999, 4096]) {
            let symbols = source.some(count, &mut random);
            let steps = Steps::flat(count + 64);
            let padded = [symbols, source.some(64, &mut random)].concat();
            let len = rooms.encode(0, &source.encode, &steps, &padded);
            let stream = rooms.streams[0].bytes(edge, len);
            let out = rooms.outs[0].bytes(edge, count);
            let mut decoder = Decoder::new(stream).unwrap();
            decoder.run(&source.decode, out).unwrap();
            assert!(*out == *symbols, "{count}");
        }
    }
}

/// Streams that end anywhere, and noise.
#[test]
fn hostile_streams() {
    let mut random = Random::new(71);
    for edge in Edge::ALL {
        let sources = Source::all(&mut random);
        let mut rooms = Rooms::new(edge);
        let mut agree = |source: &Source, steps: &Steps, stream: &[u8]| {
            rooms.streams[0].copy(edge, stream);
            let expected = rooms.alone(Isa::SCALAR, &source.decode, steps, stream.len()).map(<[u8]>::to_vec);
            for isa in Isa::all().filter(|&isa| isa != Isa::SCALAR) {
                let found = rooms.alone(isa, &source.decode, steps, stream.len());
                assert!(found == expected.as_deref().map_err(|&e| e), "{isa:?} {steps:?} {found:?}");
            }
        };
        for width in 1..=LANES {
            for length in [1, 2, 3, 4, 5, 9, 17, 18 + random.below(30)] {
                let source = &sources[random.below(SHAPES)];
                let steps = shape(length, width, &mut random);
                let symbols = source.some(steps.symbols(), &mut random);
                let mut stream = vec![0; max_len(symbols.len())];
                let len = encode(&source.encode, &steps, symbols, &mut stream).unwrap();
                stream.truncate(len);
                let every = if width % 8 == 1 { 1 } else { 7 };
                (0..len).step_by(every).for_each(|cut| agree(source, &steps, &stream[..cut]));
                for more in [1, 2, 63, 64, 65] {
                    agree(source, &steps, &[&stream[..], &random.bytes(more)].concat());
                }
                for _ in 0..20 {
                    let len = random.below(max_len(symbols.len()) + 1);
                    let mut noise = random.bytes(len);
                    if random.below(4) > 0 {
                        noise.iter_mut().take(4 * LANES).for_each(|b| *b |= 1); // no state is below its bound
                    }
                    agree(source, &steps, &noise);
                }
            }
        }
    }
}

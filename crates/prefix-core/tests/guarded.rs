//! Every vector path between guard pages: each buffer that it reads or writes ends directly before a page that nobody may
//! touch, and then begins directly behind one. A read or a write of one byte too many ends the process with a signal, which
//! rans-core's test of the same name proves.
//!
//! The default run takes all lengths up to [`LONGEST`] steps, each with one number of lanes. All of them with all:
//!
//!     cargo test -p prefix-core --test guarded -- --include-ignored
#![cfg(all(unix, not(miri)))] // Miri knows the bounds of every allocation
#![allow(clippy::unwrap_used)]

#[path = "../../rans-core/tests/guarded/pages.rs"]
mod pages;

use pages::{Edge, Room};
use prefix_core::{
    Blocks, DecodeTable, EncodeTable, Error, InstructionSet, Isa, LANES, Lengths, decode_with, encode,
    max_len,
};

/// Steps of the longest streams.
const LONGEST: usize = 2048;
/// Symbols of the longest stream.
const MOST: usize = LANES * LONGEST;
/// Fills what a decoder has to write.
const UNTOUCHED: u8 = 0xee;

/// A generator with a seed of its own for each test.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// A code and symbols that it has.
struct Source {
    lengths: Lengths,
    encode: EncodeTable,
    decode: DecodeTable,
    symbols: Vec<u8>,
}

impl Source {
    /// Alphabets of 1 to 256 symbols, from flat to nearly constant: a symbol is the smallest of `skew` uniform draws. Codes
    /// have 0 to 12 bits.
    fn all(random: &mut Random) -> Vec<Self> {
        let one = |(alphabet, skew): (usize, usize)| {
            let mut draw = || (0..skew).map(|_| random.below(alphabet)).min().unwrap() as u8;
            let symbols: Vec<u8> = (0..2 * MOST).map(|_| draw()).collect();
            let mut counts = [0; 256];
            symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
            let lengths = Lengths::from_counts(&counts).unwrap();
            let (encode, decode) = (EncodeTable::new(&lengths), DecodeTable::new(&lengths));
            Self { lengths, encode, decode, symbols }
        };
        [(1, 1), (2, 1), (2, 12), (9, 3), (16, 4), (40, 9), (256, 1), (256, 3), (256, 40)].map(one).into()
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
    stream: Room,
    out: Room,
    table: Room,
}

impl Rooms {
    fn new(edge: Edge) -> Self {
        let most = 2 * MOST + 4096;
        let (symbols, out, table) = (Room::new(MOST), Room::new(MOST), Room::new(size_of::<DecodeTable>()));
        Self { edge, symbols, coded: Room::new(most), stream: Room::new(most), out, table }
    }

    /// Codes symbols, which gives the stream; again into just as much room, which is enough.
    fn encode(&mut self, table: &EncodeTable, blocks: &Blocks, symbols: &[u8]) -> usize {
        let symbols = self.symbols.copy(self.edge, symbols);
        let coded = self.coded.bytes(self.edge, max_len(blocks));
        let len = encode(table, blocks, symbols, coded).unwrap();
        self.stream.copy(self.edge, &coded[..len]);
        if symbols.len() < 4096 {
            let tight = self.coded.bytes(self.edge, len);
            assert_eq!(encode(table, blocks, symbols, tight), Ok(len));
            assert!(*tight == *self.stream.bytes(self.edge, len), "{blocks:?}");
        }
        len
    }

    /// Decodes the stream of `len` bytes.
    fn decode(&mut self, isa: Isa, table: &DecodeTable, blocks: &Blocks, len: usize) -> Result<&[u8], Error> {
        let stream = self.stream.bytes(self.edge, len);
        let out = self.out.bytes(self.edge, blocks.symbols());
        out.fill(UNTOUCHED);
        decode_with(isa, self.table.value(self.edge, table), blocks, stream, out)?;
        Ok(out)
    }
}

/// A shape of so many steps, some or all of which have `width` lanes: one block, or bands of several.
fn shape(length: usize, width: usize, random: &mut Random) -> Blocks {
    match random.below(2) {
        0 => Blocks::new(width, 0, 0, length),
        _ => {
            let (wide, pairs) = (random.below(4).min(length - 1), 1 + random.below(length.min(9)));
            let height = length / (wide + 1);
            Blocks::new(wide * LANES + width, height / pairs, pairs, height % pairs)
        }
    }
    .unwrap()
}

/// All lengths, each with one number of lanes or with all.
fn sweep(edge: Edge, all: bool) {
    let mut random = Random(edge as u64 + 1);
    let sources = Source::all(&mut random);
    let mut rooms = Rooms::new(edge);
    let (mut pairs, mut count) = (0, 0);
    for length in 1..=LONGEST {
        let widths = if all { 1..=LANES } else { (1 + length % LANES)..=(1 + length % LANES) };
        for width in widths {
            let source = &sources[random.below(sources.len())];
            let blocks = shape(length, width, &mut random);
            let symbols = source.some(blocks.symbols(), &mut random);
            let len = rooms.encode(&source.encode, &blocks, symbols);
            // what has no vectors is the slowest by far, and safe by its language
            let few = |lot: &mut Random| length < 64 || lot.below(32) == 0;
            for isa in Isa::all().filter(|&isa| isa != Isa::SCALAR || few(&mut random)) {
                let found = rooms.decode(isa, &source.decode, &blocks, len);
                assert!(found == Ok(symbols), "{isa:?} {blocks:?} {:?}", source.lengths);
            }
            (pairs, count) = (pairs + 1, count + blocks.symbols());
        }
    }
    println!("{pairs} pairs of steps and lanes at the {edge:?} of their buffers, {count} symbols");
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
#[ignore = "all 65,536 pairs of lengths and lanes: a minute"]
fn all_streams_before_a_forbidden_page() {
    sweep(Edge::End, true);
}

#[test]
#[ignore = "all 65,536 pairs of lengths and lanes: a minute"]
fn all_streams_behind_a_forbidden_page() {
    sweep(Edge::Start, true);
}

/// Streams that end anywhere, and noise.
#[test]
fn hostile_streams() {
    for edge in Edge::ALL {
        let mut random = Random(edge as u64 + 11);
        let sources = Source::all(&mut random);
        let mut rooms = Rooms::new(edge);
        let mut agree = |source: &Source, blocks: &Blocks, stream: &[u8]| {
            rooms.stream.copy(edge, stream);
            let expected =
                rooms.decode(Isa::SCALAR, &source.decode, blocks, stream.len()).map(<[u8]>::to_vec);
            for isa in Isa::all().filter(|&isa| isa != Isa::SCALAR) {
                let found = rooms.decode(isa, &source.decode, blocks, stream.len());
                assert!(found == expected.as_deref().map_err(|&e| e), "{isa:?} {blocks:?} {found:?}");
            }
        };
        for width in 1..=LANES {
            for length in [1, 2, 3, 7, 20, 21 + random.below(60)] {
                let source = &sources[random.below(sources.len())];
                let blocks = shape(length, width, &mut random);
                let symbols = source.some(blocks.symbols(), &mut random);
                let mut stream = vec![0; max_len(&blocks)];
                let len = encode(&source.encode, &blocks, symbols, &mut stream).unwrap();
                stream.truncate(len);
                (0..len).for_each(|cut| agree(source, &blocks, &stream[..cut]));
                for more in [1, 4, 64, 128, 132] {
                    agree(source, &blocks, &[&stream[..], &random.bytes(more)].concat());
                }
                for _ in 0..20 {
                    let words = random.below(len / 4 + 80);
                    let mut noise = random.bytes(4 * words);
                    if random.below(4) > 0 {
                        noise.iter_mut().step_by(4).take(LANES).for_each(|b| *b &= !3); // the lead
                    }
                    agree(source, &blocks, &noise);
                }
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

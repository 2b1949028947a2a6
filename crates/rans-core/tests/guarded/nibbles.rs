//! The `nibble` codec.

use rans_core::nibble::{
    DecodeTable, Decoder, EncodeTable, Frequencies, GROUP, MAX_LANES, Strips, decode_with, encode_with,
    max_len,
};
use rans_core::{Error, Isa};

use crate::cases::{Random, SHAPES, frequencies, symbols};
use crate::pages::{Edge, Room};
use crate::{LONGEST, UNTOUCHED, lengths};

/// Symbols of each kind of frequencies, as many as any stream has.
struct Source {
    freqs: Frequencies,
    encode: EncodeTable,
    decode: DecodeTable,
    symbols: Vec<u8>,
}

impl Source {
    fn new(shape: usize, symbols_of: usize, random: &mut Random) -> Self {
        let freqs = frequencies(shape, random);
        // as many again as the longest slice of them, so that slices differ
        let symbols = symbols(&freqs, 2 * symbols_of, random);
        Self { encode: EncodeTable::new(&freqs), decode: DecodeTable::new(&freqs), freqs, symbols }
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
    fn new(edge: Edge, most: usize) -> Self {
        let room = Room::new;
        let coded = most + 2 * MAX_LANES + 4096;
        let (symbols, coded, stream, out) = (room(most), room(coded), room(coded), room(2 * most));
        Self { edge, symbols, coded, stream, out, table: room(size_of::<DecodeTable>()) }
    }

    /// Codes symbols, which gives the stream, in a buffer that is as large as may be needed, or just as large as the stream.
    fn encode(&mut self, isa: Isa, table: &EncodeTable, strips: &Strips, symbols: &[u8]) -> usize {
        let symbols = self.symbols.copy(self.edge, symbols);
        let coded = self.coded.bytes(self.edge, max_len(strips));
        let len = encode_with(isa, table, strips, symbols, coded).unwrap();
        self.stream.copy(self.edge, &coded[..len]);
        len
    }

    fn encode_tightly(&mut self, isa: Isa, table: &EncodeTable, strips: &Strips, symbols: &[u8], len: usize) {
        let symbols = self.symbols.copy(self.edge, symbols);
        let coded = self.coded.bytes(self.edge, len);
        assert_eq!(encode_with(isa, table, strips, symbols, coded), Ok(len), "{isa:?} {strips:?}");
        assert!(*coded == *self.stream.bytes(self.edge, len), "{isa:?} {strips:?}");
        if len > 0 {
            let short = encode_with(isa, table, strips, symbols, self.coded.bytes(self.edge, len - 1));
            assert!(matches!(short, Err(Error::BufferTooSmall { .. })), "{isa:?} {strips:?} {short:?}");
        }
    }

    /// Decodes the whole stream of `len` bytes.
    fn whole(&mut self, isa: Isa, table: &DecodeTable, strips: &Strips, len: usize) -> Result<&[u8], Error> {
        let stream = self.stream.bytes(self.edge, len);
        let out = self.out.bytes(self.edge, strips.symbols());
        out.fill(UNTOUCHED);
        decode_with(isa, self.table.value(self.edge, table), strips, stream, out)?;
        Ok(out)
    }

    /// Decodes a few steps at a time into just as much room, and compares with the symbols.
    fn pieces(
        &mut self,
        isa: Isa,
        table: &DecodeTable,
        strips: &Strips,
        symbols: &[u8],
        len: usize,
        random: &mut Random,
    ) {
        let stream = self.stream.bytes(self.edge, len);
        let mut decoder = Decoder::new(isa, self.table.value(self.edge, table), *strips, stream).unwrap();
        while decoder.step() < strips.steps() {
            let first = decoder.step() * GROUP;
            let steps = (1 + random.below(40)).min(strips.steps() - decoder.step());
            let pitch = steps * GROUP + random.below(70);
            // the symbols of each strip in these steps
            let parts = symbols.chunks(strips.strip()).map(|strip| {
                let strip = &strip[first.min(strip.len())..];
                &strip[..strip.len().min(steps * GROUP)]
            });
            let needed = parts.clone().enumerate().filter(|(_, part)| !part.is_empty());
            let needed = needed.map(|(group, part)| group * pitch + part.len()).max().unwrap_or(0);
            let out = self.out.bytes(self.edge, needed);
            out.fill(UNTOUCHED);
            decoder.advance(steps, out, pitch).unwrap();
            for (group, part) in parts.enumerate().filter(|(_, part)| !part.is_empty()) {
                let (found, rest) = out[group * pitch..].split_at(part.len());
                assert!(found == part, "{isa:?} {strips:?} in pieces");
                let behind = rest.len().min(pitch - part.len());
                assert!(rest[..behind].iter().all(|&b| b == UNTOUCHED), "{isa:?} {strips:?} in pieces");
            }
        }
        decoder.finish().unwrap();
    }
}

/// A layout whose longest strip takes these steps: whole ones, a ragged last one, or rows that leave the last strips short.
fn layout(lanes: usize, steps: usize, random: &mut Random) -> Strips {
    let groups = lanes / GROUP;
    match random.below(3) {
        0 => Strips::flat(lanes, lanes * steps),
        1 => Strips::flat(lanes, lanes * (steps - 1) + 1 + random.below(lanes)),
        _ => {
            let strip = GROUP * (steps - 1) + 1 + random.below(GROUP);
            Strips::new(lanes, strip, strip + random.below(strip * (groups - 1) + 1))
        }
    }
    .unwrap()
}

/// All lane counts with these lengths, at one edge.
fn sweep(edge: Edge, all: bool) {
    let mut random = Random::new(21 + edge as u64);
    let most = MAX_LANES * LONGEST;
    let sources: Vec<_> = (0..SHAPES).map(|shape| Source::new(shape, most, &mut random)).collect();
    let mut rooms = Rooms::new(edge, most);
    let (mut pairs, mut count) = (0, 0);
    for lanes in (GROUP..=MAX_LANES).step_by(GROUP) {
        for steps in lengths(all, &mut random) {
            let source = &sources[random.below(SHAPES)];
            let strips = layout(lanes, steps, &mut random);
            assert_eq!(strips.steps(), steps);
            let symbols = &source.symbols[random.below(most)..][..strips.symbols()];
            let len = rooms.encode(Isa::best(), &source.encode, &strips, symbols);
            // what has no vectors is the slowest by far, and safe by its language
            let few = |lot: &mut Random| steps * lanes < 4096 || lot.below(32) == 0;
            for isa in Isa::all().filter(|&isa| isa != Isa::SCALAR || few(&mut random)) {
                let found = rooms.whole(isa, &source.decode, &strips, len);
                assert!(found == Ok(symbols), "{isa:?} {strips:?} {:?}", source.freqs);
            }
            let own_way = |_: &Isa| few(&mut random);
            for isa in Isa::all().filter(own_way).collect::<Vec<_>>() {
                rooms.pieces(isa, &source.decode, &strips, symbols, len, &mut random);
                rooms.encode_tightly(isa, &source.encode, &strips, symbols, len);
            }
            (pairs, count) = (pairs + 1, count + strips.symbols());
        }
    }
    println!("{pairs} pairs of lanes and steps at the {edge:?} of their buffers, {count} symbols");
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
#[ignore = "all 32,768 pairs of lanes and lengths: minutes"]
fn all_streams_before_a_forbidden_page() {
    sweep(Edge::End, true);
}

#[test]
#[ignore = "all 32,768 pairs of lanes and lengths: minutes"]
fn all_streams_behind_a_forbidden_page() {
    sweep(Edge::Start, true);
}

/// All instruction sets say the same of a stream, whatever it is.
fn agree(rooms: &mut Rooms, table: &DecodeTable, strips: &Strips, stream: &[u8]) {
    rooms.stream.copy(rooms.edge, stream);
    let expected = rooms.whole(Isa::SCALAR, table, strips, stream.len()).map(<[u8]>::to_vec);
    for isa in Isa::all().filter(|&isa| isa != Isa::SCALAR) {
        let found = rooms.whole(isa, table, strips, stream.len());
        assert!(found == expected.as_deref().map_err(|&e| e), "{isa:?} {strips:?} {found:?}");
    }
}

/// Streams that end anywhere, and noise.
#[test]
fn hostile_streams() {
    let mut random = Random::new(31);
    for edge in Edge::ALL {
        let mut rooms = Rooms::new(edge, MAX_LANES * 70);
        for lanes in (GROUP..=MAX_LANES).step_by(GROUP) {
            for round in 0..6 {
                let steps = [1, 2, 3, 4, 7, 5 + random.below(60)][round];
                let strips = layout(lanes, steps, &mut random);
                let source = Source::new(random.below(SHAPES), strips.symbols(), &mut random);
                let symbols = &source.symbols[..strips.symbols()];
                let len = rooms.encode(Isa::best(), &source.encode, &strips, symbols);
                let stream = rooms.stream.bytes(edge, len).to_vec();
                // every cut of a small stream, and of others those in the last steps before they would be read
                let every = if len < 600 { 1 } else { 1 + len / 100 };
                let near = (len.saturating_sub(100)..len).step_by(3);
                for cut in (0..len).step_by(every).chain(near) {
                    agree(&mut rooms, &source.decode, &strips, &stream[..cut]);
                }
                for more in [1, 63, 64, 65, lanes] {
                    let longer = [&stream[..], &random.bytes(more)].concat();
                    agree(&mut rooms, &source.decode, &strips, &longer);
                }
                for _ in 0..20 {
                    let len = random.below(2 * lanes + strips.symbols() + 1);
                    let mut noise = random.bytes(len);
                    if random.below(4) > 0 {
                        noise.iter_mut().take(2 * lanes).for_each(|b| *b |= 1); // no state is below its bound
                    }
                    agree(&mut rooms, &source.decode, &strips, &noise);
                }
            }
        }
    }
}

//! Arguments that fit nothing, and decoders in use after an error: results or errors, never a panic.

use rans_core::nibble::{DecodeTable, Decoder, EncodeTable, Frequencies, Strips, encode, max_len};
use rans_core::{Error, Isa};

use crate::{EVERY, Random, SHAPES, frequencies, symbols};

/// What a call returned, and what it wrote.
type Answer = (Result<(), Error>, Box<[u8]>);

/// A stream: sound, cut short, with bytes behind it, or noise.
fn stream(freqs: &Frequencies, strips: &Strips, random: &mut Random) -> Box<[u8]> {
    let symbols = symbols(freqs, strips.symbols(), random);
    let mut coded = vec![0; max_len(strips)];
    let len = encode(&EncodeTable::new(freqs), strips, &symbols, &mut coded).unwrap();
    coded.truncate(len);
    match random.below(8) {
        0 if len > 0 => coded.truncate(random.below(len)),
        1 if len > 2 * strips.lanes() => {
            coded.truncate(2 * strips.lanes() + random.below(len - 2 * strips.lanes()))
        }
        2 => coded.extend(random.bytes(100)),
        3 if len > 0 => coded = random.bytes(len).into_iter().map(|b| b | 1).collect(),
        _ => {}
    }
    coded.into() // nothing behind it, for those who watch reads
}

#[test]
fn any_steps_pitch_and_room() {
    let mut random = Random::new(11);
    for _ in 0..4000 / EVERY {
        let lanes = 64 * (1 + random.below(16));
        let strip = [0, 1, 63, 64, 65, 129, 640, 1000][random.below(8)];
        let strips = Strips::new(lanes, strip, random.below(strip * lanes / 64 + 1)).unwrap();
        let freqs = frequencies(random.below(SHAPES), &mut random);
        let (table, bytes) = (DecodeTable::new(&freqs), stream(&freqs, &strips, &mut random));
        // steps, distance of strips, room
        let calls: Vec<_> = (0..12)
            .map(|_| {
                let steps = [0, 1, 2, 3, 11, strips.steps(), usize::MAX][random.below(7)];
                let pitch = [0, 1, 63, 64, 65, 700, 1 << 60, usize::MAX / 15, usize::MAX - 63, usize::MAX];
                let room = [0, 1, 64, 65, random.below(20_000), 20_000, 20_000];
                (steps, pitch[random.below(10)], room[random.below(7)])
            })
            .collect();
        let run = |isa| -> Vec<Answer> {
            let Ok(mut decoder) = Decoder::new(isa, &table, strips, &bytes) else { return Vec::new() };
            let mut all = Vec::new();
            for &(steps, pitch, room) in &calls {
                let mut out = vec![0xee; room].into_boxed_slice();
                let result = decoder.advance(steps, &mut out, pitch);
                all.push((result, out));
            }
            all.push((decoder.finish(), Box::default()));
            all
        };
        let expected = run(Isa::SCALAR);
        // a stream that ends early leaves all behind it unspecified
        let sound = |all: &[Answer]| {
            all.iter().position(|a| matches!(a.0, Err(Error::Truncated { .. }))).unwrap_or(all.len())
        };
        for isa in Isa::all() {
            let found = run(isa);
            let until = sound(&expected);
            assert_eq!(sound(&found), until, "{isa:?} {strips:?}");
            assert!(found[..until] == expected[..until], "{isa:?} {strips:?} {calls:?}");
        }
    }
}

#[test]
fn layouts_beyond_all_memory() {
    let mut random = Random::new(12);
    let single = DecodeTable::new(&frequencies(4, &mut random));
    let other = DecodeTable::new(&frequencies(8, &mut random));
    for isa in Isa::all() {
        for lanes in [64, 128, 1024] {
            for symbols in [usize::MAX, usize::MAX - 1, usize::MAX - 63, usize::MAX - 64, usize::MAX / 2] {
                for strip in [usize::MAX, symbols.div_ceil(lanes / 64)] {
                    let strips = Strips::new(lanes, strip, symbols).unwrap();
                    for (table, bytes) in [(&single, vec![]), (&other, random.bytes(3 * lanes))] {
                        let bytes: Vec<u8> = bytes.into_iter().map(|b| b | 1).collect();
                        let mut decoder = Decoder::new(isa, table, strips, &bytes).unwrap();
                        for pitch in [0, 64, 128, usize::MAX - 63, usize::MAX] {
                            let mut out = [0; 1000];
                            let all = decoder.advance(strips.steps(), &mut out, pitch);
                            assert!(matches!(all, Err(Error::Layout { .. })), "{isa:?} {strips:?} {all:?}");
                            let _ = decoder.advance(2, &mut out, pitch);
                        }
                    }
                }
            }
        }
    }
}

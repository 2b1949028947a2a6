//! The `nibble` codec.

use rans_core::nibble::{
    DecodeTable, Decoder, EncodeTable, Frequencies, GROUP, Strips, decode_with, encode_with, max_len,
};
use rans_core::{Error, Isa};

use crate::{EVERY, Random, SHAPES, damaged, fast, frequencies, symbols};

/// Fills what a decoder must not touch.
const UNTOUCHED: u8 = 0xee;

fn whole(isa: Isa, table: &DecodeTable, strips: &Strips, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = vec![UNTOUCHED; strips.symbols()];
    decode_with(isa, table, strips, bytes, &mut out).map(|()| out)
}

/// Decodes a few steps at a time, the strips far apart.
fn pieces(
    isa: Isa,
    table: &DecodeTable,
    strips: &Strips,
    bytes: &[u8],
    random: &mut Random,
) -> Result<Vec<u8>, Error> {
    let mut symbols = vec![UNTOUCHED; strips.symbols()];
    let mut decoder = Decoder::new(isa, table, *strips, bytes)?;
    while decoder.step() < strips.steps() {
        let first = decoder.step();
        let steps = (1 + random.below(7)).min(strips.steps() - first);
        let pitch = steps * GROUP + random.below(70);
        let mut piece = vec![UNTOUCHED; strips.lanes() / GROUP * pitch];
        decoder.advance(steps, &mut piece, pitch)?;
        for (strip, piece) in symbols.chunks_mut(strips.strip().max(1)).zip(piece.chunks(pitch)) {
            let start = (first * GROUP).min(strip.len());
            let len = (strip.len() - start).min(steps * GROUP);
            strip[start..][..len].copy_from_slice(&piece[..len]);
            assert!(piece[len..].iter().all(|&b| b == UNTOUCHED), "{isa:?} writes behind its symbols");
        }
    }
    decoder.finish().map(|()| symbols)
}

/// All instruction sets say the same; returns what.
fn agreed(table: &DecodeTable, strips: &Strips, bytes: &[u8], random: &mut Random) -> Result<Vec<u8>, Error> {
    let bytes = bytes.to_vec().into_boxed_slice(); // nothing behind it, for those who watch reads
    let expected = whole(Isa::SCALAR, table, strips, &bytes);
    assert_eq!(pieces(Isa::SCALAR, table, strips, &bytes, random), expected, "scalar in pieces: {strips:?}");
    for isa in fast() {
        assert!(whole(isa, table, strips, &bytes) == expected, "{isa:?}: {strips:?}");
        assert!(pieces(isa, table, strips, &bytes, random) == expected, "{isa:?} in pieces: {strips:?}");
    }
    expected
}

/// What an encoder makes of these symbols in a buffer of this size.
fn code(
    isa: Isa,
    freqs: &Frequencies,
    strips: &Strips,
    symbols: &[u8],
    size: usize,
) -> Result<Vec<u8>, Error> {
    let mut out = vec![0; size];
    let len = encode_with(isa, &EncodeTable::new(freqs), strips, symbols, &mut out)?;
    out.truncate(len);
    Ok(out)
}

/// The stream, on which all encoders agree.
fn coded(freqs: &Frequencies, strips: &Strips, symbols: &[u8]) -> Vec<u8> {
    let stream = code(Isa::SCALAR, freqs, strips, symbols, max_len(strips)).unwrap();
    for isa in fast() {
        assert!(
            code(isa, freqs, strips, symbols, max_len(strips)).as_ref() == Ok(&stream),
            "{isa:?} {strips:?}"
        );
    }
    stream
}

/// Layouts of this many lanes: empty, a few symbols a lane, ends at every place, strips of a tile whose last are short.
fn layouts(lanes: usize, random: &mut Random) -> Vec<Strips> {
    let groups = lanes / GROUP;
    let flat = [0, 1, GROUP - 1, lanes, 2 * lanes, 2 * lanes + 1, 3 * lanes, 3 * lanes + 65, 9 * lanes - 1];
    let mut all: Vec<_> = flat.into_iter().map(|n| Strips::flat(lanes, n).unwrap()).collect();
    for strip in [1, 63, 64, 65, 128, 129, 192, 640, 801, 1000] {
        let full = strip * groups;
        for symbols in [full, full - 1, full - random.below(strip), random.below(full + 1)] {
            all.push(Strips::new(lanes, strip, symbols).unwrap());
        }
    }
    // fewer rows than groups
    all.push(Strips::new(lanes, 896, 896 * groups.div_ceil(2)).unwrap());
    all
}

#[test]
fn all_layouts_and_frequencies() {
    let mut random = Random::new(1);
    for lanes in (GROUP..=1024).step_by(GROUP * EVERY) {
        for (i, strips) in layouts(lanes, &mut random).into_iter().enumerate().step_by(EVERY) {
            let freqs = frequencies(i % SHAPES, &mut random);
            let symbols = symbols(&freqs, strips.symbols(), &mut random);
            let stream = coded(&freqs, &strips, &symbols);
            let decoded = agreed(&DecodeTable::new(&freqs), &strips, &stream, &mut random);
            assert!(decoded == Ok(symbols), "{strips:?} {freqs:?}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes hours")]
fn all_states_of_all_slots() {
    // one step from every state there is, which is also one refill from every state below the bound
    let mut random = Random::new(2);
    let strips = Strips::flat(1024, 3 * 1024).unwrap();
    for shape in (0..SHAPES).chain([8; 8]) {
        let freqs = frequencies(shape, &mut random);
        let table = DecodeTable::new(&freqs);
        for first in (256..=u16::MAX).step_by(1024) {
            let states = (0..1024).flat_map(|i| first.saturating_add(i).to_le_bytes());
            let stream: Vec<u8> = states.chain(random.bytes(1024)).collect();
            for isa in fast() {
                let advance = |isa| {
                    let mut out = vec![0; 3 * 1024];
                    let mut decoder = Decoder::new(isa, &table, strips, &stream)?;
                    decoder.advance(3, &mut out, 3 * GROUP).map(|()| out) // the last two show the states
                };
                assert!(advance(isa) == advance(Isa::SCALAR), "{isa:?} {first} {freqs:?}");
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes hours")]
fn damaged_streams() {
    let mut random = Random::new(3);
    for shape in (0..SHAPES).filter(|&shape| shape != 4) {
        for (lanes, strip, n, each) in [
            (64, 300, 300, true),
            (128, 260, 491, true),
            (512, 700, 4700, false),
            (1024, 1300, 20_000, false),
        ] {
            let strips = Strips::new(lanes, strip, n).unwrap();
            let freqs = frequencies(shape, &mut random);
            let stream = coded(&freqs, &strips, &symbols(&freqs, n, &mut random));
            let table = DecodeTable::new(&freqs);
            let mut outer = Random::new(shape as u64);
            damaged(&stream, 2 * lanes, each, &mut random, |bad| {
                let _ = agreed(&table, &strips, bad, &mut outer);
            });
            assert!(matches!(
                agreed(&table, &strips, &stream[..2 * lanes - 1], &mut outer),
                Err(Error::Truncated { .. })
            ));
        }
    }
}

#[test]
fn a_single_symbol_needs_no_stream() {
    let mut random = Random::new(4);
    let table = DecodeTable::new(&frequencies(4, &mut random));
    let strips = Strips::new(192, 333, 900).unwrap();
    assert!(agreed(&table, &strips, &[], &mut random).is_ok());
    assert_eq!(agreed(&table, &strips, &[7; 9], &mut random), Err(Error::TrailingBytes { left: 9 }));
}

#[test]
fn encoders_refuse_alike() {
    let mut random = Random::new(5);
    let strips = Strips::new(192, 500, 1333).unwrap();
    let freqs = frequencies(6, &mut random); // two symbols
    let symbols = symbols(&freqs, strips.symbols(), &mut random);
    let stream = coded(&freqs, &strips, &symbols);
    for isa in Isa::all() {
        for size in (0..stream.len() + 200).step_by(7).chain([stream.len() - 1, stream.len()]) {
            let expected = if size < stream.len() {
                Err(Error::BufferTooSmall { needed: max_len(&strips), given: size })
            } else {
                Ok(stream.clone())
            };
            assert!(code(isa, &freqs, &strips, &symbols, size) == expected, "{isa:?} {size}");
        }
        for _ in 0..300 {
            let position = random.below(symbols.len());
            let mut bad = symbols.clone();
            let strange = random.next() as u8;
            if freqs.as_array().get(usize::from(strange)).is_none_or(|&f| f == 0) {
                bad[position] = strange;
                let expected = Error::SymbolWithoutFrequency { position, symbol: strange };
                assert_eq!(code(isa, &freqs, &strips, &bad, max_len(&strips)), Err(expected), "{isa:?}");
            }
        }
    }
}

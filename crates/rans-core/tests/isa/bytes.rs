//! The `byte` codec.

use rans_core::byte::{
    DecodeTable, EncodeTable, Frequencies, Job, LANES, Steps, decode_many, decode_with, encode, max_len,
};
use rans_core::{Error, Isa};

use crate::{EVERY, Random, SHAPES, damaged, fast, frequencies, symbols};

/// The start states.
const HEAD: usize = 4 * LANES;

fn alone(isa: Isa, table: &DecodeTable, steps: &Steps, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = vec![0xee; steps.symbols()];
    decode_with(isa, table, steps, bytes, &mut out).map(|()| out)
}

/// All instruction sets say the same; returns what.
fn agreed(table: &DecodeTable, steps: &Steps, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let bytes = bytes.to_vec().into_boxed_slice(); // nothing behind it, for those who watch reads
    let expected = alone(Isa::SCALAR, table, steps, &bytes);
    for isa in fast() {
        assert!(alone(isa, table, steps, &bytes) == expected, "{isa:?}: {steps:?}");
    }
    expected
}

fn coded(freqs: &Frequencies, steps: &Steps, symbols: &[u8]) -> Box<[u8]> {
    let mut out = vec![0; max_len(symbols.len())];
    let len = encode(&EncodeTable::new(freqs), steps, symbols, &mut out).unwrap();
    out.truncate(len);
    out.into_boxed_slice()
}

/// Shapes from empty to long, with every width.
fn shape(i: usize, random: &mut Random) -> Steps {
    let full = [0, 1, 2, 3, 4, 7, 40, 200][i % 8];
    match random.below(3) {
        0 => Steps::new(full, random.below(6), i % LANES),
        _ => Steps::banded(random.below(4) * LANES + i % LANES, full / 7 + i % 3, 1 + i % 4, 1 + i % 3),
    }
    .unwrap()
}

#[test]
fn all_shapes_and_frequencies() {
    let mut random = Random::new(5);
    for i in (0..8 * LANES).step_by(EVERY * EVERY) {
        let steps = shape(i, &mut random);
        for kind in (0..SHAPES).step_by(EVERY) {
            let freqs = frequencies(kind, &mut random);
            let symbols = symbols(&freqs, steps.symbols(), &mut random);
            let stream = coded(&freqs, &steps, &symbols);
            assert!(agreed(&DecodeTable::new(&freqs), &steps, &stream) == Ok(symbols), "{steps:?} {freqs:?}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes hours")]
fn damaged_streams() {
    let mut random = Random::new(6);
    for kind in 0..SHAPES {
        for (steps, each) in [
            (Steps::flat(300), true),
            (Steps::new(12, 3, 20).unwrap(), true),
            (Steps::flat(1), true),
            (Steps::banded(40, 3, 4, 1).unwrap(), true),
            (Steps::flat(9000), false),
        ] {
            let freqs = frequencies(kind, &mut random);
            let stream = coded(&freqs, &steps, &symbols(&freqs, steps.symbols(), &mut random));
            let table = DecodeTable::new(&freqs);
            damaged(&stream, HEAD, each, &mut random, |bad| {
                let _ = agreed(&table, &steps, bad);
            });
            let short = agreed(&table, &steps, &stream[..stream.len() - 1]);
            assert!(matches!(short, Err(Error::Truncated { .. })), "{short:?}");
        }
    }
}

/// A job of any size: a whole stream, or one that is cut, changed, or for another shape.
fn any_stream(freqs: &Frequencies, i: usize, random: &mut Random) -> (Steps, Box<[u8]>) {
    let steps = shape(random.below(8 * LANES), random);
    let stream = coded(freqs, &steps, &symbols(freqs, steps.symbols(), random));
    let at = random.below(stream.len());
    match i % 7 {
        0 => (steps, stream[..at].into()),
        1 => {
            let mut bad = stream;
            bad[at] ^= 0x55;
            (steps, bad)
        }
        2 => (shape(i, random), stream),
        _ => (steps, stream),
    }
}

#[test]
fn streams_side_by_side() {
    let mut random = Random::new(7);
    for round in if cfg!(miri) { 7..8 } else { 0..40 } {
        let freqs = frequencies(round % SHAPES, &mut random);
        let table = DecodeTable::new(&freqs);
        let streams: Vec<_> = (0..round).map(|i| any_stream(&freqs, i, &mut random)).collect();
        for isa in Isa::all() {
            let mut outs: Vec<_> = streams.iter().map(|(steps, _)| vec![0xee; steps.symbols()]).collect();
            let pairs = streams.iter().zip(&mut outs);
            let mut jobs: Vec<_> = pairs.map(|((steps, bytes), out)| Job::new(*steps, bytes, out)).collect();
            decode_many(isa, &table, &mut jobs);
            let results: Vec<_> = jobs.iter().map(Job::result).collect();
            for (((steps, bytes), out), result) in streams.iter().zip(outs).zip(results) {
                let expected = alone(Isa::SCALAR, &table, steps, bytes);
                assert!(result.map(|()| out) == expected, "{isa:?} {steps:?}: {result:?}");
            }
        }
    }
}

#[test]
fn a_job_with_too_little_room_is_an_error_of_its_own() {
    let mut random = Random::new(8);
    let freqs = frequencies(8, &mut random);
    let steps = Steps::flat(500);
    let symbols = symbols(&freqs, 500, &mut random);
    let stream = coded(&freqs, &steps, &symbols);
    for isa in Isa::all() {
        let (mut long, mut short) = (vec![0; 500], vec![0; 499]);
        let mut jobs = [Job::new(steps, &stream, &mut short), Job::new(steps, &stream, &mut long)];
        decode_many(isa, &DecodeTable::new(&freqs), &mut jobs);
        assert_eq!(jobs[0].result(), Err(Error::Layout { holds: 500, given: 499 }));
        assert_eq!(jobs[1].result(), Ok(()));
        assert!(long == symbols);
    }
}

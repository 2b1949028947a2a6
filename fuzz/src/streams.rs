//! Both codecs between symbols and bytes: what is coded comes back on every instruction set, and of damaged streams all
//! instruction sets say the same.

use std::fmt::Debug;

use arbitrary::{Result, Unstructured};
use prefix_core::{Blocks, Lengths};
use rans_core::{Isa, byte, nibble};

/// Most rows and columns of a block. Vector paths have several steps and an end in less.
const MOST: usize = 160;

/// A stream of one of the codecs.
pub fn streams(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    // too few bytes for all choices: nothing to do
    let _ = match u.arbitrary::<u8>().map(|codec| codec % 4) {
        Ok(0) => nibbles(&mut u),
        Ok(1) => pairs(&mut u),
        Ok(2) => contexts(&mut u),
        Ok(_) => prefixes(&mut u),
        Err(_) => Ok(()),
    };
}

/// Counts of `N` symbols, one of which occurs.
fn counts<const N: usize>(u: &mut Unstructured<'_>) -> Result<[u64; N]> {
    let mut counts = [0; N];
    for _ in 0..u.int_in_range(1..=24)? {
        counts[u.choose_index(N)?] = 1 << u.int_in_range(0..=20)?;
    }
    Ok(counts)
}

/// So many symbols, each with a count: what is left of the input, again and again.
fn symbols<const N: usize>(u: &mut Unstructured<'_>, counts: &[u64; N], len: usize) -> Result<Vec<u8>> {
    let known: Vec<u8> = (0..N).filter(|&s| counts[s] > 0).map(|s| s as u8).collect();
    let some = u.bytes(u.len().min(len) / 2)?;
    let mut draw = some.iter().fold(1u32, |sum, &b| sum.wrapping_mul(0x0100_0193) ^ u32::from(b));
    let mut next = |i: usize| match some.get(i) {
        Some(&byte) => usize::from(byte),
        None => {
            draw = draw.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (draw >> 16) as usize
        }
    };
    Ok((0..len).map(|i| known[next(i) % known.len()]).collect())
}

/// A stream as it is, then damaged.
fn damage(u: &mut Unstructured<'_>, stream: &[u8], mut each: impl FnMut(&[u8], bool)) -> Result<()> {
    each(stream, true);
    let mut damaged = stream.to_vec();
    for _ in 0..u.int_in_range(1..=4)? {
        match u.arbitrary::<u8>()? % 4 {
            0 => damaged.truncate(u.int_in_range(0..=damaged.len())?),
            1 => damaged.extend(u.bytes(u.len().min(7))?),
            2 => damaged.extend([0; 4]),
            _ if damaged.is_empty() => {}
            _ => {
                let at = u.choose_index(damaged.len())?;
                damaged[at] ^= u.arbitrary::<u8>()?;
            }
        }
        // in an allocation of its own, of just its length: what is read beyond it is seen
        each(&damaged.clone().into_boxed_slice(), damaged == stream);
    }
    let noise = u.bytes(u.len())?.to_vec();
    each(&noise, noise == stream);
    Ok(())
}

/// Decodes with all of them: the same symbols, or errors; the symbols that were coded, if nothing was changed.
fn agree<I: Debug, E: Debug>(
    all: impl Iterator<Item = I>,
    expected: Option<&[u8]>,
    len: usize,
    mut decode: impl FnMut(&I, &mut [u8]) -> std::result::Result<(), E>,
) {
    let mut first: Option<Option<Vec<u8>>> = None;
    for isa in all {
        let mut out = vec![0; len].into_boxed_slice();
        let result = decode(&isa, &mut out);
        assert!(expected.is_none() || result.is_ok(), "{isa:?}: {result:?} for what was just coded");
        let found = result.is_ok().then(|| out.to_vec());
        assert!(expected.is_none_or(|expected| found.as_deref() == Some(expected)), "{isa:?}: other symbols");
        let first = first.get_or_insert_with(|| found.clone());
        assert!(*first == found, "{isa:?}: {result:?}, another than the reference");
    }
}

fn nibbles(u: &mut Unstructured<'_>) -> Result<()> {
    let counts = counts::<16>(u)?;
    let made = match u.arbitrary::<bool>()? {
        true => nibble::Frequencies::from_counts(&counts),
        false => nibble::fast_frequencies(&counts),
    };
    let freqs = made.expect("a symbol occurs");
    let lanes = nibble::GROUP * u.int_in_range(1..=16)?;
    let len = u.int_in_range(0..=MOST)? * u.int_in_range(1..=MOST)?;
    let strip = len.div_ceil(lanes / nibble::GROUP) + u.int_in_range(0..=70)?;
    let strips = nibble::Strips::new(lanes, strip, len).expect("strips that hold all");
    let symbols = symbols(u, &counts, len)?;
    let table = nibble::EncodeTable::new(&freqs);
    let mut coded = Isa::all().map(|isa| {
        let mut out = vec![0; nibble::max_len(&strips)];
        let len =
            nibble::encode_with(isa, &table, &strips, &symbols, &mut out).expect("room for all symbols");
        out.truncate(len);
        out
    });
    let stream = coded.next().expect("scalar code is always there");
    coded.for_each(|other| assert!(stream == other, "encoders differ"));
    let table = nibble::DecodeTable::new(&freqs);
    damage(u, &stream, |bytes, same| {
        agree(Isa::all(), same.then_some(&symbols), len, |&isa, out| {
            nibble::decode_with(isa, &table, &strips, bytes, out)
        });
    })
}

fn frequencies(u: &mut Unstructured<'_>) -> Result<([u64; 256], byte::Frequencies)> {
    let counts = counts::<256>(u)?;
    Ok((counts, byte::Frequencies::from_counts(&counts).expect("a symbol occurs")))
}

fn pairs(u: &mut Unstructured<'_>) -> Result<()> {
    let (counts, freqs) = frequencies(u)?;
    let (bands, cols) = (u.int_in_range(0..=6)?, u.int_in_range(1..=MOST)?);
    let steps = match u.arbitrary::<bool>()? {
        true => byte::Steps::flat(cols * bands),
        false => byte::Steps::banded(cols, bands, u.int_in_range(1..=32)?, u.int_in_range(0..=32)?)
            .expect("few symbols"),
    };
    let len = steps.symbols();
    let symbols = symbols(u, &counts, len)?;
    let mut stream = vec![0; byte::max_len(len)];
    let table = byte::EncodeTable::new(&freqs);
    let coded = byte::encode(&table, &steps, &symbols, &mut stream).expect("room for all symbols");
    stream.truncate(coded);
    let table = byte::DecodeTable::new(&freqs);
    damage(u, &stream, |bytes, same| {
        let expected = same.then_some(&symbols[..]);
        agree(Isa::all(), expected, len, |&isa, out| byte::decode_with(isa, &table, &steps, bytes, out));
        // beside a stream in order, which must not mind
        agree(Isa::all(), expected, len, |&isa, out| {
            let mut beside = [vec![0; len], vec![0; len]];
            let [before, after] = &mut beside;
            let mut jobs = [
                byte::Job::new(steps, &stream, before),
                byte::Job::new(steps, bytes, out),
                byte::Job::new(steps, &stream, after),
            ];
            byte::decode_many(isa, &table, &mut jobs);
            let [first, result, last] = jobs.map(|job| job.result());
            assert!(first.is_ok() && last.is_ok(), "{isa:?}: {first:?}, {last:?} beside a damaged stream");
            assert!(beside.iter().all(|out| *out == symbols), "{isa:?}: changed by a damaged stream beside");
            result
        });
    })
}

/// A run with one table, then one in which each symbol has its own: side data.
fn contexts(u: &mut Unstructured<'_>) -> Result<()> {
    let (counts, freqs) = frequencies(u)?;
    let payload: [u16; byte::LANES] = u.arbitrary()?;
    let (first, second) = (u.int_in_range(0..=300)?, u.int_in_range(0..=300)?);
    let symbols = symbols(u, &counts, first + second)?;
    let (run, rest) = symbols.split_at(first);
    let contexts = vec![0; second];
    let (tables, table) = ([byte::EncodeTable::new(&freqs)], byte::EncodeTable::new(&freqs));
    let mut stream = vec![0; byte::max_len(symbols.len())];
    let mut encoder = byte::Encoder::new(payload, &mut stream).expect("room for the states");
    // what is decoded first is coded last
    encoder.run_with_contexts(&tables, &contexts, rest).expect("room for all symbols");
    encoder.run(&table, run).expect("room for all symbols");
    let len = encoder.finish();
    stream.truncate(len);
    let tables = [byte::DecodeTable::new(&freqs)];
    damage(u, &stream, |bytes, same| {
        agree(std::iter::once("scalar"), same.then_some(&symbols), symbols.len(), |_, out| {
            let mut decoder = byte::Decoder::new(bytes)?;
            let (run, rest) = out.split_at_mut(first);
            decoder.run(&tables[0], run)?;
            decoder.run_with_contexts(&tables, &contexts, rest)?;
            let found = decoder.finish()?;
            assert!(!same || found == payload, "another payload");
            Ok::<(), rans_core::Error>(())
        });
    })
}

fn prefixes(u: &mut Unstructured<'_>) -> Result<()> {
    let counts = counts::<256>(u)?;
    let lengths = Lengths::from_counts(&counts).expect("a symbol occurs");
    let (bands, cols) = (u.int_in_range(0..=6)?, u.int_in_range(1..=MOST)?);
    let blocks = Blocks::new(cols, bands, u.int_in_range(1..=32)?, u.int_in_range(0..=32)?);
    let blocks = blocks.expect("few symbols");
    let symbols = symbols(u, &counts, blocks.symbols())?;
    let mut stream = vec![0; prefix_core::max_len(&blocks)];
    let table = prefix_core::EncodeTable::new(&lengths);
    let coded = prefix_core::encode(&table, &blocks, &symbols, &mut stream).expect("room for all symbols");
    stream.truncate(coded);
    let table = prefix_core::DecodeTable::new(&lengths);
    damage(u, &stream, |bytes, same| {
        agree(prefix_core::Isa::all(), same.then_some(&symbols), symbols.len(), |&isa, out| {
            prefix_core::decode_with(isa, &table, &blocks, bytes, out)
        });
    })?;
    // tables from a stranger: what is read is written again
    let table = u.bytes(u.len().min(Lengths::BYTES))?;
    if let Ok((lengths, read)) = Lengths::read(table) {
        let mut again = [0; Lengths::BYTES];
        assert_eq!(lengths.write(&mut again), Ok(read));
        assert_eq!(again[..read], table[..read]);
    }
    Ok(())
}

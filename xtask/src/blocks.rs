//! The blocks in `fixtures/rans` and `fixtures/prefix`: one coded stream for each codec of rans-core and for
//! prefix-core, and the symbols it must give.
//!
//! `NAME.bin` is the serialised frequency table (for the prefix code its lengths) and then the stream; `NAME.symbols`
//! is a byte a symbol. The bare-metal firmware and tests of both crates decode them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use prefix_core::{Blocks, Lengths};
use rans_core::{byte, nibble};

/// No multiple of the lane counts, so that the last step is narrow.
const SYMBOLS: usize = 3001;
/// Two groups of 64.
const NIBBLE_LANES: usize = 128;

/// Columns, bands, pairs of rows in each, pairs of rows in the last: narrow blocks, an odd step and a last band.
const PREFIX_SHAPE: [usize; 4] = [45, 16, 4, 3];

/// A file below the fixture folder.
type NamedFile = (&'static str, Vec<u8>);

/// Writes the blocks.
pub fn write(folder: &Path) -> Result<()> {
    for (name, bytes) in files()? {
        let path = folder.join(name);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn files() -> Result<Vec<NamedFile>> {
    let mut random = XorShift(0x2545_f491_4f6c_dd1d);
    let nibbles: Vec<u8> = (0..SYMBOLS).map(|_| random.bell(15)).collect();
    let mut tailed = || match random.next() % 64 {
        0 => random.next() as u8, // a heavy tail
        _ => 112 + random.bell(32),
    };
    let bytes: Vec<u8> = (0..SYMBOLS).map(|_| tailed()).collect();
    let [cols, bands, pairs, last_pairs] = PREFIX_SHAPE;
    let blocks = Blocks::new(cols, bands, pairs, last_pairs)?;
    let pairs: Vec<u8> = (0..blocks.symbols()).map(|_| tailed()).collect();
    Ok(vec![
        ("rans/nibble.bin", nibble_block(&nibbles)?),
        ("rans/nibble.symbols", nibbles),
        ("rans/byte.bin", byte_block(&bytes)?),
        ("rans/byte.symbols", bytes),
        ("prefix/pairs.bin", prefix_block(&blocks, &pairs)?),
        ("prefix/pairs.symbols", pairs),
    ])
}

fn prefix_block(blocks: &Blocks, symbols: &[u8]) -> Result<Vec<u8>> {
    let lengths = Lengths::from_counts(&counts(symbols))?;
    let mut block = vec![0; Lengths::BYTES + prefix_core::max_len(blocks)];
    let head = lengths.write(&mut block)?;
    let table = prefix_core::EncodeTable::new(&lengths);
    let length = prefix_core::encode(&table, blocks, symbols, &mut block[head..])?;
    block.truncate(head + length);
    Ok(block)
}

fn nibble_block(symbols: &[u8]) -> Result<Vec<u8>> {
    let freqs = nibble::Frequencies::from_counts(&counts(symbols))?;
    let strips = nibble::Strips::flat(NIBBLE_LANES, symbols.len())?;
    let mut block = vec![0; nibble::Frequencies::MAX_BYTES + nibble::max_len(&strips)];
    let head = freqs.write(&mut block)?;
    let length = nibble::encode(&nibble::EncodeTable::new(&freqs), &strips, symbols, &mut block[head..])?;
    block.truncate(head + length);
    Ok(block)
}

fn byte_block(symbols: &[u8]) -> Result<Vec<u8>> {
    let freqs = byte::Frequencies::from_counts(&counts(symbols))?;
    let mut block = vec![0; byte::Frequencies::MAX_BYTES + byte::max_len(symbols.len())];
    let head = freqs.write(&mut block)?;
    let steps = byte::Steps::flat(symbols.len());
    let length = byte::encode(&byte::EncodeTable::new(&freqs), &steps, symbols, &mut block[head..])?;
    block.truncate(head + length);
    Ok(block)
}

fn counts<const N: usize>(symbols: &[u8]) -> [u64; N] {
    let mut counts = [0; N];
    symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
    counts
}

/// Marsaglia's xorshift64: written out, because fixtures must not change with a library.
struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A binomial number in 0..=`trials`.
    fn bell(&mut self, trials: u32) -> u8 {
        (self.next() >> (64 - trials)).count_ones() as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_blocks_are_what_the_encoder_writes() {
        for (name, bytes) in files().unwrap() {
            let path = crate::shell::root().join("fixtures").join(name);
            let committed = fs::read(&path).unwrap();
            assert!(committed == bytes, "{name} differs: run `cargo xtask fixtures --generate`");
        }
    }
}

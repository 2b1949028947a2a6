//! The committed blocks that the bare-metal firmware decodes, decoded on this machine.

#![allow(clippy::unwrap_used)]

use rans_core::{byte, nibble};

/// Lanes of the `nibble` block, as `cargo xtask fixtures --generate` writes it.
const NIBBLE_LANES: usize = 128;

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/../../fixtures/rans/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn the_nibble_block_decodes() {
    let (block, symbols) = (fixture("nibble.bin"), fixture("nibble.symbols"));
    let (freqs, head) = nibble::Frequencies::read(&block).unwrap();
    let strips = nibble::Strips::flat(NIBBLE_LANES, symbols.len()).unwrap();
    let mut out = vec![0; symbols.len()];
    nibble::decode(&nibble::DecodeTable::new(&freqs), &strips, &block[head..], &mut out).unwrap();
    assert_eq!(out, symbols);
}

#[test]
fn the_byte_block_decodes() {
    let (block, symbols) = (fixture("byte.bin"), fixture("byte.symbols"));
    let (freqs, head) = byte::Frequencies::read(&block).unwrap();
    let mut out = vec![0; symbols.len()];
    let steps = byte::Steps::flat(symbols.len());
    byte::decode(&byte::DecodeTable::new(&freqs), &steps, &block[head..], &mut out).unwrap();
    assert_eq!(out, symbols);
}

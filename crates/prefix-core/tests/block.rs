//! The committed block that the bare-metal firmware decodes, decoded on this machine.

#![allow(clippy::unwrap_used)]

use prefix_core::{Blocks, DecodeTable, Lengths, decode};

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/../../fixtures/prefix/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn the_block_decodes() {
    let (block, symbols) = (fixture("pairs.bin"), fixture("pairs.symbols"));
    let (lengths, head) = Lengths::read(&block).unwrap();
    let blocks = Blocks::new(45, 16, 4, 3).unwrap();
    let mut out = vec![0; symbols.len()];
    decode(&DecodeTable::new(&lengths), &blocks, &block[head..], &mut out).unwrap();
    assert_eq!(out, symbols);
}

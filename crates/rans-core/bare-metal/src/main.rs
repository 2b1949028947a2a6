//! Decodes one committed block of each codec on a bare ARM core and compares every symbol.
//!
//! `rans-core` and `prefix-core` are the only dependencies. Memory: the stack; there is no allocator and no static
//! variable. The result is told to the debugger or emulator through semihosting: a line of text, then an exit status.
#![no_std]
#![no_main]

mod semihosting;

use core::fmt::{Display, Write};
use core::panic::PanicInfo;

use prefix_core::{Blocks, Lengths};
use rans_core::{byte, nibble};
use semihosting::{Console, exit};

/// Frequency table, then stream.
static NIBBLE: &[u8] = include_bytes!("../../../../fixtures/rans/nibble.bin");
static NIBBLE_SYMBOLS: &[u8; SYMBOLS] = include_bytes!("../../../../fixtures/rans/nibble.symbols");
static BYTE: &[u8] = include_bytes!("../../../../fixtures/rans/byte.bin");
static BYTE_SYMBOLS: &[u8; SYMBOLS] = include_bytes!("../../../../fixtures/rans/byte.symbols");

/// Code lengths, then stream.
static PREFIX: &[u8] = include_bytes!("../../../../fixtures/prefix/pairs.bin");
static PREFIX_SYMBOLS: &[u8; 3015] = include_bytes!("../../../../fixtures/prefix/pairs.symbols");

/// Symbols in each block of `rans-core`; that the files are as long is checked by the compiler.
const SYMBOLS: usize = 3001;
/// Lanes of the `nibble` block.
const NIBBLE_LANES: usize = 128;

/// Vectors 1 to 3 of a Cortex-M core; the linker script puts the initial stack pointer before them.
#[unsafe(link_section = ".vectors")]
#[used]
static VECTORS: [extern "C" fn() -> !; 3] = [reset, fault, fault];

/// Where the core starts.
#[unsafe(no_mangle)]
extern "C" fn reset() -> ! {
    let nibble = report("nibble", decode_nibble());
    let byte = report("byte", decode_byte());
    let prefix = report("prefix", decode_prefix());
    exit(nibble && byte && prefix)
}

extern "C" fn fault() -> ! {
    let _ = writeln!(Console, "hard fault");
    exit(false)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Console, "{info}");
    exit(false)
}

/// Prints how a codec fared; true if all symbols were right.
fn report<E: Display>(codec: &str, outcome: Result<bool, E>) -> bool {
    let _ = match &outcome {
        Ok(true) => writeln!(Console, "{codec}: ok"),
        Ok(false) => writeln!(Console, "{codec}: wrong symbols"),
        Err(error) => writeln!(Console, "{codec}: {error}"),
    };
    matches!(outcome, Ok(true))
}

// Each codec has a frame of its own, so that the tables are not on the stack at the same time.
#[inline(never)]
fn decode_nibble() -> Result<bool, rans_core::Error> {
    let (freqs, head) = nibble::Frequencies::read(NIBBLE)?;
    let strips = nibble::Strips::flat(NIBBLE_LANES, SYMBOLS)?;
    let mut symbols = [0; SYMBOLS];
    nibble::decode(&nibble::DecodeTable::new(&freqs), &strips, &NIBBLE[head..], &mut symbols)?;
    Ok(&symbols == NIBBLE_SYMBOLS)
}

#[inline(never)]
fn decode_byte() -> Result<bool, rans_core::Error> {
    let (freqs, head) = byte::Frequencies::read(BYTE)?;
    let mut symbols = [0; SYMBOLS];
    let steps = byte::Steps::flat(SYMBOLS);
    byte::decode(&byte::DecodeTable::new(&freqs), &steps, &BYTE[head..], &mut symbols)?;
    Ok(&symbols == BYTE_SYMBOLS)
}

#[inline(never)]
fn decode_prefix() -> Result<bool, prefix_core::Error> {
    let (lengths, head) = Lengths::read(PREFIX)?;
    let mut symbols = [0; PREFIX_SYMBOLS.len()];
    let blocks = Blocks::new(45, 16, 4, 3)?;
    prefix_core::decode(&prefix_core::DecodeTable::new(&lengths), &blocks, &PREFIX[head..], &mut symbols)?;
    Ok(&symbols == PREFIX_SYMBOLS)
}

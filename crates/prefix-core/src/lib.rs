//! A length-limited prefix code over 256 symbols whose streams 32 lanes decode side by side: made for the 32 threads
//! of a GPU's subgroup, and as good for vectors. `no_std`, no allocator, no dependency.
//!
//! # Code
//! [`Lengths`] are optimal for their counts among all codes of at most [`MAX_BITS`] bits. Codes are canonical: symbols
//! sorted by (length, symbol) have ascending codes. A code is sent with its first (most significant) bit lowest. A
//! symbol that is alone has a code of no bits.
//!
//! # Stream
//! Symbols come in [`Blocks`] of up to 32 columns, column j of a block on lane j, a row of the block a *step*. Each of
//! the 32 lanes has a string of bits of its own: [`LEAD`] zeros, then its codes. It is cut into `u32` words
//! (little-endian, first bit lowest), and the last word is filled with zeros.
//!
//! The words of all lanes stand in one sequence, in the order in which a decoder asks for them. A lane holds two words,
//! `lo` and `hi`, and how many bits of `lo` are used. At the start, every lane (ascending) takes its `lo`, and then
//! every lane its `hi`. After every second step of a block and after the block's last step, each lane (ascending) that
//! has used 32 bits or more moves `hi` to `lo` and takes a word for `hi`. Two codes use at most 24 bits, so a lane asks
//! for one word at most. A lane may take words that hold nothing of its string; they are zero.
//!
//! Words after the last one that holds a bit of a code are not stored: a decoder takes zeros for them.
//!
//! # Example
//! ```
//! use prefix_core::{Blocks, DecodeTable, EncodeTable, Lengths, decode, encode, max_len};
//!
//! // 2 bands of 4 steps and one of 3, 45 columns each
//! let blocks = Blocks::new(45, 2, 4, 3)?;
//! let symbols: Vec<u8> = (0..blocks.symbols() as u32).map(|i| (i * i % 7) as u8).collect();
//! let mut counts = [0u64; 256];
//! symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
//!
//! let lengths = Lengths::from_counts(&counts)?;
//! let mut coded = vec![0; max_len(&blocks)];
//! let len = encode(&EncodeTable::new(&lengths), &blocks, &symbols, &mut coded)?;
//!
//! let mut back = vec![0; symbols.len()];
//! decode(&DecodeTable::new(&lengths), &blocks, &coded[..len], &mut back)?;
//! assert_eq!(back, symbols);
//! # Ok::<(), prefix_core::Error>(())
//! ```
//!
//! There are fast paths for several instruction sets ([`InstructionSet`]), which give what the plain code gives. The
//! feature `std`, on by default, only asks the CPU at run time which it has.
//!
//! The decoder takes any bytes and either returns symbols or an [`Error`]; it never panics, never reads outside its
//! slice and always ends. A damaged stream can decode to wrong symbols without an error: there is no checksum, only the
//! length and the zeros that no code covers. Containers add a checksum.
//!
//! Source of the method: L. Larmore and D. Hirschberg, "A fast algorithm for optimal length-limited Huffman codes"
//! (J. ACM 37, 1990).
#![no_std]
#![deny(unsafe_code)] // but for the vector paths in `arch`

#[cfg(feature = "std")]
extern crate std;

pub mod arch;
mod blocks;
mod decoder;
mod encoder;
mod error;
mod lengths;
mod table;

pub use arch::{InstructionSet, Isa};
pub use blocks::Blocks;
pub use decoder::{decode, decode_with};
pub use encoder::{encode, max_len};
pub use error::Error;
pub use lengths::Lengths;
pub use table::{DecodeTable, EncodeTable};

/// Lanes that share a stream.
pub const LANES: usize = 32;

/// Bits of the longest code.
pub const MAX_BITS: u32 = 12;

/// Zero bits before the first code of each lane.
///
/// With them, the masked window of a lane can be the byte offset of a table's entry of four bytes, without a shift.
pub const LEAD: u32 = 2;

//! Interleaved range ANS (rANS) in exactly two configurations, for weights of neural networks and for anything
//! else with a small alphabet. `no_std`, no allocator, no dependency.
//!
//! | | [`nibble`] | [`byte`](mod@byte) |
//! |---|---|---|
//! | alphabet | up to 16 symbols | up to 256 symbols |
//! | probabilities | 8 bits, slots spread | 12 bits, slots contiguous |
//! | lane state | `u16` in [2^8, 2^16) | `u32` in [2^16, 2^32) |
//! | refill | at most one byte a symbol | at most one `u16` word a symbol |
//! | lanes on one stream | any multiple of 64, up to 1,024 | 32 |
//! | made for | SIMD: tables in registers | best rate, embedded, GPUs |
//!
//! The way from symbols to bytes and back is the same in both:
//!
//! ```
//! use rans_core::nibble::{DecodeTable, EncodeTable, Frequencies, Strips, decode, encode, max_len};
//!
//! let symbols: Vec<u8> = (0..1000u32).map(|i| (i * i % 7) as u8).collect();
//! let mut counts = [0u64; 16];
//! symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
//!
//! let freqs = Frequencies::from_counts(&counts)?;
//! let strips = Strips::flat(64, symbols.len())?;
//! let mut coded = vec![0; max_len(&strips)];
//! let len = encode(&EncodeTable::new(&freqs), &strips, &symbols, &mut coded)?;
//!
//! let mut back = vec![0; symbols.len()];
//! decode(&DecodeTable::new(&freqs), &strips, &coded[..len], &mut back)?;
//! assert_eq!(back, symbols);
//! # Ok::<(), rans_core::Error>(())
//! ```
//!
//! There are fast paths for several instruction sets ([`InstructionSet`]), which give what the plain code gives. The
//! feature `std`, on by default, only asks the CPU at run time which it has.
//!
//! Every decoder takes any bytes and either returns symbols or an [`Error`]; it never panics, never reads outside
//! its slice and always ends. A damaged stream can decode to wrong symbols without an error: rANS carries no
//! checksum, only the known bits of the end states and the exact length, which catch about three quarters of single
//! bit flips in a short `nibble` stream. Containers add a checksum.
//!
//! Source of the method: J. Duda, "Asymmetric numeral systems" (arXiv:1311.2540); interleaving as in F. Giesen,
//! "Interleaved entropy coders" (arXiv:1402.3392).
#![no_std]
#![deny(unsafe_code)] // but for the vector paths in `arch`

#[cfg(feature = "std")]
extern crate std;

pub mod arch;
pub mod byte;
mod error;
mod freq;
pub mod nibble;

pub use arch::{InstructionSet, Isa};
pub use error::Error;
pub use freq::Frequencies;

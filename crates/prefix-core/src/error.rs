//! The one error type. It allocates nothing and says what was being read.

use core::fmt;

/// What a coder or decoder refused, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// There is no symbol to make a code for: every count is zero.
    NoSymbols,
    /// A serialised code ends early, or has a length that no code has; `at` is the byte.
    LengthTable {
        /// Offset in the serialised code.
        at: usize,
    },
    /// The code is not complete, or more than that: windows of 12 bits that begin with a code of it.
    Incomplete {
        /// How many windows of 12 bits its codes cover; all 4,096 are expected.
        covered: u32,
    },
    /// The encoder met a symbol that has no code.
    SymbolWithoutCode {
        /// Index of the symbol in the input.
        position: usize,
        /// The symbol.
        symbol: u8,
    },
    /// Blocks of so many symbols that they cannot be counted.
    TooManySymbols,
    /// The blocks do not hold exactly the given number of symbols.
    Layout {
        /// Symbols that the blocks hold.
        holds: usize,
        /// Symbols that were given.
        given: usize,
    },
    /// The output buffer is too small.
    BufferTooSmall {
        /// Bytes that are surely enough.
        needed: usize,
        /// Bytes that were given.
        given: usize,
    },
    /// The length of a stream is not a multiple of 4 bytes.
    StreamLength {
        /// The length.
        given: usize,
    },
    /// A code of a lane lies behind the end of the stream.
    Truncated {
        /// The lane.
        lane: usize,
    },
    /// Bits of a lane before its first code or behind its last one are not zero.
    Filling {
        /// The lane.
        lane: usize,
    },
    /// All symbols are decoded, and bytes are left that hold nothing of them.
    TrailingBytes {
        /// How many, at least.
        left: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Error::NoSymbols => write!(f, "no symbols to make a code for"),
            Error::LengthTable { at } => write!(f, "table of code lengths is corrupt at byte {at}"),
            Error::Incomplete { covered } => {
                write!(f, "the code covers {covered} windows of 12 bits, expected 4096")
            }
            Error::SymbolWithoutCode { position, symbol } => {
                write!(f, "symbol {symbol} at position {position} has no code")
            }
            Error::TooManySymbols => write!(f, "the blocks hold more symbols than can be counted"),
            Error::Layout { holds, given } => {
                write!(f, "the blocks hold {holds} symbols, {given} were given")
            }
            Error::BufferTooSmall { needed, given } => {
                write!(f, "the buffer has {given} bytes, {needed} are needed")
            }
            Error::StreamLength { given } => {
                write!(f, "the stream has {given} bytes, expected a multiple of 4")
            }
            Error::Truncated { lane } => write!(f, "the stream ends before the last code of lane {lane}"),
            Error::Filling { lane } => write!(f, "lane {lane} has bits that belong to no code"),
            Error::TrailingBytes { left } => write!(f, "{left} bytes are left after the last code"),
        }
    }
}

impl core::error::Error for Error {}

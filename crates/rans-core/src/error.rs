//! The one error type. It allocates nothing and says what was being read.

use core::fmt;

/// What a coder or decoder refused, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// There is no symbol to take frequencies from: every count is zero.
    NoSymbols,
    /// Frequencies must sum to `expected`, these sum to `sum`.
    FrequencySum {
        /// Sum of the given frequencies.
        sum: u32,
        /// The probability scale of the codec: 256 or 4,096.
        expected: u32,
    },
    /// A serialised frequency table ends early or names a symbol outside the alphabet; `at` is the byte.
    FrequencyTable {
        /// Offset in the serialised table.
        at: usize,
    },
    /// The encoder met a symbol that has no frequency (or is outside the alphabet).
    SymbolWithoutFrequency {
        /// Index of the symbol in the input.
        position: usize,
        /// The symbol.
        symbol: u8,
    },
    /// The lane count must be a multiple of 64 between 64 and 1,024.
    LaneCount {
        /// The count that was asked for.
        lanes: usize,
    },
    /// The layout of lanes does not hold exactly the given number of symbols.
    Layout {
        /// Symbols that the layout holds.
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
    /// The stream ends inside the lane states or before the last refill.
    Truncated {
        /// Offset in the stream at which more bytes were expected.
        at: usize,
    },
    /// A lane starts below the codec's lower bound (2^8 or 2^16).
    StateBelowBound {
        /// The lane.
        lane: usize,
    },
    /// A lane does not end in a state that an encoder starts from.
    EndState {
        /// The lane.
        lane: usize,
    },
    /// All symbols are decoded, and bytes are left.
    TrailingBytes {
        /// How many.
        left: usize,
    },
    /// A context names a table that was not given.
    NoSuchTable {
        /// Index of the table.
        table: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Error::NoSymbols => write!(f, "no symbols to take frequencies from"),
            Error::FrequencySum { sum, expected } => {
                write!(f, "frequencies sum to {sum}, expected {expected}")
            }
            Error::FrequencyTable { at } => write!(f, "frequency table is corrupt at byte {at}"),
            Error::SymbolWithoutFrequency { position, symbol } => {
                write!(f, "symbol {symbol} at position {position} has no frequency")
            }
            Error::LaneCount { lanes } => {
                write!(f, "{lanes} lanes: expected a multiple of 64 from 64 to 1024")
            }
            Error::Layout { holds, given } => {
                write!(f, "the layout holds {holds} symbols, {given} were given")
            }
            Error::BufferTooSmall { needed, given } => {
                write!(f, "the buffer has {given} bytes, {needed} are needed")
            }
            Error::Truncated { at } => write!(f, "the stream ends at byte {at}, more were expected"),
            Error::StateBelowBound { lane } => write!(f, "lane {lane} starts below the state bound"),
            Error::EndState { lane } => write!(f, "lane {lane} does not end in a start state"),
            Error::TrailingBytes { left } => write!(f, "{left} bytes are left after the last symbol"),
            Error::NoSuchTable { table } => write!(f, "context names table {table}, which was not given"),
        }
    }
}

impl core::error::Error for Error {}

//! Every kernel once more, as plain Rust that runs anywhere: for those who port a kernel and want to step through what it
//! does, and for tests.
//!
//! A twin is called as its kernel, reads the words that the kernel reads and writes what it writes, but one stream, band,
//! column after another, so that nothing of it depends on a machine. Where the order of things is part of the format, as
//! for the words that lanes take from their stream, that order is written out; where it is not, as for sums, the twin
//! takes the simplest. [`Host::new`](crate::host::Host::new) makes the words from a tensor. `probe` has no twin: it asks
//! the machine.
//!
//! | kernel | twin | on |
//! |---|---|---|
//! | `fused`, `prompt` | [`fused()`] | [`streams`], [`prefix`], [`rans`], [`values`], [`product`] |
//! | `decode` | [`decode()`] | [`streams`], [`prefix`], [`rans`], [`values`] |
//! | `fused`, `decode` for the codec `nibble` | the same | [`nibble`], [`values`], [`product`] |
//! | `plain`, `plain_prompt` | [`plain()`] | [`values`], [`product`] |
//! | `finish` | [`finish()`] | |
//!
//! Products have scales and escapes from `scales` and `escapes`. A twin takes any number of vectors, so those of products
//! are also the twins of kernels for many. `prompt` makes the values that packed weights have, and has their parameters:
//! its twin takes those of `fused`, and makes the same products within rounding.
//!
//! Kernels run unchecked, because everything was validated when it was uploaded; twins trust nothing, and say which word
//! is not there.

pub mod decode;
mod escapes;
pub mod finish;
pub mod fused;
pub mod nibble;
pub mod plain;
pub mod prefix;
pub mod product;
pub mod rans;
pub mod scales;
pub mod streams;
pub mod values;

pub use decode::decode;
pub use finish::finish;
pub use fused::fused;
pub use plain::plain;

use crate::host::Host;
use crate::layout::BAND;
use crate::params::Params;
use crate::variant::{Code, Form};

/// Columns that a stream codes side by side, one a lane.
pub const LANES: usize = 32;

/// Why a twin stopped; what it has written until then stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A place in a buffer that is too short for it.
    #[error("{buffer}[{at}] is needed, but there are {len}")]
    Outside {
        /// Name of the buffer in the shaders.
        buffer: &'static str,
        /// Where it was read or written.
        at: u64,
        /// How many elements it has.
        len: usize,
    },
    /// What the table knows of a symbol cannot be.
    #[error("codes[{symbol}], of the symbol of slot {slot}: expected {expected}, got {got:#x}")]
    Code {
        /// The symbol.
        symbol: u8,
        /// Where it was met.
        slot: u32,
        /// What can be.
        expected: &'static str,
        /// What is there.
        got: u32,
    },
    /// Parameters, a form or vectors that do not go together.
    #[error("{what}: expected {expected}, got {got}")]
    Parameters {
        /// What does not fit.
        what: &'static str,
        /// What fits.
        expected: String,
        /// What was given.
        got: String,
    },
}

/// A result of a twin.
pub type Result<T> = std::result::Result<T, Error>;

/// What kernels read beside vectors and packed weights, under its names in the shaders.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    /// Parameters (`p`); [`plain()`] has others than twins that read streams.
    pub params: &'a Params,
    /// Raw bits and streams of a part.
    pub words: &'a [u32],
    /// For each tile: where its raw bits begin, and each of its streams.
    pub first: &'a [u32],
    /// The table of the code, then the codebook.
    pub codes: &'a [u32],
    /// Scales.
    pub side: &'a [u32],
    /// Escapes.
    pub escapes: &'a [u32],
}

impl<'a> Buffers<'a> {
    /// Those of a part of a tensor with its `params`; `None` if there is no such part.
    pub fn of(host: &'a Host<Vec<u32>>, part: usize, params: &'a Params) -> Option<Self> {
        let streams = host.streams.get(part)?;
        let words = |all: &'a [Vec<u32>]| all.get(part).map_or(&[][..], Vec::as_slice);
        Some(Self {
            params,
            words: &streams.words,
            first: &streams.first,
            codes: &host.resident.codes,
            side: words(&host.sides),
            escapes: words(&host.escapes),
        })
    }

    /// Error: [`Error::Parameters`] if they do not go together. What follows may divide by them and count up to them.
    fn check(&self, form: &Form) -> Result<()> {
        let p = self.params;
        let refuse = |what: &'static str, expected: &str, got: String| {
            Err(Error::Parameters { what, expected: expected.into(), got })
        };
        if p.rows == 0 || p.cols == 0 || p.strip == 0 || p.strips != p.cols.div_ceil(p.strip) {
            let got = format!("{} x {} in {} strips of {}", p.rows, p.cols, p.strips, p.strip);
            return refuse("shape", "rows, columns, and strips that cover them", got);
        }
        let band = BAND as u32;
        let nibble = matches!(form.code, Code::Nibble { .. });
        if p.tile_rows == 0 || !(nibble || p.tile_rows.is_multiple_of(band)) {
            return refuse(
                "tile_rows",
                "a multiple of 8, but with the nibble codec",
                p.tile_rows.to_string(),
            );
        }
        if nibble && p.strips != 1 {
            return refuse("strips", "one with the nibble codec", p.strips.to_string());
        }
        if p.first_row > p.end_row || p.end_row > p.rows || !p.first_row.is_multiple_of(band) {
            let got = format!("{}..{} of {}", p.first_row, p.end_row, p.rows);
            return refuse("rows of the part", "some of the matrix, from a whole band on", got);
        }
        let streams = u64::from((p.end_row - p.first_row).div_ceil(p.tile_rows)) * u64::from(p.strips);
        if u64::from(p.streams) != streams {
            return refuse("streams", &format!("{streams}, one a strip of each tile"), p.streams.to_string());
        }
        if form.value.raw_bits() > ecq_format::levels::MAX_RAW_BITS {
            return refuse("raw bits", "at most 11", form.value.raw_bits().to_string());
        }
        match form.groups {
            Some(groups) if groups.size == 0 || p.groups > p.cols => {
                let got = format!("{} groups of {} in {} columns", p.groups, groups.size, p.cols);
                refuse("groups of a row", "groups of some columns each", got)
            }
            _ => Ok(()),
        }
    }
}

/// An element of a buffer.
fn get<T: Copy>(buffer: &'static str, elements: &[T], at: u64) -> Result<T> {
    let element = usize::try_from(at).ok().and_then(|at| elements.get(at).copied());
    element.ok_or(Error::Outside { buffer, at, len: elements.len() })
}

/// Writes an element of a buffer.
fn put<T>(buffer: &'static str, elements: &mut [T], at: u64, value: T) -> Result<()> {
    let len = elements.len();
    let place = usize::try_from(at).ok().and_then(|at| elements.get_mut(at));
    *place.ok_or(Error::Outside { buffer, at, len })? = value;
    Ok(())
}

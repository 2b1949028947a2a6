//! Kernels: panels of codes times vectors, a folder for each instruction set, a file for each precision.
//!
//! A panel is a few rows by a few blocks of 64 columns, in the first cache. A kernel adds to 16 lanes for each row and
//! vector; lane i takes columns 4 i..4 i + 4 of each block, so that sums of four products in integers and scales of
//! groups of columns fall into lanes. What it adds, with zero, s and m of [`Terms`]:
//! - f32: `(d + zero) * x`, with groups `s * (d + zero) * x + m * x`;
//! - int8: `d * x`, with groups `s * (d + zero) * x + m * x`.
//!
//! With a codebook, a number from there takes the place of d, and zero is 0.
//!
//! Weights that are floats have a kernel of their own, `weights.rs`: it adds `w * x`, column i to lane i mod 16.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod job;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod weights;

use ecq_format::planes::{RawPlanes, join_i8};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use rans_core::InstructionSet;
use rans_core::Isa;

use crate::BLOCK;
use crate::activations::Activations;
use crate::scaling::{RowScales, Terms};
use crate::single::{Lines, UnitScales};

/// Codes of a panel.
#[derive(Clone, Copy)]
pub(crate) enum Codes<'a> {
    /// 0..16, a byte each.
    Nibble(&'a [u8]),
    /// 0..32, a byte each.
    I5(&'a [i8]),
    /// A signed byte each.
    I8(&'a [i8]),
    /// A signed word each.
    I16(&'a [i16]),
    /// The weights themselves.
    F32(&'a [f32]),
    /// 0..16, two a byte: 64 columns in the low halves of 64 bytes, the next 64 columns in the high halves.
    Int4(&'a [u8]),
}

impl Codes<'_> {
    /// Elements, and how many of them 128 columns take.
    pub fn len(&self) -> (usize, usize) {
        match self {
            Self::Nibble(c) => (c.len(), 2 * BLOCK),
            Self::I5(c) | Self::I8(c) => (c.len(), 2 * BLOCK),
            Self::I16(c) => (c.len(), 2 * BLOCK),
            Self::F32(c) => (c.len(), 2 * BLOCK),
            Self::Int4(c) => (c.len(), BLOCK),
        }
    }
}

/// Some rows of codes by some blocks of columns. Codes beyond the last column meet zeros, but must be there.
#[derive(Clone, Copy)]
pub(crate) struct Panel<'a> {
    pub codes: Codes<'a>,
    /// Elements from row to row.
    pub pitch: usize,
    pub rows: usize,
    /// The first block of 64 columns in the matrix, and their number; both even for [`Codes::Int4`].
    pub block: usize,
    pub blocks: usize,
    /// Of these rows.
    pub scales: &'a RowScales,
}

impl Panel<'_> {
    /// Panics unless everything that a kernel will touch is there.
    fn check(&self, x: &Activations, terms: &Terms, sums: &[f32]) {
        let (len, a_pair) = self.codes.len();
        let row = self.blocks * a_pair / 2;
        assert!(self.rows == 0 || (self.rows - 1) * self.pitch + row <= len);
        assert!((self.block + self.blocks) * BLOCK <= x.padded());
        assert_eq!(sums.len(), self.rows * x.count() * crate::LANES);
        assert!(terms.book.is_none() || matches!(self.codes, Codes::Nibble(_) | Codes::Int4(_)));
        if let Codes::Int4(_) = self.codes {
            assert!(self.block.is_multiple_of(2) && self.blocks.is_multiple_of(2));
        }
        // weights have their scales in them
        if let (Some(groups), false) = (&terms.groups, matches!(self.codes, Codes::F32(_))) {
            assert!(self.block + self.blocks <= groups.lanes.len());
            let RowScales { scale, min } = self.scales;
            assert!(self.rows * groups.per_row + crate::LANES <= scale.len());
            assert!(groups.min().is_none() || min.len() == scale.len());
        }
    }
}

/// Codes of 16 rows side by side, and their scales.
pub(crate) struct Strip<'a> {
    /// For each four columns, the bytes of each row.
    pub codes: &'a [u32],
    /// For each [`SCALED`] columns, the scale of each row; and what is added for the sum of the vector. Both empty without groups.
    pub scale: &'a [f32],
    pub base: &'a [f32],
}

/// The sum of each row of a strip for each vector of integers: 16 numbers a vector. Only for instruction sets that
/// [`wide`](crate::wide) names.
pub(crate) fn multiply_strip(isa: Isa, strip: &Strip<'_>, x: &Activations, sums: &mut [f32]) {
    match isa.set() {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => avx512::multiply_strip(isa, strip, x, sums),
        _ => {
            let numbers = strip.codes.len() + strip.scale.len() + strip.base.len() + sums.len() + x.count();
            unreachable!("no strips for {} ({numbers} numbers)", isa.set().name())
        }
    }
}

/// Adds the products of rows to `out`, one number a row; codes are looked up in `table` if there is one. Only for instruction
/// sets that [`single`](crate::single) names.
pub(crate) fn multiply_lines(
    isa: Isa,
    lines: &Lines<'_>,
    scales: Option<&UnitScales<'_>>,
    x: &Activations,
    table: Option<[u8; 16]>,
    out: &mut [f32],
) {
    match isa.set() {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => avx512::multiply_lines(isa, lines, scales, x, table, out),
        _ => {
            lines.check(out.len(), scales, x);
            let numbers = (table, lines.raw.map(|raw| raw.lift), scales.map(|scales| scales.zero));
            unreachable!("no lines for {} ({numbers:?})", isa.set().name())
        }
    }
}

/// Whether there are raw bits of so many weights.
pub(crate) fn holds(planes: &RawPlanes<'_>, weights: usize) -> bool {
    let bits = planes.raw_bits();
    let enough = |width: u32| planes.plane(width).len() >= weights.div_ceil(8) * width as usize;
    [4, 2, 1].into_iter().all(|width| bits & width == 0 || enough(width))
}

/// Codes of the weights of a tile from `first` on, with 1 to 4 raw bits; `lift` is added to each, which only codes of five bits
/// have room for.
pub(crate) fn join(
    isa: Isa,
    planes: &RawPlanes<'_>,
    first: usize,
    nibbles: &[u8],
    codes: &mut [i8],
    lift: i8,
) {
    match isa.set() {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 if first.is_multiple_of(8) && nibbles.len().is_multiple_of(BLOCK) => {
            avx512::join(isa, planes, first, nibbles, codes, lift)
        }
        _ => {
            join_i8(planes, first, nibbles, codes);
            codes.iter_mut().for_each(|code| *code += lift);
        }
    }
}

/// Adds the products of a panel: `sums` has 16 lanes for each vector of each row.
pub(crate) fn accumulate(isa: Isa, panel: &Panel<'_>, x: &Activations, terms: &Terms, sums: &mut [f32]) {
    if let Codes::F32(all) = panel.codes {
        panel.check(x, terms, sums);
        return weights::accumulate(panel, all, x, sums);
    }
    let in_lanes = terms.groups.as_ref().is_none_or(|groups| groups.in_lanes());
    match isa.set() {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 if in_lanes => {
            avx512::accumulate(isa, &job::Job::new(panel, x, terms, sums), &x.data)
        }
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 if in_lanes => {
            avx2::accumulate(isa, &job::Job::new(panel, x, terms, sums), &x.data)
        }
        #[cfg(target_arch = "aarch64")]
        InstructionSet::Neon if in_lanes => {
            neon::accumulate(isa, &job::Job::new(panel, x, terms, sums), &x.data)
        }
        _ => {
            panel.check(x, terms, sums);
            scalar::accumulate(panel, x, terms, sums);
        }
    }
}

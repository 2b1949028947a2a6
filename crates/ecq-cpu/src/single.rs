//! Products with one vector of integers: row by row, with scales and raw bits put together in registers.

use ecq_format::planes::RawPlanes;
use rans_core::{InstructionSet, Isa};

use crate::BLOCK;
use crate::activations::{Activations, Data, SCALED, Units};
use crate::arch::{self, Codes, holds};
use crate::scaling::{Groups, Numbers, Scaling};

/// Blocks of columns whose products are summed before those of others are added: the same for coded and for decoded weights, so
/// that both give the same to the bit.
pub(crate) const CHUNK: usize = 32;

/// Whether products of this kind go this way.
pub(crate) fn takes(isa: Isa, scaling: &Scaling, x: &Activations) -> bool {
    x.count() == 1 && in_units(isa, scaling, x)
}

/// Whether scales of vectors and of weights go together, for which there are kernels.
pub(crate) fn in_units(isa: Isa, scaling: &Scaling, x: &Activations) -> bool {
    isa.set() == InstructionSet::Avx512
        && matches!(x.data, Data::Int8 { .. })
        && scaling.is_bytes()
        && scaling.terms.groups.as_ref().is_none_or(|groups| groups.size.is_multiple_of(SCALED))
}

/// Codes of rows: `together` rows follow one another, then as many `step` rows further, as far as there are numbers of y.
#[derive(Clone, Copy)]
pub(crate) struct Lines<'a> {
    /// From the first row and block on; bytes or less.
    pub codes: Codes<'a>,
    /// Bytes from row to row, and from a row to that `step` rows further.
    pub near: usize,
    pub far: usize,
    pub together: usize,
    pub step: usize,
    /// What they must be joined with, if they are nibbles with raw bits.
    pub raw: Option<Raw<'a>>,
    /// The first row in the matrix.
    pub first: usize,
    /// The first block of 64 columns, a multiple of [`CHUNK`], and their number.
    pub block: usize,
    pub blocks: usize,
}

/// Raw bits of rows.
#[derive(Clone, Copy)]
pub(crate) struct Raw<'a> {
    pub planes: &'a RawPlanes<'a>,
    /// The first weight in the planes, and weights from row to row: multiples of 64.
    pub at: usize,
    pub pitch: usize,
    /// What is added to codes so that none is negative.
    pub lift: u8,
}

/// Scales of rows, one for each [`SCALED`] columns.
#[derive(Clone, Copy)]
pub(crate) struct UnitScales<'a> {
    pub scale: Number<'a>,
    pub min: Option<Number<'a>>,
    /// Where those of the first row begin, how far it is from row to row, and how many a row has.
    pub at: usize,
    pub pitch: usize,
    pub len: usize,
    /// What is added to codes.
    pub zero: f32,
}

/// Numbers of rows.
#[derive(Clone, Copy)]
pub(crate) enum Number<'a> {
    Half(&'a [u16]),
    Single(&'a [f32]),
}

impl<'a> Number<'a> {
    fn new(numbers: &'a Numbers) -> Self {
        match numbers {
            Numbers::Half(all) => Self::Half(all),
            Numbers::Single(all) => Self::Single(all),
        }
    }

    /// How many.
    pub fn len(self) -> usize {
        match self {
            Self::Half(all) => all.len(),
            Self::Single(all) => all.len(),
        }
    }
}

/// Scales of groups of several units, for each unit.
#[derive(Default)]
pub(crate) struct Spread {
    scale: Vec<f32>,
    min: Vec<f32>,
}

impl Spread {
    /// The scales of rows.
    fn rows<'a>(
        &'a mut self,
        groups: &Groups,
        first: usize,
        rows: usize,
        units: &Units,
        zero: f32,
    ) -> UnitScales<'a> {
        let Self { scale, min } = self;
        let pitch = units.pitch;
        scale.resize(rows * pitch, 0.0);
        min.resize(rows * pitch, 0.0);
        for ((row, scale), min) in (first..).zip(scale.chunks_mut(pitch)).zip(min.chunks_mut(pitch)) {
            groups.units(row, scale, min);
        }
        UnitScales {
            scale: Number::Single(scale),
            min: Some(Number::Single(min)),
            at: 0,
            pitch,
            len: pitch,
            zero,
        }
    }
}

/// Adds the products of rows with some blocks of the vector to `out`, one number a row: what [`Scaling::finish_sum`] takes.
/// Only for what [`takes`] says.
pub(crate) fn multiply(
    isa: Isa,
    scaling: &Scaling,
    lines: &Lines<'_>,
    x: &Activations,
    spread: &mut Spread,
    out: &mut [f32],
) {
    let Data::Int8 { units, .. } = &x.data else { return };
    let zero = scaling.terms.zero - scaling.shift();
    let scales = scaling.terms.groups.as_ref().map(|groups| {
        if groups.size > SCALED {
            return spread.rows(groups, lines.first, out.len(), units, zero);
        }
        let (scale, min) = (Number::new(groups.scale()), groups.min().map(Number::new));
        let (pitch, len) = (groups.per_row, groups.per_row);
        UnitScales { scale, min, at: lines.first * pitch, pitch, len, zero }
    });
    arch::multiply_lines(isa, lines, scales.as_ref(), x, scaling.bytes(), out);
}

impl<'a> Lines<'a> {
    /// Neighbouring rows from `first` on, all their columns.
    pub fn new(codes: Codes<'a>, pitch: usize, first: usize, cols: usize) -> Self {
        let blocks = cols.div_ceil(BLOCK);
        Self { codes, near: 0, far: pitch, together: 1, step: 1, raw: None, first, block: 0, blocks }
    }

    /// Panics unless everything that a kernel will touch is there, for so many numbers of y.
    pub fn check(&self, rows: usize, scales: Option<&UnitScales<'_>>, x: &Activations) {
        let Self { codes, near, far, together, step, block, blocks, .. } = *self;
        assert!(block.is_multiple_of(CHUNK) && (block + blocks) * BLOCK <= x.padded());
        let Some(last) = rows.checked_sub(1) else { return };
        assert!(together > 0 && step > 0);
        let (len, a_pair) = codes.len();
        let row = (blocks * a_pair).div_ceil(2).next_multiple_of(BLOCK);
        assert!(last / step * far + (together - 1) * near + row <= len);
        if let Some(scales) = scales {
            let UnitScales { scale, min, at, pitch, len, .. } = *scales;
            let needed = at + last * pitch + len;
            assert!(needed <= scale.len() && min.is_none_or(|min| needed <= min.len()));
        }
        if let Some(Raw { planes, at, pitch, .. }) = self.raw {
            assert!(at.is_multiple_of(BLOCK) && pitch.is_multiple_of(BLOCK));
            assert!((1..=4).contains(&planes.raw_bits()) && matches!(codes, Codes::Nibble(_)));
            assert!(holds(planes, at + last * pitch + blocks * BLOCK));
        }
    }
}

//! What all vector kernels share: a panel as pointers, and how it is cut into pieces that registers hold.

use super::{Codes, Panel};
use crate::LANES;
use crate::activations::Activations;
use crate::scaling::{Groups, Terms};

/// Kinds of codes, as parameters of kernels: see [`Codes`].
pub(super) const NIBBLE: u8 = 0;
pub(super) const I5: u8 = 1;
pub(super) const I8: u8 = 2;
pub(super) const I16: u8 = 3;
pub(super) const INT4: u8 = 4;
/// [`NIBBLE`] and [`INT4`] that stand for the numbers of a [`Book`](crate::scaling::Book).
pub(super) const BOOK: u8 = 5;
pub(super) const BOOK4: u8 = 6;

/// What a kernel reads and writes. All of it is there: [`Panel::check`] has run.
pub(super) struct Job<'a> {
    pub kind: u8,
    pub codes: *const u8,
    /// Bytes from row to row.
    pub pitch: usize,
    pub panel: &'a Panel<'a>,
    pub terms: &'a Terms,
    /// 0: no groups, 1: groups with s, 2: groups with s and m.
    pub scales: u8,
    /// What the codes 0..16 stand for: with zero in them, or from the codebook, for vectors in f32.
    pub numbers: [f32; 16],
    /// Of [`BOOK`] and [`BOOK4`], for vectors of integers.
    pub bytes: [i8; 16],
    /// Vectors, and columns from one to the next.
    pub count: usize,
    pub padded: usize,
    sums: *mut f32,
}

impl<'a> Job<'a> {
    pub fn new(panel: &'a Panel<'a>, x: &Activations, terms: &'a Terms, sums: &'a mut [f32]) -> Self {
        panel.check(x, terms, sums);
        let (kind, codes, size) = match panel.codes {
            Codes::Nibble(codes) => (NIBBLE, codes.as_ptr(), 1),
            Codes::I5(codes) => (I5, codes.as_ptr().cast(), 1),
            Codes::I8(codes) => (I8, codes.as_ptr().cast(), 1),
            Codes::I16(codes) => (I16, codes.as_ptr().cast(), 2),
            Codes::Int4(codes) => (INT4, codes.as_ptr(), 1),
            Codes::F32(_) => unreachable!("weights have a kernel of their own"),
        };
        let (kind, numbers, bytes) = match (&terms.book, kind) {
            (Some(book), INT4) => (BOOK4, book.numbers, book.bytes),
            (Some(book), _) => (BOOK, book.numbers, book.bytes),
            (None, _) => (kind, std::array::from_fn(|i| i as f32 + terms.zero), [0; 16]),
        };
        let scales = terms.groups.as_ref().map_or(0, |groups| if groups.min().is_none() { 1 } else { 2 });
        let (pitch, count, padded) = (panel.pitch * size, x.count(), x.padded());
        let sums = sums.as_mut_ptr();
        Self { kind, codes, pitch, panel, terms, scales, numbers, bytes, count, padded, sums }
    }

    /// Where the 16 sums of a row and vector lie.
    #[inline]
    pub fn sums(&self, row: usize, vector: usize) -> *mut f32 {
        self.sums.wrapping_add((row * self.count + vector) * LANES)
    }

    /// Where the scales or minima of a block of a row lie, 16 of them, and which of these each lane takes.
    #[inline]
    pub fn scales<'b>(
        &self,
        groups: &'b Groups,
        all: &[f32],
        row: usize,
        block: usize,
    ) -> (*const f32, &'b [i32; LANES]) {
        let (first, lanes) = &groups.lanes[self.panel.block + block];
        (all.as_ptr().wrapping_add(row * groups.per_row + *first as usize), lanes)
    }
}

/// Cuts `total` into pieces: (first, size), each of the first size that fits. The last size must be 1.
pub(super) fn pieces(total: usize, sizes: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let size = *sizes.iter().find(|&&size| size <= total - at)?;
        at += size;
        Some((at - size, size))
    })
}

/// Calls `$all::<KIND, SCALES>(job, x)` for the kind and scales of a job.
macro_rules! dispatch {
    ($all:ident, $job:ident, $x:expr) => {{
        macro_rules! scales {
            ($kind:ident) => {
                match $job.scales {
                    0 => $all::<$kind, 0>($job, $x),
                    1 => $all::<$kind, 1>($job, $x),
                    _ => $all::<$kind, 2>($job, $x),
                }
            };
        }
        match $job.kind {
            NIBBLE => scales!(NIBBLE),
            I5 => scales!(I5),
            I8 => scales!(I8),
            I16 => scales!(I16),
            BOOK => scales!(BOOK),
            BOOK4 => scales!(BOOK4),
            _ => scales!(INT4),
        }
    }};
}
pub(super) use dispatch;

//! Strips of 16 rows times many vectors of integers: lanes are rows, so the 32 columns that share scales are summed exactly.

use core::arch::x86_64::*;

use super::super::Strip;
use super::pieces;
use crate::activations::SCALED;
use crate::wide::ROWS;

/// Vectors of integers, [`SCALED`] columns a unit.
pub(super) struct Vectors<'a> {
    pub values: &'a [i8],
    pub count: usize,
    pub padded: usize,
    /// For each unit, `pitch` apart.
    pub scales: &'a [f32],
    pub sums: &'a [f32],
    pub pitch: usize,
}

/// Sums of each row for each vector to `out`. All of it is there: the caller has checked.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn multiply(strip: &Strip<'_>, x: &Vectors<'_>, out: &mut [f32]) {
    for (m, vectors) in pieces(x.count, &[8, 4, 2, 1]) {
        match (vectors, strip.scale.is_empty()) {
            (8, true) => run::<8, false>(strip, x, m, out),
            (8, false) => run::<8, true>(strip, x, m, out),
            (4, true) => run::<4, false>(strip, x, m, out),
            (4, false) => run::<4, true>(strip, x, m, out),
            (2, true) => run::<2, false>(strip, x, m, out),
            (2, false) => run::<2, true>(strip, x, m, out),
            (_, true) => run::<1, false>(strip, x, m, out),
            (_, false) => run::<1, true>(strip, x, m, out),
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn run<const M: usize, const SCALES: bool>(
    strip: &Strip<'_>,
    x: &Vectors<'_>,
    first: usize,
    out: &mut [f32],
) {
    let mut all = [_mm512_setzero_ps(); M];
    let (codes, values) = (strip.codes.as_ptr(), x.values.as_ptr());
    for unit in 0..x.padded / SCALED {
        let mut dots = [_mm512_setzero_si512(); M];
        for dword in unit * SCALED / 4..(unit + 1) * SCALED / 4 {
            // SAFETY: the strip has 16 dwords for each four columns, each vector has these columns
            unsafe {
                let codes = _mm512_loadu_si512(codes.add(dword * ROWS).cast());
                for (m, dot) in dots.iter_mut().enumerate() {
                    let four = values.add((first + m) * x.padded + 4 * dword).cast::<i32>().read_unaligned();
                    *dot = _mm512_dpbusd_epi32(*dot, codes, _mm512_set1_epi32(four));
                }
            }
        }
        // SAFETY: each unit has 16 scales, and one of each vector
        unsafe {
            let at = |m: usize| (first + m) * x.pitch + unit;
            if SCALES {
                let scale = _mm512_loadu_ps(strip.scale.as_ptr().add(unit * ROWS));
                let base = _mm512_loadu_ps(strip.base.as_ptr().add(unit * ROWS));
                for m in 0..M {
                    let factor = _mm512_mul_ps(scale, _mm512_set1_ps(*x.scales.as_ptr().add(at(m))));
                    all[m] = _mm512_fmadd_ps(base, _mm512_set1_ps(*x.sums.as_ptr().add(at(m))), all[m]);
                    all[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[m]), factor, all[m]);
                }
            } else {
                for m in 0..M {
                    let scale = _mm512_set1_ps(*x.scales.as_ptr().add(at(m)));
                    all[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[m]), scale, all[m]);
                }
            }
        }
    }
    for (m, sums) in all.iter().enumerate() {
        // SAFETY: there are 16 sums for each vector
        unsafe { _mm512_storeu_ps(out.as_mut_ptr().add((first + m) * ROWS), *sums) };
    }
}

//! Rows times one vector of integers. What a row needs stays in registers: its scales times those of the vector, and codes that
//! are put together from nibbles and raw bits.

use core::arch::x86_64::*;

use super::join::{Planes, joined};
use super::*;
use crate::single::{CHUNK, Lines, Number, UnitScales};

/// Vectors of scales of a chunk.
const VECTORS: usize = CHUNK * BLOCK / SCALED / LANES;
/// Kinds of codes beside those of [`Job`]: nibbles with so many raw bits.
const RAW1: u8 = 11;
const RAW2: u8 = 12;
const RAW3: u8 = 13;
const RAW4: u8 = 14;

/// What a kernel reads. All of it is there: [`Lines::check`] has run.
pub(super) struct Work<'a> {
    pub lines: &'a Lines<'a>,
    pub scales: Option<&'a UnitScales<'a>>,
    /// What codes stand for, if not for themselves.
    pub table: Option<[u8; 16]>,
    /// The vector from the first block on, and the scales and sums of its units.
    pub values: *const i8,
    pub factors: *const f32,
    pub sums: *const f32,
}

/// How far ahead numbers are fetched: some rows.
const AHEAD_SCALES: usize = 256;
/// Rows that packed codes are fetched ahead: what the processor fetches by itself comes too late.
const AHEAD: usize = 8;
const FETCHED: [u8; 3] = [INT4, I8, BOOK4];

/// Where numbers lie, and in which form.
trait Form: Copy {
    /// Numbers from `at` on, as many as the mask has bits; and fetches what later rows need.
    ///
    /// # Safety
    /// They are there, and this CPU has AVX-512.
    unsafe fn load(self, at: usize, mask: u16) -> __m512;
}

impl Form for *const u16 {
    #[inline(always)]
    unsafe fn load(self, at: usize, mask: u16) -> __m512 {
        // SAFETY: the caller's promise; what the mask hides is not read, and a prefetch of any address is harmless
        unsafe {
            let from = self.add(at);
            _mm_prefetch::<_MM_HINT_T0>(from.cast::<i8>().wrapping_add(AHEAD_SCALES));
            _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from.cast()))
        }
    }
}

impl Form for *const f32 {
    #[inline(always)]
    unsafe fn load(self, at: usize, mask: u16) -> __m512 {
        // SAFETY: as above
        unsafe {
            let from = self.add(at);
            _mm_prefetch::<_MM_HINT_T0>(from.cast::<i8>().wrapping_add(AHEAD_SCALES));
            _mm512_maskz_loadu_ps(mask, from)
        }
    }
}

/// Adds the products of rows to `out`, one number a row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")]
pub(super) fn multiply(work: &Work<'_>, out: &mut [f32]) {
    let raw_bits = work.lines.raw.map_or(0, |raw| raw.planes.raw_bits());
    match (work.lines.codes, &work.table, raw_bits) {
        (Codes::Nibble(codes), None, 0) => rows::<NIBBLE>(work, codes.as_ptr(), out),
        (Codes::Nibble(codes), None, 1) => rows::<RAW1>(work, codes.as_ptr(), out),
        (Codes::Nibble(codes), None, 2) => rows::<RAW2>(work, codes.as_ptr(), out),
        (Codes::Nibble(codes), None, 3) => rows::<RAW3>(work, codes.as_ptr(), out),
        (Codes::Nibble(codes), None, _) => rows::<RAW4>(work, codes.as_ptr(), out),
        (Codes::Nibble(codes), Some(_), _) => rows::<BOOK>(work, codes.as_ptr(), out),
        (Codes::I5(codes), ..) => rows::<NIBBLE>(work, codes.as_ptr().cast(), out),
        (Codes::I8(codes), ..) => rows::<I8>(work, codes.as_ptr().cast(), out),
        (Codes::Int4(codes), None, _) => rows::<INT4>(work, codes.as_ptr(), out),
        (Codes::Int4(codes), Some(_), _) => rows::<BOOK4>(work, codes.as_ptr(), out),
        (Codes::I16(_) | Codes::F32(_), ..) => unreachable!("codes of more than a byte have other kernels"),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")]
fn rows<const KIND: u8>(work: &Work<'_>, codes: *const u8, out: &mut [f32]) {
    let Lines { near, far, together, step, raw, block, .. } = *work.lines;
    let planes = raw.map_or(Planes::NONE, |raw| Planes::new(raw.planes, raw.at));
    let pitch = raw.map_or(0, |raw| raw.pitch / BLOCK);
    let lift = raw.map_or(0, |raw| raw.lift);
    let table = work.table.unwrap_or_default();
    let all = All {
        work,
        lift: [lift, lift.wrapping_sub(1)].map(|lift| _mm512_set1_epi8(lift as i8)),
        // SAFETY: there are 16 bytes
        table: _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(table.as_ptr().cast()) }),
        scale: block * BLOCK / SCALED,
    };
    let mut factors = [[_mm512_setzero_ps(); VECTORS]; 4];
    for i in 0..together.min(out.len()) {
        for (r, rows) in pieces((out.len() - i).div_ceil(step), &[4, 1]) {
            let row = i + r * step;
            let line =
                Line { codes: codes.wrapping_add(i * near + r * far), planes: planes.skip(row * pitch), row };
            match rows {
                4 => {
                    let sums = all.rows::<KIND, 4>(&line, step * pitch, &mut factors);
                    (0..4).for_each(|k| out[row + k * step] += sums[k]);
                }
                _ => {
                    let [sum] = all.rows::<KIND, 1>(&line, 0, factors.first_chunk_mut().expect("four"));
                    out[row] += sum;
                }
            }
        }
    }
}

/// What all rows share.
struct All<'a> {
    work: &'a Work<'a>,
    lift: [__m512i; 2],
    table: __m512i,
    /// The first unit.
    scale: usize,
}

/// Where a row begins.
struct Line {
    codes: *const u8,
    planes: Planes,
    /// Its number among those of y.
    row: usize,
}

impl All<'_> {
    /// Products of R rows, of which raw bits are `pitch` blocks apart.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")]
    fn rows<const KIND: u8, const R: usize>(
        &self,
        line: &Line,
        pitch: usize,
        factors: &mut [[__m512; VECTORS]; R],
    ) -> [f32; R] {
        let Self { work, lift, table, scale } = *self;
        let Lines { far, step, blocks, .. } = *work.lines;
        let planes: [Planes; R] = std::array::from_fn(|r| line.planes.skip(r * pitch));
        planes.iter().for_each(|planes| fetch::<KIND>(*planes, blocks));
        let mut totals = [0.0; R];
        for chunk in (0..blocks).step_by(CHUNK) {
            let last = blocks.min(chunk + CHUNK);
            let unit = chunk * BLOCK / SCALED;
            let mut sums = [_mm512_setzero_ps(); R];
            if let Some(scales) = work.scales {
                let (first, last) = (scale + unit, scale + last * BLOCK / SCALED);
                let units = Units { row: line.row, step, first, last, place: unit };
                // SAFETY: units of these blocks are there
                sums = unsafe { unite(work, scales, &units, factors) };
            } else {
                for i in 0..((last - chunk) * BLOCK / SCALED).div_ceil(LANES) {
                    // SAFETY: the vector's scales are filled up to whole vectors
                    let own = unsafe { _mm512_loadu_ps(work.factors.add(unit + i * LANES)) };
                    factors.iter_mut().for_each(|factors| factors[i] = own);
                }
            }
            for b in chunk..last {
                // SAFETY: rows and planes have this block, the vector, too, and two factors for each row
                unsafe {
                    let x = _mm512_loadu_si512(work.values.add(b * BLOCK).cast());
                    for r in 0..R {
                        let from = line.codes.add(r * far);
                        if FETCHED.contains(&KIND) {
                            // rows of packed codes follow one another; a prefetch of any address is harmless
                            let at = if KIND == INT4 { b / 2 } else { b } * BLOCK;
                            _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(AHEAD * far + at).cast());
                        }
                        let codes = unsigned::<KIND>(from, b, planes[r], lift, table);
                        let at = factors[r].as_ptr().cast::<f32>().add((b - chunk) * (BLOCK / SCALED));
                        let below = _mm512_set1_ps(*at);
                        let factor = _mm512_mask_mov_ps(below, 0xff00, _mm512_set1_ps(*at.add(1)));
                        let dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, x);
                        sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), factor, sums[r]);
                    }
                }
            }
            for (total, sum) in totals.iter_mut().zip(reduced(sums)) {
                *total += sum;
            }
        }
        totals
    }
}

/// The sums of the lanes of one or four vectors, each in the same order.
#[inline]
#[target_feature(enable = "avx512f")]
fn reduced<const R: usize>(sums: [__m512; R]) -> [f32; R] {
    let mut all = [_mm512_setzero_ps(); 4];
    all[..R].copy_from_slice(&sums);
    // the upper half to the lower one of two vectors at a time, then of all four
    let half = |a, b| _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
    let (a, b) = (half(all[0], all[1]), half(all[2], all[3]));
    let all = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
    let all = _mm512_add_ps(all, _mm512_shuffle_ps::<0x4e>(all, all));
    let all = _mm512_add_ps(all, _mm512_shuffle_ps::<0xb1>(all, all));
    let first = _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, all));
    let mut out = [0.0; 4];
    // SAFETY: there are four numbers
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), first) };
    *out.first_chunk().expect("at most four")
}

/// Fetches raw bits of later rows.
#[inline]
#[target_feature(enable = "avx512f")]
fn fetch<const KIND: u8>(planes: Planes, blocks: usize) {
    match KIND {
        RAW1 => planes.fetch::<1>(blocks),
        RAW2 => planes.fetch::<2>(blocks),
        RAW3 => planes.fetch::<3>(blocks),
        RAW4 => planes.fetch::<4>(blocks),
        _ => {}
    }
}

/// Codes of a block of a row as the unsigned factor.
///
/// # Safety
/// The row and its planes have this block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn unsigned<const KIND: u8>(
    row: *const u8,
    block: usize,
    planes: Planes,
    lift: [__m512i; 2],
    table: __m512i,
) -> __m512i {
    let at = if matches!(KIND, INT4 | BOOK4) { block / 2 } else { block };
    let low = |codes| _mm512_and_si512(codes, _mm512_set1_epi8(15));
    // SAFETY: the caller's promise
    unsafe {
        let codes = _mm512_loadu_si512(row.add(at * BLOCK).cast());
        match KIND {
            INT4 => low(_mm512_srlv_epi32(codes, half(block))),
            I8 => _mm512_xor_si512(codes, _mm512_set1_epi8(-128)),
            BOOK => _mm512_shuffle_epi8(table, codes),
            BOOK4 => _mm512_shuffle_epi8(table, low(_mm512_srlv_epi32(codes, half(block)))),
            RAW1 => joined::<1>(codes, planes.skip(block), lift),
            RAW2 => joined::<2>(codes, planes.skip(block), lift),
            RAW3 => joined::<3>(codes, planes.skip(block), lift),
            RAW4 => joined::<4>(codes, planes.skip(block), lift),
            _ => codes,
        }
    }
}

/// Some units of rows, and where they begin in the vector of [`Work`].
struct Units {
    row: usize,
    step: usize,
    first: usize,
    last: usize,
    place: usize,
}

/// For each of these units and rows: the scale of weights times that of the vector to `factors`. Returns what zero and minima
/// add.
///
/// # Safety
/// These units are there, but for those beyond [`UnitScales::len`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn unite<const R: usize>(
    work: &Work<'_>,
    scales: &UnitScales<'_>,
    units: &Units,
    factors: &mut [[__m512; VECTORS]; R],
) -> [__m512; R] {
    // SAFETY: the caller's promise
    unsafe {
        match (scales.scale, scales.min) {
            (Number::Half(s), None) => united(work, scales, s.as_ptr(), None::<*const u16>, units, factors),
            (Number::Single(s), None) => united(work, scales, s.as_ptr(), None::<*const u16>, units, factors),
            (Number::Half(s), Some(Number::Half(m))) => {
                united(work, scales, s.as_ptr(), Some(m.as_ptr()), units, factors)
            }
            (Number::Half(s), Some(Number::Single(m))) => {
                united(work, scales, s.as_ptr(), Some(m.as_ptr()), units, factors)
            }
            (Number::Single(s), Some(Number::Half(m))) => {
                united(work, scales, s.as_ptr(), Some(m.as_ptr()), units, factors)
            }
            (Number::Single(s), Some(Number::Single(m))) => {
                united(work, scales, s.as_ptr(), Some(m.as_ptr()), units, factors)
            }
        }
    }
}

/// See [`unite`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn united<const R: usize>(
    work: &Work<'_>,
    scales: &UnitScales<'_>,
    scale: impl Form,
    min: Option<impl Form>,
    units: &Units,
    factors: &mut [[__m512; VECTORS]; R],
) -> [__m512; R] {
    let Units { row, step, first, last, place } = *units;
    let zero = _mm512_set1_ps(scales.zero);
    let last = last.min(scales.len);
    let mut all = [_mm512_setzero_ps(); R];
    let (at, pitch) = (scales.at + row * scales.pitch, step * scales.pitch);
    for (i, unit) in (first..last).step_by(LANES).enumerate().take(VECTORS) {
        let mask = if last - unit >= LANES { 0xffff } else { (1 << (last - unit)) - 1 };
        // SAFETY: these numbers are there; the vector's are filled up to whole vectors
        unsafe {
            let factor = _mm512_loadu_ps(work.factors.add(place + i * LANES));
            let sum = _mm512_loadu_ps(work.sums.add(place + i * LANES));
            for r in 0..R {
                let s = scale.load(at + r * pitch + unit, mask);
                let base = match min {
                    Some(min) => _mm512_fmadd_ps(s, zero, min.load(at + r * pitch + unit, mask)),
                    None => _mm512_mul_ps(s, zero),
                };
                factors[r][i] = _mm512_mul_ps(s, factor);
                all[r] = _mm512_fmadd_ps(base, sum, all[r]);
            }
        }
    }
    all
}

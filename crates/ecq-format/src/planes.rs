//! Nibbles, planes of raw bits, and what they stand for: plain loops over blocks that stay in the first cache.
//!
//! The raw bits of a level are cut into fields of 8, 4, 2 and 1 bits, by the binary digits of their number, the lowest
//! bits in the widest field, so the sign is in the last; each field is a plane, weights in row order, low bits first. No
//! field crosses the eighth bit of the raw bits. So eight weights of a field are as many bytes as it has bits, and all
//! loops here work on a low byte and, above 8 raw bits, a high byte of each weight.
//!
//! The loops hold no branch on data and are compiled for several instruction sets (`multiversion`), chosen at run time.

use multiversion::multiversion;

use crate::pattern::Pattern;

/// Weights in a block.
const BLOCK: usize = 1024;
/// Widths of the fields, in file order.
const WIDTHS: [u32; 4] = [8, 4, 2, 1];

/// Bytes that fill up to a multiple of four.
pub(crate) fn fill4(len: u64) -> u64 {
    len.next_multiple_of(4)
}

/// Widths of the raw fields, and how far up in the raw bits they begin.
fn fields(raw_bits: u32) -> impl Iterator<Item = (u32, u32)> {
    let mut shift = 0;
    WIDTHS.into_iter().filter(move |w| raw_bits & w != 0).map(move |w| {
        shift += w;
        (w, shift - w)
    })
}

fn plane_bytes(width: u32, weights: u64) -> u64 {
    (weights * u64::from(width)).div_ceil(8)
}

/// Bytes of all raw planes of a tile.
pub fn raw_bytes(raw_bits: u32, weights: u64) -> u64 {
    fields(raw_bits).map(|(w, _)| fill4(plane_bytes(w, weights))).sum()
}

/// The eight fields of `W` bits in `W` bytes, a byte each.
#[inline(always)]
fn spread<const W: usize>(bytes: [u8; W]) -> u64 {
    let mut all = [0; 8];
    all[..W].copy_from_slice(&bytes);
    let x = u64::from_le_bytes(all);
    let x = (x | x << (32 - 4 * W)) & mask::<W>(4, 0x0000_0001_0000_0001);
    let x = (x | x << (16 - 2 * W)) & mask::<W>(2, 0x0001_0001_0001_0001);
    (x | x << (8 - W)) & mask::<W>(1, 0x0101_0101_0101_0101)
}

/// The lowest `W` bits of eight bytes, next to each other: the inverse of [`spread`].
#[inline(always)]
fn collect<const W: usize>(bytes: u64) -> [u8; W] {
    let x = bytes & mask::<W>(1, 0x0101_0101_0101_0101);
    let x = (x | x >> (8 - W)) & mask::<W>(2, 0x0001_0001_0001_0001);
    let x = (x | x >> (16 - 2 * W)) & mask::<W>(4, 0x0000_0001_0000_0001);
    let all = (x | x >> (32 - 4 * W)).to_le_bytes();
    let mut out = [0; W];
    out.copy_from_slice(&all[..W]);
    out
}

/// Ones for `count` fields of `W` bits at each one bit of `places`.
#[inline(always)]
const fn mask<const W: usize>(count: usize, places: u64) -> u64 {
    places * ((1u64 << (W * count)) - 1)
}

/// Raw bits of a block of weights: the lower eight of each, and what is above.
struct Raw {
    low: [u8; BLOCK + 8],
    high: [u8; BLOCK + 8],
}

impl Raw {
    const ZERO: Self = Self { low: [0; BLOCK + 8], high: [0; BLOCK + 8] };

    /// The bytes that hold the field beginning at this bit, and the bit in them.
    #[inline(always)]
    fn field(&mut self, shift: u32) -> (&mut [u8], u32) {
        if shift < 8 { (&mut self.low, shift) } else { (&mut self.high, shift - 8) }
    }
}

/// Adds the fields of a plane from `plane` on to the bytes of as many weights.
#[inline(always)]
fn unpack<const W: usize>(plane: &[u8], shift: u32, bytes: &mut [u8]) {
    let groups = bytes.as_chunks_mut::<8>().0;
    let (whole, rest) = plane.as_chunks::<W>();
    for (group, plane) in groups.iter_mut().zip(whole) {
        *group = (u64::from_le_bytes(*group) | spread(*plane) << shift).to_le_bytes();
    }
    if let Some(group) = groups.get_mut(whole.len()) {
        let mut last = [0; W];
        last[..rest.len()].copy_from_slice(rest);
        *group = (u64::from_le_bytes(*group) | spread(last) << shift).to_le_bytes();
    }
}

/// Writes the fields at `shift` of the bytes of some weights to the start of `plane`.
#[inline(always)]
fn pack<const W: usize>(bytes: &[u8], shift: u32, plane: &mut [u8]) {
    let groups = bytes.as_chunks::<8>().0;
    let (whole, rest) = plane.as_chunks_mut::<W>();
    for (group, plane) in groups.iter().zip(&mut *whole) {
        *plane = collect(u64::from_le_bytes(*group) >> shift);
    }
    if let Some(group) = groups.get(whole.len()) {
        rest.copy_from_slice(&collect::<W>(u64::from_le_bytes(*group) >> shift)[..rest.len()]);
    }
}

/// The raw planes of a tile, to be read.
#[derive(Clone, Copy, Debug)]
pub struct RawPlanes<'a> {
    raw_bits: u32,
    /// One for each of [`WIDTHS`]; empty where there is no such field.
    planes: [&'a [u8]; 4],
}

impl<'a> RawPlanes<'a> {
    /// Cuts the bytes of the raw planes of `weights` weights, [`raw_bytes`] of them. The error says what is wrong: their
    /// number, or filling that is not zero.
    pub fn new(raw_bits: u32, weights: usize, mut bytes: &'a [u8]) -> Result<Self, String> {
        if bytes.len() as u64 != raw_bytes(raw_bits, weights as u64) {
            return Err(format!("{} bytes for {raw_bits} raw bits of {weights} weights", bytes.len()));
        }
        let mut planes = [&[][..]; 4];
        for (width, _) in fields(raw_bits) {
            let len = plane_bytes(width, weights as u64) as usize;
            let (filled, rest) = bytes.split_at(fill4(len as u64) as usize);
            let (plane, fill) = filled.split_at(len);
            let over = (weights * width as usize) % 8;
            if fill.iter().any(|&b| b != 0) || (over > 0 && plane.last().is_some_and(|&b| b >> over != 0)) {
                return Err("filling other than zero after raw bits".into());
            }
            planes[3 - width.ilog2() as usize] = plane;
            bytes = rest;
        }
        Ok(Self { raw_bits, planes })
    }

    /// Number of raw bits.
    pub fn raw_bits(&self) -> u32 {
        self.raw_bits
    }

    /// The plane of the fields of this width (8, 4, 2 or 1); empty if there is none.
    pub fn plane(&self, width: u32) -> &'a [u8] {
        self.planes[3 - width.ilog2() as usize]
    }

    /// Reads the raw bits of `count` weights from a multiple of eight on.
    #[inline(always)]
    fn read(&self, first: usize, count: usize, raw: &mut Raw) {
        *raw = Raw::ZERO;
        for (width, shift) in fields(self.raw_bits) {
            let plane = self.plane(width);
            let plane = &plane[first / 8 * width as usize..];
            let plane = &plane[..plane.len().min(count.div_ceil(8) * width as usize)];
            let (bytes, shift) = raw.field(shift);
            let bytes = &mut bytes[..count.next_multiple_of(8)];
            match width {
                8 => unpack::<8>(plane, shift, bytes),
                4 => unpack::<4>(plane, shift, bytes),
                2 => unpack::<2>(plane, shift, bytes),
                _ => unpack::<1>(plane, shift, bytes),
            }
        }
    }
}

/// Calls `each(first, low, high)` for blocks of `count` weights from `first` on.
#[inline(always)]
fn blocks(planes: &RawPlanes<'_>, first: usize, count: usize, mut each: impl FnMut(usize, &[u8], &[u8])) {
    let mut raw = Raw::ZERO;
    let skip = first % 8;
    for at in (0..count).step_by(BLOCK) {
        let here = BLOCK.min(count - at);
        planes.read(first + at - skip, here + skip, &mut raw);
        each(at, &raw.low[skip..skip + here], &raw.high[skip..skip + here]);
    }
}

macro_rules! join {
    ($(#[$about:meta])* $name:ident, $signed:ty, $unsigned:ty, $most:literal) => {
        $(#[$about])*
        ///
        /// # Panics
        #[doc = concat!("If `nibbles` and `out` differ in length, there are more than ", $most, " raw bits, or the tile")]
        /// has fewer weights.
        pub fn $name(planes: &RawPlanes<'_>, first: usize, nibbles: &[u8], out: &mut [$signed]) {
            assert!(nibbles.len() == out.len() && planes.raw_bits <= $most);
            #[multiversion(targets = "simd")]
            fn run(planes: &RawPlanes<'_>, first: usize, nibbles: &[u8], out: &mut [$signed]) {
                let low_bits = planes.raw_bits.saturating_sub(1);
                let mask = ((1u32 << low_bits) - 1) as $unsigned;
                blocks(planes, first, nibbles.len(), |at, low, high| {
                    let (out, nibbles) = (&mut out[at..at + low.len()], &nibbles[at..at + low.len()]);
                    for (((out, &n), &l), &h) in out.iter_mut().zip(nibbles).zip(low).zip(high) {
                        let raw = <$unsigned>::from(l) | (u32::from(h) << 8) as $unsigned;
                        let k = <$unsigned>::from(n) << low_bits | raw & mask;
                        let sign = raw >> low_bits & 1;
                        *out = (k ^ sign.wrapping_neg()) as $signed;
                    }
                });
            }
            run(planes, first, nibbles, out);
        }
    };
}

join! {
    /// Levels, less their centre, of the weights of a tile from `first` on.
    join_i8, i8, u8, 4
}
join! {
    /// Levels, less their centre, of the weights of a tile from `first` on.
    join_i16, i16, u16, 11
}
join! {
    /// Levels, less their centre, of the weights of a tile from `first` on.
    join_i32, i32, u32, 11
}

/// Levels and bit patterns to nibbles and raw bits: what the loops need to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub raw_bits: u32,
    pub center: i32,
    /// Bit n is set if nibble n may be coded.
    pub allowed: u16,
    /// The nibble that stands at escapes.
    pub filler: u8,
}

impl Cut {
    fn low_bits(&self) -> u32 {
        self.raw_bits.saturating_sub(1)
    }
}

/// Cuts blocks with `cut`, which writes nibbles, the low and the high raw bits and a mark for each weight that escapes, and
/// tells whether there is a mark. Packs the raw bits into `planes`, and calls `escape` with the positions that are marked.
#[inline(always)]
fn pack_blocks(
    raw_bits: u32,
    nibbles: &mut [u8],
    mut planes: &mut [u8],
    mut cut: impl FnMut(usize, &mut [u8], [&mut [u8]; 3]) -> bool,
    mut escape: impl FnMut(usize),
) {
    let count = nibbles.len();
    let mut of: [&mut [u8]; 4] = Default::default();
    for (width, _) in fields(raw_bits) {
        let (plane, rest) = planes.split_at_mut(fill4(plane_bytes(width, count as u64)) as usize);
        let (plane, fill) = plane.split_at_mut(plane_bytes(width, count as u64) as usize);
        fill.fill(0);
        of[3 - width.ilog2() as usize] = plane;
        planes = rest;
    }
    let (mut raw, mut marks) = (Raw::ZERO, [0; BLOCK]);
    for (block, nibbles) in nibbles.chunks_mut(BLOCK).enumerate() {
        let (at, here) = (block * BLOCK, nibbles.len());
        if here < BLOCK {
            (raw, marks) = (Raw::ZERO, [0; BLOCK]);
        }
        if cut(at, nibbles, [&mut raw.low[..here], &mut raw.high[..here], &mut marks[..here]]) {
            // few are: eight at a time
            let marked = marks.chunks(8).enumerate().filter(|(_, eight)| **eight != [0; 8]);
            let each = marked.flat_map(|(i, eight)| (8 * i..).zip(eight).filter(|m| *m.1 != 0));
            each.for_each(|(i, _)| escape(at + i));
        }
        for (width, shift) in fields(raw_bits) {
            let plane = &mut of[3 - width.ilog2() as usize][at / 8 * width as usize..];
            let len = plane.len().min(BLOCK / 8 * width as usize);
            let plane = &mut plane[..len];
            let (bytes, shift) = raw.field(shift);
            match width {
                8 => pack::<8>(bytes, shift, plane),
                4 => pack::<4>(bytes, shift, plane),
                2 => pack::<2>(bytes, shift, plane),
                _ => pack::<1>(bytes, shift, plane),
            }
        }
    }
}

macro_rules! cut {
    ($name:ident, $unsigned:ty) => {
        /// Nibble and raw bits of a weight from its sign (0 or all ones) and the magnitude, and whether it escapes.
        #[inline(always)]
        fn $name(cut: Cut, sign: $unsigned, k: $unsigned) -> (u8, $unsigned, bool) {
            let low_bits = cut.low_bits();
            let nibble = k >> low_bits;
            let known = <$unsigned>::from(cut.allowed) >> (nibble & 15) & 1;
            let escapes = nibble > 15 || known == 0;
            let raw = (sign & 1) << low_bits | k & ((1 << low_bits) - 1);
            (if escapes { cut.filler } else { nibble as u8 }, if escapes { 0 } else { raw }, escapes)
        }
    };
}

cut!(cut_u32, u32);
cut!(cut_u16, u16);

/// Writes nibbles and raw planes of levels; lists escapes by position and level.
pub(crate) fn split_levels(
    cut: Cut,
    levels: &[i32],
    nibbles: &mut [u8],
    planes: &mut [u8],
    list: &mut Vec<(u32, i32)>,
) {
    #[inline(always)]
    fn one(cut: Cut, level: i32) -> (u8, u32, bool) {
        // wrapping: what does not fit 32 bits is far outside either way
        let d = level.wrapping_sub(cut.center);
        let sign = if cut.raw_bits > 0 { d >> 31 } else { 0 };
        cut_u32(cut, sign as u32, (d ^ sign) as u32)
    }
    #[multiversion(targets = "simd")]
    fn run(cut: Cut, levels: &[i32], nibbles: &mut [u8], planes: &mut [u8], list: &mut Vec<(u32, i32)>) {
        let block = |at: usize, nibbles: &mut [u8], [low, high, marks]: [&mut [u8]; 3]| {
            let mut any = 0;
            let levels = &levels[at..at + nibbles.len()];
            for ((((&level, n), l), h), m) in levels.iter().zip(nibbles).zip(low).zip(high).zip(marks) {
                let (nibble, raw, escapes) = one(cut, level);
                (*n, *l, *h, *m) = (nibble, raw as u8, (raw >> 8) as u8, u8::from(escapes));
                any |= u32::from(escapes);
            }
            any != 0
        };
        pack_blocks(cut.raw_bits, nibbles, planes, block, |p| list.push((p as u32, levels[p])));
    }
    run(cut, levels, nibbles, planes, list);
}

/// A weight of one or two bytes, little-endian.
trait Bits: Copy + Sync {
    fn get(self) -> u16;
    fn new(bits: u16) -> Self;
}

impl Bits for [u8; 1] {
    #[inline(always)]
    fn get(self) -> u16 {
        u16::from(self[0])
    }
    #[inline(always)]
    fn new(bits: u16) -> Self {
        [bits as u8]
    }
}

impl Bits for [u8; 2] {
    #[inline(always)]
    fn get(self) -> u16 {
        u16::from_le_bytes(self)
    }
    #[inline(always)]
    fn new(bits: u16) -> Self {
        bits.to_le_bytes()
    }
}

/// Writes nibbles and raw planes of bit patterns; lists escapes by position and level.
pub(crate) fn split_patterns(
    cut: Cut,
    pattern: Pattern,
    bytes: &[u8],
    nibbles: &mut [u8],
    planes: &mut [u8],
    list: &mut Vec<(u32, i32)>,
) {
    #[multiversion(targets = "simd")]
    fn run<B: Bits>(
        cut: Cut,
        pattern: Pattern,
        bits: &[B],
        nibbles: &mut [u8],
        planes: &mut [u8],
        list: &mut Vec<(u32, i32)>,
    ) {
        let (sign_bit, base) = (pattern.format.bits() - 1, pattern.base as u16);
        let mask = (1u16 << sign_bit) - 1;
        let one = |bits: B| {
            let bits = bits.get();
            cut_u16(cut, bits >> sign_bit, (bits & mask).wrapping_sub(base) & mask)
        };
        let block = |at: usize, nibbles: &mut [u8], [low, high, marks]: [&mut [u8]; 3]| {
            let mut any = 0;
            let bits = &bits[at..at + nibbles.len()];
            for ((((&bits, n), l), h), m) in bits.iter().zip(nibbles).zip(low).zip(high).zip(marks) {
                let (nibble, raw, escapes) = one(bits);
                (*n, *l, *h, *m) = (nibble, raw as u8, (raw >> 8) as u8, u8::from(escapes));
                any |= u16::from(escapes);
            }
            any != 0
        };
        let escape = |p: usize| list.push((p as u32, pattern.level(bits[p].get())));
        pack_blocks(cut.raw_bits, nibbles, planes, block, escape);
    }
    match pattern.format.bytes() {
        1 => run(cut, pattern, bytes.as_chunks::<1>().0, nibbles, planes, list),
        _ => run(cut, pattern, bytes.as_chunks::<2>().0, nibbles, planes, list),
    }
}

/// Bit patterns, little-endian, of the weights of a tile from `first` on. `out` has the bytes of as many weights as there
/// are nibbles.
///
/// # Panics
/// If it has not, or the tile has fewer weights.
pub fn join_patterns(planes: &RawPlanes<'_>, pattern: Pattern, first: usize, nibbles: &[u8], out: &mut [u8]) {
    #[multiversion(targets = "simd")]
    fn run<B: Bits>(planes: &RawPlanes<'_>, pattern: Pattern, first: usize, nibbles: &[u8], out: &mut [B]) {
        let low_bits = planes.raw_bits.saturating_sub(1);
        let (sign_bit, base) = (pattern.format.bits() - 1, pattern.base as u16);
        let (low_mask, mask) = ((1u16 << low_bits) - 1, (1u16 << sign_bit) - 1);
        blocks(planes, first, nibbles.len(), |at, low, high| {
            let (out, nibbles) = (&mut out[at..at + low.len()], &nibbles[at..at + low.len()]);
            for (((out, &n), &l), &h) in out.iter_mut().zip(nibbles).zip(low).zip(high) {
                let raw = u16::from(l) | u16::from(h) << 8;
                let k = u16::from(n) << low_bits | raw & low_mask;
                *out = B::new(k.wrapping_add(base) & mask | (raw >> low_bits & 1) << sign_bit);
            }
        });
    }
    match pattern.format.bytes() {
        1 => run(planes, pattern, first, nibbles, out.as_chunks_mut::<1>().0),
        _ => run(planes, pattern, first, nibbles, out.as_chunks_mut::<2>().0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::levels::Split;
    use crate::pattern::FloatFormat;

    /// Bytes that look random.
    fn noise(n: usize, seed: u32) -> Vec<u8> {
        let mut x = seed;
        let mut draw = || {
            x = x.wrapping_mul(1664525).wrapping_add(1013904223);
            (x >> 24) as u8
        };
        (0..n).map(|_| draw()).collect()
    }

    /// The raw bits at a position, by the words of the specification.
    fn raw_at(raw_bits: u32, weights: usize, planes: &[u8], position: usize) -> u16 {
        let (mut at, mut raw, mut shift) = (0, 0, 0);
        for width in [8, 4, 2, 1usize] {
            if raw_bits as usize & width != 0 {
                let byte = planes[at + position / (8 / width)];
                let field = byte >> (position % (8 / width) * width) & ((1u16 << width) - 1) as u8;
                raw |= u16::from(field) << shift;
                shift += width;
                at += (weights * width).div_ceil(8).next_multiple_of(4);
            }
        }
        raw
    }

    const COUNTS: [usize; 9] = [1, 7, 8, 9, 64, 100, 1024, 1025, 3001];

    #[test]
    fn levels_are_split_and_joined_as_the_reference_does() {
        for raw_bits in 0..=11 {
            for (i, &n) in COUNTS.iter().enumerate() {
                let split = Split { raw_bits, center: [0, 5, -8][i % 3] };
                let cut = Cut { raw_bits, center: split.center, allowed: 0xbfff, filler: 3 };
                let reach = 18 << raw_bits;
                let draw = noise(4 * n, i as u32).as_chunks::<4>().0.to_vec();
                let level = |&b: &[u8; 4]| match i32::from_le_bytes(b) {
                    v if b[0] == 0 => v, // any
                    v => v.rem_euclid(reach) - reach / 2,
                };
                let levels: Vec<i32> = draw.iter().map(level).collect();
                let (mut nibbles, mut list) = (vec![0; n], Vec::new());
                let mut planes = vec![0; raw_bytes(raw_bits, n as u64) as usize];
                split_levels(cut, &levels, &mut nibbles, &mut planes, &mut list);
                let mut escapes = list.iter().copied();
                for (p, &level) in levels.iter().enumerate() {
                    let expected = split.split(level).filter(|&(nibble, _)| nibble != 14);
                    if expected.is_none() {
                        assert_eq!(escapes.next(), Some((p as u32, level)));
                    }
                    let raw = raw_at(raw_bits, n, &planes, p);
                    assert_eq!((nibbles[p], raw), expected.unwrap_or((3, 0)), "r {raw_bits}, {p} of {n}");
                }
                assert_eq!(escapes.next(), None);
                joined(split, n, &nibbles, &planes);
            }
        }
    }

    /// All kinds of joining, from several places on.
    fn joined(split: Split, n: usize, nibbles: &[u8], bytes: &[u8]) {
        let planes = RawPlanes::new(split.raw_bits, n, bytes).unwrap();
        for first in [0, 1, 8, 13, 1023, 1027].into_iter().filter(|&f| f < n) {
            let nibbles = &nibbles[first..];
            let expected: Vec<i32> = nibbles
                .iter()
                .enumerate()
                .map(|(i, &nibble)| {
                    let raw = raw_at(split.raw_bits, n, bytes, first + i);
                    Split { center: 0, ..split }.join(nibble, raw)
                })
                .collect();
            let mut out = vec![0; nibbles.len()];
            join_i32(&planes, first, nibbles, &mut out);
            assert_eq!(out, expected);
            let mut out = vec![0; nibbles.len()];
            join_i16(&planes, first, nibbles, &mut out);
            assert!(out.iter().map(|&l| i32::from(l)).eq(expected.iter().copied()));
            if split.raw_bits <= 4 {
                let mut out = vec![0; nibbles.len()];
                join_i8(&planes, first, nibbles, &mut out);
                assert!(out.iter().map(|&l| i32::from(l)).eq(expected.iter().copied()));
            }
        }
    }

    #[test]
    fn patterns_are_split_and_joined_as_levels_are() {
        let formats = [
            (FloatFormat::Bf16, 8, 100 << 7),
            (FloatFormat::F16, 11, 30 << 10),
            (FloatFormat::F8E4M3, 4, 0),
            (FloatFormat::F8E5M2, 3, 9 << 2),
            (FloatFormat::F8E5M2, 4, 3 << 2),
        ];
        for (format, raw_bits, base) in formats {
            for (i, &n) in COUNTS.iter().enumerate() {
                let pattern = Pattern { format, base };
                let cut = Cut { raw_bits, center: 0, allowed: 0xfff7, filler: 1 };
                let mut bytes = noise(n * format.bytes(), 77 + i as u32);
                let bits = |bytes: &[u8]| -> Vec<u16> {
                    let low = |b: &[u8]| u16::from_le_bytes([b[0], b.get(1).copied().unwrap_or(0)]);
                    bytes.chunks(format.bytes()).map(low).collect()
                };
                let levels: Vec<i32> = bits(&bytes).into_iter().map(|b| pattern.level(b)).collect();
                let size = raw_bytes(raw_bits, n as u64) as usize;
                let (mut a, mut b) =
                    ((vec![0; n], vec![0; size], vec![]), (vec![0; n], vec![0; size], vec![]));
                split_patterns(cut, pattern, &bytes, &mut a.0, &mut a.1, &mut a.2);
                split_levels(cut, &levels, &mut b.0, &mut b.1, &mut b.2);
                assert_eq!(a, b, "{format:?} {n}");
                let planes = RawPlanes::new(raw_bits, n, &a.1).unwrap();
                for first in [0, 1, 8, 1027].into_iter().filter(|&f| f < n) {
                    let mut joined = vec![0; n - first];
                    join_i32(&planes, first, &a.0[first..], &mut joined);
                    bytes.resize((n - first) * format.bytes(), 0);
                    join_patterns(&planes, pattern, first, &a.0[first..], &mut bytes);
                    let expected = joined.iter().map(|&l| pattern.bits(l).unwrap());
                    assert!(bits(&bytes).into_iter().eq(expected), "{format:?} {n} from {first}");
                }
            }
        }
    }

    #[test]
    fn filling_that_is_not_zero_is_refused() {
        for raw_bits in 1..=11 {
            let len = raw_bytes(raw_bits, 5) as usize;
            assert!(RawPlanes::new(raw_bits, 5, &vec![0; len + 1]).is_err());
            let used: usize = (0..len)
                .map(|i| {
                    let mut bytes = vec![0; len];
                    bytes[i] = 0xff;
                    usize::from(RawPlanes::new(raw_bits, 5, &bytes).is_ok())
                })
                .sum();
            // bytes that are filled to their last bit by five weights
            let whole = [8, 4, 2, 1usize].into_iter().filter(|w| raw_bits as usize & w != 0);
            assert_eq!(used, whole.map(|w| 5 * w / 8).sum::<usize>(), "{raw_bits}");
        }
    }
}

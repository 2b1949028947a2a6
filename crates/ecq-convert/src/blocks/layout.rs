//! Where the numbers of each block format lie, as tables.
//!
//! All of GGUF's linear formats are of one form. A block is codes, one or two half-precision numbers, and in the K formats
//! integer scales of the groups of its weights. Codes and integer scales are cut into fields of bits; that of one value in
//! up to two places. So a format is a list of [`Field`]s and the places of its halves, and one pair of functions
//! takes any block apart and puts it together.

use half::f16;

/// Most weights of a block.
pub(super) const MOST_WEIGHTS: usize = 256;
/// Most groups of a block that have a scale each.
const MOST_GROUPS: usize = 16;

/// Some bits of neighbouring values in neighbouring bytes.
///
/// The bytes from `at` on are cut into runs of `run`. A byte has `(8 - shift) / bits` places for a value, from bit `shift` on.
/// Values fill the first place of all bytes of a run, then the second place, and so on, then the next run.
pub(super) struct Field {
    /// First value.
    first: usize,
    /// Number of values.
    count: usize,
    /// The field's lowest bit in a value.
    to: u32,
    /// Bits of a value that are here.
    bits: u32,
    /// First byte in the block.
    at: usize,
    /// Bytes of a run.
    run: usize,
    /// Lowest bit of the first place.
    shift: u32,
}

impl Field {
    /// `bits` of all `count` values from the first byte's lowest bit on.
    const fn new(count: usize, to: u32, bits: u32, at: usize, run: usize) -> Self {
        Self { first: 0, count, to, bits, at, run, shift: 0 }
    }

    const fn mask(&self) -> u8 {
        u8::MAX >> (8 - self.bits)
    }

    /// Values of a run.
    const fn run_values(&self) -> usize {
        self.run * ((8 - self.shift) / self.bits) as usize
    }

    /// Whether a byte has a bit of each of eight neighbouring values: all eight are then moved at once.
    const fn is_bitmap(&self) -> bool {
        self.run == 1 && self.bits == 1 && self.shift == 0
    }

    /// Sets the field's bits of the values, which must be zero there.
    fn read(&self, block: &[u8], values: &mut [u8]) {
        let values = &mut values[self.first..self.first + self.count];
        if self.is_bitmap() {
            for (eight, &byte) in values.as_chunks_mut().0.iter_mut().zip(&block[self.at..]) {
                *eight = (u64::from_le_bytes(*eight) | spread(byte) << self.to).to_le_bytes();
            }
            return;
        }
        let runs = block[self.at..].chunks_exact(self.run);
        for (bytes, values) in runs.zip(values.chunks_mut(self.run_values())) {
            let mut shift = self.shift;
            for values in values.chunks_exact_mut(self.run) {
                for (value, byte) in values.iter_mut().zip(bytes) {
                    *value |= (byte >> shift & self.mask()) << self.to;
                }
                shift += self.bits;
            }
        }
    }

    /// Sets the field's bits of the block, which must be zero there.
    fn write(&self, values: &[u8], block: &mut [u8]) {
        let values = &values[self.first..self.first + self.count];
        if self.is_bitmap() {
            for (&eight, byte) in values.as_chunks().0.iter().zip(&mut block[self.at..]) {
                *byte |= gather(u64::from_le_bytes(eight) >> self.to);
            }
            return;
        }
        let runs = block[self.at..].chunks_exact_mut(self.run);
        for (bytes, values) in runs.zip(values.chunks(self.run_values())) {
            let mut shift = self.shift;
            for values in values.chunks_exact(self.run) {
                for (byte, value) in bytes.iter_mut().zip(values) {
                    *byte |= (value >> self.to & self.mask()) << shift;
                }
                shift += self.bits;
            }
        }
    }
}

/// The lowest bit of each of eight bytes.
const LOWEST: u64 = u64::from_le_bytes([1; 8]);

/// Each bit of a byte in a byte of its own.
const fn spread(byte: u8) -> u64 {
    // bit i of byte i; the sum sets bit 7 where it is set
    let bits = (byte as u64 * LOWEST) & 0x8040_2010_0804_0201;
    ((bits + 0x7f * LOWEST) >> 7) & LOWEST
}

/// The lowest bits of eight bytes in one.
const fn gather(bytes: u64) -> u8 {
    // byte i is moved by 56 - 7 i bits, so that its bit comes to 56 + i, and no two meet
    ((bytes & LOWEST).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
}

/// Integers of `bits` bits in a block. With `signed` they are in two's complement, and as bytes biased by half their range.
pub(super) struct Integers {
    pub(super) bits: u32,
    pub(super) signed: bool,
    fields: &'static [Field],
}

impl Integers {
    /// The greatest byte: all bits set.
    pub(super) const fn greatest(&self) -> u8 {
        u8::MAX >> (8 - self.bits)
    }

    /// What turns two's complement into biased integers, and back.
    const fn flip(&self) -> u8 {
        if self.signed { 1 << (self.bits - 1) } else { 0 }
    }

    /// Writes the integers of a block over `out`.
    pub(super) fn read(&self, block: &[u8], out: &mut [u8]) {
        out.fill(0);
        self.fields.iter().for_each(|field| field.read(block, out));
        if self.signed {
            out.iter_mut().for_each(|value| *value ^= self.flip());
        }
    }

    /// Sets the bits of a block, which must be zero there. Turns `values` over.
    pub(super) fn write(&self, values: &mut [u8], block: &mut [u8]) {
        if self.signed {
            values.iter_mut().for_each(|value| *value ^= self.flip());
        }
        self.fields.iter().for_each(|field| field.write(values, block));
    }
}

/// Integer scales of the groups of a block, then their integer minima.
pub(super) struct Nested {
    /// Weights of a group.
    pub(super) size: usize,
    /// Added to an integer scale.
    pub(super) bias: i32,
    /// All scales of the block; behind them, if it has two halves, as many minima.
    pub(super) integers: Integers,
}

/// A block format.
pub(super) struct Layout {
    /// The name of the type in GGUF.
    pub(super) name: &'static str,
    /// The name of the scheme in `.ecq` files.
    pub(super) scheme: &'static str,
    /// Bytes of a block.
    pub(super) bytes: usize,
    /// Weights in a block.
    pub(super) weights: usize,
    /// The codes; signed ones are levels, biased.
    pub(super) codes: Integers,
    /// Added to a level.
    pub(super) bias: i32,
    /// Where the half-precision numbers lie: the scale, then the minimum if there is one.
    pub(super) halves: &'static [usize],
    /// The integer scales, if there are any.
    pub(super) nested: Option<Nested>,
}

impl Layout {
    /// Weights that share a scale.
    pub(super) const fn group(&self) -> usize {
        match &self.nested {
            Some(nested) => nested.size,
            None => self.weights,
        }
    }

    /// Groups of a block.
    pub(super) const fn groups(&self) -> usize {
        self.weights / self.group()
    }

    /// Whether groups have a minimum.
    pub(super) const fn min(&self) -> bool {
        self.halves.len() == 2
    }

    /// Integer scales and minima of a block.
    pub(super) const fn integers(&self) -> usize {
        if self.nested.is_some() { self.groups() * self.halves.len() } else { 0 }
    }

    /// The level of the code byte 0.
    pub(super) const fn least(&self) -> i32 {
        -(self.codes.flip() as i32)
    }

    /// Bits of the half at `index`.
    pub(super) fn half(&self, block: &[u8], index: usize) -> u16 {
        let at = self.halves[index];
        u16::from_le_bytes([block[at], block[at + 1]])
    }

    /// Calls `each` with the number of each group of a block, its scale and its minimum, in single precision.
    pub(super) fn scales(&self, block: &[u8], mut each: impl FnMut(usize, f32, f32)) {
        let half = |index| f16::from_bits(self.half(block, index)).to_f32();
        let (d, m) = (half(0), if self.min() { half(1) } else { 0.0 });
        let Some(nested) = &self.nested else { return each(0, d, m) };
        let mut integers = [0; 2 * MOST_GROUPS];
        nested.integers.read(block, &mut integers[..self.integers()]);
        for g in 0..self.groups() {
            let scale = d * (i32::from(integers[g]) + nested.bias) as f32;
            each(g, scale, -(m * f32::from(integers[self.groups() + g])));
        }
    }
}

/// Codes of four bits: the lower halves of `run` bytes, then the upper ones.
const fn nibbles(weights: usize, at: usize, run: usize) -> Field {
    Field::new(weights, 0, 4, at, run)
}

const fn plain(bits: u32, fields: &'static [Field]) -> Integers {
    Integers { bits, signed: false, fields }
}

/// Six bits each of eight scales and eight minima in 12 bytes from byte 4 on: the first four of each with spare room for the
/// upper bits of the others.
const SIX_BITS: &[Field] = &[
    Field { first: 0, count: 4, to: 0, bits: 6, at: 4, run: 4, shift: 0 },
    Field { first: 8, count: 4, to: 0, bits: 6, at: 8, run: 4, shift: 0 },
    Field { first: 4, count: 4, to: 0, bits: 4, at: 12, run: 4, shift: 0 },
    Field { first: 12, count: 4, to: 0, bits: 4, at: 12, run: 4, shift: 4 },
    Field { first: 4, count: 4, to: 4, bits: 2, at: 4, run: 4, shift: 6 },
    Field { first: 12, count: 4, to: 4, bits: 2, at: 8, run: 4, shift: 6 },
];

pub(super) static Q4_0: Layout = Layout {
    name: "Q4_0",
    scheme: "gguf-q4_0",
    bytes: 18,
    weights: 32,
    codes: plain(4, &[nibbles(32, 2, 16)]),
    bias: -8,
    halves: &[0],
    nested: None,
};

pub(super) static Q4_1: Layout = Layout {
    name: "Q4_1",
    scheme: "gguf-q4_1",
    bytes: 20,
    weights: 32,
    codes: plain(4, &[nibbles(32, 4, 16)]),
    bias: 0,
    halves: &[0, 2],
    nested: None,
};

pub(super) static Q5_0: Layout = Layout {
    name: "Q5_0",
    scheme: "gguf-q5_0",
    bytes: 22,
    weights: 32,
    codes: plain(5, &[nibbles(32, 6, 16), Field::new(32, 4, 1, 2, 1)]),
    bias: -16,
    halves: &[0],
    nested: None,
};

pub(super) static Q5_1: Layout = Layout {
    name: "Q5_1",
    scheme: "gguf-q5_1",
    bytes: 24,
    weights: 32,
    codes: plain(5, &[nibbles(32, 8, 16), Field::new(32, 4, 1, 4, 1)]),
    bias: 0,
    halves: &[0, 2],
    nested: None,
};

pub(super) static Q8_0: Layout = Layout {
    name: "Q8_0",
    scheme: "gguf-q8_0",
    bytes: 34,
    weights: 32,
    codes: Integers { bits: 8, signed: true, fields: &[Field::new(32, 0, 8, 2, 32)] },
    bias: 0,
    halves: &[0],
    nested: None,
};

pub(super) static Q2_K: Layout = Layout {
    name: "Q2_K",
    scheme: "gguf-q2_k",
    bytes: 84,
    weights: 256,
    codes: plain(2, &[Field::new(256, 0, 2, 16, 32)]),
    bias: 0,
    halves: &[80, 82],
    nested: Some(Nested { size: 16, bias: 0, integers: plain(4, &[nibbles(32, 0, 16)]) }),
};

pub(super) static Q3_K: Layout = Layout {
    name: "Q3_K",
    scheme: "gguf-q3_k",
    bytes: 110,
    weights: 256,
    codes: plain(3, &[Field::new(256, 0, 2, 32, 32), Field::new(256, 2, 1, 0, 32)]),
    bias: -4,
    halves: &[108],
    nested: Some(Nested {
        size: 16,
        bias: -32,
        integers: plain(6, &[nibbles(16, 96, 8), Field::new(16, 4, 2, 104, 4)]),
    }),
};

pub(super) static Q4_K: Layout = Layout {
    name: "Q4_K",
    scheme: "gguf-q4_k",
    bytes: 144,
    weights: 256,
    codes: plain(4, &[nibbles(256, 16, 32)]),
    bias: 0,
    halves: &[0, 2],
    nested: Some(Nested { size: 32, bias: 0, integers: plain(6, SIX_BITS) }),
};

pub(super) static Q5_K: Layout = Layout {
    name: "Q5_K",
    scheme: "gguf-q5_k",
    bytes: 176,
    weights: 256,
    codes: plain(5, &[nibbles(256, 48, 32), Field::new(256, 4, 1, 16, 32)]),
    bias: 0,
    halves: &[0, 2],
    nested: Some(Nested { size: 32, bias: 0, integers: plain(6, SIX_BITS) }),
};

pub(super) static Q6_K: Layout = Layout {
    name: "Q6_K",
    scheme: "gguf-q6_k",
    bytes: 210,
    weights: 256,
    codes: plain(6, &[nibbles(256, 0, 64), Field::new(256, 4, 2, 128, 32)]),
    bias: -32,
    halves: &[208],
    nested: Some(Nested {
        size: 16,
        bias: -128,
        integers: Integers { bits: 8, signed: true, fields: &[Field::new(16, 0, 8, 192, 16)] },
    }),
};

//! Scales of groups in few bits: numbers as a file has them, in codes of fixed width, those of a band's eight rows side by
//! side, so that kernels load them at once.
//!
//! A number of a group is taken as it is, or as its bytes. Each such [`Piece`] becomes a code: what it has more than the
//! smallest one, or its place in a table of those that there are. For every band and group there is a [`Record`]: the codes
//! of each piece of its numbers for eight rows.

use std::collections::HashSet;

use ecq_format::directory::{Min, NumberFormat, Scales};
use minijinja::context;

use crate::layout::{BAND, Shape};

/// Most numbers in a table.
const TABLE: usize = 1 << 12;
/// Fewer numbers than these are not worth a kernel of their own: codes of the same width for all tensors share one.
const FEW: usize = 1024;
/// Most pieces of a number.
const PIECES: usize = 4;

/// What the bits of a number mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// binary16, none of them subnormal.
    Half,
    /// binary16 of any size: GPUs may take subnormal ones for 0 when they unpack them.
    SmallHalf,
    /// The upper half of an f32.
    Bf16,
    /// f32
    F32,
    /// An i32.
    Integer,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Half => "half",
            Self::SmallHalf => "small_half",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::Integer => "integer",
        }
    }
}

/// The numbers of formats, for shaders.
pub(crate) fn formats() -> minijinja::Value {
    context! {
        half => Format::Half as u32, small_half => Format::SmallHalf as u32, bf16 => Format::Bf16 as u32,
        f32 => Format::F32 as u32,
    }
}

/// Some bits of a number, as a code; by default one that is not needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Piece {
    /// The lowest bit of the number that it stands for.
    pub shift: u32,
    /// Bits of a code; 0 for pieces that are always the same.
    pub width: u32,
    /// Whether codes are places in a table of `2^width` words, which are shifted already; else they are added to the
    /// number's least value.
    pub table: bool,
}

/// A number of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Number {
    /// What its bits mean.
    pub format: Format,
    /// The sum of the pieces, and of a word that all numbers of the tensor share, are its bits. Those that are not needed
    /// have no width.
    pub pieces: [Piece; PIECES],
}

impl Number {
    /// Bits of the number's codes.
    pub fn bits(&self) -> u32 {
        self.pieces.iter().map(|piece| piece.width).sum()
    }

    /// Words that all of these numbers share: the least one, and tables.
    fn words(&self) -> usize {
        1 + self.pieces.iter().filter(|piece| piece.table).map(|piece| 1 << piece.width).sum::<usize>()
    }

    /// Where its words begin in the side data, and its bits in a record of so many rows.
    fn context(&self, head: usize, at: u32, rows: u32) -> minijinja::Value {
        let (mut table, mut at) = (head + 1, at);
        let mut pieces = Vec::new();
        for piece in self.pieces.iter().filter(|piece| piece.width > 0) {
            let Piece { shift, width, table: has_table } = *piece;
            pieces.push(context! { shift, width, at, table => has_table.then_some(table) });
            at += rows * width;
            table += if has_table { 1 << width } else { 0 };
        }
        context! { head, pieces, rows, bits => self.bits(), format => self.format.name() }
    }
}

/// Numbers that lie together: a factor, and another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// The first number.
    pub factor: Number,
    /// What the summand comes from.
    pub other: Option<Number>,
}

impl Record {
    fn numbers(&self) -> impl Iterator<Item = &Number> {
        [Some(&self.factor), self.other.as_ref()].into_iter().flatten()
    }

    /// Bytes for the eight rows of a band.
    pub fn bytes(&self) -> u32 {
        self.numbers().map(Number::bits).sum()
    }

    fn words(&self) -> usize {
        self.numbers().map(Number::words).sum()
    }

    fn context(&self, head: usize) -> minijinja::Value {
        let first = self.factor.words();
        let number = |number: &Number, head, at| number.context(head, at, BAND as u32);
        let other = self.other.map(|other| number(&other, head + first, BAND as u32 * self.factor.bits()));
        context! { bytes => self.bytes(), factor => number(&self.factor, head, 0), other }
    }
}

/// How factor s and summand m of a group come from numbers: a and b of the group, d and e that several groups share. A
/// weight is s times its level plus m.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// s = a, m = b
    Plain,
    /// s = a, m = -(a b)
    Zero,
    /// s = d a, m = -(e b)
    Nested {
        /// How many groups of a row share d and e.
        supers: u32,
        /// d and e.
        shared: Record,
    },
    /// s = d a + a constant, m = 0
    Run {
        /// How many groups share d, counted on from row to row.
        supers: u32,
        /// d
        shared: Number,
    },
}

/// How scales of groups are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grouped {
    /// Columns of a group.
    pub size: u32,
    /// Numbers of a group.
    pub numbers: Record,
    /// What they mean.
    pub rule: Rule,
    /// Bits that say for each column which group it belongs to, 8 or 16; 0 where its place says it.
    pub map_bits: u32,
}

impl Grouped {
    /// Words that all groups share.
    pub(crate) fn head(&self) -> usize {
        self.numbers.words()
            + match self.rule {
                Rule::Plain | Rule::Zero => 0,
                Rule::Nested { shared, .. } => shared.words(),
                Rule::Run { shared, .. } => 1 + shared.words(),
            }
    }

    pub(crate) fn context(&self) -> minijinja::Value {
        let nested = self.numbers.words();
        let (rule, supers, shared) = match self.rule {
            Rule::Plain => ("plain", 0, None),
            Rule::Zero => ("zero", 0, None),
            Rule::Nested { supers, shared } => ("nested", supers, Some(shared.context(nested))),
            Rule::Run { supers, shared } => ("run", supers, Some(shared.context(nested + 1, 0, 1))),
        };
        let (size, map_bits) = (self.size, self.map_bits);
        let numbers = self.numbers.context(0);
        context! { scales => context! { size, map_bits, rule, supers, shared, numbers, head => nested, map => self.head() } }
    }
}

/// Scales of all groups of a tensor.
#[derive(Clone, Debug)]
pub struct Packed {
    /// How they are stored.
    pub form: Grouped,
    /// Groups of a row.
    pub per_row: usize,
    /// Words that all bands share, and the map of columns.
    pub head: Vec<u32>,
    numbers: Rows,
    shared: Option<Rows>,
    /// Numbers of runs of groups.
    runs: Option<Coded>,
}

/// Records of all rows.
#[derive(Clone, Debug)]
struct Rows {
    per_row: usize,
    /// Bytes of a record.
    bytes: usize,
    numbers: Vec<Coded>,
}

/// Numbers of one kind, and how they are coded.
#[derive(Clone, Debug)]
pub(crate) struct Coded {
    pub format: Format,
    pieces: Vec<Codes>,
    /// Their bits, in order.
    pub all: Vec<u32>,
}

impl Packed {
    /// From the planes of a matrix, which must be those that the scales list. `None` without groups.
    pub fn new(scales: &Scales, shape: &Shape, planes: &[Vec<u8>]) -> Option<Self> {
        let size = scales.size()? as usize;
        let per_row = shape.cols.div_ceil(size);
        let planes_of = |from: usize, n: usize| planes.get(from..from + n).unwrap_or(&[]);
        let bytes = |plane: usize, more: i32| {
            let all = planes.get(plane).map_or(&[][..], Vec::as_slice);
            Coded::new(Format::Integer, all.iter().map(|&c| (i32::from(c) + more) as u32).collect(), 1)
        };
        let (mut rule, mut shared, mut runs, mut map, mut head) = (Rule::Plain, None, None, &[][..], vec![]);
        let numbers = match *scales {
            Scales::None | Scales::RowColumn { .. } => return None,
            Scales::Group { min, .. } => {
                let halves = (0..=usize::from(min)).map(|i| planes_of(2 * i, 2));
                halves.map(|planes| Coded::of(NumberFormat::F16, planes)).collect::<Vec<_>>()
            }
            Scales::Numbers { format, min, mapped, .. } => {
                let n = format.bytes();
                let mut all = vec![Coded::of(format, planes_of(0, n))];
                match min {
                    Min::None => {}
                    Min::Number => all.push(Coded::of(format, planes_of(n, n))),
                    Min::Zero => {
                        rule = Rule::Zero;
                        all.push(bytes(n, 0));
                    }
                }
                map = planes_of(if mapped { planes.len() - 2 } else { planes.len() }, 2);
                all
            }
            Scales::Nested { supers, bias, min, .. } => {
                let first = 1 + usize::from(min);
                let halves = (0..first).map(|i| planes_of(first + 2 * i, 2));
                let halves = halves.map(|planes| Coded::of(NumberFormat::F16, planes)).collect();
                // more than all groups of a row is all of them
                let supers = usize::try_from(supers).unwrap_or(per_row).min(per_row);
                let rows = Rows::new(per_row.div_ceil(supers), halves);
                rule = Rule::Nested { supers: supers as u32, shared: rows.record() };
                shared = Some(rows);
                (0..first).map(|plane| bytes(plane, if plane == 0 { bias } else { 0 })).collect()
            }
            Scales::Lookup { supers, offset, .. } => {
                let all = planes.first().map_or(&[][..], Vec::as_slice);
                let numbers_of_runs = Coded::of(NumberFormat::F32, planes_of(5, 4));
                let supers = u32::try_from(supers).unwrap_or(u32::MAX);
                rule = Rule::Run { supers, shared: numbers_of_runs.number() };
                head.push((offset as f32).to_bits());
                head.extend(numbers_of_runs.words());
                runs = Some(numbers_of_runs);
                let table = numbers(planes_of(1, 4));
                let number = |&c: &u8| table.get(usize::from(c)).copied().unwrap_or(0);
                vec![Coded::new(Format::F32, all.iter().map(number).collect(), 4)]
            }
        };
        let numbers = Rows::new(per_row, numbers);
        let mut words: Vec<u32> = numbers.words().chain(shared.iter().flat_map(Rows::words)).collect();
        words.extend(head);
        let map_bits = if map.is_empty() { 0 } else { 8 * (1 + u32::from(per_row > 256)) };
        let of = |(&high, &low): (&u8, &u8)| u32::from(u16::from_be_bytes([high, low]));
        if let [high, low] = map {
            let groups: Vec<u32> = high.iter().zip(low).map(of).collect();
            let word = |some: &[u32]| some.iter().rev().fold(0, |word, group| word << map_bits | group);
            words.extend(groups.chunks(32 / map_bits as usize).map(word));
        }
        let form = Grouped { size: size as u32, numbers: numbers.record(), rule, map_bits };
        Some(Self { form, per_row, head: words, numbers, shared, runs })
    }

    /// Words of the records of a band: those of groups, then those that groups share.
    pub fn band_words(&self) -> [usize; 2] {
        [Some(&self.numbers), self.shared.as_ref()].map(|rows| rows.map_or(0, Rows::band_words))
    }

    /// Appends the records of a band.
    pub fn band(&self, band: usize, words: &mut Vec<u32>) {
        self.numbers.band(band, words);
        if let Some(shared) = &self.shared {
            shared.band(band, words);
        }
    }

    /// Numbers of runs of groups that rows from `row` on, up to `end`, have, and how many groups of the first run are of
    /// rows before.
    pub fn runs(&self, row: usize, end: usize) -> Option<(Vec<u32>, u32)> {
        let (Rule::Run { supers, .. }, Some(runs)) = (self.form.rule, &self.runs) else { return None };
        let supers = (supers as usize).max(1);
        let first = row * self.per_row;
        let last = (end * self.per_row).div_ceil(supers).min(runs.all.len());
        let mut words = vec![0; self.run_words(end - row)];
        let mut bit = 0;
        for &number in runs.all.get(first / supers..last).unwrap_or(&[]) {
            bit = runs.put(&mut words, bit, number);
        }
        Some((words, (first % supers) as u32))
    }

    /// Words that numbers of runs of so many rows take at most.
    pub fn run_words(&self, rows: usize) -> usize {
        let Rule::Run { supers, shared } = self.form.rule else { return 0 };
        let runs = (rows * self.per_row).div_ceil((supers as usize).max(1)) + 1;
        (runs * shared.bits() as usize).div_ceil(32)
    }
}

impl Rows {
    fn new(per_row: usize, numbers: Vec<Coded>) -> Self {
        let bytes = numbers.iter().map(|coded| coded.number().bits()).sum::<u32>() as usize;
        Self { per_row, bytes, numbers }
    }

    fn record(&self) -> Record {
        let number = |i: usize| self.numbers.get(i).map(Coded::number);
        let none = Number { format: Format::Integer, pieces: Default::default() };
        Record { factor: number(0).unwrap_or(none), other: number(1) }
    }

    fn words(&self) -> impl Iterator<Item = u32> + '_ {
        self.numbers.iter().flat_map(Coded::words)
    }

    fn band_words(&self) -> usize {
        (self.per_row * self.bytes).div_ceil(4)
    }

    fn band(&self, band: usize, words: &mut Vec<u32>) {
        let first = words.len();
        words.resize(first + self.band_words(), 0);
        for group in 0..self.per_row {
            let mut bit = 8 * group * self.bytes;
            for coded in &self.numbers {
                for codes in coded.stored() {
                    for row in BAND * band..BAND * (band + 1) {
                        // rows that are missing in the last band have any
                        if let Some(&number) = coded.all.get(row * self.per_row + group) {
                            put(&mut words[first..], bit, codes.code(number));
                        }
                        bit += codes.piece.width as usize;
                    }
                }
            }
        }
    }
}

/// Sets bits that were 0, from position `bit` on.
pub(crate) fn put(words: &mut [u32], bit: usize, code: u32) {
    let both = u64::from(code) << (bit % 32);
    for (word, part) in words.iter_mut().skip(bit / 32).zip([both as u32, (both >> 32) as u32]) {
        *word |= part;
    }
}

/// The bits of numbers from the planes of their bytes, highest first.
fn numbers(planes: &[Vec<u8>]) -> Vec<u32> {
    let len = planes.first().map_or(0, Vec::len);
    (0..len).map(|i| planes.iter().fold(0, |bits, plane| bits << 8 | u32::from(plane[i]))).collect()
}

impl Coded {
    /// Of numbers in the planes of their bytes.
    fn of(format: NumberFormat, planes: &[Vec<u8>]) -> Self {
        let all = numbers(planes);
        let format = match format {
            NumberFormat::F16 if all.iter().any(|h| h & 0x7c00 == 0 && h & 0x3ff != 0) => Format::SmallHalf,
            NumberFormat::F16 => Format::Half,
            NumberFormat::Bf16 => Format::Bf16,
            NumberFormat::F32 => Format::F32,
        };
        Self::new(format, all, planes.len())
    }

    /// Codes of the least size, what is shared included: of whole numbers, or of each of so many bytes. Few numbers stay as
    /// wide as they are: small tensors have the same kernels then.
    fn new(format: Format, all: Vec<u32>, bytes: usize) -> Self {
        if all.len() < FEW {
            let mut codes = Codes::plain(&all, 0, u32::MAX);
            codes.piece.width = 8 * bytes as u32;
            let format = if format == Format::Half { Format::SmallHalf } else { format };
            return Self { format, pieces: vec![codes], all };
        }
        let whole = vec![Codes::new(&all, 0, u32::MAX, TABLE)];
        let split = (0..bytes as u32).rev().map(|byte| Codes::new(&all, 8 * byte, 0xff, TABLE)).collect();
        let size = |pieces: &Vec<Codes>| pieces.iter().map(|codes| codes.size(all.len())).sum::<usize>();
        // a kernel has more to do for pieces: they must save a bit of each number
        let pieces = if bytes > 1 && size(&split) + all.len() <= size(&whole) { split } else { whole };
        Self { format, pieces, all }
    }

    /// Codes of whole numbers, with a table of at most so many.
    pub(crate) fn whole(format: Format, all: Vec<u32>, table: usize) -> Self {
        Self { format, pieces: vec![Codes::new(&all, 0, u32::MAX, table)], all }
    }

    pub(crate) fn number(&self) -> Number {
        let mut pieces = [Piece::default(); PIECES];
        pieces.iter_mut().zip(self.stored()).for_each(|(piece, codes)| *piece = codes.piece);
        Number { format: self.format, pieces }
    }

    /// Puts the codes of a number from bit `bit` on, and says where they end.
    pub(crate) fn put(&self, words: &mut [u32], mut bit: usize, number: u32) -> usize {
        for codes in self.stored() {
            put(words, bit, codes.code(number));
            bit += codes.piece.width as usize;
        }
        bit
    }

    /// Pieces that are not always the same.
    fn stored(&self) -> impl Iterator<Item = &Codes> {
        self.pieces.iter().filter(|codes| codes.piece.width > 0)
    }

    /// What all of these numbers share: the least one, and tables.
    pub(crate) fn words(&self) -> impl Iterator<Item = u32> + '_ {
        let least = self.pieces.iter().fold(0u32, |sum, codes| sum.wrapping_add(codes.least()));
        std::iter::once(least).chain(self.stored().flat_map(Codes::table))
    }
}

/// A piece of numbers, and how its values become codes.
#[derive(Clone, Debug)]
struct Codes {
    piece: Piece,
    /// Those of its bits that count, shifted down.
    mask: u32,
    /// The values that there are, ascending, if codes are places among them; else the least.
    values: Vec<i32>,
}

impl Codes {
    /// What values have more than the least.
    fn plain(all: &[u32], shift: u32, mask: u32) -> Self {
        let (mut least, mut most) = (i32::MAX, i32::MIN);
        for &number in all {
            // as signed numbers, so that those around 0 are neighbours
            let value = (number >> shift & mask) as i32;
            (least, most) = (least.min(value), most.max(value));
        }
        let piece = Piece { shift, width: bits(most.wrapping_sub(least) as u32), table: false };
        Self { piece, mask, values: vec![least] }
    }

    /// The same, or places in a table of at most so many values if these take less.
    fn new(all: &[u32], shift: u32, mask: u32, most: usize) -> Self {
        let plain = Self::plain(all, shift, mask);
        let value = |&number: &u32| (number >> shift & mask) as i32;
        let Some(values) = distinct(all.iter().map(value), most) else { return plain };
        let piece = Piece { shift, width: bits(values.len() as u32 - 1), table: true };
        let table = Self { piece, mask, values };
        if table.size(all.len()) < plain.size(all.len()) { table } else { plain }
    }

    /// Bits of so many codes and the table.
    fn size(&self, count: usize) -> usize {
        let table = if self.piece.table { 32 << self.piece.width } else { 0 };
        count * self.piece.width as usize + table
    }

    /// What is added to codes in the word that all numbers share.
    fn least(&self) -> u32 {
        if self.piece.table { 0 } else { (self.values[0] as u32) << self.piece.shift }
    }

    fn table(&self) -> impl Iterator<Item = u32> + '_ {
        let len = if self.piece.table { 1 << self.piece.width } else { 0 };
        let word = |&value: &i32| (value as u32) << self.piece.shift;
        self.values.iter().map(word).chain(std::iter::repeat(0)).take(len)
    }

    fn code(&self, number: u32) -> u32 {
        let value = (number >> self.piece.shift & self.mask) as i32;
        if self.piece.table {
            return self.values.partition_point(|&known| known < value) as u32;
        }
        value.wrapping_sub(self.values[0]) as u32
    }
}

/// Bits of numbers up to `most`.
fn bits(most: u32) -> u32 {
    32 - most.leading_zeros()
}

/// Values without those that are there twice, ascending; `None` for too many, or none.
fn distinct(all: impl Iterator<Item = i32>, most: usize) -> Option<Vec<i32>> {
    let mut seen = HashSet::new();
    let mut last = None;
    for value in all {
        // neighbours are often the same
        if last != Some(value) && seen.insert(value) && seen.len() > most {
            return None;
        }
        last = Some(value);
    }
    let mut values: Vec<i32> = seen.into_iter().collect();
    values.sort_unstable();
    (!values.is_empty()).then_some(values)
}

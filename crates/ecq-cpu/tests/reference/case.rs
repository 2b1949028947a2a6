//! Tensors of every kind.
#![allow(dead_code)] // each test binary uses its part

use ecq_format::directory::{self, Codebook, Codec, Min, NumberFormat, Pairs, Scales, Values};
use ecq_format::encode::Profile;
use ecq_format::predict::Predictor;
use ecq_format::reader::{CodedTensor, Tensor};
use ecq_format::{Limits, Reader};

use crate::common::{Coded, Draw, Matrix, Model};

/// A tensor.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub rows: usize,
    pub cols: usize,
    pub raw_bits: u32,
    pub scales: Scales,
    pub profile: Profile,
    /// One level in so many is far off; 0 for none.
    pub escapes: u32,
    pub seed: u64,
    /// Whether all levels but the far ones are within 4 of the centre.
    pub narrow: bool,
    /// Only without raw bits.
    pub codebook: Option<[f32; 16]>,
    pub predictor: Option<Predictor>,
}

impl Case {
    /// What most tensors are.
    pub const PLAIN: Self = Self {
        rows: 1,
        cols: 1,
        raw_bits: 0,
        scales: Scales::None,
        profile: Profile::Cpu,
        escapes: 0,
        seed: 0,
        narrow: false,
        codebook: None,
        predictor: None,
    };

    /// Whether levels become numbers one by one, which leaves codebooks as they are.
    pub fn by_weight(&self) -> bool {
        self.predictor.is_some() || matches!(self.scales, Scales::Numbers { mapped: true, .. })
    }

    pub fn model(&self) -> Model {
        let Self { rows, cols, raw_bits, scales, profile, escapes, seed, narrow, codebook, predictor } =
            *self;
        let mut draw = Draw(seed + 100);
        let width = if narrow { 1 } else { 3 << raw_bits };
        let center = if raw_bits == 0 { -8 } else { 5 };
        let level = || {
            if escapes > 0 && draw.below(escapes) == 0 {
                let far = draw.below(1 << 16) as i32 - (1 << 15);
                return if predictor.is_some() { far >> 8 } else { far };
            }
            let sum = (0..4).map(|_| draw.below(2 * width + 1) as i32 - width as i32).sum::<i32>();
            let level = center + sum + if codebook.is_some() { 8 } else { 0 };
            if predictor.is_some() { level.clamp(-128, 127) } else { level }
        };
        let matrix = Matrix::new(rows, cols, level);
        let mut draw = Draw(seed);
        let mut bytes = |n: usize, base: u8, spread: u32| -> Vec<u8> {
            (0..n).map(|_| base + draw.below(spread) as u8).collect()
        };
        // row and column scales of 1/4 to 4; groups of positive and negative halves from 2^-11 to 2^-3
        let planes = match scales {
            Scales::None => vec![],
            Scales::RowColumn { row, column } => {
                let lengths = [(row, rows), (column, cols)];
                lengths.iter().filter(|p| p.0).map(|p| bytes(p.1, 112, 33)).collect()
            }
            grouped => {
                // numbers of both signs from 2^-11 to 2^-3; bytes and what is below them are anything
                let high = |b: u8| if b.is_multiple_of(3) { b | 0x80 } else { b };
                let map = |column: usize, size: u64| (column * 7 + 3) % cols.div_ceil(size as usize);
                let plane = |(kind, n): (char, usize)| match (kind, grouped.size()) {
                    ('h', _) => bytes(n, 0x10, 0x1c).into_iter().map(high).collect(),
                    ('H', _) => bytes(n, 0x39, 0x05).into_iter().map(high).collect(),
                    ('m', Some(size)) => (0..n).map(|c| (map(c, size) >> 8) as u8).collect(),
                    ('M', Some(size)) => (0..n).map(|c| map(c, size) as u8).collect(),
                    _ => bytes(n, 0, 256),
                };
                kinds(&grouped).into_iter().zip(lengths(&grouped, rows, cols)).map(plane).collect()
            }
        };
        let values = Values {
            step: 0.0625,
            bias: 0.5,
            offset: if seed % 2 == 0 { 0.25 } else { 0.0 },
            scales,
            codebook: codebook.map(Codebook),
        };
        let coded = Coded {
            name: "w".into(),
            shape: vec![rows as u64, cols as u64],
            matrix,
            profile,
            center,
            raw_bits: raw_bits..=raw_bits,
            values,
            planes,
            predictor,
        };
        Model { coded: vec![coded], ..Model::default() }
    }
}

/// What each plane of scales holds: high bytes of binary16 (h) or of wider numbers (H), of a map (m, M), or anything.
fn kinds(scales: &Scales) -> Vec<char> {
    let number = |format| match format {
        NumberFormat::F16 => vec!['h', '.'],
        NumberFormat::Bf16 => vec!['H', '.'],
        NumberFormat::F32 => vec!['H', '.', '.', '.'],
    };
    match *scales {
        Scales::None | Scales::RowColumn { .. } => vec![],
        Scales::Group { min, .. } => ['h', '.'].repeat(1 + usize::from(min)),
        Scales::Numbers { format, min, mapped, .. } => {
            let min = match min {
                Min::None => vec![],
                Min::Number => number(format),
                Min::Zero => vec!['.'],
            };
            [number(format), min, if mapped { vec!['m', 'M'] } else { vec![] }].concat()
        }
        Scales::Nested { min, .. } => {
            let numbers = 1 + usize::from(min);
            [vec!['.'; numbers], ['h', '.'].repeat(numbers)].concat()
        }
        Scales::Lookup { .. } => [vec!['.'], number(NumberFormat::F32), number(NumberFormat::F32)].concat(),
    }
}

fn lengths(scales: &Scales, rows: usize, cols: usize) -> Vec<usize> {
    let (rows, cols, scheme) = (rows as u64, cols as u64, String::new());
    let (codec, values) = (Codec::Pairs(Pairs::WHOLE), Values { scales: *scales, ..Values::ONE });
    let (tile_rows, raw_bits, center, pattern, predictor) = (rows, 0, 0, None, None);
    let coded = directory::Coded {
        scheme,
        rows,
        cols,
        tile_rows,
        codec,
        raw_bits,
        center,
        values,
        pattern,
        predictor,
    };
    coded.side_planes()
}

/// Writes the tensor to a file and reads it.
pub fn with_tensor(case: &Case, run: impl FnOnce(&CodedTensor<'_>)) {
    with_model(&case.model(), |tensor| {
        assert_eq!(tensor.coded().raw_bits, case.raw_bits);
        run(tensor);
    });
}

/// Writes a model to a file and reads its tensor "w".
pub fn with_model(model: &Model, run: impl FnOnce(&CodedTensor<'_>)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    model.write(&path, false, 0).unwrap();
    let reader = Reader::open(&path, Limits::default()).unwrap();
    let Tensor::Coded(tensor) = reader.tensor("w").unwrap() else { panic!("not coded") };
    run(&tensor);
}

/// Vectors one after another, of numbers between -1 and 1.
pub fn vectors(cols: usize, count: usize, seed: u64) -> Vec<f32> {
    let mut draw = Draw(seed + 7);
    (0..cols * count).map(|_| draw.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0).collect()
}

//! A file with one coded tensor.

use std::ops::{Range, RangeInclusive};
use std::path::Path;

use ecq_format::directory::{Codebook, Extent, Role, Scales, SourceFile, Values};
use ecq_format::encode::{Encoder, Levels, Profile, histogram};
use ecq_format::plan::Plan;
use ecq_format::side::Side;
use ecq_format::writer::TensorHead;
use ecq_format::{Result, Writer};

/// Name of the tensor.
pub const NAME: &str = "w";

/// Levels that are repeated until a matrix is full.
pub struct Repeated {
    /// Columns of the matrix.
    pub cols: usize,
    /// Levels that are repeated.
    pub levels: Vec<i32>,
}

impl Repeated {
    /// Gaussian ones: what absmax int4 with groups of 32 makes of weights, around 0, times `wider`.
    pub fn gaussian(cols: usize, wider: i32) -> Self {
        let nibbles = crate::gaussian_nibbles((1 << 20) - 3);
        Self { cols, levels: nibbles.iter().map(|&n| (i32::from(n) - 8) * wider).collect() }
    }
}

impl Levels for Repeated {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        let mut at = rows.start * self.cols % self.levels.len();
        for out in out {
            *out = self.levels[at];
            at = (at + 1) % self.levels.len();
        }
    }
}

/// Writes a file with tensor [`NAME`]; returns the bytes of all its weights, scales in them. With `codebook`, the sixteen
/// levels that nibbles stand for are looked up, with the same weights.
pub fn write(
    path: &Path,
    rows: usize,
    levels: &Repeated,
    raw_bits: RangeInclusive<u32>,
    scales: Scales,
    codebook: bool,
) -> Result<u64> {
    let shape = [rows as u64, levels.cols as u64];
    let counts = histogram(levels, rows, levels.cols, 0);
    let plan = Plan::cheapest(&counts, raw_bits).expect("there are levels");
    let first = plan.split.center;
    let codebook = codebook.then(|| Codebook(std::array::from_fn(|i| (first + i as i32) as f32)));
    let values = Values { step: 0.015625, scales, codebook, ..Values::ONE };
    let encoder = Encoder::new("bench", &shape, values, Profile::Cpu, &plan, levels).expect("a valid tensor");
    // scales of 1
    let planes = encoder.coded().side_planes();
    let planes: Vec<_> = planes.iter().enumerate().map(|(i, &n)| vec![[0x3c, 0][i % 2]; n]).collect();
    store(path, &encoder, &planes)
}

/// Writes a file with tensor [`NAME`]; returns the bytes of the file.
pub fn store(path: &Path, encoder: &Encoder<'_>, planes: &[Vec<u8>]) -> Result<u64> {
    let coded = encoder.coded();
    let shape = [coded.rows, coded.cols];
    // floats without loss are as long as their source
    let (dtype, len) = coded.pattern.map_or(("F32", 4), |_| ("BF16", 2));
    let len = len * coded.weights();
    let mut writer = Writer::create(path, true, 0)?;
    let source = Extent { file: 0, offset: 0, len };
    let head = TensorHead { name: NAME, shape: &shape, dtype, source };
    writer.coded(head, encoder, &Side::new(planes), |_| true)?;
    let verbatim = writer.blob("bench", Role::Verbatim, &[])?;
    let sha256 = "0".repeat(64);
    writer.finish(
        vec![SourceFile { name: "bench".into(), format: "gguf".into(), size: len, sha256, verbatim }],
        false,
    )
}

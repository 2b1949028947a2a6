//! `.ecq` files that lie about packed levels: restoring says what is wrong.
#![allow(clippy::unwrap_used)]

use std::ops::Range;

use ecq_convert::restore::{Float, restore};
use ecq_convert::verify::verify;
use ecq_convert::{Error, Silent};
use ecq_format::directory::{Codebook, Extent, Min, NumberFormat, Part, Role, Scales, SourceFile, Values};
use ecq_format::encode::{Encoder, Levels, Profile};
use ecq_format::plan::{Histogram, Plan};
use ecq_format::side::Side;
use ecq_format::writer::{TensorHead, Writer};
use ecq_format::{Limits, Reader};

const ROWS: usize = 32;
const COLS: usize = 64;
const SIZE: u64 = 16;
const GROUPS: usize = ROWS * COLS / SIZE as usize;

struct Fixed<'a>(&'a [i32]);

impl Levels for Fixed<'_> {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        out.copy_from_slice(&self.0[rows.start * COLS..rows.end * COLS]);
    }
}

/// A packed tensor and one part of it.
#[derive(Clone)]
struct Forged {
    scheme: &'static str,
    values: Values,
    levels: Vec<i32>,
    planes: Vec<Vec<u8>>,
    /// Length that the tensor is said to have had.
    len: u64,
    /// Index of the part, and the bytes that it is said to have had.
    part: (u32, Vec<u8>),
}

impl Forged {
    fn new(scheme: &'static str) -> Self {
        let numbers = |format, min| Scales::Numbers { size: SIZE, format, min, mapped: false };
        let (scales, planes) = match scheme {
            "mlx-4" | "mlx-8" => (numbers(NumberFormat::Bf16, Min::Number), 4),
            "nf4" => (numbers(NumberFormat::F32, Min::None), 4),
            _ => (numbers(NumberFormat::F16, Min::Zero), 3),
        };
        let width = if scheme == "nf4" { 4 } else { 2 };
        let codebook = (scheme == "nf4").then_some(Codebook([0.5; 16]));
        Self {
            scheme,
            values: Values { scales, codebook, ..Values::ONE },
            levels: (0..ROWS * COLS).map(|i| (i * 7 % 16) as i32).collect(),
            planes: vec![vec![0; GROUPS]; planes],
            len: (ROWS * COLS / if scheme == "mlx-8" { 1 } else { 2 }) as u64,
            part: (0, vec![0; GROUPS * width]),
        }
    }

    /// The type that the part should have had.
    fn dtype(&self) -> &'static str {
        match (self.values.scales, self.part.0) {
            (Scales::Numbers { format: NumberFormat::F32, .. }, 0) => "F32",
            (Scales::Numbers { format: NumberFormat::F16, .. }, 0) => "F16",
            (Scales::Numbers { .. }, 0) | (Scales::Numbers { min: Min::Number, .. }, _) => "BF16",
            (Scales::Numbers { .. }, _) => "I32",
            (Scales::Lookup { .. }, 0) => "U8",
            _ => "F32",
        }
    }

    /// The name at fault and what restoring says; of a file in order that its source has another checksum.
    fn restoring(&self) -> (String, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.ecq");
        let mut histogram = Histogram::new(0);
        histogram.add_all(&self.levels);
        // all sixteen levels are nibbles, as codebooks need it
        let plan = match self.scheme {
            "nf4" => Plan::for_split(&histogram, ecq_format::levels::Split { raw_bits: 0, center: 0 }),
            _ => Plan::cheapest(&histogram, 0..=8),
        };
        let (plan, shape) = (plan.unwrap(), [ROWS as u64, COLS as u64]);
        let levels = Fixed(&self.levels);
        let encoder = Encoder::new(self.scheme, &shape, self.values, Profile::Cpu, &plan, &levels).unwrap();
        let mut writer = Writer::create(&file, false, 4096).unwrap();
        let source = Extent { file: 0, offset: 0, len: self.len };
        let head = TensorHead { name: "main", shape: &shape, dtype: "U32", source };
        writer.coded(head, &encoder, &Side::new(&self.planes), |_| true).unwrap();
        let (index, bytes) = &self.part;
        let source = Extent { file: 0, offset: self.len, len: bytes.len() as u64 };
        let head = TensorHead { name: "part", shape: &[bytes.len() as u64], dtype: self.dtype(), source };
        writer.part(head, Part { of: "main".into(), index: *index }, crc32fast::hash(bytes)).unwrap();
        let verbatim = writer.blob("model", Role::Verbatim, b"").unwrap();
        let (name, format, sha256) = ("model".into(), "safetensors".into(), "0".repeat(64));
        let size = self.len + bytes.len() as u64;
        writer.finish(vec![SourceFile { name, format, size, sha256, verbatim }], true).unwrap();
        let reader = Reader::open(&file, Limits::default()).unwrap();
        // weights do not depend on how they are packed
        restore(&reader, &folder.path().join("weights"), Some(Float::F32), false, &Silent).unwrap();
        assert!(verify(&reader, None, &Silent).is_err());
        match restore(&reader, &folder.path().join("back"), None, false, &Silent) {
            Err(Error::Inconsistent { name, why, .. }) => (name, why),
            Err(Error::Sha256 { .. }) => ("packed".into(), String::new()),
            other => panic!("{other:?}"),
        }
    }

    /// Restoring a changed copy names this tensor and gives this reason.
    fn with(&self, change: impl FnOnce(&mut Self), name: &str, reason: &str) {
        let mut changed = self.clone();
        change(&mut changed);
        let (found, why) = changed.restoring();
        assert!(found == name && why.contains(reason), "{}: '{found}': {why}", self.scheme);
    }
}

const SCHEMES: [&str; 5] = ["mlx-4", "mlx-8", "gptq-4", "awq-4", "nf4"];

#[test]
fn tensors_that_are_not_those_of_their_scheme_are_refused() {
    for scheme in SCHEMES {
        let good = Forged::new(scheme);
        good.with(|_| (), "packed", "");
        for level in [-1, if scheme == "mlx-8" { 256 } else { 16 }, i32::MAX] {
            good.with(|f| f.levels[777] = level, "main", &format!("level {level} is outside"));
        }
        for values in [
            Values { step: 2.0, ..good.values },
            Values { bias: -2.0, ..good.values },
            Values { offset: 1.0, ..good.values },
        ] {
            good.with(|f| f.values = values, "main", "are not those of scheme");
        }
        let none = |f: &mut Forged| {
            f.values.scales = Scales::None;
            f.planes.clear();
        };
        good.with(none, "main", "are not those of scheme");
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    for scheme in SCHEMES {
        for len in [0, 8, Forged::new(scheme).len - 1, Forged::new(scheme).len + 1] {
            let (name, why) = Forged { len, ..Forged::new(scheme) }.restoring();
            assert!(why.contains("length") || why.contains("are not those"), "{scheme}: {why}");
            assert_eq!(name, "main");
        }
    }
}

#[test]
fn parts_that_a_tensor_does_not_hold_are_refused() {
    for scheme in SCHEMES {
        let good = Forged::new(scheme);
        for index in [3, 9, u32::MAX] {
            good.with(|f| f.part.0 = index, "part", "'main' does not hold its bytes");
        }
        good.with(|f| f.part.1[5] ^= 1, "part", "'main' does not hold its bytes");
        good.with(|f| f.part.1.push(0), "part", "'main' does not hold its bytes");
    }
    for scheme in ["gptq-4", "awq-4"] {
        let mut zeros = Forged::new(scheme);
        zeros.part = (1, vec![0; GROUPS / 2]);
        zeros.with(|_| (), "packed", "");
        zeros.with(|f| f.planes[2][3] = 16, "part", "'main' does not hold its bytes");
    }
}

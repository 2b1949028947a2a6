//! Block-quantized sources of every format through the whole pipeline, and coded files that lie about blocks.
#![allow(clippy::unwrap_used)]

use std::ops::Range;
use std::path::{Path, PathBuf};

use ecq_convert::blocks::BlockType;
use ecq_convert::convert::{Options, Treatment, convert};
use ecq_convert::inspect::inspect;
use ecq_convert::restore::{Float, restore};
use ecq_convert::source::{Source, SourceLimits};
use ecq_convert::tensors::SourceMatrix;
use ecq_convert::verify::verify;
use ecq_convert::{Error, Silent};
use ecq_format::directory::{Extent, Role, Scales, SourceFile, Values};
use ecq_format::encode::{Encoder, Levels, Profile};
use ecq_format::plan::{Histogram, Plan};
use ecq_format::side::Side;
use ecq_format::writer::{TensorHead, Writer};
use ecq_format::{Limits, Reader};
use ecq_quant::Scheme;
use ecq_quant::weights::Weights;
use safetensors::tensor::SafeTensors;
use sha2::{Digest, Sha256};

const ROWS: usize = 96;
const COLS: usize = 512;

/// A seeded linear congruential generator.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * u64::from(n)) >> 32) as u32
    }
}

/// Levels and planes as a quantizer makes them: codes near the middle, scales of like size.
fn parts(kind: BlockType) -> (Vec<i32>, Vec<Vec<u8>>) {
    let mut lcg = Lcg(kind.bytes() as u64);
    let (least, greatest) = kind.level_range();
    let near = (greatest - least) as u32 / 3;
    let mut level = || least + (0..3).map(|_| lcg.below(near + 1)).sum::<u32>() as i32;
    let levels = (0..ROWS * COLS).map(|_| level()).collect();
    let blocks = ROWS * COLS / kind.weights();
    let bias = match kind.values().scales {
        Scales::Nested { bias, .. } => bias,
        _ => 0,
    };
    let halves = if kind.values().scales == (Scales::Group { size: 32, min: true }) { 4 } else { 2 };
    let plane = |(i, bytes): (usize, usize)| match bytes {
        // upper and lower halves in turn; all positive and small
        1 if i % 2 == 0 => (0..blocks).map(|_| 0x20 + lcg.below(2) as u8).collect(),
        1 => (0..blocks).map(|_| lcg.below(256) as u8).collect(),
        _ => (0..blocks * bytes).map(|_| (-bias) as u8 + 1 + lcg.below(7) as u8).collect(),
    };
    // with one plane of integers upper halves are at odd places
    let bytes = kind.plane_bytes();
    let first = usize::from(bytes.iter().filter(|&&n| n > 1).count() == 1);
    assert!(bytes.len() >= halves);
    (levels, bytes.into_iter().enumerate().map(|(i, n)| (i + first, n)).map(plane).collect())
}

/// All bytes of a tensor.
fn tensor(kind: BlockType) -> Vec<u8> {
    let (levels, planes) = parts(kind);
    let mut bytes = vec![0; ROWS * COLS / kind.weights() * kind.bytes()];
    kind.pack(&levels, &planes.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut bytes).unwrap();
    bytes
}

/// A GGUF file with a tensor of every block format, called as the format is.
fn model(folder: &Path) -> PathBuf {
    let ids = [2u32, 3, 6, 7, 8, 10, 11, 12, 13, 14];
    let mut head = b"GGUF\x03\0\0\0".to_vec();
    head.extend([BlockType::ALL.len() as u64, 0].map(u64::to_le_bytes).concat());
    let mut data = Vec::new();
    for (kind, id) in BlockType::ALL.into_iter().zip(ids) {
        head.extend((kind.name().len() as u64).to_le_bytes());
        head.extend(kind.name().bytes());
        head.extend(2u32.to_le_bytes());
        head.extend([COLS as u64, ROWS as u64].map(u64::to_le_bytes).concat());
        head.extend(id.to_le_bytes());
        head.extend((data.len() as u64).to_le_bytes());
        data.extend(tensor(kind));
        data.resize(data.len().next_multiple_of(32), 0);
    }
    head.resize(head.len().next_multiple_of(32), 0);
    let path = folder.join("model.gguf");
    std::fs::write(&path, [head, data].concat()).unwrap();
    path
}

fn converted(source: &Path, treatment: Treatment, profile: Profile) -> Reader {
    let file = source.with_extension("ecq");
    let options = Options { profile, overwrite: true, ..Options::new(treatment) };
    convert(source, &file, &options, &Silent).unwrap();
    Reader::open(&file, Limits::default()).unwrap()
}

#[test]
fn every_block_format_comes_back_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let source = model(folder.path());
    for profile in [Profile::Cpu, Profile::Gpu] {
        let reader = converted(&source, Treatment::Lossless, profile);
        let verified =
            verify(&reader, Some(&Source::open(&source, &SourceLimits::default()).unwrap()), &Silent)
                .unwrap();
        assert_eq!(verified.identical, Some(true));
        assert_eq!(verified.tensors.len(), BlockType::ALL.len());
        for (tensor, kind) in verified.tensors.iter().zip(BlockType::ALL) {
            assert_eq!((tensor.name.as_str(), tensor.scheme.as_str()), (kind.name(), kind.scheme()));
            assert_eq!(tensor.exact, Some(true), "{kind:?}");
            let before = 8.0 * kind.bytes() as f64 / kind.weights() as f64;
            assert!(tensor.bits < before, "{kind:?}: {} bits, {before} before", tensor.bits);
        }
        let back = folder.path().join("back.gguf");
        restore(&reader, &back, None, true, &Silent).unwrap();
        assert!(std::fs::read(&back).unwrap() == std::fs::read(&source).unwrap());
    }
}

#[test]
fn weights_of_a_lossless_file_are_those_of_the_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let reader = converted(&model(folder.path()), Treatment::Lossless, Profile::Cpu);
    assert_eq!(inspect(&reader).unwrap().version, 3);
    let back = folder.path().join("back.safetensors");
    restore(&reader, &back, Some(Float::F32), true, &Silent).unwrap();
    let bytes = std::fs::read(back).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    for kind in BlockType::ALL {
        let mut expected = vec![0.0f32; ROWS * COLS];
        kind.dequantize(&tensor(kind), &mut expected).unwrap();
        let found = tensors.tensor(kind.name()).unwrap().data().to_vec();
        let found = found.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        assert!(found.eq(expected), "{kind:?}");
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn weights_of_a_model_of_other_tools_are_those_that_they_read() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/sources");
    let source = sources.join("kquants.gguf");
    let sums = std::fs::read_to_string(sources.join("kquants.sha256")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.ecq");
    convert(&source, &file, &Options::new(Treatment::Lossless), &Silent).unwrap();
    let reader = Reader::open(&file, Limits::default()).unwrap();
    let verified =
        verify(&reader, Some(&Source::open(&source, &SourceLimits::default()).unwrap()), &Silent).unwrap();
    assert_eq!(verified.identical, Some(true));
    let back = folder.path().join("back.gguf");
    restore(&reader, &back, None, false, &Silent).unwrap();
    assert!(std::fs::read(&back).unwrap() == std::fs::read(&source).unwrap());

    let opened = Source::open(&source, &SourceLimits::default()).unwrap();
    let (mut seen, mut coded) = (Vec::new(), 0);
    for (sum, name) in sums.lines().map(|line| line.split_once("  ").unwrap()) {
        let tensor = opened.tensors().iter().find(|t| t.name == name).unwrap();
        let Some(matrix) = SourceMatrix::new(&opened, tensor) else { continue };
        let mut weights = vec![0.0f32; matrix.rows() * matrix.cols()];
        matrix.fill(0..matrix.rows(), &mut weights);
        let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(sha256(&bytes), sum, "{name}");
        let block = tensor.dtype.block().unwrap();
        seen.push(block);
        let check = verified.tensors.iter().find(|t| t.name == name).unwrap();
        assert_eq!(check.exact, Some(true), "{name}");
        coded += usize::from(check.scheme == block.scheme());
    }
    // the matrices are small: codes of two bits, which are nearly all random, do not gain
    assert!(coded >= 8, "only {coded} of {} are coded", seen.len());
    assert!(BlockType::ALL.iter().all(|kind| seen.contains(kind)), "only {seen:?}");
}

#[test]
fn every_block_format_can_be_quantized_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = model(folder.path());
    let reader = converted(&source, Treatment::Lossy(Scheme::ecq(2.0)), Profile::Cpu);
    for tensor in verify(&reader, Some(&Source::open(&source, &SourceLimits::default()).unwrap()), &Silent)
        .unwrap()
        .tensors
    {
        let sqnr = tensor.sqnr_db;
        assert!(sqnr.is_some_and(|db| db > 6.0), "{} in {}: {sqnr:?} dB", tensor.name, tensor.scheme);
    }
}

struct Fixed<'a>(&'a [i32]);

impl Levels for Fixed<'_> {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        out.copy_from_slice(&self.0[rows.start * COLS..rows.end * COLS]);
    }
}

/// A file that says to be lossless, with one tensor of these parts; what restoring it says.
fn restoring(scheme: &str, values: Values, levels: &[i32], planes: &[Vec<u8>], len: usize) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.ecq");
    let mut histogram = Histogram::new(8);
    histogram.add_all(levels);
    let plan = Plan::cheapest(&histogram, 0..=8).unwrap();
    let (shape, levels) = ([ROWS as u64, COLS as u64], Fixed(levels));
    let encoder = Encoder::new(scheme, &shape, values, Profile::Cpu, &plan, &levels).unwrap();
    let mut writer = Writer::create(&file, false, 4096).unwrap();
    let source = Extent { file: 0, offset: 0, len: len as u64 };
    let head = TensorHead { name: "weight", shape: &shape, dtype: "Q", source };
    writer.coded(head, &encoder, &Side::new(planes), |_| true).unwrap();
    let verbatim = writer.blob("model.gguf", Role::Verbatim, b"").unwrap();
    let (name, format, sha256) = ("model.gguf".into(), "gguf".into(), "0".repeat(64));
    writer.finish(vec![SourceFile { name, format, size: len as u64, sha256, verbatim }], true).unwrap();
    let reader = Reader::open(&file, Limits::default()).unwrap();
    match restore(&reader, &folder.path().join("back.gguf"), None, false, &Silent) {
        Err(Error::Inconsistent { name, why, .. }) => {
            assert_eq!(name, "weight");
            why
        }
        Err(Error::Sha256 { .. }) => "packed".into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn coded_tensors_that_are_no_blocks_of_their_scheme_are_refused() {
    for kind in BlockType::ALL {
        let (levels, planes) = parts(kind);
        let len = ROWS * COLS / kind.weights() * kind.bytes();
        let with = |values, levels: &[i32], planes: &[Vec<u8>]| {
            restoring(kind.scheme(), values, levels, planes, len)
        };
        assert_eq!(with(kind.values(), &levels, &planes), "packed");

        let (min, max) = kind.level_range();
        for level in [min - 1, max + 1, i32::MAX] {
            let mut levels = levels.clone();
            levels[ROWS * COLS - 1] = level;
            let why = with(kind.values(), &levels, &planes);
            assert_eq!(why, format!("level {level} is outside {min} to {max}"), "{kind:?}");
        }
        for values in [
            Values { bias: 0.5, ..kind.values() },
            Values { step: 2.0, ..kind.values() },
            Values { offset: 1.0, ..kind.values() },
        ] {
            assert!(with(values, &levels, &planes).starts_with("values or "), "{kind:?}");
        }
        let none = Values { scales: Scales::None, ..kind.values() };
        assert!(with(none, &levels, &[]).starts_with("values or "), "{kind:?}");
        let unknown = restoring("gguf-q9_k", kind.values(), &levels, &planes, len);
        assert_eq!(unknown, "scheme 'gguf-q9_k' has no exact source bytes");
    }
}

#[test]
fn scales_that_a_block_cannot_hold_are_refused() {
    for (kind, max) in
        [(BlockType::Q2_K, 15), (BlockType::Q3_K, 63), (BlockType::Q4_K, 63), (BlockType::Q5_K, 63)]
    {
        let (levels, mut planes) = parts(kind);
        let len = ROWS * COLS / kind.weights() * kind.bytes();
        *planes[0].last_mut().unwrap() = max + 1;
        let why = restoring(kind.scheme(), kind.values(), &levels, &planes, len);
        assert_eq!(why, format!("the integer scale or minimum {} of a group is above {max}", max + 1));
    }
}

#[test]
fn a_half_for_other_groups_than_those_of_a_block_is_refused() {
    for kind in BlockType::ALL {
        if let Scales::Nested { size, bias, min, .. } = kind.values().scales {
            let supers = 4;
            let values = Values { scales: Scales::Nested { size, supers, bias, min }, ..kind.values() };
            let (levels, _) = parts(kind);
            let groups = ROWS * COLS / size as usize;
            let mut planes = vec![vec![0; groups]; 1 + usize::from(min)];
            planes.extend(vec![vec![0; groups / 4]; 2 + 2 * usize::from(min)]);
            let len = ROWS * COLS / kind.weights() * kind.bytes();
            let why = restoring(kind.scheme(), values, &levels, &planes, len);
            assert!(why.starts_with("values or "), "{kind:?}: {why}");
        }
    }
}

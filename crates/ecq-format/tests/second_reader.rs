//! A reader in another language, written from `docs/format.md`, gets the same levels and weights.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::forge::Forge;
use common::sources::{self, NF4};
use common::{Coded, Draw, Floats, Matrix, Model, Part, Piece, floats, one_of_everything, read};
use ecq_format::directory::{self, Min, NumberFormat, Pairs, Scales, Values};
use ecq_format::encode::Profile;
use ecq_format::pattern::FloatFormat;
use ecq_format::predict::Predictor;
use serde_json::{Value, json};

const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/reader.py");

fn python(files: &[&Path]) -> Output {
    // no bytecode: nothing shall be left in the repository
    Command::new("python3")
        .arg("-B")
        .arg(READER)
        .args(files)
        .output()
        .expect("python3 is needed to build ECQ")
}

/// What the second reader prints for a file.
fn second_reader(path: &Path) -> Vec<Value> {
    let output = python(&[path]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A binary16 number, by its definition.
fn half(high: u8, low: u8) -> f32 {
    let (exponent, fraction) =
        (i32::from(high >> 2 & 31), f32::from(u16::from(high & 3) << 8 | u16::from(low)));
    let value = match exponent {
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        0 => fraction * 2f32.powi(-24),
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    if high & 0x80 == 0 { value } else { -value }
}

/// 2^((byte - 128) / 8), rounded once.
fn octave(byte: u8) -> f32 {
    2f64.powf((f64::from(byte) - 128.0) / 8.0) as f32
}

/// A number from its bytes in planes from `first` on.
fn number(format: NumberFormat, planes: &[Vec<u8>], first: usize, at: usize) -> f32 {
    let byte = |i: usize| planes[first + i][at];
    match format {
        NumberFormat::F16 => half(byte(0), byte(1)),
        NumberFormat::Bf16 => f32::from_be_bytes([byte(0), byte(1), 0, 0]),
        NumberFormat::F32 => f32::from_be_bytes([byte(0), byte(1), byte(2), byte(3)]),
    }
}

/// s and m of a weight.
fn scale_and_min(t: &Coded, r: usize, c: usize) -> (f32, f32) {
    let (cols, planes) = (t.matrix.cols, &t.planes);
    let groups = |size: u64| cols.div_ceil(size as usize);
    let group = |size: u64| r * groups(size) + c / size as usize;
    match t.values.scales {
        Scales::None => (1.0, 0.0),
        Scales::RowColumn { row, column } => {
            let of_row = if row { octave(planes[0][r]) } else { 1.0 };
            (of_row * if column { octave(planes[usize::from(row)][c]) } else { 1.0 }, 0.0)
        }
        Scales::Group { size, min } => {
            let of = |first| number(NumberFormat::F16, planes, first, group(size));
            (of(0), if min { of(2) } else { 0.0 })
        }
        Scales::Numbers { size, format, min, mapped } => {
            let at = if mapped {
                let last = planes.len() - 2;
                r * groups(size) + usize::from(u16::from_be_bytes([planes[last][c], planes[last + 1][c]]))
            } else {
                group(size)
            };
            let s = number(format, planes, 0, at);
            match min {
                Min::None => (s, 0.0),
                Min::Number => (s, number(format, planes, format.bytes(), at)),
                Min::Zero => (s, -(s * f32::from(planes[format.bytes()][at]))),
            }
        }
        Scales::Nested { size, supers, bias, min } => {
            let own = r * groups(size).div_ceil(supers as usize) + c / size as usize / supers as usize;
            let of = |first| number(NumberFormat::F16, planes, first, own);
            let code = i32::from(planes[0][group(size)]) + bias;
            if min {
                (of(2) * code as f32, -(of(4) * f32::from(planes[1][group(size)])))
            } else {
                (of(1) * code as f32, 0.0)
            }
        }
        Scales::Lookup { size, supers, offset } => {
            let at = group(size);
            let table = number(NumberFormat::F32, planes, 1, planes[0][at].into());
            (table * number(NumberFormat::F32, planes, 5, at / supers as usize) + offset as f32, 0.0)
        }
    }
}

fn weights(t: &Coded) -> Vec<f32> {
    let cols = t.matrix.cols;
    let Values { step, bias, offset, codebook, .. } = t.values;
    let all = t.matrix.levels.iter().enumerate();
    all.map(|(position, &q)| {
        let (s, m) = scale_and_min(t, position / cols, position % cols);
        let listed = codebook.filter(|_| (t.center..t.center + 16).contains(&q));
        let value = listed.map_or(q as f32 + bias as f32, |book| book.0[(q - t.center) as usize]);
        step as f32 * (s * value + m) + offset as f32
    })
    .collect()
}

/// What the second reader should print for a file.
fn expected(model: &Model) -> Vec<Value> {
    let coded = model.coded.iter().map(|t| {
        let levels: Vec<u8> = t.matrix.levels.iter().flat_map(|q| q.to_le_bytes()).collect();
        let bits = |w: f32| if w.is_nan() { 0x7fc0_0000 } else { w.to_bits() };
        let weights: Vec<u8> = weights(t).iter().flat_map(|&w| bits(w).to_le_bytes()).collect();
        json!({"name": t.name, "levels": crc32fast::hash(&levels), "weights": crc32fast::hash(&weights)})
    });
    let plain = model.plain.iter().map(|t| json!({"name": t.name, "bytes": crc32fast::hash(&t.bytes)}));
    let pieces = model.pieces.iter().map(|t| {
        let part = json!({"of": t.part.of, "index": t.part.index});
        json!({"name": t.name, "part": part})
    });
    coded.chain(plain).chain(pieces).collect()
}

fn check(model: &Model) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    model.write(&path, false, 0).unwrap();
    assert_eq!(second_reader(&path), expected(model));
}

#[test]
fn the_second_reader_agrees_on_a_file_with_one_of_everything() {
    check(&one_of_everything());
}

#[test]
fn the_second_reader_agrees_on_every_shape_split_and_kind_of_scales() {
    let shapes = [(1, 1), (1, 300), (130, 1), (7, 33), (6, 64), (64, 31), (3, 200), (37, 96)];
    let mut model = Model::default();
    let mut draw = Draw(99);
    for (i, (rows, cols)) in shapes.into_iter().enumerate() {
        for profile in [Profile::Cpu, Profile::Gpu] {
            for kind in 0..6u64 {
                let raw = ((i as u64 * 6 + kind + u64::from(profile == Profile::Gpu)) % 9) as u32;
                let name = format!("{rows}x{cols}.{profile:?}.{kind}");
                model.coded.push(tensor(name, (rows, cols), profile, kind, raw, &mut draw));
            }
        }
    }
    check(&model);
}

#[test]
fn the_second_reader_agrees_on_many_tiles_with_many_lanes() {
    let mut draw = Draw(5);
    let mut model = Model::default();
    // 256 lanes with strips of unequal height; and pairs in tiles of odd height
    for (profile, shape) in [(Profile::Cpu, (333, 405)), (Profile::Gpu, (211, 333))] {
        model.coded.push(tensor(format!("{profile:?}"), shape, profile, 4, 2, &mut draw));
    }
    check(&model);
}

/// A tensor of mostly small levels with some far ones.
fn tensor(
    name: String,
    shape: (usize, usize),
    profile: Profile,
    kind: u64,
    raw: u32,
    draw: &mut Draw,
) -> Coded {
    let (rows, cols) = shape;
    let constant = kind == 0 && raw.is_multiple_of(2);
    let matrix = Matrix::new(rows, cols, || match draw.below(200) {
        _ if constant => 3,
        0 => draw.bits() as i32,
        n => (n % 11 * n % 5) as i32 - 2 + (draw.below(1 << raw) as i32 - (1 << raw) / 2),
    });
    let size = [32, 16, cols as u64, 1][draw.below(4) as usize].min(cols as u64);
    let groups = rows * cols.div_ceil(size as usize);
    let (scales, lengths) = match kind {
        0 => (Scales::None, vec![]),
        1 => (Scales::RowColumn { row: true, column: false }, vec![rows]),
        2 => (Scales::RowColumn { row: false, column: true }, vec![cols]),
        3 => (Scales::RowColumn { row: true, column: true }, vec![rows, cols]),
        4 => (Scales::Group { size, min: false }, vec![groups; 2]),
        _ => (Scales::Group { size, min: true }, vec![groups; 4]),
    };
    let mut planes: Vec<Vec<u8>> = lengths.into_iter().map(|n| draw.bytes(n)).collect();
    if kind == 5 {
        planes[3] = planes[1].iter().map(|b| b / 2).collect(); // so that a context pays
    }
    let values =
        Values { step: f64::from(0.1f32), bias: -8.0, offset: f64::from(0.3f32), scales, codebook: None };
    let shape = vec![rows as u64, cols as u64];
    let (center, raw_bits, predictor) = (0, raw..=raw, None);
    Coded { name, shape, matrix, profile, center, raw_bits, values, planes, predictor }
}

/// The value of a float from its bits, by the definition of its format.
fn value(format: FloatFormat, bits: u16) -> f32 {
    match format {
        FloatFormat::Bf16 => f32::from_bits(u32::from(bits) << 16),
        FloatFormat::F16 => half((bits >> 8) as u8, bits as u8),
        FloatFormat::F8E5M2 => half(bits as u8, 0),
        FloatFormat::F8E4M3 => {
            let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
            let value = match (exponent, bits & 7) {
                (15, 7) => f32::NAN,
                (0, _) => mantissa * 2f32.powi(-9),
                _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
            };
            if bits & 0x80 == 0 { value } else { -value }
        }
    }
}

#[test]
fn the_second_reader_agrees_on_floats() {
    let mut draw = Draw(17);
    let mut model = Model::default();
    for format in [FloatFormat::Bf16, FloatFormat::F16, FloatFormat::F8E4M3, FloatFormat::F8E5M2] {
        for (profile, shape) in [(Profile::Cpu, [37, 41]), (Profile::Gpu, [9, 67])] {
            for wild in [false, true] {
                let bytes = floats(format, (shape[0] * shape[1]) as usize, wild, &mut draw);
                let name = format!("{format:?}.{profile:?}.{wild}");
                model.floats.push(Floats { name, shape: shape.into(), format, profile, bytes });
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    model.write(&path, false, 0).unwrap();
    let found = read(&path).unwrap();
    assert_eq!(found.directory.version, 4);
    let expected: Vec<Value> = model
        .floats
        .iter()
        .zip(&found.tensors)
        .map(|(t, part)| {
            let Part::Floats { levels, bytes, .. } = part else { panic!("{} is not of floats", t.name) };
            assert!(*bytes == t.bytes, "{}", t.name);
            let levels: Vec<u8> = levels.iter().flat_map(|q| q.to_le_bytes()).collect();
            let bits = t
                .bytes
                .chunks(t.format.bytes())
                .map(|b| u16::from_le_bytes([b[0], b.get(1).copied().unwrap_or(0)]));
            let values = bits.map(|b| value(t.format, b));
            let values = values.map(|w| if w.is_nan() { 0x7fc0_0000 } else { w.to_bits() });
            let weights: Vec<u8> = values.flat_map(u32::to_le_bytes).collect();
            json!({"name": t.name, "levels": crc32fast::hash(&levels), "weights": crc32fast::hash(&weights)})
        })
        .collect();
    assert_eq!(second_reader(&path), expected);
}

#[test]
fn the_second_reader_agrees_on_scales_as_sources_have_them() {
    let mut model = Model::default();
    let mut draw = Draw(31);
    for (shape, size) in [((7, 33), 1), ((5, 200), 32), ((12, 96), 7), ((3, 64), 64), ((1, 1), 1)] {
        for (i, scales) in sources::scales(size).into_iter().enumerate() {
            let profile = [Profile::Cpu, Profile::Gpu][i % 2];
            let codebook = (i % 3 == 0).then_some(NF4);
            let name = format!("{shape:?}.{size}.{i}");
            model.coded.push(sources::tensor(name, shape, profile, scales, codebook, &mut draw));
        }
    }
    check(&model);
}

#[test]
fn the_second_reader_agrees_on_maps_of_more_than_256_groups() {
    let mut draw = Draw(32);
    let scales = Scales::Numbers { size: 2, format: NumberFormat::Bf16, min: Min::Zero, mapped: true };
    let coded = [Profile::Cpu, Profile::Gpu].map(|profile| {
        let tensor = sources::tensor(format!("{profile:?}"), (6, 1200), profile, scales, None, &mut draw);
        assert!(tensor.planes[3].iter().any(|&high| high > 1), "groups above 511");
        tensor
    });
    check(&Model { coded: coded.into(), ..Model::default() });
}

#[test]
fn the_second_reader_agrees_on_codebooks() {
    let mut model = Model::default();
    let mut draw = Draw(33);
    let odd = std::array::from_fn(|i| f32::from_bits((0x0123_4567 * (i as u32 + 1)) & 0xbf7f_ffff));
    let zeros = std::array::from_fn(|i| if i % 2 == 0 { 0.0 } else { -0.0 });
    for (i, codebook) in [NF4, odd, zeros, [f32::MAX; 16]].into_iter().enumerate() {
        for profile in [Profile::Cpu, Profile::Gpu] {
            for scales in [
                Scales::None,
                Scales::RowColumn { row: true, column: true },
                Scales::Group { size: 10, min: true },
            ] {
                let name = format!("{i}.{profile:?}.{scales:?}");
                let book = Some(codebook);
                model.coded.push(sources::tensor(name, (9, 130), profile, scales, book, &mut draw));
            }
        }
    }
    let beyond = |t: &Coded| t.matrix.levels.iter().any(|&q| !(t.center..t.center + 16).contains(&q));
    assert!(model.coded.iter().all(beyond), "escapes that the codebook does not list");
    check(&model);
}

/// In tiles of more than 256 rows and columns, and of more than either.
#[test]
fn the_second_reader_agrees_on_predictions() {
    let mut draw = Draw(34);
    let mut model = Model { pairs: Some((Pairs::WHOLE, 272)), ..Model::default() };
    for (i, (predictor, profile, shape)) in [
        (Predictor::Planar, Profile::Cpu, (530, 500)),
        (Predictor::Up, Profile::Gpu, (540, 130)),
        (Predictor::Left, Profile::Gpu, (140, 515)),
        (Predictor::Up, Profile::Cpu, (530, 33)),
        (Predictor::Left, Profile::Cpu, (33, 530)),
    ]
    .into_iter()
    .enumerate()
    {
        let raw = [4, 2, 0][i % 3];
        let name = format!("{predictor:?}.{profile:?}");
        model.coded.push(sources::predicted(name, shape, profile, predictor, raw, &mut draw));
    }
    for predictor in Predictor::ALL {
        let name = format!("{predictor:?}.book");
        let mut small = sources::predicted(name, (3, 70), Profile::Cpu, predictor, 0, &mut draw);
        small.values.codebook = Some(directory::Codebook(NF4));
        model.coded.push(small);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    model.write(&path, false, 0).unwrap();
    assert_eq!(second_reader(&path), expected(&model));
    let found = read(&path).unwrap();
    let heights = |i: usize| found.directory.tensors[i].coded.as_ref().map(|c| (c.tiles(), c.tile_rows));
    assert_eq!([heights(0), heights(1), heights(2)], [Some((2, 268)), Some((2, 272)), Some((1, 140))]);
    for (tensor, part) in model.coded.iter().zip(&found.tensors) {
        assert!(
            matches!(part, Part::Coded { levels, .. } if *levels == tensor.matrix.levels),
            "{}",
            tensor.name
        );
    }
}

#[test]
fn the_second_reader_agrees_on_differences_of_more_than_eight_bits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    let model = one_of_everything();
    model.write(&path, false, 0).unwrap();
    let honest = Forge::new(&std::fs::read(&path).unwrap());
    for predictor in Predictor::ALL {
        // what were levels become differences, one of them 2^30
        let mut forge = honest.clone();
        forge.set("/version", json!(3));
        forge.set("/tensors/0/coded/predictor", json!(predictor.name()));
        std::fs::write(&path, forge.file()).unwrap();
        let contents = read(&path).unwrap();
        let Part::Coded { levels, .. } = &contents.tensors[0] else { panic!("a coded tensor") };
        assert!(levels.iter().all(|q| (-128..=127).contains(q)) && *levels != model.coded[0].matrix.levels);
        let mut expected = model.clone();
        expected.coded[0].matrix.levels.clone_from(levels);
        assert_eq!(second_reader(&path), self::expected(&expected), "{predictor:?}");
    }
}

#[test]
fn the_second_reader_agrees_on_parts() {
    let mut model = one_of_everything();
    for (i, of) in ["n", "b", "n"].into_iter().enumerate() {
        let part = directory::Part { of: of.into(), index: i as u32 };
        let bytes = Draw(i as u64).bytes(20);
        model.pieces.push(Piece { name: format!("n.scales.{i}"), shape: vec![4, 5], part, bytes });
    }
    check(&model);
}

#[test]
fn the_second_reader_notices_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ecq");
    one_of_everything().write(&path, false, 0).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for at in (0..bytes.len()).step_by(211) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, damaged).unwrap();
        assert!(!python(&[&path]).status.success(), "byte {at}");
    }
}

/// Imports the reader, and says of each file whether it refuses it: by its own word, or with any exception.
const REFUSES: &str = "
import contextlib, io, sys
sys.path.insert(0, sys.argv[1])
import reader
for path in sys.stdin.read().splitlines():
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            reader.main(path)
            said = 'taken'
        except SystemExit as end:
            said = end.code
        except Exception as problem:
            said = repr(problem)
    print(str(said).splitlines()[0][:200])
";

/// What can be noticed without unpacking blobs and putting sources together, which the second reader does not.
#[test]
fn the_second_reader_refuses_the_hostile_catalogue() {
    let fixtures = Path::new(READER).parent().unwrap();
    let catalogue = std::fs::read_to_string(fixtures.join("hostile/catalogue.tsv")).unwrap();
    let lines = catalogue.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let cases: Vec<&str> = lines
        .filter(|c| c[0].starts_with("ecq/") && ["header", "data"].contains(&c[2]))
        .map(|c| c[0])
        .collect();
    assert!(cases.len() > 300, "{} cases", cases.len());
    let paths = cases.iter().map(|case| format!("{}\n", fixtures.join("hostile").join(case).display()));
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(list.path(), paths.collect::<String>()).unwrap();
    let output = Command::new("python3")
        .args(["-B", "-c", REFUSES])
        .arg(fixtures)
        .stdin(list.reopen().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), cases.len());
    let taken: Vec<_> = cases.iter().zip(text.lines()).filter(|(_, said)| *said == "taken").collect();
    assert_eq!(taken, [], "{} of {} files are taken", taken.len(), cases.len());
}

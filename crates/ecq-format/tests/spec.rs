//! The worked example of `docs/format.md` is a real file, and the writer still codes it the same way.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;

use common::{Coded, Contents, Matrix, Model, Part, read, values};
use ecq_format::directory::Scales;
use ecq_format::encode::Profile;

/// 8 x 64 levels, most of them -3 to 2, and an escape at row 2, column 8.
fn example() -> Model {
    let mut position = 0..;
    let mut matrix = Matrix::new(8, 64, || {
        let position: i32 = position.next().unwrap();
        let (row, column) = (position / 64, position % 64);
        let k = [0, 0, 1, 2][((column * (row + 1) + row * row) % 7 % 4) as usize];
        if (column / 4 + row) % 2 == 1 { -1 - k } else { k }
    });
    matrix.levels[2 * 64 + 8] = 1000;
    let coded = Coded {
        name: "w".into(),
        shape: vec![8, 64],
        matrix,
        profile: Profile::Cpu,
        center: 0,
        raw_bits: 1..=1,
        values: values(Scales::None),
        planes: vec![],
        predictor: None,
    };
    Model { coded: vec![coded], ..Model::default() }
}

/// The bytes of the page's only hex dump: an offset and a colon, pairs of bytes, two spaces, text.
fn dump() -> Vec<u8> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md")).unwrap();
    let mut bytes = Vec::new();
    for line in page.lines() {
        let Some((offset, rest)) = line.trim_start().split_once(": ") else { continue };
        if offset.len() != 8 || usize::from_str_radix(offset, 16) != Ok(bytes.len()) {
            continue;
        }
        let hex: String = rest.split("  ").next().unwrap().split_whitespace().collect();
        bytes.extend((0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()));
    }
    bytes
}

fn data(file: &[u8]) -> &[u8] {
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    &file[8 + header..file.len() - 8]
}

#[test]
fn the_dump_is_the_file_that_the_text_describes() {
    let dir = tempfile::tempdir().unwrap();
    let (dumped, written) = (dir.path().join("dumped.ecq"), dir.path().join("written.ecq"));
    let model = example();
    model.write(&written, false, 0).unwrap();
    let file = fs::read(&written).unwrap();
    // the header names the program's version, and so may differ; what is coded may not
    let dump = dump();
    assert!(!dump.is_empty() && data(&dump) == data(&file), "{}", text_of(&file));
    fs::write(&dumped, &dump).unwrap();
    let Contents { tensors, .. } = read(&dumped).unwrap();
    let levels = model.coded[0].matrix.levels.clone();
    assert_eq!(tensors, [Part::Coded { levels, planes: vec![] }]);
}

/// The dump that the page should have.
fn text_of(file: &[u8]) -> String {
    let line = |(i, bytes): (usize, &[u8])| {
        let hex: String = bytes
            .chunks(2)
            .map(|pair| pair.iter().map(|b| format!("{b:02x}")).collect::<String>() + " ")
            .collect();
        let text: String =
            bytes.iter().map(|&b| if (0x20..0x7f).contains(&b) { b as char } else { '.' }).collect();
        format!("{:08x}: {hex:40} {text}\n", 16 * i)
    };
    file.chunks(16).enumerate().map(line).collect()
}

//! Tiles, tables and side data that lie, with checksums that fit: what a checksum cannot catch, the reader must.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;
#[path = "common/place.rs"]
mod place;

use common::forge::{Forge, sealed_exactly};
use common::{one_of_everything, read};
use ecq_format::Writer;
use ecq_format::directory::{Extent, Role, Scales, SourceFile};
use ecq_format::encode::{Encoder, histogram};
use ecq_format::plan::Plan;
use ecq_format::side::Side;
use ecq_format::writer::TensorHead;
use place::Place;
use serde_json::json;

/// Raw bits of the tensor "n", which takes 200 of each.
const RAW: usize = 200 / 8;

fn forge(place: &Place) -> Forge {
    let mut forge = Forge::new(&place.written(&one_of_everything()));
    assert_eq!(forge.directory["tensors"][0]["coded"]["raw_bits"], 1);
    assert_eq!(forge.directory["tensors"][1]["coded"]["raw_bits"], 0);
    // the tests below edit bytes at these places
    assert_eq!(escapes(&mut forge), [77, 0x80, 0x80, 0x80, 0x80, 8]);
    forge
}

fn index(forge: &mut Forge, tensor: &str, field: usize) -> u32 {
    let bytes = &forge.entry(&format!("{tensor}#index"))[4 * field..][..4];
    u32::from_le_bytes(bytes.try_into().unwrap())
}

fn set_index(forge: &mut Forge, tensor: &str, field: usize, value: u32) {
    forge.entry(&format!("{tensor}#index"))[4 * field..][..4].copy_from_slice(&value.to_le_bytes());
}

/// Where the stream of "n" begins in its tile, and where its escapes begin.
fn stream_and_escapes(forge: &mut Forge) -> (usize, usize) {
    let stream = RAW.next_multiple_of(4);
    (stream, stream + (index(forge, "n", 0) as usize).next_multiple_of(4))
}

fn escapes(forge: &mut Forge) -> Vec<u8> {
    let (from, len) = (stream_and_escapes(forge).1, index(forge, "n", 1) as usize);
    forge.entry("n#tiles")[from..from + len].into()
}

#[test]
fn lengths_in_the_index_that_are_off() {
    let place = Place::new();
    let honest = forge(&place);
    for field in [0, 1] {
        for change in [4, -4, 64, i64::from(u32::MAX)] {
            let mut lying = honest.clone();
            let value = i64::from(index(&mut lying, "n", field)) + change;
            set_index(&mut lying, "n", field, value.clamp(0, u32::MAX.into()) as u32);
            lying.checksum(0);
            // four bytes more may be hidden in the filling, and then the parts do not fit
            let (kind, text) = place.error(&lying.file());
            let told =
                ["corrupt index", "corrupt tile 0", "corrupt filling"].iter().any(|w| text.contains(w));
            assert!(kind == "corrupt" && told, "field {field} {change:+}: {kind}: {text}");
        }
    }
    let mut both = honest.clone();
    set_index(&mut both, "n", 0, u32::MAX);
    set_index(&mut both, "n", 1, u32::MAX);
    both.checksum(0);
    place.expect("both", &both.file(), "corrupt", "corrupt index");
    let mut fill = honest.clone();
    fill.entry("n#index")[15] = 1;
    fill.checksum(0);
    place.expect("filling of the index", &fill.file(), "corrupt", "corrupt filling");
}

#[test]
fn streams_a_byte_too_short_or_too_long() {
    let place = Place::new();
    let mut tested = [false; 2];
    for spread in 20..60 {
        let mut model = one_of_everything();
        let mut draw = common::Draw(spread.into());
        model.coded[0].matrix.levels.iter_mut().for_each(|l| *l = draw.below(spread) as i32);
        let honest = Forge::new(&place.written(&model));
        for (change, words) in [(-1, "the stream ends at"), (1, "1 bytes are left")] {
            let mut lying = honest.clone();
            let len = index(&mut lying, "n", 0);
            let changed = (len as i32 + change) as u32;
            if changed.next_multiple_of(4) != len.next_multiple_of(4) {
                continue; // it would move the escapes
            }
            set_index(&mut lying, "n", 0, changed);
            if change < 0 {
                // or it would be noticed as filling that is not zero
                let raw_bits = lying.directory["tensors"][0]["coded"]["raw_bits"].as_u64().unwrap() as u32;
                let stream = ecq_format::planes::raw_bytes(raw_bits, 200) as usize;
                lying.entry("n#tiles")[stream + changed as usize] = 0;
            }
            lying.checksum_tiles(0, "n");
            place.expect(&format!("{change:+}"), &lying.file(), "corrupt", words);
            tested[usize::from(change > 0)] = true;
        }
    }
    assert_eq!(tested, [true; 2]);
}

#[test]
fn states_that_no_encoder_makes() {
    let place = Place::new();
    let honest = forge(&place);
    let stream = RAW.next_multiple_of(4);
    for lane in [0, 1, 63] {
        for state in [0u16, 1, 0xff] {
            let mut lying = honest.clone();
            lying.entry("n#tiles")[stream + 2 * lane..][..2].copy_from_slice(&state.to_le_bytes());
            lying.checksum_tiles(0, "n");
            let words = format!("lane {lane} starts below the state bound");
            place.expect("nibble state", &lying.file(), "corrupt", &words);
        }
    }
    // lanes of "b" but the first have two symbols, both in the state: nothing but the constant can be wrong
    for (lane, state, words) in [
        (0usize, 0xffffu32, "lane 0 starts below"),
        (31, 0, "lane 31 starts below"),
        (1, 0x2_0000, "lane 1 does not end"),
        (31, 0x8001_0000, "lane 31 does not end"),
    ] {
        let mut lying = honest.clone();
        lying.entry("b#tiles")[4 * lane..][..4].copy_from_slice(&state.to_le_bytes());
        lying.checksum_tiles(1, "b");
        place.expect("pair state", &lying.file(), "corrupt", words);
    }
}

#[test]
fn escapes_that_lie() {
    let place = Place::new();
    let honest = forge(&place);
    let lies: [(&[u8], &str); 6] = [
        (&[0xc8, 0x01, 0x80, 0x80, 0x80, 0x01], "position 200 of 200"),
        (&[0xff, 0xff, 0xff, 0xff, 0x7f, 0x00], "of 200 weights"),
        (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80], "position is cut short or too long"),
        (&[77, 0x80, 0x80, 0x80, 0x80, 0x80], "level is cut short or too long"),
        (&[77, 0xff, 0xff, 0xff, 0xff, 0x1f], "does not fit 32 bits"),
        (&[100, 0, 99, 0, 0, 0], "position 200 of 200"),
    ];
    for (bytes, words) in lies {
        let mut lying = honest.clone();
        let from = stream_and_escapes(&mut lying).1;
        lying.entry("n#tiles")[from..from + 6].copy_from_slice(bytes);
        lying.checksum_tiles(0, "n");
        place.expect(&format!("{bytes:02x?}"), &lying.file(), "corrupt", words);
    }
    let mut short = honest.clone();
    set_index(&mut short, "n", 1, 5);
    short.checksum(0);
    place.expect("a byte less", &short.file(), "corrupt", "filling other than zero");
}

#[test]
fn frequencies_that_do_not_add_up() {
    let place = Place::new();
    let honest = forge(&place);
    for (tensor, name) in [(0, "n"), (1, "b")] {
        let total = if tensor == 0 { 256 } else { 4096 };
        let lies: [(&[u8], String); 3] = [
            (&[0xfe, 0x7f], format!("frequencies sum to 8192, expected {total}")),
            (&[0xff, 0x3f, 0x80, 0x02], "corrupt at byte 4".into()), // 256 symbols skipped
            (&[0x80, 0x80, 0x01], "corrupt at byte 0".into()),       // a number of three bytes
        ];
        for (bytes, words) in lies {
            let mut lying = honest.clone();
            lying.entry(&format!("{name}#tables"))[..bytes.len()].copy_from_slice(bytes);
            lying.checksum(tensor);
            place.expect(&format!("{name} {bytes:02x?}"), &lying.file(), "corrupt", &words);
        }
        let mut filled = honest.clone();
        *filled.entry(&format!("{name}#tables")).last_mut().unwrap() = 1;
        filled.checksum(tensor);
        place.expect(name, &filled.file(), "corrupt", "corrupt tables");
        for byte in [0, 1, 0x7f, 0xff] {
            let mut lying = honest.clone();
            lying.entry(&format!("{name}#tables")).fill(byte);
            lying.checksum(tensor);
            place.expect(&format!("{name} all {byte:x}"), &lying.file(), "corrupt", "corrupt tables");
        }
    }
}

#[test]
fn side_data_that_lies() {
    let place = Place::new();
    let honest = forge(&place);
    // two planes of ten: two context bytes, four of length, tables, stream
    let edits: [(&str, usize, &[u8], &str); 8] = [
        ("its own context", 0, &[0], "no context plane 0"),
        ("a later context", 0, &[1], "no context plane 1"),
        ("a context beyond the planes", 1, &[2], "no context plane 2"),
        ("254 is no number for none", 1, &[254], "no context plane 254"),
        ("no tables", 2, &[0, 0, 0, 0], ""),
        ("endless tables", 2, &[0xff; 4], "ends early"),
        ("tables of nothing", 6, &[0xff; 4], "frequency table"),
        ("a frequency too large", 6, &[0xfe, 0x7f], "frequencies sum"),
    ];
    for (what, at, bytes, words) in edits {
        let mut lying = honest.clone();
        lying.entry("n#side")[at..at + bytes.len()].copy_from_slice(bytes);
        lying.checksum(0);
        place.expect(what, &lying.file(), "corrupt", words);
        assert!(place.error(&lying.file()).1.contains("corrupt side data"), "{what}");
    }
    let mut state = honest.clone();
    let tables = u32::from_le_bytes(state.entry("n#side")[2..6].try_into().unwrap()) as usize;
    state.entry("n#side")[6 + tables..][..4].fill(0);
    state.checksum(0);
    place.expect("a state of zero", &state.file(), "corrupt", "lane 0 starts below");
    state = honest.clone();
    state.entry("n#side")[6 + tables + 4 * 31] ^= 1; // lane 31 codes nothing: its payload must be zero
    state.checksum(0);
    place.expect("a payload", &state.file(), "corrupt", "does not end where its encoder began");
    let mut more = honest.clone();
    *more.entry("n#side").last_mut().unwrap() ^= 1;
    more.checksum(0);
    place.expect("a byte at the end", &more.file(), "corrupt", "corrupt side data");
}

#[test]
fn swapped_tiles_are_noticed() {
    let place = Place::new();
    let mut forge = forge(&place);
    let (n, b) = (forge.entry("n#index").to_vec(), forge.entry("b#index").to_vec());
    forge.entry("n#index").copy_from_slice(&b);
    forge.entry("b#index").copy_from_slice(&n);
    (0..2).for_each(|tensor| forge.checksum(tensor));
    place.expect("another tensor's index", &forge.file(), "corrupt", "corrupt index");
}

/// Any byte of a tile changed and its checksum recomputed: wrong levels are possible, a panic is not.
#[test]
fn any_byte_behind_a_fitting_checksum() {
    let place = Place::new();
    let honest = forge(&place);
    let mut noticed = [0; 2];
    for (tensor, name, part) in
        [(0, "n", "tiles"), (1, "b", "tiles"), (0, "n", "tables"), (0, "n", "side"), (1, "b", "side")]
    {
        let entry = format!("{name}#{part}");
        for at in 0..honest.range(&entry).len() {
            for change in [0x01, 0x80, 0xff] {
                let lying = honest.changed(tensor, name, part, at, change);
                let (kind, text) = place.error(&lying.file());
                assert!(["none", "corrupt"].contains(&kind), "{entry} {at}: {text}");
                noticed[usize::from(kind == "corrupt")] += 1;
            }
        }
    }
    assert!(noticed[1] > noticed[0] / 3, "{noticed:?}");
}

/// Files that `docs/format.md` calls corrupt.
#[test]
fn what_the_reader_refuses() {
    let place = Place::new();
    let honest = forge(&place);
    let mut accepted = Vec::new();
    let mut try_lie = |what: &'static str, lie: &dyn Fn(&mut Forge)| {
        let mut lying = honest.clone();
        lie(&mut lying);
        if place.error(&lying.file()).0 == "none" {
            accepted.push(what);
        }
    };
    try_lie("a plain tensor of another shape", &|f| f.set("/tensors/2/shape", json!([4])));
    try_lie("a plain tensor of another type", &|f| f.set("/tensors/2/dtype", json!("F16")));
    try_lie("a plain tensor of another source length", &|f| f.set("/tensors/2/source/len", json!(5)));
    try_lie("a plain shape that overflows", &|f| f.set("/tensors/3/shape", json!([u64::MAX, 2])));
    try_lie("tiles that are no U8", &|f| {
        let n = f.range("n#tiles").len();
        f.entries["n#tiles"]["dtype"] = json!("F32");
        f.entries["n#tiles"]["shape"] = json!([n / 4]);
    });
    try_lie("filling in a tile", &|f| {
        f.entry("n#tiles")[RAW] = 1;
        f.checksum_tiles(0, "n");
    });
    try_lie("an unknown field in the scales", &|f| {
        let scales = json!({"group": {"size": 32, "min": false, "more": 1}});
        f.set("/tensors/0/coded/values/scales", scales);
    });
    try_lie("a companion as verbatim part", &|f| f.set("/sources/0/verbatim", json!(0)));
    try_lie("a tensor name with a #", &|f| {
        f.rename("norm", "n#x");
        f.set("/tensors/2/name", json!("n#x"));
    });
    let header = honest.header(&honest.directory.to_string());
    for (what, bytes) in [(
        "no multiple of 64",
        sealed_exactly(&format!("{header:0$}", header.len() / 64 * 64 + 65), &honest.data),
    )] {
        if place.error(&bytes).0 == "none" {
            accepted.push(what);
        }
    }
    assert_eq!(accepted, [] as [&str; 0]);
}

/// Misuse that [`ecq_format::Writer`] does not refuse: it panics, or writes files that cannot be read.
#[test]
fn what_the_writer_refuses() {
    let place = Place::new();
    let mut overlooked = Vec::new();
    for name in ["#seal", "__metadata__", "b#x", "n#side", ""] {
        let mut model = one_of_everything();
        model.coded[0].planes.clear();
        model.coded[0].values.scales = Scales::None;
        model.plain[1].name = name.into();
        match std::panic::catch_unwind(|| model.write(&place.path(), true, 0).is_err()) {
            Ok(true) => {}
            Ok(false) => overlooked.push((name, read(&place.path()).err().map(|e| e.to_string()))),
            Err(_) => overlooked.push((name, Some("panic".into()))),
        }
    }
    // entries of coded tensors must begin at multiples of 8
    let model = one_of_everything();
    let t = &model.coded[1];
    let mut writer = Writer::create(&place.path(), true, 0).unwrap();
    writer.blob("odd", Role::Companion, b"odd").unwrap();
    let counts = histogram(&t.matrix, t.matrix.rows, t.matrix.cols, t.center);
    let plan = Plan::cheapest(&counts, t.raw_bits.clone()).unwrap();
    let encoder = Encoder::new("ecq", &t.shape, t.values, t.profile, &plan, &t.matrix).unwrap();
    let source = Extent { file: 0, offset: 0, len: 1 };
    let head = TensorHead { name: &t.name, shape: &t.shape, dtype: "BF16", source };
    if writer.coded(head, &encoder, &Side::new(&t.planes), |_| true).is_ok() {
        let (name, format, sha256) = ("s".into(), "gguf".into(), "0".repeat(64));
        let source = SourceFile { name, format, size: 1, sha256, verbatim: 0 };
        if writer.finish(vec![source], false).is_ok() {
            overlooked.push(("a blob before a tensor", read(&place.path()).err().map(|e| e.to_string())));
        }
    }
    assert_eq!(overlooked, []);
}

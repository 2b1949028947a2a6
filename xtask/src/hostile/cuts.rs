//! Files cut short or made longer, bits of headers flipped, checksums of the right form and wrong value, containers that lie.

use serde_json::json;

use super::forge::{Forge, sealed, sealed_exactly};
use super::{Bases, Catalogue};

pub fn add(all: &mut Catalogue, bases: &Bases) {
    cut_headers(all, &bases.v1.file());
    cut_tiles(all, bases);
    longer(all, &bases.v1.file());
    flips(all, &bases.v1);
    checksums(all, bases);
    lengths(all, &bases.v1.file());
    ranges(all);
    entries(all, &bases.v1);
}

/// Where the data of a file begin.
fn data_at(file: &[u8]) -> usize {
    let mut length = [0; 8];
    length.copy_from_slice(&file[..8]);
    8 + u64::from_le_bytes(length) as usize
}

fn cut_headers(all: &mut Catalogue, file: &[u8]) {
    let data = data_at(file);
    for (at, error, words) in [
        (0, "not-ecq", "shorter than 8 bytes"),
        (1, "not-ecq", "shorter than 8 bytes"),
        (7, "not-ecq", "shorter than 8 bytes"),
        (8, "not-ecq", "does not begin as a safetensors file"),
        (9, "header", "cut short"),
        (100, "header", "cut short"),
        (data / 2, "header", "cut short"),
        (data - 64, "header", "cut short"),
        (data - 1, "header", "cut short"),
        (data, "header", "cut short"),
        (data + 1, "header", "cut short"),
        (file.len() - 8, "header", "cut short"),
        (file.len() - 1, "header", "cut short"),
    ] {
        let attacks = format!("cut at byte {at} of {}: header of {data}", file.len());
        all.ecq(&format!("cut-v1-at-{at:04}"), file[..at].into(), error, words, &attacks);
    }
}

/// Cut behind each tile and each entry of each kind of tensor.
fn cut_tiles(all: &mut Catalogue, bases: &Bases) {
    let [prefix, rans] = &bases.v4;
    let bases =
        [("v1", &bases.v1), ("v2", &bases.v2), ("v3", &bases.v3), ("v4-prefix", prefix), ("v4-rans", rans)];
    for (base, forge) in bases {
        let file = forge.file();
        let data = data_at(&file);
        for record in forge.directory["tensors"].as_array().into_iter().flatten() {
            let Some(name) = record["name"].as_str().filter(|_| record.get("coded").is_some()) else {
                continue;
            };
            for (tile, end) in tile_ends(forge, record, name).into_iter().enumerate() {
                let attacks = format!("cut behind tile {tile} of '{name}'");
                let name = format!("cut-{base}-{name}-tile-{tile}");
                all.ecq(&name, file[..data + end].into(), "header", "cut short", &attacks);
            }
        }
    }
}

/// Ends of the tiles of a tensor in the data.
fn tile_ends(forge: &Forge, record: &serde_json::Value, name: &str) -> Vec<usize> {
    let coded = &record["coded"];
    let field = |key: &str| coded[key].as_u64().unwrap_or(1);
    let (rows, height, raw) = (field("rows"), field("tile_rows"), field("raw_bits"));
    let index = forge.range(&format!("{name}#index")).start;
    let mut at = forge.range(&format!("{name}#tiles")).start;
    let mut ends = Vec::new();
    for tile in 0..rows.div_ceil(height) {
        let weights = height.min(rows - tile * height) * field("cols");
        let planes = [8, 4, 2, 1].into_iter().filter(|width| raw & width > 0);
        at += planes.map(|width| (weights * width).div_ceil(8).next_multiple_of(4)).sum::<u64>() as usize;
        for part in [0, 4] {
            let mut length = [0; 4];
            length.copy_from_slice(&forge.data[index + 12 * tile as usize + part..][..4]);
            at += u32::from_le_bytes(length).next_multiple_of(4) as usize;
        }
        ends.push(at);
    }
    ends
}

fn longer(all: &mut Catalogue, file: &[u8]) {
    for added in [1, 7, 8, 64] {
        let longer = [file, &vec![0; added]].concat();
        all.ecq(&format!("longer-by-{added}"), longer, "header", "bytes added", "zeros behind the seal");
    }
    all.ecq("longer-twice", [file, file].concat(), "header", "bytes added", "a file behind itself");
}

/// One bit of each kind of place in a header.
fn flips(all: &mut Catalogue, forge: &Forge) {
    let file = forge.file();
    let (data, end) = (data_at(&file), file.len());
    let at = |text: &str| {
        let found = file.windows(text.len()).position(|w| w == text.as_bytes());
        found.map_or(0, |at| at + text.len())
    };
    for (name, byte, bit, error, words) in [
        ("length-bit-0", 0, 0, "header", ""),
        ("length-bit-6", 0, 6, "header", ""),
        ("length-bit-16", 2, 0, "header", "cut short"),
        ("length-bit-40", 5, 0, "header", "cut short"),
        ("length-bit-63", 7, 7, "header", "cut short"),
        ("brace", 8, 0, "not-ecq", "does not begin as a safetensors file"),
        ("quote", 9, 0, "header", ""),
        ("first-offset", at("\"data_offsets\":["), 0, "header", ""),
        ("dtype", at("\"dtype\":\""), 0, "header", ""),
        ("shape", at("\"shape\":["), 0, "header", ""),
        ("metadata-key", at("\"__metadata__\":{\""), 1, "not-ecq", "plain safetensors file"),
        ("version", at("\\\"version\\\":"), 1, "header", "its checksum is wrong"),
        ("version-to-newer", at("\\\"version\\\":"), 2, "version", "format version 5"),
        ("raw-bits", at("\\\"raw_bits\\\":"), 0, "header", "its checksum is wrong"),
        ("step", at("\\\"step\\\":0."), 0, "header", "its checksum is wrong"),
        ("scheme", at("\\\"scheme\\\":\\\""), 1, "header", "its checksum is wrong"),
        ("tensor-checksum", at("\\\"crc\\\":"), 0, "header", "corrupt header: "),
        ("filling", data - 1, 0, "header", ""),
        ("seal", end - 8, 0, "header", "its checksum is wrong"),
        ("seal-filling", end - 1, 7, "header", "its checksum is wrong"),
    ] {
        let mut flipped = file.clone();
        flipped[byte] ^= 1 << bit;
        let attacks = format!("bit {bit} of byte {byte} flipped");
        all.ecq(&format!("flip-{name}"), flipped, error, words, &attacks);
    }
}

/// Every kind of data with one bit flipped and no checksum told; and seals that are CRCs of something else.
fn checksums(all: &mut Catalogue, bases: &Bases) {
    let parts = [
        ("tiles", "n#tiles", "corrupt tile 0: its checksum is wrong"),
        ("index", "n#index", "index, tables or side data: its checksum is wrong"),
        ("tables", "n#tables", "index, tables or side data: its checksum is wrong"),
        ("side", "n#side", "index, tables or side data: its checksum is wrong"),
        ("plain", "norm", "corrupt data: its checksum is wrong"),
        ("blob", "#blob/0", "corrupt blob: its checksum is wrong"),
        ("verbatim", "#blob/1", "corrupt blob: its checksum is wrong"),
    ];
    for (name, entry, words) in parts {
        let mut flipped = bases.v1.clone();
        flipped.entry(entry)[0] ^= 0x10;
        all.ecq(
            &format!("checksum-of-{name}"),
            flipped.file(),
            "corrupt",
            words,
            &format!("a flipped bit in {entry}"),
        );
    }
    for (base, tensor, name) in
        [(&bases.v4[0], "paired", "prefix"), (&bases.v4[1], "paired", "rans"), (&bases.v2, "bf16", "floats")]
    {
        let mut flipped = base.clone();
        let tiles = flipped.entry(&format!("{tensor}#tiles"));
        let last = tiles.len() - 16;
        tiles[last] ^= 1;
        let attacks = "a flipped bit in the last tile";
        all.ecq(
            &format!("checksum-of-last-tile-{name}"),
            flipped.file(),
            "corrupt",
            "its checksum is wrong",
            attacks,
        );
    }
    let mut tile = bases.v1.clone();
    let crc = crc32fast::hash(b"something else").to_le_bytes();
    tile.entry("n#index")[8..12].copy_from_slice(&crc);
    tile.checksum(0);
    all.ecq(
        "checksum-of-another-tile",
        tile.file(),
        "corrupt",
        "corrupt tile 0: its checksum is wrong",
        "a tile's checksum of other bytes",
    );
    let file = bases.v1.file();
    let (data, end) = (data_at(&file), file.len());
    for (name, crc) in [
        ("everything", crc32fast::hash(&file[..end - 8])),
        ("header-text", crc32fast::hash(&file[8..data])),
        ("nothing", 0),
    ] {
        let mut sealed = file.clone();
        sealed[end - 8..end - 4].copy_from_slice(&crc.to_le_bytes());
        all.ecq(
            &format!("seal-of-{name}"),
            sealed,
            "header",
            "its checksum is wrong",
            "a seal that is the CRC of other bytes",
        );
    }
}

fn lengths(all: &mut Catalogue, file: &[u8]) {
    let len = data_at(file) as u64 - 8;
    for (name, lie) in [
        ("0", 0),
        ("1", 1),
        ("2", 2),
        ("one-less", len - 1),
        ("one-more", len + 1),
        ("64-less", len - 64),
        ("whole-file", file.len() as u64 - 8),
        ("2-40", 1 << 40),
        ("2-63", 1 << 63),
        ("most-less-7", u64::MAX - 7),
        ("most", u64::MAX),
    ] {
        let changed = [&lie.to_le_bytes()[..], &file[8..]].concat();
        let attacks = format!("a header length of {lie}, which is {len}");
        all.ecq(&format!("header-length-{name}"), changed, "header", "corrupt header: ", &attacks);
    }
}

/// Entries that overlap, leave holes, run backwards or overflow.
fn ranges(all: &mut Catalogue) {
    let info = |a: u64, b: u64, shape: u64| json!({"dtype": "U8", "shape": [shape], "data_offsets": [a, b]});
    let most = u64::MAX;
    for (name, a, b, n) in [
        ("to-most", 0, most, most),
        ("to-most-less-7", 0, most - 7, most - 7),
        ("at-most", most, most, 0),
        ("backwards", most, 0, 1),
        ("backwards-by-8", 16, 8, 8),
        ("behind-a-hole", 8, 16, 8),
        ("to-2-63", 0, 1 << 63, 1 << 63),
        ("beyond-the-file", 0, 64, 64),
        ("of-another-length", 0, 16, 8),
    ] {
        let header = json!({"__metadata__": {"ecq": "{}"}, "x": info(a, b, n)});
        let bytes = sealed(&header.to_string(), &[0; 16]);
        all.ecq(
            &format!("range-{name}"),
            bytes,
            "header",
            "corrupt header: ",
            &format!("an entry at {a}..{b} of {n} bytes"),
        );
    }
    let two = |first: [u64; 2], second: [u64; 2]| {
        let [a, b] = [first, second].map(|[from, to]| info(from, to, to - from));
        sealed(&json!({"__metadata__": {"ecq": "{}"}, "a": a, "b": b}).to_string(), &[0; 32])
    };
    for (name, first, second) in [
        ("overlap", [0, 16], [8, 24]),
        ("inside", [0, 24], [8, 16]),
        ("same", [0, 24], [0, 24]),
        ("hole", [0, 8], [16, 24]),
    ] {
        let attacks = format!("entries at {first:?} and {second:?}");
        all.ecq(&format!("ranges-{name}"), two(first, second), "header", "corrupt header: ", &attacks);
    }
    let wide = json!({"x": {"dtype": "F64", "shape": [1u64 << 62, 4], "data_offsets": [0, 16]}});
    all.ecq(
        "range-shape-overflows",
        sealed(&wide.to_string(), &[0; 16]),
        "header",
        "corrupt header: ",
        "an entry of 2^64 numbers",
    );
    let none = json!({"x": {"dtype": "Q4_1", "shape": [16], "data_offsets": [0, 16]}});
    all.ecq(
        "range-type-unknown",
        sealed(&none.to_string(), &[0; 16]),
        "header",
        "corrupt header: ",
        "an entry of a type that safetensors has not",
    );
    let plain = json!({"x": info(0, 16, 16)});
    all.ecq(
        "plain-safetensors",
        sealed(&plain.to_string(), &[0; 16]),
        "not-ecq",
        "plain safetensors",
        "a safetensors file that is no .ecq file",
    );
    all.ecq(
        "no-entries",
        sealed("{}", &[0; 8]),
        "header",
        "corrupt header: ",
        "bytes that belong to no entry",
    );
    let gguf = [&b"GGUF\x03\0\0\0"[..], &[1; 100]].concat();
    all.ecq("gguf", gguf, "not-ecq", "does not begin as a safetensors file", "a GGUF file");
    all.ecq("zeros", vec![0; 4096], "not-ecq", "does not begin as a safetensors file", "nothing but zeros");
    all.ecq("ones", vec![255; 4096], "not-ecq", "does not begin as a safetensors file", "nothing but ones");
}

/// Entries that are missing, renamed, of another type, of nobody; headers of a wrong length.
fn entries(all: &mut Catalogue, forge: &Forge) {
    for part in ["tiles", "index", "tables", "side"] {
        let mut lying = forge.clone();
        lying.rename(&format!("n#{part}"), "other");
        let words = format!("no entry 'n#{part}'");
        all.ecq(
            &format!("entry-{part}-renamed"),
            lying.file(),
            "corrupt",
            &words,
            "an entry under another name",
        );
        if let Some(entries) = lying.entries.as_object_mut() {
            entries.remove("other");
        }
        all.ecq(
            &format!("entry-{part}-removed"),
            lying.file(),
            "header",
            "corrupt header: ",
            "bytes that belong to no entry",
        );
    }
    for (entry, name, error, words) in [
        ("#blob/0", "blob", "corrupt", "no entry '#blob/0'"),
        ("#seal", "seal", "header", "the seal is missing"),
        ("norm", "plain", "corrupt", "no entry 'norm'"),
    ] {
        let mut lying = forge.clone();
        lying.rename(entry, "other");
        all.ecq(&format!("entry-{name}-renamed"), lying.file(), error, words, "an entry under another name");
    }
    let mut typed = forge.clone();
    let bytes = typed.range("n#tiles").len();
    typed.entries["n#tiles"] = json!({"dtype": "F32", "shape": [bytes / 4], "data_offsets": typed.entries["n#tiles"]["data_offsets"]});
    all.ecq(
        "entry-tiles-of-f32",
        typed.file(),
        "corrupt",
        "entry 'n#tiles' is not of type U8",
        "tiles that are numbers",
    );
    let (mut added, end) = (forge.clone(), forge.data.len() - 8);
    added.entries["extra"] = json!({"dtype": "U8", "shape": [0], "data_offsets": [end, end]});
    all.ecq("entry-of-nobody", added.file(), "header", "belong to something", "an entry that no tensor has");
    let mut long = forge.clone();
    long.data.extend([0; 8]);
    long.entries["#seal"] = json!({"dtype": "U8", "shape": [16], "data_offsets": [end, end + 16]});
    all.ecq("seal-of-16-bytes", long.file(), "header", "the seal is missing", "a seal of another length");
    let header = forge.header(&forge.directory.to_string());
    let odd = sealed_exactly(&format!("{header:0$}", header.len() / 64 * 64 + 65), &forge.data);
    all.ecq("data-at-an-odd-byte", odd, "header", "expected a multiple of 64", "data that are not aligned");
}

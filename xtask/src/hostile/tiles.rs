//! Tiles, indexes and tables that lie, with checksums that fit: what no checksum notices, a decoder must.

use super::forge::Forge;
use super::{Bases, Catalogue, Found};

/// Where the stream of "n" begins: behind 200 raw bits.
const STREAM: usize = 28;

pub fn add(all: &mut Catalogue, bases: &Bases) {
    index(all, &bases.v1);
    states(all, bases);
    escapes(all, &bases.v1);
    frequencies(all, bases);
    prefix_codes(all, &bases.v4[0]);
    strips(all, bases);
    streams(all, bases);
}

/// An honest file that is edited; its case is added when it is done.
struct Lie<'a> {
    all: &'a mut Catalogue,
    name: String,
    forge: Forge,
}

impl Lie<'_> {
    fn add(self, words: &str, attacks: &str) {
        let case = self.all.ecq(&self.name, self.forge.file(), "corrupt", words, attacks);
        case.found = Found::Data;
    }
}

fn lie<'a>(all: &'a mut Catalogue, name: impl Into<String>, forge: &Forge) -> Lie<'a> {
    Lie { all, name: name.into(), forge: forge.clone() }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn index(all: &mut Catalogue, forge: &Forge) {
    for (field, what) in [(0, "stream"), (4, "escapes")] {
        for (name, change) in
            [("4-more", 4i64), ("4-less", -4), ("64-more", 64), ("most", i64::from(u32::MAX))]
        {
            let mut lie = lie(all, format!("v1-index-{what}-{name}"), forge);
            let index = lie.forge.entry("n#index");
            let value = (i64::from(word(index, field)) + change).clamp(0, u32::MAX.into()) as u32;
            index[field..field + 4].copy_from_slice(&value.to_le_bytes());
            lie.forge.checksum(0);
            lie.add("'n': corrupt", &format!("a length of the {what} that is not its own: {value}"));
        }
    }
    let mut both = lie(all, "v1-index-both-most", forge);
    both.forge.entry("n#index")[..8].fill(0xff);
    both.forge.checksum(0);
    both.add("corrupt index", "lengths of 2^32 - 1 both");
    let mut fill = lie(all, "v1-index-filling", forge);
    fill.forge.entry("n#index")[15] = 1;
    fill.forge.checksum(0);
    fill.add("corrupt filling", "a filling that is not zero");
    let mut fill = lie(all, "v1-tile-filling", forge);
    fill.forge.entry("n#tiles")[25] = 1;
    fill.forge.checksum_tiles(0, "n");
    fill.add("corrupt tile 0", "a filling between parts of a tile that is not zero");
    let mut swapped = lie(all, "v1-index-of-another-tensor", forge);
    let other = swapped.forge.entry("b#index").to_vec();
    swapped.forge.entry("n#index").copy_from_slice(&other);
    swapped.forge.checksum(0);
    swapped.add("corrupt index", "the index of another tensor");
}

fn states(all: &mut Catalogue, bases: &Bases) {
    for lane in [0usize, 63] {
        for state in [0u16, 0xff] {
            let mut lie = lie(all, format!("v1-nibble-state-{state}-of-lane-{lane}"), &bases.v1);
            lie.forge.entry("n#tiles")[STREAM + 2 * lane..][..2].copy_from_slice(&state.to_le_bytes());
            lie.forge.checksum_tiles(0, "n");
            let words = format!("lane {lane} starts below the state bound");
            lie.add(&words, "a rANS state below its bound of 256");
        }
    }
    for (lane, state, words) in [
        (0usize, 0xffffu32, "lane 0 starts below"),
        (31, 0, "lane 31 starts below"),
        (1, 0x2_0000, "lane 1 does not end"),
        (31, 0x8001_0000, "lane 31 does not end"),
    ] {
        let mut lie = lie(all, format!("v1-pair-state-{state:x}-of-lane-{lane}"), &bases.v1);
        lie.forge.entry("b#tiles")[4 * lane..][..4].copy_from_slice(&state.to_le_bytes());
        lie.forge.checksum_tiles(1, "b");
        lie.add(words, "a rANS state below its bound of 65536, or one that no encoder ends with");
    }
    // three lengths of strips, then the states of the first
    let mut rans = lie(all, "v4-rans-state-0", &bases.v4[1]);
    rans.forge.entry("paired#tiles")[12..16].fill(0);
    rans.forge.checksum_tiles(0, "paired");
    rans.add("starts below", "a rANS state below its bound in the first strip");
}

fn escapes(all: &mut Catalogue, forge: &Forge) {
    let stream = word(&forge.data[forge.range("n#index")], 0).next_multiple_of(4) as usize;
    let lies: [(&str, &[u8], &str); 8] = [
        ("position-200-of-200", &[0xc8, 0x01, 0x80, 0x80, 0x80, 0x01], "position 200 of 200"),
        ("position-2-34", &[0xff, 0xff, 0xff, 0xff, 0x7f, 0x00], "of 200 weights"),
        ("position-without-end", &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80], "position is cut short or too long"),
        ("level-without-end", &[77, 0x80, 0x80, 0x80, 0x80, 0x80], "level is cut short or too long"),
        ("level-of-33-bits", &[77, 0xff, 0xff, 0xff, 0xff, 0x1f], "does not fit 32 bits"),
        ("second-beyond-the-tile", &[100, 0, 99, 0, 0, 0], "position 200 of 200"),
        // a gap counts from the last escape, so that none can stand before it or be the same
        ("three-of-which-the-last-is-out", &[100, 0, 90, 0, 127, 0], "of 200"),
        ("half-an-escape", &[1, 1, 1, 1, 1, 0x80], "cut short or too long"),
    ];
    for (name, bytes, words) in lies {
        let mut lie = lie(all, format!("v1-escape-{name}"), forge);
        lie.forge.entry("n#tiles")[STREAM + stream..][..6].copy_from_slice(bytes);
        lie.forge.checksum_tiles(0, "n");
        lie.add(words, &format!("escapes of the bytes {bytes:02x?}"));
    }
    let mut short = lie(all, "v1-escape-a-byte-less", forge);
    short.forge.entry("n#index")[4..8].copy_from_slice(&5u32.to_le_bytes());
    short.forge.checksum(0);
    short.add("filling other than zero", "an escape whose last byte is filling");
}

fn frequencies(all: &mut Catalogue, bases: &Bases) {
    let tables = [
        ("v1-nibble", &bases.v1, 0, "n", "256"),
        ("v1-pairs", &bases.v1, 1, "b", "4096"),
        ("v2-floats", &bases.v2, 1, "bf16", "256"),
        ("v4-rans", &bases.v4[1], 0, "paired", "4096"),
    ];
    for (base, forge, tensor, name, total) in tables {
        let sum = format!("frequencies sum to 8192, expected {total}");
        let lies: [(&str, &[u8], &str); 4] = [
            ("of-8192", &[0xfe, 0x7f], &sum),
            ("beyond-the-alphabet", &[0xff, 0x3f, 0x80, 0x02], "corrupt at byte 4"),
            ("of-three-bytes", &[0x80, 0x80, 0x01], "corrupt at byte 0"),
            ("all-of-one", &[0x00; 8], "corrupt tables"),
        ];
        for (what, bytes, words) in lies {
            let mut lie = lie(all, format!("{base}-frequencies-{what}"), forge);
            lie.forge.entry(&format!("{name}#tables"))[..bytes.len()].copy_from_slice(bytes);
            lie.forge.checksum(tensor);
            lie.add(words, &format!("frequencies that do not sum to {total}"));
        }
        for byte in [0u8, 0x7f, 0xff] {
            let mut lie = lie(all, format!("{base}-frequencies-all-{byte:02x}"), forge);
            lie.forge.entry(&format!("{name}#tables")).fill(byte);
            lie.forge.checksum(tensor);
            lie.add("corrupt tables", &format!("a table of nothing but {byte:02x}"));
        }
    }
    let mut filled = lie(all, "v1-frequencies-filling", &bases.v1);
    if let Some(last) = filled.forge.entry("n#tables").last_mut() {
        *last = 1;
    }
    filled.forge.checksum(0);
    filled.add("corrupt tables", "a byte behind the table");
}

/// Lengths of codes that break Kraft's inequality, or are none.
fn prefix_codes(all: &mut Catalogue, forge: &Forge) {
    let mut with = |name: &str, words: &str, attacks: &str, edit: &dyn Fn(&mut [u8])| {
        let mut lie = lie(all, format!("v4-prefix-lengths-{name}"), forge);
        edit(lie.forge.entry("paired#tables"));
        lie.forge.checksum(0);
        lie.add(words, attacks);
    };
    let first = |table: &[u8]| table.iter().position(|byte| *byte != 0).unwrap_or(0);
    with("too-many", "corrupt tables", "codes of one bit for all 256 symbols: more than fit", &|t| {
        t.fill(0x11)
    });
    with("too-few", "corrupt tables", "two codes of twelve bits: words that mean nothing", &|t| {
        t.fill(0);
        t[0] = 0xcc;
    });
    with("one-missing", "corrupt tables", "a complete code less a symbol", &|t| t[first(t)] = 0);
    with("one-shorter", "corrupt tables", "a code a bit shorter than it fits", &|t| {
        let at = first(t);
        t[at] = if t[at] & 15 > 1 { t[at] - 1 } else { t[at] + 0x10 };
    });
    with("none", "corrupt tables", "no code at all", &|t| t.fill(0));
    with("of-13", "corrupt tables", "lengths of 13 bits", &|t| t.fill(0xdd));
    with("of-14", "corrupt tables", "a length of 14 bits", &|t| t[first(t)] = 0xee);
    with("two-that-stand-alone", "corrupt tables", "two symbols that need no bits", &|t| {
        t.fill(0);
        t[0] = 0xff;
    });
    with(
        "one-that-stands-alone",
        "'paired': corrupt tile 0",
        "a symbol that needs no bits, and a stream",
        &|t| {
            t.fill(0);
            t[0] = 0x0f;
        },
    );
    with(
        "of-twelve-for-all",
        "corrupt tables",
        "256 codes of twelve bits: a sixteenth of what there are",
        &|t| t.fill(0xcc),
    );
}

/// Lengths of strips in a tile of three.
fn strips(all: &mut Catalogue, bases: &Bases) {
    for (base, forge) in ["v4-prefix", "v4-rans"].into_iter().zip(&bases.v4) {
        for (name, at, value) in [
            ("first-0", 0, 0u32),
            ("first-most", 0, u32::MAX),
            ("first-most-less-3", 0, u32::MAX - 3),
            ("second-2-31", 4, 1 << 31),
            ("last-0", 8, 0),
            ("last-most", 8, u32::MAX),
        ] {
            let mut lie = lie(all, format!("{base}-strip-{name}"), forge);
            lie.forge.entry("paired#tiles")[at..at + 4].copy_from_slice(&value.to_le_bytes());
            lie.forge.checksum_tiles(0, "paired");
            lie.add("'paired': corrupt tile 0", &format!("the length of a strip is {value}"));
        }
        let mut all_of_it = lie(all, format!("{base}-strip-all-in-the-first"), forge);
        let sizes: u32 =
            (0..3).map(|i| word(&forge.data[forge.range("paired#tiles")], 4 * i).next_multiple_of(4)).sum();
        let tiles = all_of_it.forge.entry("paired#tiles");
        tiles[..4].copy_from_slice(&sizes.to_le_bytes());
        tiles[4..12].fill(0);
        all_of_it.forge.checksum_tiles(0, "paired");
        all_of_it.add("'paired': corrupt tile 0", "one strip with the bytes of all");
    }
}

/// Streams of noise, zeros and ones, for every codec.
fn streams(all: &mut Catalogue, bases: &Bases) {
    let tensors = [
        ("v1-nibble", &bases.v1, 0, "n", STREAM),
        ("v1-pairs", &bases.v1, 1, "b", 0),
        ("v2-floats", &bases.v2, 1, "bf16", 240),
        ("v2-floats-in-pairs", &bases.v2, 2, "f8", 92),
        ("v4-prefix", &bases.v4[0], 0, "paired", 12),
        ("v4-rans", &bases.v4[1], 0, "paired", 12),
    ];
    for (base, forge, tensor, name, from) in tensors {
        let stream = word(&forge.data[forge.range(&format!("{name}#index"))], 0) as usize;
        // of several strips the first alone: lengths stay as they are
        let strips = if from == 12 {
            12 + word(&forge.data[forge.range(&format!("{name}#tiles"))], 0) as usize
        } else {
            0
        };
        let to = if strips > 0 { strips } else { from + stream };
        let mut noise = 1u32;
        let mut random = || {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        };
        for (what, fill) in [("zeros", Some(0u8)), ("ones", Some(0xff)), ("noise", None)] {
            if base == "v4-prefix" && what == "zeros" {
                continue; // words of zeros are words of that code
            }
            let mut lie = lie(all, format!("{base}-stream-of-{what}"), forge);
            let tile = &mut lie.forge.entry(&format!("{name}#tiles"))[from..to];
            tile.iter_mut().for_each(|byte| *byte = fill.unwrap_or_else(&mut random));
            lie.forge.checksum_tiles(tensor, name);
            lie.add("corrupt tile 0", &format!("a stream of nothing but {what}"));
        }
    }
}

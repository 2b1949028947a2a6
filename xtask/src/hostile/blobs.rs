//! Blobs that unpack to something else than they say: bombs, windows, frames that end early; names of files that lead away.

use serde_json::json;

use super::forge::Forge;
use super::{Bases, Catalogue, Found};

/// What a zstd frame begins with.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Bytes that a block of one repeated byte can stand for.
const BLOCK: u32 = 128 << 10;

pub fn add(all: &mut Catalogue, bases: &Bases) {
    frames(all, &bases.v1);
    sources(all, &bases.lossless);
}

/// A frame of blocks of zeros, each four bytes that stand for up to 128 KiB. `descriptor` and what follows it say the window.
fn zeros(head: &[u8], blocks: u32, last: u32) -> Vec<u8> {
    let mut frame = [&MAGIC[..], head].concat();
    for i in 1..=blocks {
        let size = if i == blocks { last } else { BLOCK };
        // three bytes: the last block or not, kind 1 (a byte repeated), length
        let block = u32::from(i == blocks) | 1 << 1 | size << 3;
        frame.extend(&block.to_le_bytes()[..3]);
        frame.push(0);
    }
    // a frame that decoders skip fills it up: what follows frames would be no frame
    let fill = (frame.len() + 8).next_multiple_of(8) - frame.len() - 8;
    frame.extend([0x50, 0x2a, 0x4d, 0x18, fill as u8, 0, 0, 0]);
    frame.resize(frame.len() + fill, 0);
    frame
}

/// The head of a frame with a window of 2^(10 + exponent) bytes and no length.
fn window(exponent: u8) -> [u8; 2] {
    [0, exponent << 3]
}

/// The file with other bytes as its first blob, which claims to unpack to `size`.
fn with(forge: &Forge, bytes: &[u8], size: u64) -> Vec<u8> {
    let mut lying = forge.clone();
    lying.replace("#blob/0", bytes);
    let crc = crc32fast::hash(lying.entry("#blob/0"));
    lying.set("/blobs/0/crc", json!(crc));
    lying.set("/blobs/0/size", json!(size));
    lying.file()
}

fn frames(all: &mut Catalogue, forge: &Forge) {
    let mut case = |name: &str, file: Vec<u8>, words: &str, attacks: &str| {
        all.ecq(&format!("blob-{name}"), file, "corrupt", words, attacks).found = Found::Blobs;
    };
    let not = "corrupt blob: not the";
    let bomb = |blocks: u32, head: &[u8]| zeros(head, blocks, BLOCK);
    case(
        "bomb-of-100-bytes",
        with(forge, &bomb(2, &window(7)), 100),
        not,
        "256 KiB that claim to be 100 bytes",
    );
    case("bomb-of-64-mib", with(forge, &bomb(512, &window(7)), 48), not, "64 MiB that claim to be 48 bytes");
    case(
        "bomb-of-256-mib",
        with(forge, &bomb(2048, &window(7)), 1 << 30),
        not,
        "256 MiB that claim to be 1 GiB: memory must not follow either",
    );
    case(
        "less-than-it-says",
        with(forge, &bomb(2, &window(7)), 1 << 20),
        not,
        "256 KiB that claim to be 1 MiB",
    );
    case("size-2-30", with(forge, &zeros(&window(7), 2, 9), 1 << 30), not, "128 KiB that claim to be 1 GiB");
    let wide = "corrupt blob: Frame requires too much memory";
    for exponent in [14, 20, 21, 31] {
        let name = format!("window-of-2-{}", 10 + u32::from(exponent));
        case(
            &name,
            with(forge, &bomb(2, &window(exponent)), 2 * u64::from(BLOCK)),
            wide,
            "a window that is too large to be held",
        );
    }
    // a single segment of 2^62 bytes: the window is as long as the content
    let whole = [&[0xe0][..], &(1u64 << 62).to_le_bytes()].concat();
    case(
        "content-of-2-62",
        with(forge, &zeros(&whole, 2, 9), 1 << 20),
        wide,
        "a frame that claims 2^62 bytes",
    );
    for (name, bytes, words, attacks) in [
        (
            "no-frame",
            &[0u8; 16][..],
            "corrupt blob: Unknown frame descriptor",
            "zeros where a frame should be",
        ),
        (
            "half-a-frame",
            &[0x28, 0xb5, 0x2f, 0xfd, 0, 0x38, 0x02, 0x00],
            "corrupt blob: ",
            "a frame without its blocks",
        ),
        (
            "reserved-block",
            &[0x28, 0xb5, 0x2f, 0xfd, 0, 0x38, 0x0f, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            "corrupt blob: ",
            "a block of a kind that is reserved",
        ),
        (
            "dictionary",
            &[0x28, 0xb5, 0x2f, 0xfd, 3, 0x38, 1, 2, 3, 4, 3, 0, 0, 0, 0, 0],
            "corrupt blob: ",
            "a frame that needs a dictionary",
        ),
    ] {
        case(name, with(forge, bytes, 48), words, attacks);
    }
    for (name, pointer, value, words) in [
        ("zstd-that-is-none", "/blobs/1/zstd", json!(true), "corrupt blob: "),
        ("none-that-is-zstd", "/blobs/0/zstd", json!(false), not),
        ("size-0", "/blobs/0/size", json!(0), not),
        ("size-one-less", "/blobs/0/size", json!(47), not),
        ("size-one-more", "/blobs/0/size", json!(49), not),
        ("plain-size-one-more", "/blobs/1/size", json!(36), not),
    ] {
        let mut lying = forge.clone();
        lying.set(pointer, value.clone());
        case(name, lying.file(), words, &format!("{pointer} is {value}"));
    }
}

/// Names of files to restore that lead elsewhere. `ecq restore` refuses them.
fn sources(all: &mut Catalogue, forge: &Forge) {
    let long = "x".repeat(300);
    for (name, path) in [
        ("parent", "../config.json"),
        ("dots", ".."),
        ("dot", "."),
        ("empty", ""),
        ("absolute", "/etc/passwd"),
        ("below", "a/b.json"),
        ("backslash", "..\\config.json"),
        ("drive", "c:config.json"),
        ("stream", "config.json:x"),
        ("nul", "config.json\u{0}.txt"),
        ("line", "config\n.json"),
        ("of-300-bytes", &long),
        ("twice", "model.safetensors"),
        ("twice-but-for-case", "MODEL.safetensors"),
        ("device", "CON"),
        ("device-with-extension", "nul.json"),
        ("ends-in-a-dot", "config.json."),
        ("ends-in-a-space", "config.json "),
    ] {
        let mut lying = forge.clone();
        lying.set("/blobs/0/name", json!(path));
        let attacks = format!("a companion called {:?}", path.chars().take(40).collect::<String>());
        let case = all.ecq(
            &format!("name-companion-{name}"),
            lying.file(),
            "name",
            "is no plain file name or occurs twice",
            &attacks,
        );
        case.command = "restore";
        case.found = Found::Sources;
    }
    for (name, path) in
        [("parent", "../model.safetensors"), ("absolute", "/tmp/model.safetensors"), ("device", "AUX")]
    {
        let mut lying = forge.clone();
        lying.set("/sources/0/name", json!(path));
        let attacks = format!("a source called {path:?}");
        let case = all.ecq(
            &format!("name-source-{name}"),
            lying.file(),
            "name",
            "is no plain file name or occurs twice",
            &attacks,
        );
        case.command = "restore";
        case.found = Found::Sources;
    }
}

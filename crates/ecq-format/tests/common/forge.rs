//! Takes a file apart and seals it again after the contents were changed: lies with correct checksums.
#![allow(dead_code)] // each test binary uses its part

use std::ops::Range;

use serde_json::{Value, json};

/// A file in pieces.
#[derive(Clone)]
pub struct Forge {
    /// The entries of the safetensors header.
    pub entries: Value,
    /// The directory.
    pub directory: Value,
    /// All bytes after the header.
    pub data: Vec<u8>,
}

impl Forge {
    pub fn new(file: &[u8]) -> Self {
        let data = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let mut entries: Value = serde_json::from_slice(&file[8..data]).unwrap();
        let metadata = entries.as_object_mut().unwrap().remove("__metadata__").unwrap();
        let directory = serde_json::from_str(metadata["ecq"].as_str().unwrap()).unwrap();
        Self { entries, directory, data: file[data..].into() }
    }

    /// Sets a value of the directory.
    pub fn set(&mut self, pointer: &str, value: Value) {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match self.directory.pointer_mut(parent).unwrap() {
            Value::Object(map) => drop(map.insert(key.into(), value)),
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
            other => panic!("{pointer}: {other}"),
        }
    }

    /// Bytes of an entry, as a range of the data.
    pub fn range(&self, entry: &str) -> Range<usize> {
        let at = |i: usize| self.entries[entry]["data_offsets"][i].as_u64().unwrap() as usize;
        at(0)..at(1)
    }

    /// Bytes of an entry.
    pub fn entry(&mut self, entry: &str) -> &mut [u8] {
        let range = self.range(entry);
        &mut self.data[range]
    }

    /// Gives an entry other bytes, and zeros up to a multiple of eight; what lies behind it moves.
    pub fn replace(&mut self, entry: &str, bytes: &[u8]) {
        let (old, mut new) = (self.range(entry), bytes.to_vec());
        new.resize(bytes.len().next_multiple_of(8), 0);
        for (_, info) in self.entries.as_object_mut().unwrap() {
            let offsets = info["data_offsets"].as_array_mut().unwrap();
            for offset in offsets {
                let at = offset.as_u64().unwrap() as usize;
                *offset = json!(if at >= old.end { at - old.len() + new.len() } else { at });
            }
        }
        self.entries[entry]["shape"] = json!([new.len()]);
        self.entries[entry]["data_offsets"] = json!([old.start, old.start + new.len()]);
        self.data.splice(old, new);
    }

    /// Gives an entry another name.
    pub fn rename(&mut self, from: &str, to: &str) {
        let entries = self.entries.as_object_mut().unwrap();
        let info = entries.remove(from).unwrap();
        entries.insert(to.into(), info);
    }

    /// The whole file, with a seal that fits.
    pub fn file(&self) -> Vec<u8> {
        self.file_with(&self.directory.to_string())
    }

    /// The whole file with this text as its directory.
    pub fn file_with(&self, directory: &str) -> Vec<u8> {
        sealed(&self.header(directory), &self.data)
    }

    /// The text of the header with this text as its directory.
    pub fn header(&self, directory: &str) -> String {
        let mut header = self.entries.clone();
        header["__metadata__"] = json!({ "ecq": directory });
        header.to_string()
    }

    /// Recomputes the checksums of index, tables and side data of a coded tensor.
    pub fn checksum(&mut self, tensor: usize) {
        let name = self.directory["tensors"][tensor]["name"].as_str().unwrap().to_owned();
        let mut crc = crc32fast::Hasher::new();
        for part in ["index", "tables", "side"] {
            let entry = format!("{name}#{part}");
            if self.entries.get(&entry).is_some() {
                crc.update(self.entry(&entry));
            }
        }
        self.set(&format!("/tensors/{tensor}/crc"), json!(crc.finalize()));
    }

    /// With some bits of a byte of a tensor's "tiles", "tables" or "side" changed, and checksums that fit again.
    pub fn changed(&self, tensor: usize, name: &str, part: &str, at: usize, bits: u8) -> Self {
        let mut lying = self.clone();
        lying.entry(&format!("{name}#{part}"))[at] ^= bits;
        match part {
            "tiles" => lying.checksum_tiles(tensor, name),
            _ => lying.checksum(tensor),
        }
        lying
    }

    /// Recomputes the checksums of the tiles of a coded tensor, and what depends on them.
    pub fn checksum_tiles(&mut self, tensor: usize, name: &str) {
        let coded = self.directory["tensors"][tensor]["coded"].clone();
        let field = |key: &str| coded[key].as_u64().unwrap();
        let [rows, cols, height, raw] = ["rows", "cols", "tile_rows", "raw_bits"].map(field);
        let (tiles, index) = (self.range(&format!("{name}#tiles")), self.range(&format!("{name}#index")));
        let mut at = tiles.start;
        for tile in 0..rows.div_ceil(height) as usize {
            let entry = index.start + 12 * tile;
            let word = |i: usize| u32::from_le_bytes(self.data[entry + i..][..4].try_into().unwrap());
            let weights = height.min(rows - tile as u64 * height) * cols;
            let planes = [8, 4, 2, 1].into_iter().filter(|width| raw & width > 0);
            let planes = planes.map(|width| (weights * width).div_ceil(8).next_multiple_of(4)).sum::<u64>();
            let len =
                planes as usize + word(0).next_multiple_of(4) as usize + word(4).next_multiple_of(4) as usize;
            let crc = crc32fast::hash(&self.data[at..at + len]);
            self.data[entry + 8..][..4].copy_from_slice(&crc.to_le_bytes());
            at += len;
        }
        self.checksum(tensor);
    }
}

/// Header text, filled up, and data as a file; the last eight bytes of the data become the seal.
pub fn sealed(header: &str, data: &[u8]) -> Vec<u8> {
    let fill = (header.len() + 8).next_multiple_of(64) - 8 - header.len();
    sealed_exactly(&(header.to_owned() + &" ".repeat(fill)), data)
}

/// As [`sealed`], with a header of just this length.
pub fn sealed_exactly(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    let crc = crc32fast::hash(&file);
    file.extend(&data[..data.len() - 8]);
    file.extend(crc.to_le_bytes());
    file.extend([0; 4]);
    file
}

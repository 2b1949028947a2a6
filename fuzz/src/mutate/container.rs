//! A `.ecq` file taken apart, and put together again with checksums that fit.

use std::ops::Range;

use ecq_format::directory::TensorRecord;
use ecq_format::tile::{ENTRY_BYTES, TileEntry};
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::{Map, Value, json};

use super::{Plain, in_place, json};

/// A file in pieces.
pub struct Container {
    /// The entries of the safetensors header.
    entries: Value,
    directory: Value,
    /// All bytes behind the header, the seal among them.
    data: Vec<u8>,
}

impl Container {
    /// `None` for what is not at least a container with a directory and room for a seal.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let mut entries: Map<String, Value> = serde_json::from_slice(header).ok()?;
        let metadata = entries.remove("__metadata__")?;
        let directory = serde_json::from_str(metadata.get("ecq")?.as_str()?).ok()?;
        (data.len() >= 8).then(|| Self { entries: entries.into(), directory, data: data.to_vec() })
    }

    /// Changes something.
    pub fn change(&mut self, random: &mut SmallRng, plain: Plain) {
        match random.random_range(0..12) {
            0..6 => json::change(&mut self.directory, random),
            6 => json::change(&mut self.entries, random),
            7 => self.resize(random),
            _ => {
                if let Some(range) = self.any_entry(random) {
                    in_place(&mut self.data[range], plain);
                }
            }
        }
    }

    fn any_entry(&self, random: &mut SmallRng) -> Option<Range<usize>> {
        let entries = self.entries.as_object().filter(|map| !map.is_empty())?;
        let name = entries.keys().nth(random.random_range(0..entries.len()))?;
        self.range(name)
    }

    fn range(&self, name: &str) -> Option<Range<usize>> {
        let offset = |i: usize| usize::try_from(self.entries[name]["data_offsets"][i].as_u64()?).ok();
        let range = offset(0)?..offset(1)?;
        (range.start <= range.end && range.end <= self.data.len()).then_some(range)
    }

    /// Makes an entry longer or shorter by a word; what lies behind it moves.
    fn resize(&mut self, random: &mut SmallRng) {
        let Some(old) = self.any_entry(random) else { return };
        let longer = random.random::<bool>() || old.len() < 8;
        match longer {
            true => drop(self.data.splice(old.end..old.end, [random.random(); 8])),
            false => drop(self.data.drain(old.end - 8..old.end)),
        }
        let Value::Object(entries) = &mut self.entries else { return };
        for info in entries.values_mut() {
            let Some(offsets) = info.get_mut("data_offsets").and_then(Value::as_array_mut) else { continue };
            let own = offsets.iter().filter_map(Value::as_u64).eq([old.start as u64, old.end as u64]);
            for offset in offsets {
                let Some(at) = offset.as_u64().filter(|&at| at >= old.end as u64) else { continue };
                *offset = json!(if longer { at.wrapping_add(8) } else { at - 8 });
            }
            if let (true, Value::Object(info)) = (own, info) {
                let len = if longer { old.len() + 8 } else { old.len() - 8 };
                info.insert("shape".into(), json!([len]));
            }
        }
    }

    /// The file, everything in it vouched for as far as it makes sense.
    pub fn sealed(mut self) -> Vec<u8> {
        for i in 0..self.directory["tensors"].as_array().map_or(0, Vec::len) {
            let crc = self.checksum(i);
            self.set_checksum(&format!("/tensors/{i}"), crc);
        }
        for i in 0..self.directory["blobs"].as_array().map_or(0, Vec::len) {
            let crc = self.range(&format!("#blob/{i}")).map(|range| crc32fast::hash(&self.data[range]));
            self.set_checksum(&format!("/blobs/{i}"), crc);
        }
        let Value::Object(mut header) = self.entries else { return self.entries.to_string().into_bytes() };
        header.insert("__metadata__".into(), json!({ "ecq": self.directory.to_string() }));
        let mut header = Value::from(header).to_string().into_bytes();
        header.resize((header.len() + 8).next_multiple_of(64) - 8, b' ');
        let mut file = [&(header.len() as u64).to_le_bytes(), &header[..]].concat();
        let crc = crc32fast::hash(&file);
        if let Some(rest) = self.data.len().checked_sub(8) {
            file.extend(&self.data[..rest]);
        }
        file.extend(crc.to_le_bytes());
        file.extend([0; 4]);
        file
    }

    /// Sets the checksum of what is no less changed than everything else, and may be no object.
    fn set_checksum(&mut self, pointer: &str, crc: Option<u32>) {
        if let (Some(Value::Object(record)), Some(crc)) = (self.directory.pointer_mut(pointer), crc) {
            record.insert("crc".into(), crc.into());
        }
    }

    /// Makes the checksums of a tensor's tiles fit, and returns its own.
    fn checksum(&mut self, tensor: usize) -> Option<u32> {
        let record: TensorRecord = serde_json::from_value(self.directory["tensors"][tensor].clone()).ok()?;
        let Some(coded) = &record.coded else {
            return Some(crc32fast::hash(&self.data[self.range(&record.name)?]));
        };
        let part = |part: &str| self.range(&format!("{}#{part}", record.name));
        let (tiles, index) = (part("tiles")?, part("index")?);
        let parts = [Some(index.clone()), part("tables"), part("side")];
        // a reader looks no further at what fails this
        coded.check(&record.shape).ok()?;
        let mut at = tiles.start;
        for (i, entry) in index.step_by(ENTRY_BYTES).take(coded.tiles() as usize).enumerate() {
            let bytes = self.data.get(entry..entry + ENTRY_BYTES)?.try_into().ok()?;
            let weights = coded.rows_of_tile(i as u64) * coded.cols;
            let len = TileEntry::from_bytes(bytes).bytes(coded.split(), weights) as usize;
            let Some(tile) = self.data.get(at..at + len) else { break };
            let crc = crc32fast::hash(tile);
            self.data[entry + 8..entry + 12].copy_from_slice(&crc.to_le_bytes());
            at += len;
        }
        let mut crc = crc32fast::Hasher::new();
        parts.into_iter().flatten().for_each(|range| crc.update(&self.data[range]));
        Some(crc.finalize())
    }
}

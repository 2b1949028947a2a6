//! What a file tells of the texts that it was calibrated with: enough to recognize them, not to read them.

use std::collections::BTreeSet;

use ecq_convert::convert::RECORD;
use ecq_format::Reader;
use ecq_format::directory::Role;
use serde::{Deserialize, Serialize};

use crate::texts::Texts;

/// Tokens in a row that two texts rarely have in common by chance.
const RUN: usize = 12;
/// Of the runs one in so many is looked at: the same ones in all texts.
const SAMPLED: u64 = 32;
/// Runs in common that say something.
const FEWEST: usize = 3;
/// Longest record that is read, in bytes: of some million tokens.
const LONGEST: u64 = 1 << 22;

/// What a file tells of its calibration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Numbers of some of their runs.
    runs: BTreeSet<u32>,
}

impl Record {
    /// Of texts: what was learned from.
    pub fn of(texts: &Texts) -> Self {
        Self { runs: texts.chunks.iter().flat_map(|chunk| runs(chunk)).collect() }
    }

    /// That of a file, if it has one: files of others may have such a name, too.
    pub fn read(reader: &Reader) -> Option<Self> {
        let blobs = &reader.directory().blobs;
        let at = blobs.iter().position(|b| b.role == Role::Companion && b.name == RECORD)?;
        let bytes = if blobs[at].size <= LONGEST { reader.blob(at).ok()? } else { return None };
        serde_json::from_slice(&bytes).ok()
    }

    /// As JSON.
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default() // numbers in a struct always are
    }

    /// The share of a text that is in the calibration's, too: of its runs that are looked at. 0 if it has hardly any.
    pub fn overlap(&self, tokens: &[u32]) -> f64 {
        let (mut all, mut known) = (0, 0usize);
        for run in runs(tokens) {
            all += 1;
            known += usize::from(self.runs.contains(&run));
        }
        // a phrase or two are in every text
        if known >= FEWEST { known as f64 / f64::from(all.max(1)) } else { 0.0 }
    }
}

/// Numbers of the runs of tokens that are looked at.
fn runs(tokens: &[u32]) -> impl Iterator<Item = u32> + '_ {
    let number = |run: &[u32]| {
        // FNV-1a over tokens, and its high bits mixed into the low ones
        let hash = run
            .iter()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, &t| (h ^ u64::from(t)).wrapping_mul(0x0000_0100_0000_01b3));
        (hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    tokens.windows(RUN).map(number).filter(|n| (n >> 32).is_multiple_of(SAMPLED)).map(|n| n as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seed: u32, length: u32) -> Vec<u32> {
        (0..length).map(|i| (i + 7919 * seed).wrapping_mul(2_654_435_761) >> 16).collect()
    }

    #[test]
    fn a_text_is_recognized_by_its_parts() {
        let (a, b) = (text(1, 4000), text(2, 4000));
        let record = Record::of(&Texts { chunks: vec![a[..2000].to_vec()], ..Texts::default() });
        assert_eq!(record.overlap(&a[..2000]), 1.0);
        assert_eq!(record.overlap(&b), 0.0);
        let half = record.overlap(&a);
        assert!((0.4..0.6).contains(&half), "{half}");
        // wherever chunks begin
        assert!(record.overlap(&a[100..1000]) > 0.99);
        assert_eq!(record.overlap(&[1, 2, 3]), 0.0);
    }
}

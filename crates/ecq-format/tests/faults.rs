//! Levels that are not the same when they are read again, as those of a source that is being changed: no panic.
#![allow(clippy::unwrap_used)]

use std::ops::Range;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use ecq_format::directory::{Extent, SourceFile, Values};
use ecq_format::encode::{Encoder, Input, Levels, Profile, histogram};
use ecq_format::pattern::{self, FloatFormat};
use ecq_format::plan::Plan;
use ecq_format::side::Side;
use ecq_format::writer::TensorHead;
use ecq_format::{Error, Writer};

const SHAPE: [u64; 2] = [96, 320];

/// Other levels each time they are asked for again.
struct Unsteady {
    asked: AtomicU64,
    /// How far they reach.
    most: AtomicI32,
}

impl Levels for Unsteady {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        let mut state = asked.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ rows.start as u64;
        for level in out {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *level = (state >> 32) as i32 % self.most.load(Ordering::Relaxed).saturating_add(1);
        }
    }
}

/// Writes one tensor. Returns whether it could be coded; if not, the error must say why.
fn coded(encoder: &Encoder<'_>) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.ecq");
    let mut writer = Writer::create(&path, false, 0).unwrap();
    let source = Extent { file: 0, offset: 0, len: 4 * SHAPE[0] * SHAPE[1] };
    let head = TensorHead { name: "weights", shape: &SHAPE, dtype: "F32", source };
    let written = writer.coded(head, encoder, &Side::new(&[]), |_| true);
    let coded = written.is_ok();
    match written {
        Ok(()) => {
            let verbatim = writer.blob("model", ecq_format::directory::Role::Verbatim, b"").unwrap();
            let (name, format) = ("model".to_owned(), "safetensors".to_owned());
            let file = SourceFile { name, format, size: source.len, sha256: String::new(), verbatim };
            writer.finish(vec![file], false).unwrap();
        }
        Err(Error::Unstorable { why, .. }) => {
            assert!(why.contains("changed while they were coded"), "{why}");
            drop(writer);
            assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        }
        Err(other) => panic!("{other}"),
    }
    coded
}

#[test]
fn levels_that_change_are_an_error_at_most() {
    let mut refused = 0;
    for profile in [Profile::Cpu, Profile::Gpu] {
        for raw_bits in [0, 1, 4, 8] {
            // as they are planned, as pairs are counted, as they are coded
            for [planned, counted, written] in
                [[1, 1, 9], [9, 9, 9], [9, 1, 9], [1, 1, i32::MAX], [300, 1, 100_000]]
            {
                let levels = Unsteady { asked: AtomicU64::new(0), most: AtomicI32::new(planned) };
                let histogram = histogram(&levels, 2, SHAPE[1] as usize, 0);
                let plan = Plan::cheapest(&histogram, raw_bits..=raw_bits).unwrap();
                levels.most.store(counted, Ordering::Relaxed);
                let encoder = Encoder::new("any", &SHAPE, Values::ONE, profile, &plan, &levels).unwrap();
                levels.most.store(written, Ordering::Relaxed);
                refused += usize::from(!coded(&encoder));
            }
        }
    }
    // a table of pairs lacks those that did not occur
    assert!(refused > 0);
}

#[test]
fn floats_of_another_plan_are_an_error_at_most() {
    for format in [FloatFormat::F16, FloatFormat::Bf16, FloatFormat::F8E4M3, FloatFormat::F8E5M2] {
        let count = (SHAPE[0] * SHAPE[1]) as usize * format.bytes();
        let (zeros, wild): (Vec<u8>, Vec<u8>) = (0..count).map(|i| (0, (i * i / 7) as u8)).unzip();
        for (planned, bytes) in [(&zeros, &wild), (&wild, &zeros)] {
            let (pattern, plan) = pattern::plan(format, planned, SHAPE[1] as usize).unwrap();
            for profile in [Profile::Cpu, Profile::Gpu] {
                let layout = ecq_format::encode::layout(SHAPE[0], SHAPE[1], profile);
                let input = Input::Floats(pattern, bytes);
                let encoder = Encoder::with_layout("any", &SHAPE, Values::ONE, layout, &plan, input);
                coded(&encoder.unwrap());
            }
        }
    }
}

//! Kernels as naga translates them for Metal, run on the CPU with real tensors, against sums in f64.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod metal;
mod reference;

use case::{Case, vectors, with_model};
use common::Model;
use ecq_format::directory::{PairCode, Pairs, Scales};
use ecq_format::encode::Profile;
use ecq_format::reader::CodedTensor;
use ecq_gpu::host::Host;
use ecq_gpu::plan::{Limits, workgroups};
use ecq_gpu::variant::{Code, Form, Input, Kernel, Lanes, Variant};
use metal::Policy;

/// A tensor as its buffers, made without a device: one part.
struct Buffers(Host<Vec<u32>>);

impl Buffers {
    fn new(tensor: &CodedTensor<'_>) -> Self {
        let host = Host::new("w", tensor, &Limits::LAVAPIPE).unwrap();
        assert_eq!(host.parts.len(), 1);
        Self(host)
    }

    /// Runs a kernel over so many workgroups; its buffer 5, which begins with words that are no number, comes back.
    fn run(
        &self,
        kernel: Kernel,
        lanes: Lanes,
        groups: [u32; 3],
        others: &[(u32, &[u32])],
        out: usize,
    ) -> Vec<u32> {
        let plain = kernel.as_packed();
        let Host { resident, streams, sides, escapes, .. } = &self.0;
        let form = Form { constant: resident.constant(plain) != 0.0, ..resident.form };
        let variant = Variant::new(kernel, form, lanes);
        let params = self.0.params(plain);
        let nothing = vec![u32::MAX; out];
        let all = [
            (0, bytemuck::cast_slice(&params)),
            (1, &streams[0].words[..]),
            (2, &streams[0].first),
            (3, &resident.codes),
            (5, &nothing),
            (6, sides.first().map_or(&[][..], Vec::as_slice)),
            (7, escapes.first().map_or(&[][..], Vec::as_slice)),
        ];
        let bound: Vec<u32> = variant.bindings().iter().map(|b| b.number()).collect();
        let given = all.iter().filter(|(i, _)| !others.iter().any(|(j, _)| i == j)).chain(others);
        let mut buffers: Vec<(u32, Vec<u8>)> = given
            .filter(|(i, _)| bound.contains(i))
            .map(|(i, words)| (*i, bytemuck::cast_slice(words).to_vec()))
            .collect();
        let simd = match lanes {
            Lanes::Subgroups(size) => size,
            Lanes::Barriers => 32,
        };
        metal::run(&variant.source(), simd, groups, &mut buffers, Policy::Trusted)
            .unwrap_or_else(|e| panic!("{variant:?}: {e}"));
        let made = buffers.iter().find(|(i, _)| *i == 5).unwrap();
        bytemuck::pod_collect_to_vec(&made.1)
    }

    /// Products from coded weights, and from packed ones, by the kernels for few vectors or for many.
    fn products(&self, x: &[f32], lanes: Lanes, many: bool) -> [Vec<f32>; 2] {
        let (shape, part) = (&self.0.resident.shape, &self.0.parts[0]);
        let (numbers, vectors) = (shape.rows * (x.len() / shape.cols), (x.len() / shape.cols) as u32);
        let x: Vec<u32> = x.iter().map(|x| x.to_bits()).collect();
        let input = Input::F32;
        let [coded, plain] = match many {
            true => [Kernel::Prompt { input }, Kernel::PlainPrompt { input }],
            false => [Kernel::Fused { vectors, input }, Kernel::Plain { vectors, input }],
        };
        let groups = |kernel| {
            let variant = Variant::new(kernel, self.0.resident.form, lanes);
            workgroups(&variant, shape, part, vectors, &Limits::WEBGPU).unwrap()
        };
        let sums = shape.strips() * numbers;
        let mut product = self.run(coded, lanes, groups(coded), &[(4, &x)], sums);
        if shape.strips() > 1 {
            product = self.run(Kernel::Finish, lanes, groups(Kernel::Finish), &[(4, &product)], numbers);
        }
        let words = part.packed as usize;
        let packed = self.run(Kernel::Decode, lanes, groups(Kernel::Decode), &[], words);
        let others: [(u32, &[u32]); 2] = [(1, &packed), (4, &x)];
        let plain = self.run(plain, lanes, groups(plain), &others, numbers);
        [product, plain].map(|words| words.into_iter().map(f32::from_bits).collect())
    }
}

fn check(case: &Case, pairs: Pairs, lanes: Lanes) {
    let model = Model { pairs: Some((pairs, 24)), ..case.model() };
    check_model(&model, lanes, &format!("{case:?} {pairs:?} {lanes:?}"));
}

fn check_model(model: &Model, lanes: Lanes, what: &str) {
    with_model(model, |tensor| {
        let weights = reference::Weights::new(tensor);
        let host = Buffers::new(tensor);
        let nibble = matches!(host.0.resident.form.code, Code::Nibble { .. });
        for (count, many) in [(2, false), (70, true)] {
            if many && nibble {
                continue; // there are kernels for 16 vectors at most, in turns
            }
            let x = vectors(weights.cols, count, 0);
            let [coded, plain] = host.products(&x, lanes, many);
            weights.compare(&x, &coded, &format!("{what} x {count}"));
            weights.compare(&x, &plain, &format!("packed, {what} x {count}"));
        }
    });
}

const SCALED: Case = Case {
    rows: 43,
    cols: 75,
    scales: Scales::RowColumn { row: true, column: true },
    profile: Profile::Gpu,
    escapes: 30,
    ..Case::PLAIN
};

#[test]
fn products_as_on_apple_machines() {
    for (code, all) in [(PairCode::Prefix, [0, 1].as_slice()), (PairCode::Rans, &[4])] {
        for &raw_bits in all {
            let pairs = Pairs { code, band: 8, strip: 64 };
            check(&Case { raw_bits, ..SCALED }, pairs, Lanes::Subgroups(32));
        }
    }
}

#[test]
fn groups_and_other_lanes() {
    let pairs = Pairs { code: PairCode::Prefix, band: 8, strip: 128 };
    let grouped = Case { scales: Scales::Group { size: 32, min: true }, ..SCALED };
    for lanes in [Lanes::Subgroups(8), Lanes::Subgroups(32), Lanes::Barriers] {
        check(&grouped, pairs, lanes);
    }
}

/// Tiles of 12 rows share bands; with 576 lanes some invocations have none.
#[test]
fn nibbles() {
    let subgroups = Lanes::Subgroups(32);
    for (number, raw_bits, lanes) in
        [(64, 0, subgroups), (320, 2, Lanes::Barriers), (512, 1, Lanes::Subgroups(8)), (576, 0, subgroups)]
    {
        let case = Case { raw_bits, profile: Profile::Cpu, ..SCALED };
        let model = Model { lanes: Some((number, 12)), ..case.model() };
        check_model(&model, lanes, &format!("{case:?}, {number} lanes, {lanes:?}"));
    }
}

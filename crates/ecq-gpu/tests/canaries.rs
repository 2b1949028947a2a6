//! Corrupt words and lying offsets in GPU memory, behind the back of all checks: kernels with bounds checks touch nothing
//! outside their tensor.
//!
//! All buffers that a kernel reads lie in one, and canaries between them. Each run is made twice, with other canaries: an
//! output that differs has read one. Canaries behind and before what is written must be as they were.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;
mod support;

use case::{Case, vectors, with_model};
use common::Draw;
use common::sources::NF4;
use ecq_format::directory::{PairCode, Pairs, Scales};
use ecq_format::encode::Profile;
use ecq_gpu::dispatch::{Dispatch, record};
use ecq_gpu::host::Host;
use ecq_gpu::shader::{self, Binding};
use ecq_gpu::variant::{Input, Kernel, Variant};
use ecq_gpu::{Engine, plan};
use wgpu::{BindingResource, Buffer, BufferBinding, BufferUsages, ComputePipeline};

/// Words of canaries before and behind each buffer, at least; bindings begin at multiples of so many words, too.
const CANARIES: usize = 512;
/// Ways in which the words of a tensor are corrupt, for each kernel.
const WAYS: u64 = 40;
/// Words at the beginning of escapes, and of each of up to two lists.
const HEAD: usize = 4;
const LIST: usize = 5;

/// Buffers in one.
#[derive(Default)]
struct Arena {
    words: Vec<u32>,
    /// Binding, first word, and how many.
    places: Vec<(u32, usize, usize)>,
}

impl Arena {
    fn of<'a>(buffers: impl IntoIterator<Item = (u32, &'a [u32])>, canaries: &mut Draw) -> Self {
        let mut arena = Self::default();
        let mut guard = |words: &mut Vec<u32>| {
            let end = (words.len() + CANARIES).next_multiple_of(CANARIES);
            words.resize_with(end, || canaries.below(u32::MAX));
        };
        for (binding, words) in buffers {
            guard(&mut arena.words);
            arena.places.push((binding, arena.words.len(), words.len()));
            arena.words.extend(words);
        }
        guard(&mut arena.words);
        arena
    }

    fn upload(&self, engine: &Engine) -> Buffer {
        support::buffer(engine, bytemuck::cast_slice(&self.words))
    }
}

/// A kernel with what it reads, binding by binding, and how many words it writes.
struct Bench {
    engine: Engine,
    pipeline: ComputePipeline,
    params: Buffer,
    honest: Vec<(u32, Vec<u32>)>,
    written: usize,
    grid: [u32; 3],
    what: String,
}

impl Bench {
    fn new(engine: &Engine, kernel: Kernel, host: &Host<Vec<u32>>, packed: &[u32], x: &[f32]) -> Self {
        let variant = Variant::new(kernel, host.resident.form, engine.lanes());
        let (part, shape) = (&host.parts[0], &host.resident.shape);
        let vectors = x.len() / shape.cols;
        let bindings = variant.bindings();
        let is_packed = matches!(kernel, Kernel::Plain { .. } | Kernel::PlainPrompt { .. });
        let words = |binding: u32| match binding {
            1 if is_packed => packed.to_vec(),
            1 => host.streams[0].words.clone(),
            2 => host.streams[0].first.clone(),
            3 => host.resident.codes.clone(),
            4 => x.iter().map(|x| x.to_bits()).collect(),
            6 => host.sides[0].clone(),
            7 => host.escapes[0].clone(),
            other => panic!("binding {other}"),
        };
        let read = bindings.iter().filter_map(|b| if let Binding::Read(i) = b { Some(*i) } else { None });
        let params = host.params(kernel.as_packed())[0];
        let pipeline =
            shader::pipeline(engine.device(), kernel.name(), &variant.source(), &bindings, true).unwrap();
        let limits = plan::Limits::from(engine.limits());
        let uniform = support::buffer_for(engine, bytemuck::cast_slice(&[params]), BufferUsages::UNIFORM);
        Self {
            engine: engine.clone(),
            pipeline,
            params: uniform,
            honest: read.map(|binding| (binding, words(binding))).collect(),
            written: match kernel {
                Kernel::Decode => part.packed as usize,
                _ => shape.strips() * vectors * shape.rows,
            },
            grid: plan::workgroups(&variant, shape, part, vectors as u32, &limits).unwrap(),
            what: format!("{kernel:?} of {:?}", host.resident.form),
        }
    }

    /// What is written from these words, with canaries from this seed; bindings of what is read reach `further` words into
    /// the canaries behind them.
    fn run(&self, words: &[(u32, Vec<u32>)], seed: u64, further: usize) -> Vec<u32> {
        let read = Arena::of(words.iter().map(|(i, words)| (*i, &words[..])), &mut Draw(seed));
        let written = Arena::of([(5, &vec![0; self.written][..])], &mut Draw(seed));
        let (from, to) = (read.upload(&self.engine), written.upload(&self.engine));
        let bind = |buffer, &(binding, at, len): &(u32, usize, usize), further: usize| {
            let size = std::num::NonZero::new(4 * (len + further) as u64);
            (binding, BindingResource::Buffer(BufferBinding { buffer, offset: 4 * at as u64, size }))
        };
        let mut all = vec![(0, self.params.as_entire_binding()), bind(&to, &written.places[0], 0)];
        all.extend(read.places.iter().map(|place| bind(&from, place, further)));
        let made = self
            .engine
            .guard(&self.what, || Ok(Dispatch::new(&self.engine, "checked", &self.pipeline, all, self.grid)))
            .unwrap();
        let mut encoder = self.engine.device().create_command_encoder(&Default::default());
        record(&[made], &mut encoder.begin_compute_pass(&Default::default()));
        self.engine.queue().submit([encoder.finish()]);
        let words = |buffer: &Buffer| -> Vec<u32> {
            ecq_gpu::engine::read(self.engine.device(), self.engine.queue(), buffer, buffer.size()).unwrap()
        };
        let (_, at, len) = written.places[0];
        let after = words(&to);
        assert_eq!(after[..at], written.words[..at], "written before the output: {}", self.what);
        assert_eq!(after[at + len..], written.words[at + len..], "written behind the output: {}", self.what);
        after[at..at + len].to_vec()
    }

    /// Whether other canaries make another output.
    fn reads_canaries(&self, words: &[(u32, Vec<u32>)], further: usize) -> bool {
        self.run(words, 1, further) != self.run(words, 2, further)
    }

    /// The words of the tensor, some of them anything.
    fn corrupt(&self, way: u64) -> Vec<(u32, Vec<u32>)> {
        let mut draw = Draw(way);
        let mut words = self.honest.clone();
        let lengths: Vec<u32> = words.iter().map(|(_, words)| words.len() as u32).collect();
        // vectors are no part of a file
        let of_file = words.iter_mut().filter(|(binding, _)| *binding != 4);
        for (binding, words) in of_file {
            let len = words.len() as u32;
            for _ in 0..draw.below(1 + len.min(64)) {
                let at = draw.below(len) as usize;
                // places around the ends of all buffers among them
                let end = lengths[draw.below(lengths.len() as u32) as usize];
                let lies =
                    [draw.below(u32::MAX), u32::MAX, 1 << 31, end, end + draw.below(64), draw.below(end)];
                let lie = lies[draw.below(lies.len() as u32) as usize];
                match *binding {
                    7 => lie_of_escapes(words, at, lie),
                    _ => words[at] = lie,
                }
            }
        }
        words
    }

    /// Whatever the words of the tensor are, no canary is touched.
    fn check(&self) {
        assert!(!self.reads_canaries(&self.honest, 0), "honest words: {}", self.what);
        let honest = self.run(&self.honest, 1, 0);
        let mut others = 0;
        for way in 0..WAYS {
            let words = self.corrupt(way);
            assert!(!self.reads_canaries(&words, 0), "way {way}: {}", self.what);
            others += u64::from(self.run(&words, 1, 0) != honest);
        }
        println!("{others} of {WAYS} corrupt tensors have another output: {}", self.what);
        assert!(others > WAYS / 2, "{others} outputs differ: {}", self.what);
        // all this can fail: a kernel that sees a little more is found out
        let is_found = (0..WAYS).any(|way| self.reads_canaries(&self.corrupt(way), CANARIES));
        assert!(is_found, "bindings that are too long went unnoticed: {}", self.what);
    }
}

/// What says how long loops run stays small: with bounds checks, too, a loop of 2^32 rounds takes its time.
fn lie_of_escapes(words: &mut [u32], at: usize, lie: u32) {
    let lists: Vec<_> = (0..words[3] as usize).map(|list| words[HEAD + LIST * list] as usize).collect();
    let counts = at == 3 || (HEAD..HEAD + 2 * LIST).contains(&at) && (at - HEAD) % LIST < 2;
    // some of what is behind a list's beginning are records, but those may lie a little, too
    let starts = lists.iter().any(|&start| (start..start + 64).contains(&at));
    match (counts, starts) {
        (true, _) => {}
        (_, true) => words[at] = lie % (1 << 12),
        _ => words[at] = lie,
    }
}

const INPUT: Input = Input::F32;
const FUSED: Kernel = Kernel::Fused { vectors: 1, input: INPUT };
const PLAIN: Kernel = Kernel::Plain { vectors: 1, input: INPUT };
const PROMPT: Kernel = Kernel::Prompt { input: INPUT };

/// Tries some kernels with a tensor, and always the one that decodes.
fn check(engine: &Engine, case: &Case, code: Option<PairCode>, kernels: &[Kernel]) {
    let profile = if code.is_some() { Profile::Gpu } else { Profile::Cpu };
    let mut model = Case { profile, ..*case }.model();
    model.pairs = code.map(|code| (Pairs { code, band: 8, strip: 96 }, 16));
    with_model(&model, |tensor| {
        let host = Host::new("w", tensor, &plan::Limits::from(engine.limits())).unwrap();
        assert_eq!(host.parts.len(), 1);
        let x = vectors(case.cols, 1, 1);
        let decode = Bench::new(engine, Kernel::Decode, &host, &[], &x);
        decode.check();
        let packed = decode.run(&decode.honest, 1, 0);
        for &kernel in kernels {
            Bench::new(engine, kernel, &host, &packed, &x).check();
        }
    });
}

const CASE: Case = Case { rows: 27, cols: 203, escapes: 40, seed: 6, ..Case::PLAIN };

#[test]
fn canaries_around_tensors_in_the_prefix_code() {
    let Some(engine) = support::engine() else { return };
    let (code, group) = (Some(PairCode::Prefix), Scales::Group { size: 32, min: true });
    check(&engine, &Case { raw_bits: 3, scales: group, ..CASE }, code, &[FUSED, PLAIN, PROMPT]);
    let both = Scales::RowColumn { row: true, column: true };
    check(&engine, &Case { scales: both, ..CASE }, code, &[FUSED, PLAIN]);
}

/// Products differ from those above by how streams are decoded only, and compilers take half a minute over them.
#[test]
fn canaries_around_tensors_in_rans() {
    let Some(engine) = support::engine() else { return };
    let scales = Scales::Lookup { size: 64, supers: 256, offset: 0.25 };
    check(&engine, &Case { codebook: Some(NF4), scales, ..CASE }, Some(PairCode::Rans), &[PLAIN]);
}

#[test]
fn canaries_around_tensors_in_nibbles() {
    let Some(engine) = support::engine() else { return };
    let scales = Scales::Group { size: 32, min: false };
    check(&engine, &Case { cols: 256, raw_bits: 2, scales, ..CASE }, None, &[FUSED, PLAIN]);
}

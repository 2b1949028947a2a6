//! Plans fit the devices that they are made for, however large a tensor is. No device is needed.
#![allow(clippy::unwrap_used, missing_docs)]

mod variants;

use ecq_gpu::Error;
use ecq_gpu::escapes::most_words;
use ecq_gpu::layout::{PADDING, Shape};
use ecq_gpu::plan::{Limits, Needs, Part, TileSize, parts, workgroups};
use ecq_gpu::prompt::Prompt;
use ecq_gpu::variant::{Form, Input, Kernel, Lanes, Value, Variant};
use naga::valid::{Capabilities, ValidationFlags, Validator};

const DEVICES: [Limits; 3] = [Limits::WEBGPU, Limits::APPLE, Limits::LAVAPIPE];
const LANES: [Lanes; 4] = [Lanes::Subgroups(4), Lanes::Subgroups(32), Lanes::Subgroups(128), Lanes::Barriers];

fn shape(rows: usize, cols: usize, tile_rows: usize, strip: usize) -> Shape {
    Shape { rows, cols, tile_rows, strip }
}

fn plan(shape: &Shape, form: &Form, tile: u64, limits: &Limits) -> Vec<Part> {
    let size = TileSize { words: tile, escapes: 0 };
    let parts = parts("w", shape, form, &vec![size; shape.tiles()], |_| 0, limits).unwrap();
    // nothing is left out, nothing is there twice
    let mut at = (0, 0);
    for part in &parts {
        assert_eq!((part.tiles.start, part.rows.start), at);
        assert_eq!(part.streams as usize, part.tiles.len() * shape.strips());
        assert_eq!(part.words, part.tiles.len() as u64 * tile + PADDING);
        let packed = part.rows.len().div_ceil(8) * shape.cols * form.value.packed_bits() as usize / 4;
        assert_eq!(part.packed, packed as u64);
        for words in [part.words, part.starts, part.packed] {
            assert!(4 * words <= limits.binding.min(limits.buffer) && words <= 1 << 30);
        }
        at = (part.tiles.end, part.rows.end);
    }
    assert_eq!(at, (shape.tiles(), shape.rows));
    parts
}

/// Every kernel's workgroups cover what they are for, and are allowed.
fn covered(shape: &Shape, part: &Part, vectors: u32, lanes: Lanes, limits: &Limits) {
    let (m, input) = (vectors.min(16), Input::F32);
    let prompt = Prompt::of(lanes);
    let turns = vectors.div_ceil(prompt.vectors);
    let tiles = (part.tiles.len() as u32).div_ceil(prompt.tiles) * shape.strips() as u32;
    let streams = part.streams.div_ceil(Variant::new(Kernel::Decode, Form::PLAIN, lanes).streams());
    let bands = part.rows.len().div_ceil(8) as u32;
    let numbers = (shape.rows as u64 * u64::from(vectors)).div_ceil(64) as u32;
    let kernels = [
        (Kernel::Fused { vectors: m, input }, streams, vectors.div_ceil(m)),
        (Kernel::Plain { vectors: m, input }, bands, 1),
        (Kernel::Prompt { input }, tiles, turns),
        (Kernel::PlainPrompt { input }, bands.div_ceil(prompt.tiles), turns),
        (Kernel::Decode, streams, 1),
        (Kernel::Finish, numbers, 1),
    ];
    for (kernel, groups, layers) in kernels {
        let variant = Variant::new(kernel, Form::PLAIN, lanes);
        let [x, y, z] = workgroups(&variant, shape, part, vectors, limits).unwrap();
        assert!([x, y, z].iter().all(|n| (1..=limits.workgroups).contains(n)), "{kernel:?}");
        let all = u64::from(x) * u64::from(y);
        assert!(all >= u64::from(groups) && all < u64::from(groups) + u64::from(x), "{kernel:?}");
        assert_eq!(z, layers);
    }
}

#[test]
fn tensors_of_every_size_fit() {
    let shapes = [
        shape(1, 1, 8, 1),
        shape(1, 3, 8, 3),
        shape(50_257, 3, 4096, 3),
        shape(50_257, 768, 40, 768),
        shape(151_936, 5120, 8, 4096),
        shape(3, 1 << 20, 8, 4096),
        shape(1 << 20, 16_384, 8, 4096), // 8 GiB packed to nibbles
    ];
    let forms = [0, 1, 7].map(|raw_bits| Form { value: Value::Integer { raw_bits }, ..Form::PLAIN });
    for limits in &DEVICES {
        for shape in &shapes {
            for form in &forms {
                // about 3.5 bits and the raw ones
                let weights = (shape.tile_rows * shape.cols) as u64;
                let tile = weights * (7 + 2 * u64::from(form.value.raw_bits())) / 64 + 64;
                let parts = plan(shape, form, tile, limits);
                for lanes in LANES {
                    parts.iter().for_each(|part| covered(shape, part, 1, lanes, limits));
                    covered(shape, &parts[0], 333, lanes, limits);
                }
            }
        }
    }
}

#[test]
fn more_than_two_gib_are_several_parts() {
    let shape = shape(1 << 20, 16_384, 8, 4096);
    let tile = 8 * 16_384 / 8; // 4 bits a weight
    let count = |limits: &Limits| plan(&shape, &Form::PLAIN, tile, limits).len();
    assert_eq!(count(&Limits::WEBGPU), 65); // of 128 MiB, less the padding
    assert_eq!(count(&Limits::APPLE), 3);
    // coded to next to nothing, it is still too large when packed
    assert_eq!(plan(&shape, &Form::PLAIN, 1, &Limits::WEBGPU).len(), 64);
}

/// Scales and escapes may be what makes a part too large.
#[test]
fn scales_and_escapes_are_shared_out_too() {
    let shape = shape(1003, 512, 16, 512);
    let limits = Limits { binding: 64 << 10, ..Limits::WEBGPU };
    let tiles = |escapes| vec![TileSize { words: 1 << 10, escapes }; shape.tiles()];
    let side = |rows: usize| 300 + rows.div_ceil(8) as u64 * 700;
    let none = |_: usize| 0;
    let plain = parts("w", &shape, &Form::PLAIN, &tiles(0), none, &limits).unwrap();
    for (escapes, side) in [(0, &side as &dyn Fn(usize) -> u64), (3000, &none), (3000, &side)] {
        let all = parts("w", &shape, &Form::PLAIN, &tiles(escapes), side, &limits).unwrap();
        assert!(all.len() > plain.len());
        assert_eq!(all.last().unwrap().rows.end, shape.rows);
        for part in &all {
            let escapes = most_words(part.tiles.len() as u64 * escapes, part.rows.len(), shape.cols);
            assert_eq!(part.side, side(part.rows.len()).max(escapes));
            assert!(4 * part.side <= limits.binding);
        }
    }
    let refused = |escapes, side: &dyn Fn(usize) -> u64| {
        matches!(
            parts("w", &shape, &Form::PLAIN, &tiles(escapes), side, &limits),
            Err(Error::Limit { needs, limit, .. }) if needs > limit
        )
    };
    assert!(refused(12_000, &none) && refused(0, &|rows| rows as u64 * 1100));
    // bits are counted in 32 bits, however large buffers may be
    let limits = Limits { buffer: 16 << 30, binding: 4 << 30, ..Limits::APPLE };
    let all = parts("w", &shape, &Form::PLAIN, &tiles(0), |rows| rows as u64 * 1_000_000, &limits).unwrap();
    assert!(all.iter().all(|part| part.side <= 1 << 27) && all.len() > 1);
}

#[test]
fn tiles_that_share_a_band_stay_together() {
    for (tile_rows, unit) in [(1, 8), (5, 8), (12, 2), (20, 2), (6, 4), (24, 1)] {
        let shape = shape(1000, 1 << 20, tile_rows, 1 << 20);
        let parts = plan(&shape, &Form::PLAIN, 1 << 15, &Limits::WEBGPU);
        assert!(parts.len() > 1);
        for part in &parts {
            assert!(part.rows.start.is_multiple_of(8) && part.tiles.start.is_multiple_of(unit), "{part:?}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |shape: &Shape, tiles: &[u64]| match parts(
        "w",
        shape,
        &Form::PLAIN,
        &tiles.iter().map(|&words| TileSize { words, escapes: 0 }).collect::<Vec<_>>(),
        |_| 0,
        &Limits::WEBGPU,
    ) {
        Err(Error::Argument { .. }) => "argument",
        Err(Error::Limit { needs, limit, .. }) => {
            assert!(needs > limit);
            "limit"
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&shape(0, 8, 8, 8), &[]), "argument");
    assert_eq!(refused(&shape(8, 0, 8, 8), &[1]), "argument");
    assert_eq!(refused(&shape(8, 8, 0, 8), &[1]), "argument");
    assert_eq!(refused(&shape(8, 8, 8, 0), &[1]), "argument");
    assert_eq!(refused(&shape(9, 8, 8, 8), &[1]), "argument");
    assert_eq!(refused(&shape(9, 8, 8, 8), &[1, 1 << 25]), "limit");
    assert_eq!(refused(&shape(9, 8, 8, 8), &[u64::MAX, 1]), "limit");
    assert_eq!(refused(&shape(8, 1 << 26, 8, 1 << 26), &[1]), "limit"); // its packed weights
    let part = Part {
        tiles: 0..1,
        rows: 0..8,
        streams: u32::MAX,
        words: 1,
        starts: 1,
        packed: 1,
        escapes: 0,
        side: 0,
    };
    let tiny = Limits { workgroups: 8, ..Limits::WEBGPU };
    let grid = |kernel, vectors| {
        let variant = Variant::new(kernel, Form::PLAIN, Lanes::Subgroups(32));
        workgroups(&variant, &shape(8, 8, 8, 8), &part, vectors, &tiny)
    };
    assert!(matches!(grid(Kernel::Decode, 1), Err(Error::Limit { .. })));
    let plain = Kernel::PlainPrompt { input: Input::F32 };
    assert_eq!(grid(plain, 8 * 128).unwrap(), [1, 1, 8]);
    assert!(matches!(grid(plain, 8 * 128 + 1), Err(Error::Limit { .. })));
}

/// What shaders say of themselves is what plans think they need, and every device has it.
#[test]
fn kernels_fit_every_device() {
    for variant in variants::all() {
        let module = naga::front::wgsl::parse_str(&variant.source()).unwrap();
        Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).unwrap();
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).unwrap();
        let variables = || module.global_variables.iter().map(|(_, variable)| variable);
        let memory: u32 = variables()
            .filter(|v| v.space == naga::AddressSpace::WorkGroup)
            .map(|v| layouter[v.ty].size)
            .sum();
        let storage = variables().filter(|v| matches!(v.space, naga::AddressSpace::Storage { .. })).count();
        let [entry] = module.entry_points.as_slice() else { panic!("{variant:?}") };
        let needs = Needs::of(&variant);
        assert_eq!(entry.workgroup_size, [needs.invocations, 1, 1], "{variant:?}");
        assert_eq!(memory, needs.workgroup_memory, "{variant:?}");
        assert_eq!(storage, needs.storage_buffers as usize, "{variant:?}");
        for limits in &DEVICES {
            needs.check("a kernel", limits).unwrap();
        }
        let less = [
            Limits { invocations: needs.invocations - 1, ..Limits::WEBGPU },
            Limits { storage_buffers: needs.storage_buffers - 1, ..Limits::WEBGPU },
            Limits { workgroup_memory: needs.workgroup_memory.wrapping_sub(1), ..Limits::WEBGPU },
        ];
        for limits in less.iter().take(2 + usize::from(memory > 0)) {
            assert!(matches!(needs.check("a kernel", limits), Err(Error::Limit { .. })));
        }
    }
}

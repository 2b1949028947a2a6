//! What is asked of a device for a tensor, as plain numbers: how its tiles are shared out among buffers, how many workgroups
//! a kernel has, and what each workgroup needs. Nothing here knows a device, so all of it is tested without one.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::escapes;
use crate::layout::{BAND, PADDING, Shape};
use crate::nibble::Walk;
use crate::prompt::Prompt;
use crate::shader::Binding;
use crate::variant::{Form, Kernel, Lanes, Table, Variant};

/// Invocations of a workgroup that adds up strips.
const FINISH: u32 = 64;
/// Most words of a buffer: their positions are u32, and those of 16-bit words twice as large.
const MOST_WORDS: u64 = 1 << 30;
/// Most words of scales or escapes: there the positions of bits are u32.
const MOST_SIDE: u64 = 1 << 27;

/// Limits of a device that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a buffer.
    pub buffer: u64,
    /// Most bytes of a buffer that a kernel sees.
    pub binding: u64,
    /// Most storage buffers of a kernel.
    pub storage_buffers: u32,
    /// Most bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Most invocations of a workgroup, also in one dimension.
    pub invocations: u32,
    /// Most workgroups in one dimension.
    pub workgroups: u32,
}

impl Limits {
    /// What every device of WebGPU has.
    pub const WEBGPU: Self = Self {
        buffer: 256 << 20,
        binding: 128 << 20,
        storage_buffers: 8,
        workgroup_memory: 16 << 10,
        invocations: 256,
        workgroups: 65_535,
    };
    /// GPUs of Apple's family 7 (M1) and later, with 16 GB of memory; of the 31 buffers of a kernel two are wgpu's.
    pub const APPLE: Self = Self {
        buffer: 9 << 30,
        binding: (4 << 30) - 4,
        storage_buffers: 29,
        workgroup_memory: 32 << 10,
        invocations: 1024,
        workgroups: 65_535,
    };
    /// Mesa's driver for CPUs.
    pub const LAVAPIPE: Self = Self {
        buffer: 2 << 30,
        binding: 128 << 20,
        storage_buffers: 32,
        workgroup_memory: 32 << 10,
        invocations: 1024,
        workgroups: 65_535,
    };

    /// Most bytes of a buffer whose whole a kernel sees, and wgpu's name of that limit.
    pub fn most_bytes(&self) -> (u64, &'static str) {
        let both = [(self.buffer, "max_buffer_size"), (self.binding, "max_storage_buffer_binding_size")];
        both.into_iter().min_by_key(|(limit, _)| *limit).unwrap_or(both[0])
    }

    /// Most words of a tensor in one buffer.
    fn words(&self) -> u64 {
        (self.most_bytes().0 / 4).min(MOST_WORDS)
    }
}

impl From<&wgpu::Limits> for Limits {
    fn from(limits: &wgpu::Limits) -> Self {
        Self {
            buffer: limits.max_buffer_size,
            binding: limits.max_storage_buffer_binding_size,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            invocations: limits
                .max_compute_invocations_per_workgroup
                .min(limits.max_compute_workgroup_size_x),
            workgroups: limits.max_compute_workgroups_per_dimension,
        }
    }
}

/// A part of a tensor, of whole tiles, whose streams lie in one buffer, and its packed weights in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its tiles.
    pub tiles: Range<usize>,
    /// Its rows.
    pub rows: Range<usize>,
    /// Its streams.
    pub streams: u32,
    /// Words of raw bits and streams, with [`PADDING`].
    pub words: u64,
    /// Words that say where they begin.
    pub starts: u64,
    /// Words of its packed weights.
    pub packed: u64,
    /// Escapes, at most.
    pub escapes: u64,
    /// Words of these and of its scales, at most, whichever are more.
    pub side: u64,
}

/// What is known of a tile before it is uploaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TileSize {
    /// Words of raw bits and streams.
    pub words: u64,
    /// Escapes, at most.
    pub escapes: u64,
}

/// Shares out tiles among parts that fit the device, coded as well as packed. A part begins with a band. `side` says how many
/// words scales take for so many rows.
///
/// Errors: [`Error::Argument`] for a tensor without weights, which the format refuses, or another number of tiles than the
/// shape has; [`Error::Limit`] for a tile that is too large for a buffer.
pub fn parts(
    what: &str,
    shape: &Shape,
    form: &Form,
    tiles: &[TileSize],
    side: impl Fn(usize) -> u64,
    limits: &Limits,
) -> Result<Vec<Part>> {
    let Shape { rows, cols, tile_rows, strip } = *shape;
    if [rows, cols, tile_rows, strip].contains(&0) || tiles.len() != shape.tiles() {
        return Err(Error::Argument {
            what: format!("the tiles of {what}"),
            expected: "rows, columns, and the words of each tile".into(),
            got: format!("{rows} x {cols}, tiles of {tile_rows} x {strip}, words of {} tiles", tiles.len()),
        });
    }
    let most = limits.words();
    let mut parts: Vec<Part> = Vec::new();
    let measured = |mut part: Part| {
        part.side = side(part.rows.len()).max(escapes::most_words(part.escapes, part.rows.len(), cols));
        part
    };
    // tiles that share a band stay together
    let (mut tile, unit) = (0, BAND >> tile_rows.trailing_zeros().min(BAND.trailing_zeros()));
    for sizes in tiles.chunks(unit) {
        let own = measured(Part::of(shape, form, tile..tile + sizes.len(), sizes));
        tile += sizes.len();
        for (needs, most) in own.needs(most) {
            if needs > most {
                let (limit, name) = limits.most_bytes();
                let (what, limit) = (format!("a tile of {what}"), limit.min(4 * most));
                let needs = needs.saturating_mul(4);
                return Err(Error::Limit { what, unit: "bytes in a buffer", needs, limit, name });
            }
        }
        let both = parts.last().map(|last| measured(last.with(&own)));
        match (both, parts.last_mut()) {
            (Some(both), Some(last)) if both.needs(most).iter().all(|(n, most)| n <= most) => *last = both,
            _ => parts.push(own),
        }
    }
    Ok(parts)
}

impl Part {
    fn of(shape: &Shape, form: &Form, tiles: Range<usize>, sizes: &[TileSize]) -> Self {
        let (count, strips) = (tiles.len() as u64, shape.strips() as u64);
        let rows = shape.tile(tiles.start).start..shape.tile(tiles.end - 1).end;
        let packed = rows.len().div_ceil(BAND) as u64 * shape.cols as u64;
        Self {
            streams: (count * strips) as u32,
            words: sizes.iter().fold(PADDING, |sum, size| sum.saturating_add(size.words)),
            starts: count * (strips + 1),
            packed: packed * u64::from(form.value.packed_bits() / 4),
            escapes: sizes.iter().fold(0, |sum, size| sum.saturating_add(size.escapes)),
            side: 0,
            rows,
            tiles,
        }
    }

    /// This part and the one behind it.
    fn with(&self, next: &Self) -> Self {
        Self {
            tiles: self.tiles.start..next.tiles.end,
            rows: self.rows.start..next.rows.end,
            streams: self.streams.saturating_add(next.streams),
            words: self.words + next.words - PADDING,
            starts: self.starts + next.starts,
            packed: self.packed + next.packed,
            escapes: self.escapes.saturating_add(next.escapes),
            side: 0,
        }
    }

    /// Words of its largest buffers, and what is allowed, of buffers of so many words.
    fn needs(&self, most: u64) -> [(u64, u64); 2] {
        [(self.words.max(self.starts).max(self.packed), most), (self.side, most.min(MOST_SIDE))]
    }
}

/// Workgroups in each dimension of a kernel for a part of a tensor and so many vectors. Error: [`Error::Limit`].
pub fn workgroups(
    variant: &Variant,
    shape: &Shape,
    part: &Part,
    vectors: u32,
    limits: &Limits,
) -> Result<[u32; 3]> {
    let streams = u64::from(part.streams.div_ceil(variant.streams()));
    let prompt = Prompt::of(variant.lanes);
    let turns = vectors.div_ceil(prompt.vectors);
    let (groups, layers) = match variant.kernel {
        Kernel::Fused { vectors: at_once, .. } => (streams, vectors.div_ceil(at_once.max(1))),
        Kernel::Decode => (streams, 1),
        Kernel::Plain { .. } => (part.rows.len().div_ceil(BAND) as u64, 1),
        Kernel::Prompt { .. } => {
            let groups = part.tiles.len().div_ceil(prompt.tiles as usize) * shape.strips();
            (groups as u64, turns)
        }
        Kernel::PlainPrompt { .. } => {
            let bands = part.rows.len().div_ceil(BAND) as u64;
            (bands.div_ceil(u64::from(prompt.tiles)), turns)
        }
        Kernel::Finish => ((u64::from(vectors) * shape.rows as u64).div_ceil(u64::from(FINISH)), 1),
    };
    let most = u64::from(limits.workgroups).max(1);
    let all = [groups.min(most), groups.div_ceil(most), u64::from(layers)];
    match all.iter().find(|&&n| n > most) {
        Some(&needs) => Err(Error::Limit {
            what: variant.kernel.name().into(),
            unit: "workgroups in a dimension",
            needs,
            limit: most,
            name: "max_compute_workgroups_per_dimension",
        }),
        None => Ok(all.map(|n| n as u32)),
    }
}

/// What a workgroup needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Invocations, all in one dimension.
    pub invocations: u32,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Storage buffers; beside them there is one uniform buffer.
    pub storage_buffers: u32,
}

impl Needs {
    /// Of a kernel.
    pub fn of(variant: &Variant) -> Self {
        let storage = variant.bindings().iter().filter(|b| !matches!(b, Binding::Uniform(_))).count();
        let memory = |walk: Walk| (walk.threads, walk.bytes());
        let (invocations, workgroup_memory) = variant.walk().map_or_else(|| Self::of_pairs(variant), memory);
        Self { invocations, workgroup_memory, storage_buffers: storage as u32 }
    }

    /// Invocations and bytes of workgroup memory where streams are of pairs, or there are none.
    fn of_pairs(variant: &Variant) -> (u32, u32) {
        let prompt = Prompt::of(variant.lanes);
        match (variant.kernel, variant.lanes) {
            // the table of 4,096 slots
            (Kernel::Fused { .. } | Kernel::Decode, Lanes::Subgroups(_)) => {
                (variant.threads(), if variant.tuning.table == Table::Workgroup { 4 << 12 } else { 0 })
            }
            // parts of sums, and three masks
            (Kernel::Fused { .. } | Kernel::Decode, Lanes::Barriers) => {
                (variant.threads(), variant.parts_bytes() + 12)
            }
            (Kernel::Plain { .. }, _) => (variant.threads(), variant.parts_bytes()),
            // one word for each stream and turn stands for a ballot
            (Kernel::Prompt { .. }, Lanes::Barriers) => (prompt.threads, prompt.memory() + 12 * prompt.tiles),
            (Kernel::Prompt { .. } | Kernel::PlainPrompt { .. }, _) => (prompt.threads, prompt.memory()),
            (Kernel::Finish, _) => (FINISH, 0),
        }
    }

    /// Error: [`Error::Limit`] for what a device has too little of.
    pub fn check(&self, what: &str, limits: &Limits) -> Result<()> {
        let all = [
            ("invocations", self.invocations, limits.invocations, "max_compute_invocations_per_workgroup"),
            (
                "bytes of workgroup memory",
                self.workgroup_memory,
                limits.workgroup_memory,
                "max_compute_workgroup_storage_size",
            ),
            (
                "storage buffers",
                self.storage_buffers,
                limits.storage_buffers,
                "max_storage_buffers_per_shader_stage",
            ),
        ];
        match all.into_iter().find(|(_, needs, limit, _)| needs > limit) {
            Some((unit, needs, limit, name)) => {
                let (needs, limit) = (u64::from(needs), u64::from(limit));
                Err(Error::Limit { what: what.into(), unit, needs, limit, name })
            }
            None => Ok(()),
        }
    }
}

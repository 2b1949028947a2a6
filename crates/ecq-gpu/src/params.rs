//! The parameters of a dispatch: `Params` of the shaders (`kernels/params.wgsl`).

use bytemuck::{Pod, Zeroable};

use crate::layout::Resident;
use crate::plan::Part;
use crate::side::Places;

/// What every kernel but the probe has as its uniform buffer, for a part of a tensor.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Params {
    /// Rows of the matrix.
    pub rows: u32,
    /// Its columns.
    pub cols: u32,
    /// First row of the part, a multiple of eight.
    pub first_row: u32,
    /// Row behind its last one.
    pub end_row: u32,
    /// Rows of a tile, a multiple of eight, but for the last.
    pub tile_rows: u32,
    /// Strips of a tile: a stream each.
    pub strips: u32,
    /// Columns of a strip, but for the last of a tile.
    pub strip: u32,
    /// Streams of the part.
    pub streams: u32,
    /// Groups of a row.
    pub groups: u32,
    /// Where the first band of the part begins in the side data.
    pub records: u32,
    /// Words of a band there.
    pub stride: u32,
    /// Where numbers begin that several groups share: counted from a band's first word, or (runs of groups) in the side
    /// data.
    pub shared_at: u32,
    /// Groups of the first run that are not in this part.
    pub phase: u32,
    /// Factor of everything.
    pub step: f32,
    /// What the value of each level lacks that the kernel adds up.
    pub constant: f32,
    /// Added to each weight.
    pub offset: f32,
}

impl Params {
    /// For a part: of kernels whose values are those of packed weights (`plain`, which
    /// [`Kernel::as_packed`](crate::variant::Kernel::as_packed) tells), or of all others.
    pub fn new(resident: &Resident, part: &Part, places: &Places, plain: bool) -> Self {
        let shape = &resident.shape;
        Self {
            rows: shape.rows as u32,
            cols: shape.cols as u32,
            first_row: part.rows.start as u32,
            end_row: part.rows.end as u32,
            tile_rows: shape.tile_rows as u32,
            strips: shape.strips() as u32,
            strip: shape.strip as u32,
            streams: part.streams,
            groups: places.groups,
            records: places.records,
            stride: places.stride,
            shared_at: places.shared,
            phase: places.phase,
            step: resident.step,
            constant: resident.constant(plain),
            offset: resident.offset,
        }
    }
}

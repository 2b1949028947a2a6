//! The parameters of a dispatch: `Params` of the shaders (`kernels/params.wgsl`).

use bytemuck::{Pod, Zeroable};

use crate::layout::Resident;
use crate::plan::Part;

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
    /// Scales of a row.
    pub groups: u32,
    /// In the side data: the group of each column.
    pub map: u32,
    /// In the side data: factors of rows.
    pub row_bytes: u32,
    /// Factor of everything.
    pub step: f32,
    /// What the value of each level lacks that the kernel adds up.
    pub constant: f32,
    /// Added to each weight.
    pub offset: f32,
    /// Uniform buffers come in multiples of 16 bytes.
    pub filling: [u32; 2],
}

impl Params {
    /// Of kernels that read packed weights (`plain`) of a part, or of those that read streams.
    pub fn new(resident: &Resident, part: &Part, plain: bool) -> Self {
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
            groups: resident.groups as u32,
            map: resident.map as u32,
            row_bytes: resident.row_bytes as u32,
            step: resident.step,
            constant: resident.constant(plain),
            offset: resident.offset,
            filling: [0; 2],
        }
    }
}

//! A coded tensor in GPU memory, and products with it.

use bytemuck::{Pod, Zeroable};
use ecq_format::reader::CodedTensor;
use wgpu::{Buffer, BufferUsages, CommandEncoder};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::layout::{PADDING, Resident, Tile};
use crate::side;
use crate::tiles::Recoded;
use crate::variant::{Code, Escapes, Input, Kernel, Variant};

/// `Params` of the shaders.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
    first_row: u32,
    end_row: u32,
    tile_rows: u32,
    strips: u32,
    strip: u32,
    streams: u32,
    groups: u32,
    map: u32,
    row_bytes: u32,
    step: f32,
    constant: f32,
    offset: f32,
    filling: [u32; 2],
}

/// A coded tensor in GPU memory.
pub struct Matrix {
    resident: Resident,
    params: Buffer,
    words: Buffer,
    first: Buffer,
    codes: Buffer,
    side: Option<Buffer>,
    escapes: Option<Buffer>,
    streams: u32,
    bytes: u64,
}

impl Matrix {
    /// Uploads a tensor.
    pub fn new(engine: &Engine, tensor: &CodedTensor<'_>) -> Result<Self> {
        let recoded = Recoded::new(tensor)?;
        let shape = recoded.shape();
        let codes = side::prefix_codes(recoded.lengths());
        let mut resident = side::resident(tensor, shape, Code::Prefix, codes)?;
        let (mut words, mut first, mut escapes) = (Vec::new(), Vec::new(), Vec::new());
        for unit in 0..recoded.units() {
            for Tile { words: own, starts, escapes: more } in recoded.unit(unit)? {
                first.push(words.len() as u32);
                first.extend(starts.iter().map(|start| words.len() as u32 + start));
                words.extend(own);
                escapes.extend(more);
            }
        }
        words.resize(words.len() + PADDING as usize, 0);
        let escapes = resident.escapes(&escapes);
        let streams = (shape.tiles() * shape.strips()) as u32;
        let params = Params {
            rows: shape.rows as u32,
            cols: shape.cols as u32,
            first_row: 0,
            end_row: shape.rows as u32,
            tile_rows: shape.tile_rows as u32,
            strips: shape.strips() as u32,
            strip: shape.strip as u32,
            streams,
            groups: resident.groups as u32,
            map: resident.map as u32,
            row_bytes: resident.row_bytes as u32,
            step: resident.step,
            constant: resident.constant(),
            offset: resident.offset,
            filling: [0; 2],
        };
        let mut bytes = 0;
        let mut store = |data: &[u8], usage| {
            bytes += data.len() as u64;
            let buffer = engine.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("ecq tensor"),
                size: data.len() as u64,
                usage: usage | BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            engine.queue().write_buffer(&buffer, 0, data);
            buffer
        };
        let params = store(bytemuck::bytes_of(&params), BufferUsages::UNIFORM);
        let mut storage = |words: &[u32]| store(bytemuck::cast_slice(words), BufferUsages::STORAGE);
        let words = storage(&words);
        let first = storage(&first);
        let codes = storage(&resident.codes);
        let side = (!resident.side.is_empty()).then(|| storage(&resident.side));
        let escapes = (resident.form.escapes != Escapes::None).then(|| storage(&escapes));
        Ok(Self { resident, params, words, first, codes, side, escapes, streams, bytes })
    }

    /// Rows: the length of a product.
    pub fn rows(&self) -> usize {
        self.resident.shape.rows
    }

    /// Columns: the length of a vector.
    pub fn cols(&self) -> usize {
        self.resident.shape.cols
    }

    /// Bytes of GPU memory that it takes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records `y = W x` for `vectors` vectors.
    pub fn record(
        &self,
        engine: &Engine,
        encoder: &mut CommandEncoder,
        x: &Buffer,
        y: &Buffer,
        vectors: u32,
    ) -> Result<()> {
        let kernel = Kernel::Fused { vectors, input: Input::F32 };
        let variant = Variant { kernel, form: self.resident.form, lanes: engine.lanes() };
        let pipeline = engine.pipeline(&variant)?;
        let mut entries =
            vec![(0, &self.params), (1, &self.words), (2, &self.first), (3, &self.codes), (4, x), (5, y)];
        entries.extend(self.side.as_ref().map(|side| (6, side)));
        entries.extend(self.escapes.as_ref().map(|escapes| (7, escapes)));
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let group = engine.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("ecq product"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        if self.resident.shape.strips() > 1 {
            return Err(Error::Argument { what: "strips".into(), expected: "1".into(), got: "more".into() });
        }
        let groups = self.streams.div_ceil(engine.lanes().streams());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(groups.min(65535), groups.div_ceil(65535), 1);
        Ok(())
    }
}

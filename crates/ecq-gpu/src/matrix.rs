//! A coded tensor in GPU memory, and products with it.

use bytemuck::{Pod, Zeroable};
use ecq_format::reader::CodedTensor;
use wgpu::{BindingResource, Buffer, BufferBinding, BufferSlice, BufferUsages, CommandEncoder};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::layout::{BAND, Resident};
use crate::side;
use crate::tiles::Tiles;
use crate::upload::{Shard, buffer, upload, words};
use crate::variant::{Form, Input, Kernel, Value, Variant};

/// Most vectors that a kernel multiplies at once; more are taken in turns.
pub const MOST_VECTORS: u32 = 16;

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
    name: String,
    resident: Resident,
    shards: Vec<Shard>,
    /// For each shard: parameters of kernels that decode.
    params: Vec<Buffer>,
    codes: Buffer,
    side: Option<Buffer>,
    escapes: Option<Buffer>,
    bytes: u64,
}

/// A tensor decoded to 4, 8 or 16 bits a weight in GPU memory: more memory, less work.
pub struct Packed {
    /// For each shard of the matrix.
    shards: Vec<Buffer>,
    params: Vec<Buffer>,
    bits: u32,
}

impl Matrix {
    /// Decodes a tensor once on the CPU, which validates it, and uploads it in its coded form; `name` is for errors.
    ///
    /// Tensors that were coded for CPUs, in other bands than of eight rows, or with a predictor are coded anew on the way.
    /// Errors: [`Error::Tensor`] if it is corrupt, [`Error::Limit`], [`Error::OutOfMemory`].
    pub fn new(engine: &Engine, name: &str, tensor: &CodedTensor<'_>) -> Result<Self> {
        let tiles = Tiles::of(tensor)?;
        let (code, codes) = tiles.code();
        let mut resident = side::resident(tensor, tiles.shape(), code, codes)?;
        let uploaded = upload(engine, tensor, &tiles, name)?;
        let escapes = resident.escapes(&uploaded.escapes);
        let codes = words(engine, name, &resident.codes)?;
        let optional = |data: &[u32]| (!data.is_empty()).then(|| words(engine, name, data)).transpose();
        let (side, escapes) = (optional(&resident.side)?, optional(&escapes)?);
        let constant = resident.constant(false);
        let params = params(engine, name, &resident, &uploaded.shards, constant)?;
        let mut bytes = uploaded.bytes;
        let buffers = [Some(&codes), side.as_ref(), escapes.as_ref()].into_iter().flatten().chain(&params);
        bytes += buffers.map(|buffer| buffer.size()).sum::<u64>();
        let (shards, name) = (uploaded.shards, name.into());
        Ok(Self { name, resident, shards, params, codes, side, escapes, bytes })
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

    /// What kernels it needs.
    pub fn form(&self) -> &Form {
        &self.resident.form
    }

    fn variant(&self, engine: &Engine, kernel: Kernel) -> Variant {
        let plain = matches!(kernel, Kernel::Plain { .. });
        let form = Form { constant: self.resident.constant(plain) != 0.0, ..self.resident.form };
        Variant::new(kernel, form, engine.lanes())
    }

    /// Records `y = W x`: for each vector of `x`, one after another, its product in `y`, in f32. What `x` and `y` are is up
    /// to the caller until the encoder is submitted; so is that submission.
    ///
    /// Errors: [`Error::Argument`] if `x` is no whole number of vectors or `y` too small, or an offset is not aligned as
    /// the device wants it; [`Error::Shader`]; [`Error::OutOfMemory`].
    pub fn record(
        &self,
        engine: &Engine,
        encoder: &mut CommandEncoder,
        x: BufferSlice<'_>,
        y: BufferSlice<'_>,
    ) -> Result<()> {
        let vectors = self.check(engine, x, y)?;
        if vectors == 0 {
            return Ok(());
        }
        let at_once = vectors.min(MOST_VECTORS);
        let kernel = Kernel::Fused { vectors: at_once, input: Input::F32 };
        let variant = self.variant(engine, kernel);
        let several = self.resident.shape.strips() > 1;
        let numbers = self.resident.shape.strips() as u64 * u64::from(vectors) * self.rows() as u64;
        let sums = match several {
            true => Some(buffer(engine, &self.name, 4 * numbers, BufferUsages::STORAGE)?),
            false => None,
        };
        let out = sums.as_ref().map_or(y, |sums| sums.slice(..));
        for (shard, params) in self.shards.iter().zip(&self.params) {
            let mut entries = vec![
                (0, whole(params)),
                (1, whole(&shard.words)),
                (2, whole(&shard.first)),
                (3, whole(&self.codes)),
            ];
            entries.extend(self.product(x, out));
            let groups = shard.streams.div_ceil(engine.lanes().streams());
            dispatch(engine, encoder, &variant, entries, (groups, vectors.div_ceil(at_once)))?;
        }
        if let Some(sums) = &sums {
            let finish = self.variant(engine, Kernel::Finish);
            let entries = vec![(0, whole(&self.params[0])), (4, whole(sums)), (5, slice(y))];
            let groups = (vectors * self.rows() as u32).div_ceil(64);
            dispatch(engine, encoder, &finish, entries, (groups, 1))?;
        }
        Ok(())
    }

    /// Buffers of a product.
    fn product<'a>(&'a self, x: BufferSlice<'a>, y: BufferSlice<'a>) -> Vec<(u32, BindingResource<'a>)> {
        let mut entries = vec![(4, slice(x)), (5, slice(y))];
        entries.extend(self.side.as_ref().map(|side| (6, whole(side))));
        entries.extend(self.escapes.as_ref().map(|escapes| (7, whole(escapes))));
        entries
    }

    /// Number of vectors.
    fn check(&self, engine: &Engine, x: BufferSlice<'_>, y: BufferSlice<'_>) -> Result<u32> {
        let bytes = 4 * self.cols() as u64;
        let vectors = x.size() / bytes;
        let fail = |what: &str, expected: String, got: u64| Error::Argument {
            what: format!("{what} of a product with {}", self.name),
            expected,
            got: format!("{got} bytes"),
        };
        if x.size() % bytes != 0 {
            return Err(fail("vectors", format!("a multiple of {bytes} bytes"), x.size()));
        }
        let needs = 4 * self.rows() as u64 * vectors;
        if y.size() != needs {
            return Err(fail("the result", format!("{needs} bytes for {vectors} vectors"), y.size()));
        }
        let align = u64::from(engine.limits().min_storage_buffer_offset_alignment);
        for (what, offset) in [("the offset of x", x.offset()), ("the offset of y", y.offset())] {
            if offset % align != 0 {
                return Err(fail(what, format!("a multiple of {align} bytes"), offset));
            }
        }
        u32::try_from(vectors).map_err(|_| fail("vectors", "fewer than 2^32".into(), x.size()))
    }
}

impl Packed {
    /// Room for a matrix. Errors: [`Error::Limit`], [`Error::OutOfMemory`].
    pub fn new(engine: &Engine, matrix: &Matrix) -> Result<Self> {
        let resident = &matrix.resident;
        let bits = resident.form.value.packed_bits();
        let words = |rows: usize| (rows.div_ceil(BAND) * resident.shape.cols) as u64 * u64::from(bits / 4);
        let shards = matrix.shards.iter();
        let shards = shards
            .map(|s| buffer(engine, &matrix.name, 4 * words(s.rows.len()), BufferUsages::STORAGE))
            .collect::<Result<_>>()?;
        let constant = resident.constant(true);
        let params = params(engine, &matrix.name, resident, &matrix.shards, constant)?;
        Ok(Self { shards, params, bits })
    }

    /// Bits of a weight.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Bytes of GPU memory that it takes.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().chain(&self.params).map(Buffer::size).sum()
    }

    /// Records the decoding of a matrix. Error: [`Error::Shader`].
    pub fn decode(&self, engine: &Engine, encoder: &mut CommandEncoder, matrix: &Matrix) -> Result<()> {
        let variant = matrix.variant(engine, Kernel::Decode);
        for ((shard, params), packed) in matrix.shards.iter().zip(&matrix.params).zip(&self.shards) {
            let entries = vec![
                (0, whole(params)),
                (1, whole(&shard.words)),
                (2, whole(&shard.first)),
                (3, whole(&matrix.codes)),
                (5, whole(packed)),
            ];
            let groups = shard.streams.div_ceil(engine.lanes().streams());
            dispatch(engine, encoder, &variant, entries, (groups, 1))?;
        }
        Ok(())
    }

    /// Records a product with weights that were decoded before; else as [`Matrix::record`].
    pub fn record(
        &self,
        engine: &Engine,
        encoder: &mut CommandEncoder,
        matrix: &Matrix,
        x: BufferSlice<'_>,
        y: BufferSlice<'_>,
    ) -> Result<()> {
        let vectors = matrix.check(engine, x, y)?;
        if vectors == 0 {
            return Ok(());
        }
        let at_once = vectors.min(MOST_VECTORS);
        let variant = matrix.variant(engine, Kernel::Plain { vectors: at_once, input: Input::F32 });
        for ((shard, params), packed) in matrix.shards.iter().zip(&self.params).zip(&self.shards) {
            let mut entries = vec![(0, whole(params)), (1, whole(packed))];
            if matrix.resident.form.value == Value::Codebook {
                entries.push((3, whole(&matrix.codes)));
            }
            entries.extend(matrix.product(x, y));
            let groups = shard.rows.len().div_ceil(BAND) as u32;
            dispatch(engine, encoder, &variant, entries, (groups, vectors.div_ceil(at_once)))?;
        }
        Ok(())
    }
}

/// Parameters for each shard.
fn params(
    engine: &Engine,
    name: &str,
    resident: &Resident,
    shards: &[Shard],
    constant: f32,
) -> Result<Vec<Buffer>> {
    let shape = resident.shape;
    let of = |shard: &Shard| Params {
        rows: shape.rows as u32,
        cols: shape.cols as u32,
        first_row: shard.rows.start as u32,
        end_row: shard.rows.end as u32,
        tile_rows: shape.tile_rows as u32,
        strips: shape.strips() as u32,
        strip: shape.strip as u32,
        streams: shard.streams,
        groups: resident.groups as u32,
        map: resident.map as u32,
        row_bytes: resident.row_bytes as u32,
        step: resident.step,
        constant,
        offset: resident.offset,
        filling: [0; 2],
    };
    let make = |shard| {
        let params = of(shard);
        let made = buffer(engine, name, size_of::<Params>() as u64, BufferUsages::UNIFORM)?;
        engine.queue().write_buffer(&made, 0, bytemuck::bytes_of(&params));
        Ok(made)
    };
    shards.iter().map(make).collect()
}

fn whole(buffer: &Buffer) -> BindingResource<'_> {
    buffer.as_entire_binding()
}

fn slice(slice: BufferSlice<'_>) -> BindingResource<'_> {
    BindingResource::Buffer(BufferBinding {
        buffer: slice.buffer(),
        offset: slice.offset(),
        size: std::num::NonZero::new(slice.size()),
    })
}

/// Records a kernel over so many workgroups, in as many layers.
fn dispatch(
    engine: &Engine,
    encoder: &mut CommandEncoder,
    variant: &Variant,
    entries: Vec<(u32, BindingResource<'_>)>,
    (groups, layers): (u32, u32),
) -> Result<()> {
    let pipeline = engine.pipeline(variant)?;
    let entries: Vec<_> =
        entries.into_iter().map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource }).collect();
    let group = engine.device().create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(variant.kernel.name()),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    });
    let most = engine.limits().max_compute_workgroups_per_dimension;
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(groups.min(most), groups.div_ceil(most), layers);
    Ok(())
}

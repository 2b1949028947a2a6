//! A coded tensor in GPU memory, and products with it.

use ecq_format::reader::CodedTensor;
use wgpu::{BindingResource, Buffer, BufferBinding, BufferSlice, BufferUsages, CommandEncoder};

use crate::dispatch::{Dispatch, record};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::host::{Host, Streams};
use crate::layout::{Resident, Shape};
use crate::params::Params;
use crate::plan::{self, Part};
use crate::upload::{Sender, buffer, words};
use crate::variant::{Code, Form, Input, Kernel, Value, Variant};

/// Most vectors that are multiplied with weights in registers. For more, each weight is decoded into workgroup memory; weights
/// of the `nibble` codec take them in turns of so many.
pub const MOST_VECTORS: u32 = 16;

/// Streams of a part of a tensor.
struct Shard {
    /// Raw bits and streams.
    words: Buffer,
    /// Where they begin.
    first: Buffer,
}

/// Vectors of a product, one after another.
#[derive(Clone, Copy, Debug)]
pub struct Vectors<'a> {
    /// Where they are. The size is that of whole vectors; of f16 it is a multiple of four bytes, if need be with two bytes
    /// behind the last one, because bindings have such sizes.
    pub slice: BufferSlice<'a>,
    /// Their type. Sums are f32 for all of them.
    pub input: Input,
}

impl<'a> Vectors<'a> {
    /// Of f16, for devices with [`SHADER_F16`](wgpu::Features::SHADER_F16).
    pub fn f16(slice: BufferSlice<'a>) -> Self {
        Self { slice, input: Input::F16 }
    }
}

/// Of f32.
impl<'a> From<BufferSlice<'a>> for Vectors<'a> {
    fn from(slice: BufferSlice<'a>) -> Self {
        Self { slice, input: Input::F32 }
    }
}

/// A coded tensor in GPU memory.
pub struct Matrix {
    name: String,
    resident: Resident,
    parts: Vec<Part>,
    /// For each part, unless they were freed.
    shards: Vec<Shard>,
    /// For each part: parameters of kernels that decode.
    params: Vec<Buffer>,
    /// For each part: parameters of kernels whose values are those of packed weights.
    plain: Vec<Buffer>,
    codes: Buffer,
    /// For each part, if there are scales.
    sides: Vec<Buffer>,
    /// For each part, if there are any.
    escapes: Vec<Buffer>,
}

/// A tensor decoded to 4, 8 or 16 bits a weight in GPU memory: more memory, less work.
pub struct Packed {
    /// For each part of the matrix.
    buffers: Vec<Buffer>,
    bits: u32,
}

impl Matrix {
    /// Decodes a tensor once on the CPU, which validates it, and uploads it in its coded form; `name` is for errors.
    ///
    /// Tensors of pairs in other bands than of eight rows, with a predictor, of a lone symbol in rANS, or whose escapes stand
    /// where the stream has no finite number are coded anew on the way.
    /// Errors: [`Error::Tensor`] if it is corrupt, [`Error::Limit`], [`Error::OutOfMemory`], [`Error::Lost`].
    pub fn new(engine: &Engine, name: &str, tensor: &CodedTensor<'_>) -> Result<Self> {
        engine.guard(name, || Self::upload(engine, name, tensor))
    }

    fn upload(engine: &Engine, name: &str, tensor: &CodedTensor<'_>) -> Result<Self> {
        let host = Host::gather(name, tensor, engine.planned(), |part| Sender::new(engine, name, part))?;
        let uniform = |params: &Params| -> Result<Buffer> {
            let made = buffer(engine, name, size_of::<Params>() as u64, BufferUsages::UNIFORM)?;
            engine.queue().write_buffer(&made, 0, bytemuck::bytes_of(params));
            Ok(made)
        };
        let [params, plain] =
            [false, true].map(|plain| host.params(plain).iter().map(uniform).collect::<Result<Vec<_>>>());
        let Host { resident, parts, streams, sides, escapes, places: _ } = host;
        let codes = words(engine, name, &resident.codes)?;
        let all = |parts: Vec<Vec<u32>>| parts.iter().map(|data| words(engine, name, data)).collect();
        let (sides, escapes): (Result<Vec<_>>, Result<Vec<_>>) = (all(sides), all(escapes));
        let (sides, escapes) = (sides?, escapes?);
        let shard = |Streams { words: sent, first }: Streams<Sender<'_>>| -> Result<Shard> {
            Ok(Shard { words: sent.finish(), first: words(engine, name, &first)? })
        };
        let shards = streams.into_iter().map(shard).collect::<Result<_>>()?;
        let (params, plain, name) = (params?, plain?, name.into());
        Ok(Self { name, resident, parts, shards, params, plain, codes, sides, escapes })
    }

    /// Its name, for errors.
    pub(crate) fn name(&self) -> &str {
        &self.name
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
        let streams = self.shards.iter().flat_map(|shard| [&shard.words, &shard.first]);
        let others = self.sides.iter().chain(&self.escapes).chain([&self.codes]);
        streams.chain(others).chain(&self.params).chain(&self.plain).map(Buffer::size).sum()
    }

    /// Shape, and how it is cut.
    pub fn shape(&self) -> &Shape {
        &self.resident.shape
    }

    /// Sizes in bytes of the buffers that its packed weights need.
    pub fn packed_sizes(&self) -> Vec<u64> {
        self.parts.iter().map(|part| 4 * part.packed).collect()
    }

    /// Frees the streams: from now on only products with weights that were [`Packed`] before can be made.
    pub fn free_streams(&mut self) {
        self.shards.clear();
    }

    /// Error: [`Error::Argument`] if the streams were freed.
    fn has_streams(&self) -> Result<()> {
        if !self.shards.is_empty() {
            return Ok(());
        }
        let (what, expected) = (format!("decoding {}", self.name), "its streams".into());
        Err(Error::Argument { what, expected, got: "a matrix whose streams were freed".into() })
    }

    /// Workgroups of a kernel for a part.
    fn grid(&self, engine: &Engine, variant: &Variant, part: &Part, vectors: u32) -> Result<[u32; 3]> {
        plan::workgroups(variant, &self.resident.shape, part, vectors, engine.planned())
    }

    /// What kernels it needs.
    pub fn form(&self) -> &Form {
        &self.resident.form
    }

    fn variant(&self, engine: &Engine, kernel: Kernel) -> Variant {
        let plain = kernel.as_packed();
        let form = Form { constant: self.resident.constant(plain) != 0.0, ..self.resident.form };
        Variant::new(kernel, form, engine.lanes()).tuned(engine.tuning())
    }

    /// Records `y = W x`: for each vector of `x`, one after another, its product in `y`, in f32. A slice of a buffer has
    /// vectors of f32; [`Vectors::f16`] is for others. What `x` and `y` are is up to the caller until the encoder is
    /// submitted; so is that submission. They and the encoder must be of the engine's device, and so must this matrix:
    /// wgpu may take what is of another for something else.
    ///
    /// If a number of a vector is infinite or NaN, products with that vector may be NaN where the exact ones are infinite;
    /// those with other vectors are as ever.
    ///
    /// Errors: [`Error::Argument`] if `x` is no whole number of vectors or `y` of another size than their products, if an
    /// offset is not aligned as the device wants it, or for f16 on a device without; [`Error::Shader`];
    /// [`Error::OutOfMemory`]; [`Error::Lost`].
    pub fn record<'a>(
        &self,
        engine: &Engine,
        encoder: &mut CommandEncoder,
        x: impl Into<Vectors<'a>>,
        y: BufferSlice<'_>,
    ) -> Result<()> {
        let x = x.into();
        engine.guard(&self.name, || {
            record(&self.product(engine, x, y)?, &mut encoder.begin_compute_pass(&Default::default()));
            Ok(())
        })
    }

    /// The kernels of a product, ready to be recorded. Errors as for [`Self::record`].
    pub(crate) fn product(
        &self,
        engine: &Engine,
        x: Vectors<'_>,
        y: BufferSlice<'_>,
    ) -> Result<Vec<Dispatch>> {
        let vectors = self.check(engine, x, y)?;
        self.has_streams()?;
        if vectors == 0 {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        let (kernel, params) = self.kernel(vectors, x.input);
        let variant = self.variant(engine, kernel);
        let several = self.resident.shape.strips() > 1;
        let numbers = self.resident.shape.strips() as u64 * u64::from(vectors) * self.rows() as u64;
        let sums = match several {
            true => Some(buffer(engine, &self.name, 4 * numbers, BufferUsages::STORAGE)?),
            false => None,
        };
        let out = sums.as_ref().map_or(y, |sums| sums.slice(..));
        for (i, ((shard, part), params)) in self.shards.iter().zip(&self.parts).zip(params).enumerate() {
            let mut entries = vec![
                (0, whole(params)),
                (1, whole(&shard.words)),
                (2, whole(&shard.first)),
                (3, whole(&self.codes)),
            ];
            entries.extend(self.vectors(i, x.slice, out));
            let grid = self.grid(engine, &variant, part, vectors)?;
            all.push(dispatch(engine, &variant, entries, grid)?);
        }
        if let Some(sums) = &sums {
            let finish = self.variant(engine, Kernel::Finish);
            let entries = vec![(0, whole(&self.params[0])), (4, whole(sums)), (5, slice(y))];
            let grid = self.grid(engine, &finish, &self.parts[0], vectors)?;
            all.push(dispatch(engine, &finish, entries, grid)?);
        }
        Ok(all)
    }

    /// What kernels products with so many vectors need, from the coded weights (`packed`: from weights that are decoded
    /// before, and for that).
    pub(crate) fn variants(&self, engine: &Engine, vectors: u32, packed: bool) -> Vec<Variant> {
        let input = Input::F32;
        let kernels = match packed {
            true => vec![Kernel::Decode, packed_kernel(vectors, input)],
            false if self.resident.shape.strips() > 1 => vec![self.kernel(vectors, input).0, Kernel::Finish],
            false => vec![self.kernel(vectors, input).0],
        };
        // what was freed is decoded no more
        let needed = kernels.into_iter().filter(|&k| k != Kernel::Decode || self.has_streams().is_ok());
        needed.map(|kernel| self.variant(engine, kernel)).collect()
    }

    /// The kernel for so many vectors, and its parameters.
    fn kernel(&self, vectors: u32, input: Input) -> (Kernel, &[Buffer]) {
        let nibble = matches!(self.resident.form.code, Code::Nibble { .. });
        match vectors {
            ..=MOST_VECTORS => (Kernel::Fused { vectors, input }, &self.params),
            // takes them in turns
            _ if nibble => (Kernel::Fused { vectors: MOST_VECTORS, input }, &self.params),
            _ => (Kernel::Prompt { input }, &self.plain),
        }
    }

    /// Buffers of vectors for a product with a part.
    fn vectors<'a>(
        &'a self,
        part: usize,
        x: BufferSlice<'a>,
        y: BufferSlice<'a>,
    ) -> Vec<(u32, BindingResource<'a>)> {
        let mut entries = vec![(4, slice(x)), (5, slice(y))];
        entries.extend(self.sides.get(part).map(|side| (6, whole(side))));
        entries.extend(self.escapes.get(part).map(|escapes| (7, whole(escapes))));
        entries
    }

    /// Number of vectors.
    pub(crate) fn check(&self, engine: &Engine, x: Vectors<'_>, y: BufferSlice<'_>) -> Result<u32> {
        engine.knows(&self.name, x.input)?;
        let (input, x) = (x.input, x.slice);
        let bytes = input.bytes() * self.cols() as u64;
        let fail = |what: &str, expected: String, got: u64| Error::Argument {
            what: format!("{what} of a product with {}", self.name),
            expected,
            got: format!("{got} bytes"),
        };
        // a single column of f16 leaves open whether the last two bytes are a vector: then products tell
        let filled = |vectors: u64| (vectors * bytes).next_multiple_of(4) == x.size();
        let all = x.size() / bytes;
        let one_less = all.checked_sub(1).filter(|n| y.size() == 4 * self.rows() as u64 * n && filled(*n));
        let vectors = one_less.unwrap_or(all);
        if !filled(vectors) {
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
        let most = engine.planned().binding;
        for (what, slice) in [("vectors", x), ("the result", y)] {
            if !slice.buffer().usage().contains(BufferUsages::STORAGE) {
                let (expected, got) = ("a storage buffer".into(), format!("{:?}", slice.buffer().usage()));
                return Err(Error::Argument {
                    what: format!("{what} of a product with {}", self.name),
                    expected,
                    got,
                });
            }
            if slice.size() > most {
                return Err(fail(what, format!("at most {most} bytes"), slice.size()));
            }
        }
        if x.buffer() == y.buffer() {
            return Err(fail("the result", "another buffer than that of the vectors".into(), y.size()));
        }
        u32::try_from(vectors).map_err(|_| fail("vectors", "fewer than 2^32".into(), x.size()))
    }
}

impl Packed {
    /// Room for a matrix. Errors: [`Error::Limit`], [`Error::OutOfMemory`], [`Error::Lost`].
    pub fn new(engine: &Engine, matrix: &Matrix) -> Result<Self> {
        let make = |&size: &u64| buffer(engine, &matrix.name, size, BufferUsages::STORAGE);
        engine.guard(&matrix.name, || {
            Self::over(matrix, matrix.packed_sizes().iter().map(make).collect::<Result<_>>()?)
        })
    }

    /// A matrix's weights in buffers made before, which those of others may have been in: storage buffers, at least as
    /// large as [`Matrix::packed_sizes`]. They hold nothing of it before [`Self::decode`].
    ///
    /// Error: [`Error::Argument`] if they are too small, too few, or for other use.
    pub fn over(matrix: &Matrix, buffers: Vec<Buffer>) -> Result<Self> {
        let sizes = matrix.packed_sizes();
        let fit = |(size, buffer): (&u64, &Buffer)| {
            buffer.size() >= *size && buffer.usage().contains(BufferUsages::STORAGE)
        };
        if sizes.len() != buffers.len() || !sizes.iter().zip(&buffers).all(fit) {
            return Err(Error::Argument {
                what: format!("buffers for the weights of {}", matrix.name),
                expected: format!("storage buffers of {sizes:?} bytes"),
                got: format!("{:?} bytes", buffers.iter().map(Buffer::size).collect::<Vec<_>>()),
            });
        }
        Ok(Self { buffers, bits: matrix.resident.form.value.packed_bits() })
    }

    /// The buffers.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// Bits of a weight.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Bytes of GPU memory that it takes.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().map(Buffer::size).sum()
    }

    /// Records the decoding of the matrix that it was made for. Errors: [`Error::Shader`]; [`Error::Argument`] if its
    /// streams were freed, or for another matrix that does not fit; [`Error::Lost`].
    pub fn decode(&self, engine: &Engine, encoder: &mut CommandEncoder, matrix: &Matrix) -> Result<()> {
        engine.guard(&matrix.name, || {
            record(&self.decoding(engine, matrix)?, &mut encoder.begin_compute_pass(&Default::default()));
            Ok(())
        })
    }

    /// The kernels that decode, ready to be recorded. Errors as for [`Self::decode`].
    pub(crate) fn decoding(&self, engine: &Engine, matrix: &Matrix) -> Result<Vec<Dispatch>> {
        matrix.has_streams()?;
        self.fits(matrix)?;
        let mut all = Vec::new();
        let variant = matrix.variant(engine, Kernel::Decode);
        let shards = matrix.shards.iter().zip(&matrix.params).zip(&self.buffers);
        for (((shard, params), packed), part) in shards.zip(&matrix.parts) {
            let entries = vec![
                (0, whole(params)),
                (1, whole(&shard.words)),
                (2, whole(&shard.first)),
                (3, whole(&matrix.codes)),
                (5, whole(packed)),
            ];
            let grid = matrix.grid(engine, &variant, part, 1)?;
            all.push(dispatch(engine, &variant, entries, grid)?);
        }
        Ok(all)
    }

    /// Error: [`Error::Argument`] for a matrix whose weights these buffers have no room for, or of other kind.
    fn fits(&self, matrix: &Matrix) -> Result<()> {
        let bits = matrix.resident.form.value.packed_bits();
        let same = self.buffers.len() == matrix.parts.len() && self.bits == bits;
        if same && self.buffers.iter().zip(&matrix.parts).all(|(b, part)| b.size() >= 4 * part.packed) {
            return Ok(());
        }
        Err(Error::Argument {
            what: format!("packed weights of {}", matrix.name),
            expected: format!("{bits} bits in buffers of {:?} bytes", matrix.packed_sizes()),
            got: format!(
                "{} bits in {:?}",
                self.bits,
                self.buffers.iter().map(Buffer::size).collect::<Vec<_>>()
            ),
        })
    }

    /// Records a product with weights that were decoded before; else as [`Matrix::record`].
    pub fn record<'a>(
        &self,
        engine: &Engine,
        encoder: &mut CommandEncoder,
        matrix: &Matrix,
        x: impl Into<Vectors<'a>>,
        y: BufferSlice<'_>,
    ) -> Result<()> {
        let x = x.into();
        engine.guard(&matrix.name, || {
            let made = self.product(engine, matrix, x, y)?;
            record(&made, &mut encoder.begin_compute_pass(&Default::default()));
            Ok(())
        })
    }

    /// The kernels of a product, ready to be recorded. Errors as for [`Self::record`].
    pub(crate) fn product(
        &self,
        engine: &Engine,
        matrix: &Matrix,
        x: Vectors<'_>,
        y: BufferSlice<'_>,
    ) -> Result<Vec<Dispatch>> {
        let vectors = matrix.check(engine, x, y)?;
        self.fits(matrix)?;
        if vectors == 0 {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        let variant = matrix.variant(engine, packed_kernel(vectors, x.input));
        let parts = matrix.parts.iter().zip(&matrix.plain).zip(&self.buffers);
        for (i, ((part, params), packed)) in parts.enumerate() {
            let mut entries = vec![(0, whole(params)), (1, whole(packed))];
            if matrix.resident.form.value == Value::Codebook {
                entries.push((3, whole(&matrix.codes)));
            }
            entries.extend(matrix.vectors(i, x.slice, y));
            let grid = matrix.grid(engine, &variant, part, vectors)?;
            all.push(dispatch(engine, &variant, entries, grid)?);
        }
        Ok(all)
    }
}

/// The kernel for products of packed weights with so many vectors.
fn packed_kernel(vectors: u32, input: Input) -> Kernel {
    match vectors {
        ..=MOST_VECTORS => Kernel::Plain { vectors, input },
        _ => Kernel::PlainPrompt { input },
    }
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

/// A kernel over so many workgroups.
fn dispatch(
    engine: &Engine,
    variant: &Variant,
    entries: Vec<(u32, BindingResource<'_>)>,
    grid: [u32; 3],
) -> Result<Dispatch> {
    let pipeline = engine.pipeline(variant)?;
    Ok(Dispatch::new(engine, variant.kernel.name(), &pipeline, entries, grid))
}

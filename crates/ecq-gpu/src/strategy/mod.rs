//! A model's matrices, and where their decoded weights are: nowhere, in memory, or there for a while.

pub mod ahead;
pub mod choice;
pub mod lru;
mod measure;
mod product;

use std::sync::atomic::{AtomicU64, Ordering};

use ecq_format::reader::CodedTensor;
use wgpu::{Buffer, BufferSlice, BufferUsages, CommandEncoder, ComputePass};

use crate::dispatch::{Dispatch, record};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::matrix::{Matrix, Packed, Vectors};
use crate::upload::buffer;
use ahead::Ahead;
use lru::{Lru, Place};
pub use product::Product;

/// Where decoded weights are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Nowhere: every product decodes. The least memory.
    #[default]
    Fused,
    /// All of them in memory, packed to 4, 8 or 16 bits; their streams are freed. The most memory.
    Cached,
    /// In two rooms of the largest matrix's size: while one is used, the next one is decoded into the other.
    ///
    /// A GPU can do both at once only where nothing orders them. wgpu puts a barrier before whatever writes a buffer, so on
    /// Vulkan one probably comes after the other; no overlap has been measured yet, on any GPU.
    Prefetch,
    /// As many as fit into so many bytes, packed; the least recently used ones go first, and a matrix that is larger is not
    /// kept. For products in ever the same order with less room than for all of them none would be kept long enough:
    /// [`Self::Auto`] is for those.
    Lru {
        /// The budget. Buffers that were let go count no more, though the GPU may need them until its work is done.
        bytes: u64,
    },
    /// Packed are those that gain most time for each byte on this device, as measured by [`Weights::settle`]; their
    /// streams are freed. All others are decoded by every product.
    Auto {
        /// The budget for packed weights.
        bytes: u64,
    },
}

/// A matrix among [`Weights`], and among no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    /// Number of these weights.
    of: u64,
    index: usize,
}

/// Bytes of GPU memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Streams, scales, escapes, tables.
    pub coded: u64,
    /// Packed weights that are kept.
    pub packed: u64,
    /// Rooms that matrices pass through.
    pub scratch: u64,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.coded + self.packed + self.scratch
    }
}

/// Matrices in the order of their use, with one strategy for all of them.
///
/// Encoders must be submitted to the engine's queue in the order in which products were recorded in them: what is decoded for
/// one product is there for later ones. [`Self::forget`] is for encoders that are dropped.
pub struct Weights {
    engine: Engine,
    /// No others have it: an [`Id`] of theirs would be another matrix here.
    number: u64,
    strategy: Strategy,
    entries: Vec<Entry>,
    ahead: Ahead,
    rooms: [Vec<Buffer>; 2],
    /// Matrices that the rooms were made for.
    roomed: usize,
    lru: Lru,
    slots: Vec<Option<Packed>>,
}

struct Entry {
    matrix: Matrix,
    /// Once it is kept for good.
    packed: Option<Packed>,
    /// Decoding into each room, once it was made ready.
    decoding: [Vec<Dispatch>; 2],
}

impl Weights {
    /// No matrices yet.
    pub fn new(engine: &Engine, strategy: Strategy) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let budget = if let Strategy::Lru { bytes } = strategy { bytes } else { 0 };
        Self {
            engine: engine.clone(),
            number: MADE.fetch_add(1, Ordering::Relaxed),
            strategy,
            entries: Vec::new(),
            ahead: Ahead::default(),
            rooms: Default::default(),
            roomed: 0,
            lru: Lru::new(budget),
            slots: Vec::new(),
        }
    }

    /// Validates a tensor and uploads it; for [`Strategy::Cached`] it is decoded, and waited for, so that no more than one
    /// matrix's streams are in memory. Errors as for [`Matrix::new`], and [`Error::Lost`].
    pub fn add(&mut self, name: &str, tensor: &CodedTensor<'_>) -> Result<Id> {
        let engine = &self.engine;
        let entry = engine.guard(name, || {
            let mut entry = Entry {
                matrix: Matrix::new(engine, name, tensor)?,
                packed: None,
                decoding: Default::default(),
            };
            if self.strategy == Strategy::Cached {
                entry.pack(engine)?;
            }
            Ok(entry)
        })?;
        self.entries.push(entry);
        Ok(Id { of: self.number, index: self.entries.len() - 1 })
    }

    /// Does what is to be done once all matrices were added: for [`Strategy::Auto`] it measures products on the device,
    /// waiting for them, and packs what is worth it; for [`Strategy::Prefetch`] it makes the two rooms. Without it, the
    /// former decodes in every product, and the latter makes rooms when they are needed. Matrices that are packed already
    /// stay so if it is called again.
    ///
    /// Errors: [`Error::OutOfMemory`], [`Error::Shader`], [`Error::Lost`].
    pub fn settle(&mut self) -> Result<()> {
        self.engine.clone().guard("settling weights", || match self.strategy {
            Strategy::Prefetch => self.make_rooms(),
            Strategy::Auto { bytes } => self.pack_best(bytes),
            Strategy::Fused | Strategy::Cached | Strategy::Lru { .. } => Ok(()),
        })
    }

    /// Sets the budget of [`Strategy::Lru`], which forgets what it keeps, or of [`Strategy::Auto`], before [`Self::settle`]: what
    /// is left is known once all matrices were added. Other strategies have none.
    pub fn set_budget(&mut self, budget: u64) {
        if let Strategy::Lru { bytes } | Strategy::Auto { bytes } = &mut self.strategy {
            *bytes = budget;
        }
        self.forget();
    }

    /// The strategy.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Number of matrices.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A matrix. `None` if it is one of other weights.
    pub fn matrix(&self, id: Id) -> Option<&Matrix> {
        self.entry(id).map(|entry| &entry.matrix)
    }

    /// Whether a matrix is kept packed for good.
    pub fn is_packed(&self, id: Id) -> bool {
        self.entry(id).is_some_and(|entry| entry.packed.is_some())
    }

    fn entry(&self, id: Id) -> Option<&Entry> {
        self.entries.get(id.index).filter(|_| id.of == self.number)
    }

    /// GPU memory in use, as the sum of the sizes of all buffers that are kept.
    pub fn memory(&self) -> Memory {
        let kept = self.entries.iter().filter_map(|entry| entry.packed.as_ref());
        Memory {
            coded: self.entries.iter().map(|entry| entry.matrix.bytes()).sum(),
            packed: kept.chain(self.slots.iter().flatten()).map(Packed::bytes).sum(),
            scratch: self.rooms.iter().flatten().map(Buffer::size).sum(),
        }
    }

    /// Forgets which matrices were decoded for a while: after an encoder was dropped that products were recorded in.
    pub fn forget(&mut self) {
        self.ahead = Ahead::default();
        self.slots.clear();
        if let Strategy::Lru { bytes } = self.strategy {
            self.lru = Lru::new(bytes);
        }
    }

    /// Compiles what kernels products with so many vectors of f32 will need, on all threads of the pool that this is called
    /// in: else each is compiled when it is needed first. Errors: [`Error::Shader`], [`Error::Lost`].
    pub fn compile(&self, vectors: &[u32]) -> Result<()> {
        let mut all = Vec::new();
        for entry in &self.entries {
            let packed = match self.strategy {
                Strategy::Fused => false,
                Strategy::Cached | Strategy::Prefetch => true,
                Strategy::Lru { bytes } => entry.matrix.packed_sizes().iter().sum::<u64>() <= bytes,
                Strategy::Auto { .. } => entry.packed.is_some(),
            };
            for &vectors in vectors {
                all.extend(entry.matrix.variants(&self.engine, vectors, packed));
            }
        }
        self.engine.guard("compiling kernels", || self.engine.compile(all))
    }

    /// Records `y = W x` as [`Matrix::record`] does, and whatever is decoded for it or for the next product.
    ///
    /// Errors as there, [`Error::Argument`] if the matrix is one of other weights, [`Error::OutOfMemory`] for rooms,
    /// [`Error::Lost`] and [`Error::Wgpu`].
    pub fn record<'a>(
        &mut self,
        encoder: &mut CommandEncoder,
        id: Id,
        x: impl Into<Vectors<'a>>,
        y: BufferSlice<'_>,
    ) -> Result<()> {
        let mut product = self.product(id, x, y)?;
        self.multiply(&mut encoder.begin_compute_pass(&Default::default()), &mut product)
    }

    /// Makes `y = W x` ready to be recorded again and again by [`Self::multiply`], for vectors as for [`Matrix::record`].
    ///
    /// Errors: [`Error::Argument`] as there, and if the matrix is one of other weights.
    pub fn product<'a>(&self, id: Id, x: impl Into<Vectors<'a>>, y: BufferSlice<'_>) -> Result<Product> {
        let (x, entry) = (x.into(), self.known(id)?);
        entry.matrix.check(&self.engine, x, y)?;
        Ok(Product::new(id, x, y))
    }

    /// Records a product, and whatever is decoded for it or for the next one. Kernels are bound to their buffers the first
    /// time; with [`Strategy::Lru`] each time, because what is bound is not freed.
    ///
    /// Errors: as for [`Self::record`].
    pub fn multiply(&mut self, pass: &mut ComputePass<'_>, product: &mut Product) -> Result<()> {
        let engine = self.engine.clone();
        let name = self.known(product.id)?.matrix.name().to_owned();
        engine.guard(&name, || {
            let entry = self.known(product.id)?;
            match (&entry.packed, self.strategy) {
                (Some(packed), _) => record(product.packed(&engine, &entry.matrix, packed)?, pass),
                (None, Strategy::Prefetch) => {
                    let done = self.prefetch(pass, product);
                    // what failed may not have been decoded
                    done.inspect_err(|_| self.ahead = Ahead::default())?;
                }
                (None, Strategy::Lru { .. }) => self.keep(pass, product)?,
                (None, _) => record(product.coded(&engine, &entry.matrix)?, pass),
            }
            Ok(())
        })
    }

    /// Error: [`Error::Argument`] for a matrix of other weights.
    fn known(&self, id: Id) -> Result<&Entry> {
        self.entry(id).ok_or_else(|| Error::Argument {
            what: "a product".into(),
            expected: format!("one of these {} matrices", self.entries.len()),
            got: format!("number {} of other weights", id.index),
        })
    }

    fn prefetch(&mut self, pass: &mut ComputePass<'_>, product: &mut Product) -> Result<()> {
        self.make_rooms()?;
        let index = product.id.index;
        let step = self.ahead.step(index, self.entries.len());
        if step.decode {
            self.decode(pass, index, step.room)?;
        }
        let (matrix, packed) = self.room(index, step.room)?;
        record(product.packed(&self.engine, matrix, &packed)?, pass);
        match step.next {
            Some(next) => self.decode(pass, next, 1 - step.room),
            None => Ok(()),
        }
    }

    /// Decodes a matrix into a room.
    fn decode(&mut self, pass: &mut ComputePass<'_>, index: usize, room: usize) -> Result<()> {
        if self.entries[index].decoding[room].is_empty() {
            let (matrix, packed) = self.room(index, room)?;
            self.entries[index].decoding[room] = packed.decoding(&self.engine, matrix)?;
        }
        record(&self.entries[index].decoding[room], pass);
        Ok(())
    }

    /// A matrix, and its weights in a room.
    fn room(&self, index: usize, room: usize) -> Result<(&Matrix, Packed)> {
        let matrix = &self.entries[index].matrix;
        let count = matrix.packed_sizes().len();
        Ok((matrix, Packed::over(matrix, self.rooms[room].iter().take(count).cloned().collect())?))
    }

    /// Makes rooms as large as needed, unless there are. Buffer i of a room has the size of the largest part i of a matrix.
    fn make_rooms(&mut self) -> Result<()> {
        if self.roomed == self.entries.len() {
            return Ok(());
        }
        let mut sizes: Vec<u64> = Vec::new();
        for entry in &mut self.entries {
            let own = entry.matrix.packed_sizes();
            sizes.resize(sizes.len().max(own.len()), 0);
            sizes.iter_mut().zip(own).for_each(|(size, own)| *size = own.max(*size));
            entry.decoding = Default::default();
        }
        self.rooms = Default::default();
        self.roomed = 0;
        self.ahead = Ahead::default();
        let make = || -> Result<Vec<Buffer>> {
            sizes.iter().map(|&size| buffer(&self.engine, "a room", size, BufferUsages::STORAGE)).collect()
        };
        self.rooms = [make()?, make()?];
        self.roomed = self.entries.len();
        Ok(())
    }

    fn keep(&mut self, pass: &mut ComputePass<'_>, product: &mut Product) -> Result<()> {
        let (engine, matrix) = (&self.engine, &self.entries[product.id.index].matrix);
        let slot = match self.lru.step(product.id.index, &matrix.packed_sizes()) {
            Place::TooLarge => {
                record(product.coded(engine, matrix)?, pass);
                return Ok(());
            }
            Place::Held(slot) => slot,
            Place::Decode { slot, reuse, freed } => {
                freed.into_iter().for_each(|slot| self.slots[slot] = None);
                self.slots.resize_with(self.slots.len().max(slot + 1), || None);
                let made = match self.slots[slot].take().filter(|_| reuse) {
                    Some(old) => Packed::over(matrix, old.buffers().to_vec()),
                    None => Packed::new(engine, matrix),
                };
                let decoded = made.and_then(|made| Ok((made.decoding(engine, matrix)?, made)));
                let (decoding, made) = decoded.inspect_err(|_| self.lru.free(slot))?;
                record(&decoding, pass);
                self.slots[slot] = Some(made);
                slot
            }
        };
        match &self.slots[slot] {
            Some(packed) => record(&packed.product(engine, matrix, product.x(), product.y())?, pass),
            None => record(product.coded(engine, matrix)?, pass),
        }
        Ok(())
    }

    fn pack_best(&mut self, budget: u64) -> Result<()> {
        let kept: u64 = self.entries.iter().filter_map(|e| e.packed.as_ref()).map(Packed::bytes).sum();
        let open: Vec<&mut Entry> = self.entries.iter_mut().filter(|e| e.packed.is_none()).collect();
        let measured = measure::all(&self.engine, open.iter().map(|entry| &entry.matrix))?;
        let chosen = choice::choose(&measured, budget.saturating_sub(kept));
        for (entry, _) in open.into_iter().zip(chosen).filter(|(_, chosen)| *chosen) {
            match entry.pack(&self.engine) {
                // a budget may be more than there is
                Err(Error::OutOfMemory { .. }) => break,
                packed => packed?,
            }
        }
        Ok(())
    }
}

impl Entry {
    /// Decodes for good, and waits for it.
    fn pack(&mut self, engine: &Engine) -> Result<()> {
        let packed = Packed::new(engine, &self.matrix)?;
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        packed.decode(engine, &mut encoder, &self.matrix)?;
        engine.queue().submit([encoder.finish()]);
        engine.wait()?;
        self.matrix.free_streams();
        self.packed = Some(packed);
        Ok(())
    }
}

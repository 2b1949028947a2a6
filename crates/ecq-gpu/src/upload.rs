//! Buffers: made with every failure reported, and filled a few tiles at a time.

use std::ops::Range;

use ecq_format::reader::CodedTensor;
use rayon::prelude::*;
use wgpu::{Buffer, BufferUsages, ErrorFilter};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::layout::{Escape, PADDING, Tile};
use crate::tiles::Tiles;

/// Bytes that are given to the queue before it must send them on.
const STAGED: u64 = 64 << 20;

/// Makes a buffer of at least four bytes. Errors: [`Error::Limit`], [`Error::OutOfMemory`].
pub fn buffer(engine: &Engine, what: &str, size: u64, usage: BufferUsages) -> Result<Buffer> {
    let size = size.max(4);
    let limits = engine.limits();
    let most = [
        ("max_buffer_size", limits.max_buffer_size),
        ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
    ];
    if let Some(&(name, limit)) = most.iter().find(|(_, limit)| size > *limit) {
        return Err(Error::Limit { what: what.into(), unit: "bytes in a buffer", needs: size, limit, name });
    }
    let scope = engine.device().push_error_scope(ErrorFilter::OutOfMemory);
    let buffer = engine.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some(what),
        size,
        usage: usage | BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    match pollster::block_on(scope.pop()) {
        None => Ok(buffer),
        Some(_) => Err(Error::OutOfMemory { what: what.into(), bytes: size }),
    }
}

/// A storage buffer of words. Errors as for [`buffer`].
pub fn words(engine: &Engine, what: &str, words: &[u32]) -> Result<Buffer> {
    let made = buffer(engine, what, 4 * words.len() as u64, BufferUsages::STORAGE)?;
    engine.queue().write_buffer(&made, 0, bytemuck::cast_slice(words));
    Ok(made)
}

/// A part of a tensor whose streams lie in a buffer: whole tiles.
pub struct Shard {
    /// Its rows.
    pub rows: Range<usize>,
    /// Its streams.
    pub streams: u32,
    /// Raw bits and streams.
    pub words: Buffer,
    /// Where they begin.
    pub first: Buffer,
}

/// Streams of a tensor in GPU memory, and its escapes.
pub struct Uploaded {
    /// In the order of rows.
    pub shards: Vec<Shard>,
    /// By rows, then by columns.
    pub escapes: Vec<Escape>,
    /// Bytes of the shards.
    pub bytes: u64,
}

/// Decodes all tiles, to validate them, and uploads their streams.
///
/// What is sent goes through staging of [`STAGED`] bytes; tensors that must be coded anew are held whole.
/// Errors: [`Error::Tensor`] for corrupt tiles; those of [`buffer`].
pub fn upload(engine: &Engine, tensor: &CodedTensor<'_>, tiles: &Tiles<'_>, what: &str) -> Result<Uploaded> {
    let own: Option<Vec<u64>> = (0..tiles.units()).map(|unit| tiles.words(unit)).collect();
    let mut made = Uploaded { shards: Vec::new(), escapes: Vec::new(), bytes: 0 };
    match own {
        Some(sizes) => {
            for units in shards(engine, &sizes, what)? {
                let total = sizes[units.clone()].iter().sum();
                let rows = tensor.rows(units.start).start..tensor.rows(units.end - 1).end;
                let mut shard = Sender::new(engine, what, total)?;
                // a few tiles for each thread at a time
                let step = 4 * rayon::current_num_threads();
                for start in units.clone().step_by(step) {
                    let some = start..units.end.min(start + step);
                    let decoded: Vec<_> = some.into_par_iter().map(|unit| tiles.unit(unit)).collect();
                    for unit in decoded {
                        unit?.into_iter().try_for_each(|tile| shard.tile(tile, &mut made.escapes))?;
                    }
                }
                made.add(shard.finish(rows)?);
            }
        }
        None => {
            let all: Vec<_> = (0..tiles.units()).into_par_iter().map(|unit| tiles.unit(unit)).collect();
            let all: Vec<Tile> =
                all.into_iter().collect::<ecq_format::Result<Vec<_>>>()?.into_iter().flatten().collect();
            let sizes: Vec<u64> = all.iter().map(|tile| tile.words.len() as u64).collect();
            let (mut rest, height) = (all.into_iter(), tiles.shape().tile_rows);
            for units in shards(engine, &sizes, what)? {
                let mut shard = Sender::new(engine, what, sizes[units.clone()].iter().sum())?;
                let rows = units.start * height..tiles.shape().rows.min(units.end * height);
                for tile in rest.by_ref().take(units.len()) {
                    shard.tile(tile, &mut made.escapes)?;
                }
                made.add(shard.finish(rows)?);
            }
        }
    }
    Ok(made)
}

impl Uploaded {
    fn add(&mut self, shard: Shard) {
        self.bytes += shard.words.size() + shard.first.size();
        self.shards.push(shard);
    }
}

/// Cuts things of these sizes, in words, into runs that fit a binding. Error: [`Error::Limit`].
fn shards(engine: &Engine, sizes: &[u64], what: &str) -> Result<Vec<Range<usize>>> {
    let limits = engine.limits();
    let most = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size) / 4;
    // positions are u32, and those of 16-bit words twice as large
    let most = most.min(1 << 30).saturating_sub(PADDING);
    let (mut runs, mut start, mut sum) = (Vec::new(), 0, 0);
    for (i, &size) in sizes.iter().enumerate() {
        if size > most {
            return Err(Error::Limit {
                what: format!("a tile of {what}"),
                unit: "bytes in a buffer",
                needs: 4 * (size + PADDING),
                limit: 4 * (most + PADDING),
                name: "max_storage_buffer_binding_size",
            });
        }
        if sum + size > most {
            runs.push(start..i);
            (start, sum) = (i, 0);
        }
        sum += size;
    }
    runs.push(start..sizes.len());
    Ok(runs)
}

/// Fills a shard.
struct Sender<'a> {
    engine: &'a Engine,
    words: Buffer,
    first: Vec<u32>,
    streams: u32,
    /// Words so far.
    at: u64,
    /// Bytes that the queue holds.
    staged: u64,
    what: String,
}

impl<'a> Sender<'a> {
    fn new(engine: &'a Engine, what: &str, words: u64) -> Result<Self> {
        let words = buffer(engine, what, 4 * (words + PADDING), BufferUsages::STORAGE)?;
        Ok(Self { engine, words, first: Vec::new(), streams: 0, at: 0, staged: 0, what: what.into() })
    }

    fn tile(&mut self, tile: Tile, escapes: &mut Vec<Escape>) -> Result<()> {
        self.first.push(self.at as u32);
        self.first.extend(tile.starts.iter().map(|start| self.at as u32 + start));
        self.streams += tile.starts.len() as u32;
        self.engine.queue().write_buffer(&self.words, 4 * self.at, bytemuck::cast_slice(&tile.words));
        self.at += tile.words.len() as u64;
        self.staged += 4 * tile.words.len() as u64;
        escapes.extend(tile.escapes);
        if self.staged > STAGED {
            self.staged = 0;
            self.engine.queue().submit([]);
            let done = self.engine.device().poll(wgpu::PollType::wait_indefinitely());
            done.map_err(|e| Error::Lost(e.to_string()))?;
        }
        Ok(())
    }

    fn finish(self, rows: Range<usize>) -> Result<Shard> {
        let first = words(self.engine, &self.what, &self.first)?;
        Ok(Shard { rows, streams: self.streams, words: self.words, first })
    }
}

//! Buffers: made with every failure reported, and filled a few tiles at a time.

use rayon::prelude::*;
use wgpu::{Buffer, BufferUsages, ErrorFilter};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::layout::{Escape, Tile};
use crate::plan::{self, Part};
use crate::tiles::Tiles;
use crate::variant::Form;

/// Bytes that are given to the queue before it must send them on.
const STAGED: u64 = 64 << 20;

/// Makes a buffer of at least four bytes. Errors: [`Error::Limit`], [`Error::OutOfMemory`].
pub fn buffer(engine: &Engine, what: &str, size: u64, usage: BufferUsages) -> Result<Buffer> {
    let size = size.max(4);
    let (limit, name) = engine.planned().most_bytes();
    if size > limit {
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

/// Streams of a part of a tensor.
pub struct Shard {
    /// Raw bits and streams.
    pub words: Buffer,
    /// Where they begin.
    pub first: Buffer,
}

/// Streams of a tensor in GPU memory, and its escapes.
pub struct Uploaded {
    /// In the order of rows.
    pub parts: Vec<Part>,
    /// For each part.
    pub shards: Vec<Shard>,
    /// By rows, then by columns.
    pub escapes: Vec<Escape>,
}

/// Decodes all tiles, to validate them, and uploads their streams.
///
/// What is sent goes through staging of 64 MiB; tensors that must be coded anew are held whole.
/// Errors: [`Error::Tensor`] for corrupt tiles; those of [`buffer`].
pub fn upload(engine: &Engine, tiles: &Tiles<'_>, form: &Form, what: &str) -> Result<Uploaded> {
    let plan = |sizes: &[u64]| plan::parts(what, &tiles.shape(), form, sizes, engine.planned());
    let own: Option<Vec<u64>> = (0..tiles.units()).map(|unit| tiles.words(unit)).collect();
    let (mut shards, mut escapes) = (Vec::new(), Vec::new());
    let parts = match own {
        Some(sizes) => {
            let parts = plan(&sizes)?;
            for part in &parts {
                let mut shard = Sender::new(engine, what, part)?;
                // a few tiles for each thread at a time
                let step = 4 * rayon::current_num_threads();
                for start in part.tiles.clone().step_by(step) {
                    let some = start..part.tiles.end.min(start + step);
                    let decoded: Vec<_> = some.into_par_iter().map(|unit| tiles.unit(unit)).collect();
                    for unit in decoded {
                        unit?.into_iter().try_for_each(|tile| shard.tile(tile, &mut escapes))?;
                    }
                }
                shards.push(shard.finish()?);
            }
            parts
        }
        None => {
            let all: Vec<_> = (0..tiles.units()).into_par_iter().map(|unit| tiles.unit(unit)).collect();
            let all: Vec<Tile> =
                all.into_iter().collect::<ecq_format::Result<Vec<_>>>()?.into_iter().flatten().collect();
            let parts = plan(&all.iter().map(|tile| tile.words.len() as u64).collect::<Vec<_>>())?;
            let mut rest = all.into_iter();
            for part in &parts {
                let mut shard = Sender::new(engine, what, part)?;
                for tile in rest.by_ref().take(part.tiles.len()) {
                    shard.tile(tile, &mut escapes)?;
                }
                shards.push(shard.finish()?);
            }
            parts
        }
    };
    Ok(Uploaded { parts, shards, escapes })
}

/// Fills a shard.
struct Sender<'a> {
    engine: &'a Engine,
    words: Buffer,
    first: Vec<u32>,
    /// Words so far.
    at: u64,
    /// Bytes that the queue holds.
    staged: u64,
    what: String,
}

impl<'a> Sender<'a> {
    fn new(engine: &'a Engine, what: &str, part: &Part) -> Result<Self> {
        let words = buffer(engine, what, 4 * part.words, BufferUsages::STORAGE)?;
        Ok(Self { engine, words, first: Vec::new(), at: 0, staged: 0, what: what.into() })
    }

    fn tile(&mut self, tile: Tile, escapes: &mut Vec<Escape>) -> Result<()> {
        self.first.push(self.at as u32);
        self.first.extend(tile.starts.iter().map(|start| self.at as u32 + start));
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

    fn finish(self) -> Result<Shard> {
        let first = words(self.engine, &self.what, &self.first)?;
        Ok(Shard { words: self.words, first })
    }
}

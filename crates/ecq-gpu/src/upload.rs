//! Buffers: made with every failure reported, and filled tile by tile.

use wgpu::{Buffer, BufferUsages};

use crate::engine::{Engine, refused};
use crate::error::{Error, Result};
use crate::host::Sink;
use crate::plan::Part;

/// Bytes that are given to the queue before it must send them on.
const STAGED: u64 = 64 << 20;

/// Makes a buffer of at least four bytes. Errors: [`Error::Limit`], [`Error::OutOfMemory`],
/// [`Error::Wgpu`].
pub fn buffer(engine: &Engine, what: &str, size: u64, usage: BufferUsages) -> Result<Buffer> {
    let size = size.max(4);
    let (limit, name) = engine.planned().most_bytes();
    if size > limit {
        return Err(Error::Limit { what: what.into(), unit: "bytes in a buffer", needs: size, limit, name });
    }
    let descriptor = wgpu::BufferDescriptor {
        label: Some(what),
        size,
        usage: usage | BufferUsages::COPY_DST,
        mapped_at_creation: false,
    };
    let what = || what.to_owned();
    match refused(engine.device(), || engine.device().create_buffer(&descriptor)) {
        (buffer, None) => Ok(buffer),
        (_, Some(wgpu::Error::OutOfMemory { .. })) => {
            Err(Error::OutOfMemory { what: what(), bytes: Some(size) })
        }
        (_, Some(why)) => Err(Error::Wgpu { what: what(), why: why.to_string() }),
    }
}

/// A storage buffer of words. Errors as for [`buffer`].
pub fn words(engine: &Engine, what: &str, words: &[u32]) -> Result<Buffer> {
    let made = buffer(engine, what, 4 * words.len() as u64, BufferUsages::STORAGE)?;
    engine.queue().write_buffer(&made, 0, bytemuck::cast_slice(words));
    Ok(made)
}

/// Words of a part on their way to a buffer. What is sent goes through staging of 64 MiB.
pub struct Sender<'a> {
    engine: &'a Engine,
    buffer: Buffer,
    /// Words so far.
    at: u64,
    /// Bytes that the queue holds.
    staged: u64,
}

impl<'a> Sender<'a> {
    /// Makes the buffer. Errors as for [`buffer`].
    pub fn new(engine: &'a Engine, what: &str, part: &Part) -> Result<Self> {
        let buffer = buffer(engine, what, 4 * part.words, BufferUsages::STORAGE)?;
        Ok(Self { engine, buffer, at: 0, staged: 0 })
    }

    /// The buffer.
    pub fn finish(self) -> Buffer {
        self.buffer
    }
}

impl Sink for Sender<'_> {
    /// Error: [`Error::Lost`].
    fn take(&mut self, words: &[u32]) -> Result<()> {
        self.engine.queue().write_buffer(&self.buffer, 4 * self.at, bytemuck::cast_slice(words));
        self.at += words.len() as u64;
        self.staged += 4 * words.len() as u64;
        if self.staged > STAGED {
            self.staged = 0;
            self.engine.queue().submit([]);
            self.engine.wait()?;
        }
        Ok(())
    }
}

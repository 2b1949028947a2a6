//! How long commands take on a device.

use std::time::Instant;

use wgpu::{Buffer, BufferUsages, CommandEncoder, Features, QuerySet, QuerySetDescriptor, QueryType};

use crate::engine::{Engine, read};
use crate::error::{Error, Result};
use crate::upload::buffer;

/// Measures how long commands take: by timestamps of the device where it has sound ones, else by the clock of the CPU around
/// a submission, whose own cost several repetitions make small.
pub struct Clock {
    engine: Engine,
    timestamps: Option<Timestamps>,
}

struct Timestamps {
    set: QuerySet,
    resolved: Buffer,
}

impl Clock {
    /// Tries the device's timestamps with a small copy: some drivers have the feature and write zeros.
    ///
    /// Errors: [`Error::Lost`], [`Error::Wgpu`], [`Error::OutOfMemory`].
    pub fn new(engine: &Engine) -> Result<Self> {
        let mut clock = Self { engine: engine.clone(), timestamps: None };
        let wanted = Features::TIMESTAMP_QUERY | Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
        if !engine.device().features().contains(wanted) {
            return Ok(clock);
        }
        let descriptor = QuerySetDescriptor { label: Some("ecq clock"), ty: QueryType::Timestamp, count: 2 };
        let set = engine.device().create_query_set(&descriptor);
        let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
        clock.timestamps = Some(Timestamps { set, resolved: buffer(engine, "timestamps", 16, usage)? });
        let make = || buffer(engine, "a copy", 1 << 22, BufferUsages::COPY_SRC);
        let buffers = [make()?, make()?];
        let begun = Instant::now();
        let taken = clock.time::<Error>(|encoder| {
            encoder.copy_buffer_to_buffer(&buffers[0], 0, &buffers[1], 0, None);
            Ok(())
        })?;
        if !(taken > 0.0 && taken <= begun.elapsed().as_secs_f64()) {
            clock.timestamps = None;
        }
        Ok(clock)
    }

    /// Whether times are those of the device's own clock.
    pub fn has_timestamps(&self) -> bool {
        self.timestamps.is_some()
    }

    /// Submits what `record` records, waits for it, and returns how many seconds it took. Errors: those of `record`,
    /// [`Error::Lost`], [`Error::Wgpu`].
    pub fn time<E: From<Error>>(
        &self,
        record: impl FnOnce(&mut CommandEncoder) -> std::result::Result<(), E>,
    ) -> std::result::Result<f64, E> {
        let (device, queue) = (self.engine.device(), self.engine.queue());
        let mut encoder = device.create_command_encoder(&Default::default());
        if let Some(timestamps) = &self.timestamps {
            encoder.write_timestamp(&timestamps.set, 0);
        }
        record(&mut encoder)?;
        if let Some(timestamps) = &self.timestamps {
            encoder.write_timestamp(&timestamps.set, 1);
            encoder.resolve_query_set(&timestamps.set, 0..2, &timestamps.resolved, 0);
        }
        let commands = encoder.finish();
        self.engine.wait()?;
        let start = Instant::now();
        queue.submit([commands]);
        self.engine.wait()?;
        let wall = start.elapsed().as_secs_f64();
        let Some(timestamps) = &self.timestamps else { return Ok(wall) };
        let words = read(device, queue, &timestamps.resolved, 16)?;
        let at = |i: usize| u64::from(words[i + 1]) << 32 | u64::from(words[i]);
        Ok(at(2).wrapping_sub(at(0)) as f64 * f64::from(queue.get_timestamp_period()) * 1e-9)
    }
}

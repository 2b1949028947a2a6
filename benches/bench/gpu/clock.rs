//! Time that a device takes, and how fast it copies.

use std::time::Instant;

use anyhow::{Context, Result};
use ecq_gpu::engine::read;
use ecq_gpu::wgpu::{
    Buffer, BufferUsages, CommandEncoder, Features, PollType, QuerySet, QuerySetDescriptor, QueryType,
};
use ecq_gpu::{Engine, upload};

use crate::timing::median;

/// Measures how long commands take.
pub struct Clock<'a> {
    engine: &'a Engine,
    timestamps: Option<Timestamps>,
}

struct Timestamps {
    set: QuerySet,
    resolved: Buffer,
}

impl<'a> Clock<'a> {
    /// With timestamps around the commands if the device has them and they are sound.
    pub fn new(engine: &'a Engine) -> Result<Self> {
        let wanted = Features::TIMESTAMP_QUERY | Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
        let mut clock = Self { engine, timestamps: None };
        if engine.device().features().contains(wanted) {
            let ty = QueryType::Timestamp;
            let descriptor = QuerySetDescriptor { label: Some("clock"), ty, count: 2 };
            let set = engine.device().create_query_set(&descriptor);
            let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
            let resolved = upload::buffer(engine, "timestamps", 16, usage)?;
            clock.timestamps = Some(Timestamps { set, resolved });
            // some drivers have the feature and write zeros
            let buffers = [buffer(engine, 1 << 22)?, buffer(engine, 1 << 22)?];
            let begun = Instant::now();
            let taken = clock.time(|encoder| {
                encoder.copy_buffer_to_buffer(&buffers[0], 0, &buffers[1], 0, None);
                Ok(())
            })?;
            if !(taken > 0.0 && taken <= begun.elapsed().as_secs_f64()) {
                clock.timestamps = None;
            }
        }
        Ok(clock)
    }

    /// What the times are.
    pub fn kind(&self) -> &'static str {
        match self.timestamps {
            Some(_) => "timestamps of the device before and after all repetitions",
            None => "wall time of a submission with all repetitions (no usable timestamps)",
        }
    }

    /// Seconds that the device takes for what `record` records.
    pub fn time(&self, record: impl FnOnce(&mut CommandEncoder) -> Result<()>) -> Result<f64> {
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
        device.poll(PollType::wait_indefinitely()).context("waiting for the device")?;
        let start = Instant::now();
        queue.submit([commands]);
        device.poll(PollType::wait_indefinitely()).context("waiting for the device")?;
        let wall = start.elapsed().as_secs_f64();
        let Some(timestamps) = &self.timestamps else { return Ok(wall) };
        let words = read(device, queue, &timestamps.resolved, 16)?;
        let at = |i: usize| u64::from(words[i + 1]) << 32 | u64::from(words[i]);
        Ok(at(2).wrapping_sub(at(0)) as f64 * f64::from(queue.get_timestamp_period()) * 1e-9)
    }
}

/// A buffer to copy to and from.
fn buffer(engine: &Engine, size: u64) -> ecq_gpu::Result<Buffer> {
    upload::buffer(engine, "copies", size, BufferUsages::COPY_SRC)
}

/// How often a thing is repeated so that it takes about `target` seconds. `time` is told how often.
pub fn repetitions(target: f64, mut time: impl FnMut(usize) -> Result<f64>) -> Result<usize> {
    let mut times = 1;
    loop {
        let taken = time(times)?;
        if taken >= target / 2.0 || times >= 1 << 14 {
            return Ok(times);
        }
        // clocks go up while this goes on, so it goes on by steps
        times = (times as f64 * (target / taken.max(1e-9)).clamp(2.0, 8.0)) as usize;
    }
}

/// Bytes a second that the device reads and writes while it copies large buffers of noise, `size` bytes each, in turns.
pub fn copy_bandwidth(clock: &Clock<'_>, size: u64, target: f64) -> Result<f64> {
    let engine = clock.engine;
    let buffers = (0..4).map(|_| buffer(engine, size)).collect::<ecq_gpu::Result<Vec<_>>>()?;
    // noise: zeros may be compressed on their way to memory
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let noise: Vec<u64> = (0..(size / 8).min(1 << 20))
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        })
        .collect();
    let piece = buffer(engine, 8 * noise.len() as u64)?;
    engine.queue().write_buffer(&piece, 0, bytemuck::cast_slice(&noise));
    clock.time(|encoder| {
        for buffer in &buffers {
            for at in (0..size).step_by(piece.size() as usize) {
                encoder.copy_buffer_to_buffer(&piece, 0, buffer, at, piece.size().min(size - at));
            }
        }
        Ok(())
    })?;
    let mut turn = 0;
    let mut copies = |times: usize| {
        clock.time(|encoder| {
            for _ in 0..times {
                encoder.copy_buffer_to_buffer(&buffers[turn % 4], 0, &buffers[(turn + 1) % 4], 0, None);
                turn += 1;
            }
            Ok(())
        })
    };
    let times = repetitions(target, &mut copies)?;
    let rounds = (0..9).map(|_| copies(times)).collect::<Result<Vec<_>>>()?;
    Ok((2 * size * times as u64) as f64 / median(rounds))
}

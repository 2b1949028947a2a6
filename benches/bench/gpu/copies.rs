//! How fast a device copies, and how often a thing is repeated to be timed.

use anyhow::Result;
use ecq_gpu::wgpu::{Buffer, BufferUsages};
use ecq_gpu::{Clock, Engine, upload};

use crate::timing::median;

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
pub fn copy_bandwidth(engine: &Engine, clock: &Clock, size: u64, target: f64) -> Result<f64> {
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
    clock.time(|encoder| -> Result<()> {
        for buffer in &buffers {
            for at in (0..size).step_by(piece.size() as usize) {
                encoder.copy_buffer_to_buffer(&piece, 0, buffer, at, piece.size().min(size - at));
            }
        }
        Ok(())
    })?;
    let mut turn = 0;
    let mut copies = |times: usize| {
        clock.time(|encoder| -> Result<()> {
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

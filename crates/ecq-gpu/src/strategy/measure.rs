//! How long products take on the device, from coded weights and from packed ones.

use wgpu::{BufferUsages, CommandEncoder};

use super::choice::Measured;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::layout::Shape;
use crate::matrix::{Matrix, Packed};
use crate::upload::buffer;
use crate::variant::Form;

/// Times that are measured, of which the median counts.
const RUNS: usize = 5;
/// Seconds that a submission must take at least, that its own cost does not matter.
const LEAST: f64 = 2e-3;
/// Most products in a submission.
const MOST: u32 = 64;

/// Measures matrices, those of the same shape and form but once. What finds no memory to be packed, or no kernel, gains
/// nothing by it.
/// Errors: [`Error::Lost`], [`Error::Shader`], [`Error::OutOfMemory`] for vectors.
pub fn all<'a>(engine: &Engine, matrices: impl Iterator<Item = &'a Matrix>) -> Result<Vec<Measured>> {
    let clock = Clock::new(engine)?;
    let mut known: Vec<(Shape, Form, Measured)> = Vec::new();
    let mut all = Vec::new();
    for matrix in matrices {
        let (shape, form, bytes) = (*matrix.shape(), *matrix.form(), matrix.packed_sizes().iter().sum());
        let found = known.iter().find(|(s, f, m)| (*s, *f, m.bytes) == (shape, form, bytes));
        let measured = match found {
            Some((_, _, measured)) => *measured,
            None => {
                let measured = one(engine, &clock, matrix, bytes)?;
                known.push((shape, form, measured));
                measured
            }
        };
        all.push(measured);
    }
    Ok(all)
}

fn one(engine: &Engine, clock: &Clock, matrix: &Matrix, bytes: u64) -> Result<Measured> {
    match both(engine, clock, matrix, bytes) {
        Err(Error::OutOfMemory { .. } | Error::Limit { .. }) => {
            Ok(Measured { fused: 0.0, plain: 0.0, bytes })
        }
        measured => measured,
    }
}

fn both(engine: &Engine, clock: &Clock, matrix: &Matrix, bytes: u64) -> Result<Measured> {
    let packed = Packed::new(engine, matrix)?;
    let vector = |n: usize| buffer(engine, "a vector", 4 * n as u64, BufferUsages::STORAGE);
    let (x, y) = (vector(matrix.cols())?, vector(matrix.rows())?);
    let mut encoder = engine.device().create_command_encoder(&Default::default());
    packed.decode(engine, &mut encoder, matrix)?;
    engine.queue().submit([encoder.finish()]);
    let fused = time(clock, |encoder| matrix.record(engine, encoder, x.slice(..), y.slice(..)))?;
    let plain = time(clock, |encoder| packed.record(engine, encoder, matrix, x.slice(..), y.slice(..)))?;
    Ok(Measured { fused, plain, bytes })
}

/// Seconds of what is recorded. The first submissions warm up, and find how many times it is recorded in one.
fn time(clock: &Clock, record: impl Fn(&mut CommandEncoder) -> Result<()>) -> Result<f64> {
    let run = |count: u32| clock.time(|encoder| (0..count).try_for_each(|_| record(encoder)));
    run(1)?;
    let mut count = 1;
    while count < MOST && run(count)? < LEAST {
        count *= 2;
    }
    let mut times = (0..RUNS).map(|_| run(count)).collect::<Result<Vec<_>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[RUNS / 2] / f64::from(count))
}

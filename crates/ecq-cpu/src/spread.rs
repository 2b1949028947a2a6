//! Rows of a product over threads.

use rayon::prelude::*;

/// Who computes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The caller's thread.
    One,
    /// Rayon's current pool.
    Pool,
}

/// Calls `task(i, out)` for each piece of `height` rows of y, where `out` has a number for each vector in each row.
/// `y` is the vectors of the product, one after another.
pub(crate) fn spread<E: Send>(
    threads: Threads,
    height: usize,
    vectors: usize,
    y: &mut [f32],
    task: impl Fn(usize, &mut [f32]) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let run = |out: &mut [f32]| match threads {
        Threads::One => out.chunks_mut(height * vectors).enumerate().try_for_each(|(i, out)| task(i, out)),
        Threads::Pool => {
            out.par_chunks_mut(height * vectors).enumerate().try_for_each(|(i, out)| task(i, out))
        }
    };
    if vectors == 1 {
        return run(y);
    }
    let mut by_row = vec![0.0; y.len()];
    run(&mut by_row)?;
    for (vector, y) in y.chunks_exact_mut(by_row.len() / vectors).enumerate() {
        y.iter_mut().zip(by_row[vector..].iter().step_by(vectors)).for_each(|(y, &v)| *y = v);
    }
    Ok(())
}

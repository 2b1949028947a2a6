//! Rows of products over threads.

use std::sync::{Mutex, PoisonError};

use crate::team;

/// Who computes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The caller's thread.
    One,
    /// The caller's team, or rayon's current pool.
    Pool,
}

/// Computes a piece: its number, and for each vector the piece's numbers of y.
pub(crate) type Task<'a, E> = dyn Fn(usize, &mut [&mut [f32]]) -> Result<(), E> + Sync + 'a;

/// A product in pieces of rows.
pub(crate) struct Work<'a, E> {
    /// Rows of a piece.
    pub height: usize,
    /// How many vectors lie in y, one after another.
    pub vectors: usize,
    pub y: &'a mut [f32],
    pub task: Box<Task<'a, E>>,
}

/// Computes all pieces of some products. The error is that of the first piece that has one.
pub(crate) fn spread<E: Send>(threads: Threads, work: Vec<Work<'_, E>>) -> Result<(), E> {
    let (mut pieces, mut tasks) = (Vec::new(), Vec::new());
    for Work { height, vectors, y, task } in work {
        let first = pieces.len();
        let rows = y.len() / vectors;
        for (vector, y) in y.chunks_mut(rows).enumerate() {
            for (i, part) in y.chunks_mut(height).enumerate() {
                if vector == 0 {
                    pieces.push((tasks.len(), i, Vec::with_capacity(vectors)));
                }
                pieces[first + i].2.push(part);
            }
        }
        tasks.push(task);
    }
    if threads == Threads::One {
        return pieces.into_iter().try_for_each(|(task, i, mut parts)| tasks[task](i, &mut parts));
    }
    let failed = Mutex::new(None);
    let pieces: Vec<_> = pieces.into_iter().map(|piece| Mutex::new(Some(piece))).collect();
    team::for_each(pieces.len(), |n| {
        // each piece is taken once
        let piece = pieces[n].lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((task, i, mut parts)) = piece else { return };
        if let Err(error) = tasks[task](i, &mut parts) {
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            if failed.as_ref().is_none_or(|(first, _)| n < *first) {
                *failed = Some((n, error));
            }
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

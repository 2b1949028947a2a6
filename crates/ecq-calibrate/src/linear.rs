//! Products of dense matrices in f32, row by row in memory, on one thread: callers work on several texts at once.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// A row-major matrix.
pub fn view(data: &[f32], cols: usize) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice(data, data.len() / cols.max(1), cols)
}

/// A row-major matrix to write to.
pub fn view_mut(data: &mut [f32], cols: usize) -> MatMut<'_, f32> {
    let rows = data.len() / cols.max(1);
    MatMut::from_row_major_slice_mut(data, rows, cols)
}

/// `out = a b`.
pub fn product(out: MatMut<'_, f32>, a: MatRef<'_, f32>, b: MatRef<'_, f32>) {
    matmul(out, Accum::Replace, a, b, 1.0, Par::Seq);
}

/// `out += factor a b`.
pub fn add_product(out: MatMut<'_, f32>, factor: f32, a: MatRef<'_, f32>, b: MatRef<'_, f32>) {
    matmul(out, Accum::Add, a, b, factor, Par::Seq);
}

/// A layer `y = W x + b`; vectors are rows.
pub struct Linear {
    /// Rows of weights: one an output.
    pub weights: Vec<f32>,
    /// Number of inputs.
    pub inputs: usize,
    /// Number of outputs.
    pub outputs: usize,
    /// What is added to the outputs.
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// Outputs of vectors.
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; x.len() / self.inputs * self.outputs];
        product(
            view_mut(&mut y, self.outputs),
            view(x, self.inputs),
            view(&self.weights, self.inputs).transpose(),
        );
        if let Some(bias) = &self.bias {
            y.chunks_exact_mut(bias.len()).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
        y
    }

    /// Adds to the gradient of the inputs what that of the outputs is worth there.
    pub fn backward(&self, dy: &[f32], dx: &mut [f32]) {
        add_product(view_mut(dx, self.inputs), 1.0, view(dy, self.outputs), view(&self.weights, self.inputs));
    }
}

//! What a decoder computes beside its products with weights, in f32.

/// Numbers that are summed side by side.
const LANES: usize = 16;

/// Sum of products, in an order that depends on the length alone.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.0.iter().zip(b.0) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f32 = a.1.iter().zip(b.1).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// `out = x / sqrt(mean of squares + epsilon) * weight`, for each vector of `x`.
pub fn norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        let scale = 1.0 / (dot(x, x) / weight.len() as f32 + epsilon).sqrt();
        out.iter_mut().zip(x).zip(weight).for_each(|((out, x), w)| *out = x * scale * w);
    }
}

/// `gate = silu(gate) * up`.
pub fn gate(gate: &mut [f32], up: &[f32]) {
    gate.iter_mut().zip(up).for_each(|(g, u)| *g = *g / (1.0 + (-*g).exp()) * u);
}

/// `x += y`.
pub fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Turns numbers into their exponentials, which sum to 1.
pub fn softmax(x: &mut [f32]) {
    let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in x.iter_mut() {
        *x = (*x - most).exp();
        sum += *x;
    }
    x.iter_mut().for_each(|x| *x /= sum);
}

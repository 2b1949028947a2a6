//! What a decoder computes beside its products with weights, in f32: plain loops, compiled for several instruction sets.

use multiversion::multiversion;

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
#[multiversion(targets = "simd")]
pub fn gate(gate: &mut [f32], up: &[f32]) {
    gate.iter_mut().zip(up).for_each(|(g, u)| *g = *g / (1.0 + exp(-*g)) * u);
}

/// e^x to 2 units in the last place, without a branch: `f32::exp` is a call for each number. Below -87 it is about 1e-38
/// instead of less, above 88 about 1e38.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// 1.5 * 2^23: added to a small number, it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, of which the first times n is exact
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut sum = 1.987_569_1e-4;
    for factor in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        sum = sum * r + factor;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    (sum * r * r + r + 1.0) * power
}

/// Positions whose keys lie side by side.
pub const SIDE: usize = 16;

/// `scale` times the dot product of a query with each key, in groups of [`SIDE`].
#[multiversion(targets = "simd")]
pub fn scores(query: &[f32], keys: &[f32], scale: f32, out: &mut [f32]) {
    for (keys, out) in keys.chunks_exact(SIDE * query.len()).zip(out.as_chunks_mut::<SIDE>().0) {
        let mut sums = [0.0; SIDE];
        for (keys, q) in keys.as_chunks::<SIDE>().0.iter().zip(query) {
            for i in 0..SIDE {
                sums[i] += keys[i] * q;
            }
        }
        *out = sums.map(|sum| sum * scale);
    }
}

/// `out` = the sum of weights times values, each as long as `out`.
#[multiversion(targets = "simd")]
pub fn mix(weights: &[f32], values: &[f32], out: &mut [f32]) {
    let len = out.len();
    out.fill(0.0);
    let (fours, rest) = weights.as_chunks::<4>();
    for (w, values) in fours.iter().zip(values.chunks_exact(4 * len)) {
        let (a, b) = values.split_at(2 * len);
        let ((a, b), (c, d)) = (a.split_at(len), b.split_at(len));
        for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *out += w[0] * a + w[1] * b + (w[2] * c + w[3] * d);
        }
    }
    let values = values[4 * fours.len() * len..].chunks_exact(len);
    for (w, values) in rest.iter().zip(values) {
        out.iter_mut().zip(values).for_each(|(out, v)| *out += w * v);
    }
}

/// `x += y`.
pub fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Turns numbers into their exponentials, which sum to 1.
#[multiversion(targets = "simd")]
pub fn softmax(x: &mut [f32]) {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        most.iter_mut().zip(block).for_each(|(most, &x)| *most = if x > *most { x } else { *most });
    }
    let most = most.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    x.iter_mut().for_each(|x| *x = exp(*x - most));
    let sum = sum(x);
    x.iter_mut().for_each(|x| *x /= sum);
}

/// The sum, in an order that depends on the length alone.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for block in blocks {
        sums.iter_mut().zip(block).for_each(|(sum, x)| *sum += x);
    }
    sums.iter().chain(rest).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_those_of_the_standard_library() {
        for i in -86_999..88_000 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() < 2.5e-7 * exact, "{x}");
        }
        assert!(exp(f32::NAN).is_nan() && exp(f32::NEG_INFINITY) < 1e-37 && exp(0.0) == 1.0);
    }

    #[test]
    fn values_are_mixed_by_scores_of_keys() {
        let (count, len) = (22, 6);
        let number = |i: usize| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0;
        let all: Vec<f32> = (0..count * len).map(number).collect();
        let query: Vec<f32> = (0..len).map(|i| number(i + 1000)).collect();
        let mut keys = vec![0.0; 2 * SIDE * len];
        for (at, number) in all.iter().enumerate() {
            let (position, i) = (at / len, at % len);
            keys[position / SIDE * SIDE * len + i * SIDE + position % SIDE] = *number;
        }
        let mut found = vec![0.0; 2 * SIDE];
        scores(&query, &keys, 0.5, &mut found);
        let exact = |p: usize| (0..len).map(|i| f64::from(all[p * len + i] * query[i])).sum::<f64>() * 0.5;
        for (p, found) in found[..count].iter().enumerate() {
            assert!((f64::from(*found) - exact(p)).abs() < 1e-6);
        }
        let mut out = vec![9.0; len];
        mix(&found[..count], &all, &mut out);
        for (i, out) in out.iter().enumerate() {
            let exact: f64 = (0..count).map(|p| exact(p) * f64::from(all[p * len + i])).sum();
            assert!((f64::from(*out) - exact).abs() < 1e-5);
        }
    }
}

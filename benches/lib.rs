//! Shared inputs of the benchmarks.

pub mod ggml;
pub mod quality;
pub mod tensor;

/// Seeded normal deviates.
pub fn gaussian(n: usize) -> Vec<f64> {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut uniform = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut gauss = || (-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    (0..n).map(|_| gauss()).collect()
}

/// Seeded deviates of Student's t distribution with 5 degrees of freedom: tails as heavy as those of weights.
pub fn student(n: usize) -> Vec<f32> {
    let of = |g: &[f64]| (g[0] / (g[1..].iter().map(|v| v * v).sum::<f64>() / 5.0).sqrt()) as f32;
    gaussian(6 * n).chunks_exact(6).map(of).collect()
}

/// Gaussian weights in groups of 32, quantized to absmax int4 (levels 1..=15), seeded.
pub fn gaussian_nibbles(n: usize) -> Vec<u8> {
    let group = |g: &[f64]| {
        let step = g.iter().fold(0f64, |a, w| a.max(w.abs())) / 7.0;
        g.iter().map(|w| ((w / step).round() + 8.0) as u8).collect::<Vec<_>>()
    };
    gaussian(n).chunks(32).flat_map(group).collect()
}

/// Gaussian weights of variance 1 on multiples of `step`, clamped to 16 levels, seeded.
pub fn uniform_nibbles(n: usize, step: f64) -> Vec<u8> {
    gaussian(n).iter().map(|w| ((w / step).round() + 8.0).clamp(0.0, 15.0) as u8).collect()
}

/// Order-0 entropy in bits a symbol.
pub fn entropy(symbols: &[u8]) -> f64 {
    let mut counts = [0u64; 256];
    symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
    let total = symbols.len() as f64;
    counts.iter().filter(|&&c| c > 0).map(|&c| c as f64 / total * (total / c as f64).log2()).sum()
}

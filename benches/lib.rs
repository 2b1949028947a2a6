//! Shared inputs of the benchmarks.

pub mod ggml;
pub mod tensor;

/// Gaussian weights in groups of 32, quantized to absmax int4 (levels 1..=15), seeded.
pub fn gaussian_nibbles(n: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut uniform = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut gauss = || (-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    let weights: Vec<f64> = (0..n).map(|_| gauss()).collect();
    let group = |g: &[f64]| {
        let step = g.iter().fold(0f64, |a, w| a.max(w.abs())) / 7.0;
        g.iter().map(|w| ((w / step).round() + 8.0) as u8).collect::<Vec<_>>()
    };
    weights.chunks(32).flat_map(group).collect()
}

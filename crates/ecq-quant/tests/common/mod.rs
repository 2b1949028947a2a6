//! Seeded weights.
#![allow(dead_code)] // each suite uses some of it

/// A linear congruential generator.
pub struct Lcg(pub u64);

impl Lcg {
    /// Uniform in (0, 1].
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Of variance 1.
    pub fn gaussian(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Of variance 2.
    pub fn laplace(&mut self) -> f64 {
        self.uniform().ln() - self.uniform().ln()
    }

    /// Student's t of 5 degrees of freedom: heavy tails, as weights have.
    pub fn student(&mut self) -> f64 {
        let square: f64 = (0..5).map(|_| self.gaussian().powi(2)).sum();
        self.gaussian() / (square / 5.0).sqrt()
    }
}

/// Weights of a distribution, times 0.02.
pub fn weights(seed: u64, count: usize, mut draw: impl FnMut(&mut Lcg) -> f64) -> Vec<f32> {
    let mut lcg = Lcg(seed);
    (0..count).map(|_| (0.02 * draw(&mut lcg)) as f32).collect()
}

//! Distortion of a quantized tensor against its source. Rate and distortion belong side by side.

use std::ops::Range;

use crate::weights::{Weights, map_pieces};

/// Squared signal, squared error and largest error of some weights; they add up over tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distortion {
    /// Sum of the squared weights.
    pub signal: f64,
    /// Sum of the squared errors.
    pub noise: f64,
    /// Largest absolute error.
    pub max_error: f64,
    /// Number of weights.
    pub weights: u64,
}

impl Distortion {
    /// Signal to quantization noise ratio in dB; infinite where there is no error.
    pub fn sqnr(&self) -> f64 {
        if self.noise == 0.0 { f64::INFINITY } else { 10.0 * (self.signal / self.noise).log10() }
    }

    /// Counts a weight and what became of it. NaN that stays NaN is no error.
    pub fn add(&mut self, weight: f32, back: f32) {
        self.weights += 1;
        if weight.to_bits() == back.to_bits() || (weight.is_nan() && back.is_nan()) {
            let w = f64::from(weight);
            self.signal += if w.is_finite() { w * w } else { 0.0 };
            return;
        }
        let (w, e) = (f64::from(weight), f64::from(weight) - f64::from(back));
        self.signal += w * w;
        self.noise += e * e;
        self.max_error = self.max_error.max(e.abs());
    }

    /// The distortion of both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            signal: self.signal + other.signal,
            noise: self.noise + other.noise,
            max_error: self.max_error.max(other.max_error),
            weights: self.weights + other.weights,
        }
    }

    /// Compares a matrix with what `back(rows, out)` gives for it.
    pub fn of(weights: &dyn Weights, back: impl Fn(Range<usize>, &mut [f32]) + Sync) -> Self {
        let pieces = map_pieces(weights, |rows, w| {
            let mut decoded = vec![0.0; w.len()];
            back(rows, &mut decoded);
            let mut all = Self::default();
            w.iter().zip(&decoded).for_each(|(&w, &b)| all.add(w, b));
            all
        });
        pieces.into_iter().fold(Self::default(), Self::and)
    }

    /// The distortion of a quantized matrix.
    pub fn of_quantized(weights: &dyn Weights, quantized: &crate::quantize::Quantized<'_>) -> Self {
        let dequantizer = quantized.dequantizer();
        Self::of(weights, |rows, out| {
            let mut levels = vec![0; out.len()];
            quantized.levels(rows.clone(), &mut levels);
            dequantizer.fill(rows, &levels, out);
        })
    }
}

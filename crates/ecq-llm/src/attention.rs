//! Attention: keys and values of earlier tokens, rotary embedding, and the weighted sums.

use rayon::prelude::*;

use crate::config::{Config, Rotary};
use crate::math::{dot, softmax};

/// Keys and values, as f32: for each block and head those of all positions, one after another.
pub struct Cache {
    head: usize,
    kv_heads: usize,
    positions: usize,
    len: usize,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

impl Cache {
    pub(crate) fn new(config: &Config, positions: usize) -> Self {
        let Config { head, kv_heads, layers, .. } = *config;
        // memory is touched as positions are filled
        let make = || (0..layers).map(|_| vec![0.0; positions * kv_heads * head]).collect();
        Self { head, kv_heads, positions, len: 0, keys: make(), values: make() }
    }

    /// Bytes of a cache for so many positions.
    pub(crate) fn memory(config: &Config, positions: usize) -> u64 {
        let Config { head, kv_heads, layers, .. } = *config;
        let factors = [positions, head, kv_heads, layers, 2 * size_of::<f32>()];
        factors.into_iter().fold(1, |bytes, n| bytes.saturating_mul(n as u64))
    }

    /// Positions that are filled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Positions that there are.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Forgets all positions from this one on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Puts keys and values of new tokens behind the filled positions, without filling them.
    pub(crate) fn store(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let (head, row) = (self.head, self.head * self.kv_heads);
        for (all, new) in [(&mut self.keys[layer], keys), (&mut self.values[layer], values)] {
            for (i, token) in new.chunks_exact(row).enumerate() {
                for (h, part) in token.chunks_exact(head).enumerate() {
                    all[(h * self.positions + self.len + i) * head..][..head].copy_from_slice(part);
                }
            }
        }
    }

    pub(crate) fn advance(&mut self, count: usize) {
        self.len += count;
    }

    /// Keys and values of a head up to a position.
    fn head(&self, layer: usize, head: usize, end: usize) -> (&[f32], &[f32]) {
        let range = head * self.positions * self.head..(head * self.positions + end) * self.head;
        (&self.keys[layer][range.clone()], &self.values[layer][range])
    }
}

/// Rotary embedding.
pub(crate) struct Rope {
    head: usize,
    rotary: Rotary,
    /// Radians a position, of each pair of numbers.
    frequencies: Vec<f64>,
}

impl Rope {
    pub fn new(config: &Config) -> Self {
        let (head, base) = (config.head, f64::from(config.rope_base));
        let frequencies = (0..head / 2).map(|i| base.powf(-2.0 * i as f64 / head as f64)).collect();
        Self { head, rotary: config.rotary, frequencies }
    }

    /// Cosine and sine of each pair's angle at a position.
    pub fn angles(&self, position: usize) -> impl Iterator<Item = [f32; 2]> {
        self.frequencies.iter().map(move |frequency| {
            let (sin, cos) = (frequency * position as f64).sin_cos();
            [cos as f32, sin as f32]
        })
    }

    /// Turns the heads of tokens that begin at a position.
    pub fn turn(&self, x: &mut [f32], heads: usize, position: usize) {
        let half = self.head / 2;
        for (i, token) in x.chunks_exact_mut(heads * self.head).enumerate() {
            for (pair, [cos, sin]) in self.angles(position + i).enumerate() {
                let (a, b) = match self.rotary {
                    Rotary::Neighbours => (2 * pair, 2 * pair + 1),
                    Rotary::Halves => (pair, pair + half),
                };
                for head in token.chunks_exact_mut(self.head) {
                    (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
                }
            }
        }
    }
}

/// For each new token and head: the values of all positions up to its own, by the softmax of what their keys say.
pub(crate) fn attend(config: &Config, cache: &Cache, layer: usize, query: &[f32], out: &mut [f32]) {
    let Config { heads, kv_heads, head, .. } = *config;
    let scale = 1.0 / (head as f32).sqrt();
    let one = |(at, out): (usize, &mut [f32])| {
        let (token, which) = (at / heads, at % heads);
        let (keys, values) = cache.head(layer, which / (heads / kv_heads), cache.len() + token + 1);
        let query = &query[at * head..][..head];
        let mut weights: Vec<f32> = keys.chunks_exact(head).map(|key| dot(query, key) * scale).collect();
        softmax(&mut weights);
        out.fill(0.0);
        for (value, weight) in values.chunks_exact(head).zip(weights) {
            out.iter_mut().zip(value).for_each(|(out, v)| *out += weight * v);
        }
    };
    // a token alone is less work than waking threads, but for long contexts
    if rayon::current_num_threads() == 1 || query.len() / head * cache.len() < 1 << 13 {
        out.chunks_exact_mut(head).enumerate().for_each(one);
    } else {
        out.par_chunks_exact_mut(head).enumerate().for_each(one);
    }
}

//! Attention: keys and values of earlier tokens, rotary embedding, and the weighted sums.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ecq_cpu::team;
use ecq_format::Reader;

use crate::config::{Config, Rotary};
use crate::error::{Error, Result};
use crate::math::{SIDE, mix, scores, softmax};
use crate::names::ROPE_DIVISORS;
use crate::weights::{has, vector};

/// Keys and values, as f32, of each block. Of each head the values of all positions lie one after another; keys lie in groups of
/// [`SIDE`] positions, in which each number of all of them comes before the next: they are multiplied side by side.
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
        let room = positions.next_multiple_of(SIDE);
        let make = || (0..layers).map(|_| vec![0.0; room * kv_heads * head]).collect();
        Self { head, kv_heads, positions, len: 0, keys: make(), values: make() }
    }

    /// Bytes of a cache for so many positions.
    pub(crate) fn memory(config: &Config, positions: usize) -> u64 {
        let Config { head, kv_heads, layers, .. } = *config;
        let factors = [positions.next_multiple_of(SIDE), head, kv_heads, layers, 2 * size_of::<f32>()];
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
        let (head, row, room) = (self.head, self.head * self.kv_heads, self.room());
        for (i, token) in values.chunks_exact(row).enumerate() {
            for (h, part) in token.chunks_exact(head).enumerate() {
                self.values[layer][(h * room + self.len + i) * head..][..head].copy_from_slice(part);
            }
        }
        for (i, token) in keys.chunks_exact(row).enumerate() {
            let (group, place) = ((self.len + i) / SIDE, (self.len + i) % SIDE);
            for (h, part) in token.chunks_exact(head).enumerate() {
                let group = &mut self.keys[layer][(h * room + group * SIDE) * head..][..SIDE * head];
                group[place..].iter_mut().step_by(SIDE).zip(part).for_each(|(to, key)| *to = *key);
            }
        }
    }

    /// Positions that memory is for.
    fn room(&self) -> usize {
        self.positions.next_multiple_of(SIDE)
    }

    pub(crate) fn advance(&mut self, count: usize) {
        self.len += count;
    }

    /// Keys and values of a head up to a position; keys in whole groups.
    fn head(&self, layer: usize, head: usize, end: usize) -> (&[f32], &[f32]) {
        let first = head * self.room() * self.head;
        let keys = &self.keys[layer][first..][..end.next_multiple_of(SIDE) * self.head];
        (keys, &self.values[layer][first..][..end * self.head])
    }
}

/// Rotary embedding.
pub struct Rope {
    head: usize,
    rotary: Rotary,
    /// Radians a position, of each pair of numbers.
    frequencies: Vec<f64>,
}

impl Rope {
    /// Of a model in a file. Errors: [`Error::Format`], [`Error::Model`].
    pub fn load(reader: &Reader, config: &Config) -> Result<Self> {
        let divisors = match has(reader, ROPE_DIVISORS) {
            true => Some(vector(reader, ROPE_DIVISORS, config.head / 2)?),
            false => None,
        };
        Self::new(reader.path(), config, divisors)
    }

    /// Of a model whose frequencies are divided by these numbers, one for each pair of a head. Error: [`Error::Model`].
    pub(crate) fn new(path: &Path, config: &Config, divisors: Option<Vec<f32>>) -> Result<Self> {
        let (head, base) = (config.head, f64::from(config.rope_base));
        if let Some(wrong) = divisors.iter().flatten().find(|divisor| !(1e-6..1e6).contains(*divisor)) {
            return Err(Error::Model {
                path: path.into(),
                what: format!("tensor {ROPE_DIVISORS}"),
                expected: "numbers from 1e-6 to 1e6, by which frequencies are divided".into(),
                got: wrong.to_string(),
            });
        }
        let frequency = |i: usize| {
            let frequency = base.powf(-2.0 * i as f64 / head as f64);
            let own = divisors.as_ref().map(|all| f64::from(all[i]));
            frequency / own.or(config.rope_scaling.map(|scaling| scaling.divisor(frequency))).unwrap_or(1.0)
        };
        Ok(Self { head, rotary: config.rotary, frequencies: (0..head / 2).map(frequency).collect() })
    }

    /// Cosine and sine of each pair's angle at a position.
    pub fn angles(&self, position: usize) -> impl Iterator<Item = [f32; 2]> {
        self.frequencies.iter().map(move |frequency| {
            let (sin, cos) = (frequency * position as f64).sin_cos();
            [cos as f32, sin as f32]
        })
    }

    /// Adds the same for tokens from a position on.
    pub fn turns(&self, position: usize, count: usize, out: &mut Vec<[f32; 2]>) {
        out.extend((position..position + count).flat_map(|position| self.angles(position)));
    }

    /// Turns the heads of tokens, which have `heads` heads each; with negative sines, back.
    pub fn turn(&self, x: &mut [f32], heads: usize, turns: &[[f32; 2]]) {
        let half = self.head / 2;
        for (token, turns) in x.chunks_exact_mut(heads * self.head).zip(turns.chunks_exact(half)) {
            for head in token.chunks_exact_mut(self.head) {
                match self.rotary {
                    Rotary::Neighbours => {
                        for (pair, [cos, sin]) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
                            let [a, b] = *pair;
                            *pair = [a * cos - b * sin, a * sin + b * cos];
                        }
                    }
                    Rotary::Halves => {
                        let (first, second) = head.split_at_mut(half);
                        for ((a, b), [cos, sin]) in first.iter_mut().zip(second).zip(turns) {
                            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                        }
                    }
                }
            }
        }
    }
}

/// For each token and head: the values of all positions up to its own, by the softmax of what their keys say. Of each token there is
/// the cache of its sequence, and how many positions of that it sees.
pub(crate) fn attend(
    config: &Config,
    tokens: &[(&Cache, usize)],
    layer: usize,
    query: &[f32],
    out: &mut [f32],
) {
    let Config { heads, kv_heads, head, .. } = *config;
    let scale = 1.0 / (head as f32).sqrt();
    let one = |at: usize, out: &mut [f32]| {
        let (which, (cache, end)) = (at % heads, tokens[at / heads]);
        let (keys, values) = cache.head(layer, which / (heads / kv_heads), end);
        let mut weights = vec![0.0; end.next_multiple_of(SIDE)];
        scores(&query[at * head..][..head], keys, scale, &mut weights);
        weights.truncate(end);
        softmax(&mut weights);
        mix(&weights, values, out);
    };
    // less work than it takes to hand it to others
    if heads * head * tokens.iter().map(|(_, end)| end).sum::<usize>() < 1 << 16 {
        return out.chunks_exact_mut(head).enumerate().for_each(|(at, out)| one(at, out));
    }
    let parts: Vec<_> = out.chunks_exact_mut(head).map(Mutex::new).collect();
    team::for_each(parts.len(), |at| {
        // each part is taken once
        let mut part = parts[at].lock().unwrap_or_else(PoisonError::into_inner);
        one(at, &mut part);
    });
}

//! Logits of the same weights, by llama.cpp and by ecq.

use std::path::Path;

use anyhow::{Result, ensure};
use ecq_llm::{Device, Model, Options, Precision, most_likely};
use serde::Serialize;

/// How near logits are to those of llama.cpp with the same weights as f32, which it multiplies with f32 vectors.
#[derive(Clone, Debug, Serialize)]
pub struct Agreement {
    /// Whose logits.
    pub of: String,
    /// Logits that were compared.
    pub positions: usize,
    /// Part of them with the same most likely token.
    pub top_1: f64,
    /// Mean KL divergence, in nats.
    pub kl: f64,
}

/// Of the logits behind each token, one after another.
pub fn agreement(of: &str, exact: &[f32], logits: &[f32], positions: usize) -> Result<Agreement> {
    let size = exact.len() / positions;
    ensure!(exact.len() == logits.len(), "{of}: {} logits, not {}", logits.len(), exact.len());
    let (mut same, mut kl) = (0, 0.0);
    for (exact, logits) in exact.chunks_exact(size).zip(logits.chunks_exact(size)) {
        same += usize::from(most_likely(exact) == most_likely(logits));
        kl += divergence(exact, logits);
    }
    let [top_1, kl] = [f64::from(u32::try_from(same)?), kl].map(|sum| sum / positions as f64);
    Ok(Agreement { of: of.into(), positions, top_1, kl })
}

/// The logits of a model behind each token, one after another.
pub fn logits(file: &Path, tokens: &[u32], precision: Precision) -> Result<Vec<f32>> {
    let model = Model::open(file, Options { device: Device::Cpu, precision, ..Options::default() })?;
    let (mut all, mut cache) = (Vec::new(), model.cache(tokens.len())?);
    model.logits(tokens, &mut cache, |logits| all.extend_from_slice(logits))?;
    Ok(all)
}

/// Of the probabilities of `p` from those of `q`.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let total = |logits: &[f32]| logits.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln();
    let (p_total, q_total) = (total(p), total(q));
    let each = p.iter().zip(q).map(|(&p, &q)| {
        let (p, q) = (f64::from(p) - p_total, f64::from(q) - q_total);
        p.exp() * (p - q)
    });
    each.sum()
}

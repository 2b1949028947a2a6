//! Logits of the same weights, by llama.cpp and by ecq.

use std::path::Path;

use anyhow::{Result, ensure};
use ecq_llm::{Device, Logits, Model, Options, Precision};
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
        let (exact, logits) = (Logits::new(exact), Logits::new(logits));
        same += usize::from(exact.most_likely() == logits.most_likely());
        kl += exact.divergence(&logits);
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

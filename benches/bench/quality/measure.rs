//! Perplexity, KL divergence and agreement, as `ecq perplexity --against` has them, of the base's logits and another model's.

use anyhow::{Result, ensure};
use ecq_benches::quality::{Mean, Measured};
use ecq_convert::source::Source;
use ecq_llm::Logits;
use rayon::prelude::*;

use super::forward::Decoder;

/// Tokens that a model sees together.
pub const CONTEXT: usize = 512;
/// Positions whose logits are held at a time.
const PIECE: usize = 128;

/// A text that models are measured with.
pub struct Text {
    /// What it is called.
    pub name: String,
    /// Windows of at most [`CONTEXT`] tokens.
    windows: Vec<Vec<u32>>,
    /// What the base's logits are computed from, window by window. Those take less room than logits, and an eighth of the time
    /// of a whole pass.
    base: Vec<Vec<f32>>,
}

/// Texts, and the base that models are measured beside.
pub struct Bench<'a> {
    decoder: Decoder<'a>,
    texts: Vec<Text>,
}

impl<'a> Bench<'a> {
    /// Runs the base on texts, each a name and tokens.
    pub fn new(decoder: Decoder<'a>, texts: Vec<(String, Vec<u32>)>) -> Result<Self> {
        let mut all = Vec::new();
        for (name, tokens) in texts {
            // of a single token nothing is foreseen
            let windows = tokens.chunks(CONTEXT).filter(|window| window.len() > 1);
            let windows: Vec<_> = windows.map(<[u32]>::to_vec).collect();
            all.push(Text { name, windows, base: Vec::new() });
        }
        let mut bench = Self { decoder, texts: all };
        let mut last = bench.pass(None)?.into_iter();
        for text in &mut bench.texts {
            text.base = last.by_ref().take(text.windows.len()).collect();
        }
        Ok(bench)
    }

    /// The model.
    pub fn decoder(&self) -> &Decoder<'a> {
        &self.decoder
    }

    /// What logits of all windows of all texts are computed from.
    fn pass(&self, layers: Option<&Source>) -> Result<Vec<Vec<f32>>> {
        let windows = self.texts.iter().flat_map(|text| &text.windows);
        // logits behind the last token say nothing of the window
        let seen: Vec<&[u32]> = windows.map(|window| &window[..window.len() - 1]).collect();
        self.decoder.last(&seen, layers)
    }

    /// Measures the base with linear layers of another source on each text.
    pub fn measure(&self, layers: &Source) -> Result<Vec<Measured>> {
        let mut last = self.pass(Some(layers))?.into_iter();
        let one = |text: &Text| self.compare(text, last.by_ref().take(text.windows.len()).collect());
        self.texts.iter().map(one).collect()
    }

    /// The base beside itself.
    pub fn base(&self) -> Result<Vec<Measured>> {
        self.texts.iter().map(|text| self.compare(text, text.base.clone())).collect()
    }

    fn compare(&self, text: &Text, last: Vec<Vec<f32>>) -> Result<Measured> {
        let piece = PIECE * self.decoder.width();
        let mut pieces = Vec::new();
        for ((window, base), own) in text.windows.iter().zip(&text.base).zip(&last) {
            let vectors = base.chunks(piece).zip(own.chunks(piece));
            pieces.extend(vectors.zip(window[1..].chunks(PIECE)));
        }
        // in order whatever the threads: sums are the same each time
        let found: Vec<_> =
            pieces.par_iter().map(|((base, own), next)| self.positions(base, own, next)).collect();
        let (mut surprise, mut divergence, mut same) = (Mean::default(), Mean::default(), Mean::default());
        for position in found.iter().flatten() {
            surprise.add(position.surprise);
            divergence.add(position.divergence);
            same.add(f64::from(u8::from(position.same)));
        }
        ensure!(
            surprise.mean().is_finite() && divergence.mean().is_finite(),
            "{}: logits are no numbers",
            text.name
        );
        let perplexity = surprise.mean().exp();
        Ok(Measured {
            perplexity,
            standard_error: perplexity * surprise.error(),
            kl_divergence: divergence.mean(),
            kl_standard_error: divergence.error(),
            top1_agreement: same.mean(),
        })
    }

    fn positions(&self, base: &[f32], own: &[f32], next: &[u32]) -> Vec<Position> {
        let [base, own] = [base, own].map(|last| self.decoder.logits(last));
        let size = own.len() / next.len();
        let pairs = base.chunks_exact(size).zip(own.chunks_exact(size)).zip(next);
        let one = |((base, own), &next): ((&[f32], &[f32]), &u32)| {
            let (base, own) = (Logits::new(base), Logits::new(own));
            Position {
                surprise: own.surprise(next),
                divergence: base.divergence(&own),
                same: base.most_likely() == own.most_likely(),
            }
        };
        pairs.map(one).collect()
    }
}

/// What is found behind a token.
struct Position {
    surprise: f64,
    divergence: f64,
    same: bool,
}

//! Perplexity, KL divergence and agreement, as `ecq perplexity --against` has them, of the base with these or those layers.

use anyhow::Result;
use ecq_benches::quality::Measured;
use ecq_calibrate::decoder::Weights;
use ecq_calibrate::quality::Judge;
use ecq_calibrate::text::CONTEXT;
use ecq_calibrate::{Decoder, LAYERS};
use ecq_convert::Silent;
use ecq_convert::source::Source;
use ecq_convert::tensors::SourceMatrix;
use ecq_llm::Uncompressed;
use ecq_quant::weights::Weights as _;

/// Texts that models are measured with, and the base that they are measured beside.
pub struct Bench<'a> {
    model: &'a Uncompressed<'a>,
    texts: Vec<Judge<'a>>,
}

impl<'a> Bench<'a> {
    /// Runs the base on texts.
    pub fn new(model: &'a Uncompressed<'a>, texts: &[Vec<u32>]) -> Result<Self> {
        let judge = |tokens: &Vec<u32>| -> Result<_> {
            let chunks: Vec<_> = tokens.chunks(CONTEXT).map(<[u32]>::to_vec).collect();
            Ok(Judge::new(Decoder::new(model)?, &chunks, &Silent)?)
        };
        Ok(Self { model, texts: texts.iter().map(judge).collect::<Result<_>>()? })
    }

    /// The base.
    pub fn model(&self) -> &'a Uncompressed<'a> {
        self.model
    }

    /// Names of all linear layers.
    pub fn layers(&self) -> Vec<String> {
        let name = |block, part| format!("{}.weight", self.model.names().block(block, part));
        let blocks = 0..self.model.config().layers;
        blocks.flat_map(|block| LAYERS.map(|part| name(block, part))).collect()
    }

    /// Logits behind some tokens, one after another.
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let decoder = Decoder::new(self.model)?;
        let last = decoder.last(&[tokens], self.model, &Silent)?;
        Ok(decoder.logits(&decoder.output(self.model)?, &last[0]))
    }

    /// Measures the base with those weights that another source has, or its own, on each text.
    pub fn measure(&self, other: Option<&Source>) -> Result<Vec<Measured>> {
        let weights = Replaced { model: self.model, other };
        self.texts.iter().map(|judge| Ok(Measured::of(&judge.compare(&weights, &Silent)?))).collect()
    }
}

/// Weights of a model, and of another source where that has some.
struct Replaced<'a> {
    model: &'a Uncompressed<'a>,
    other: Option<&'a Source>,
}

impl Weights for Replaced<'_> {
    fn numbers(&self, name: &str) -> ecq_calibrate::Result<Vec<f32>> {
        let found = self.other.and_then(|other| {
            let tensor = other.tensors().iter().find(|tensor| tensor.name == name)?;
            SourceMatrix::new(other, tensor)
        });
        let Some(matrix) = found else { return Ok(self.model.numbers(name)?) };
        let mut out = vec![0.0; matrix.rows() * matrix.cols()];
        matrix.fill(0..matrix.rows(), &mut out);
        Ok(out)
    }
}

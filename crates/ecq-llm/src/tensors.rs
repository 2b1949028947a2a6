//! The tensors that a decoder is made of: their names and shapes, known from its configuration alone. A file that lacks one, or
//! has one more, holds another model than the one that would be run.

use std::collections::BTreeMap;
use std::path::Path;

use ecq_format::Reader;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::names::{Names, ROPE_DIVISORS};

/// Shapes by name.
pub type Shapes<'a> = BTreeMap<&'a str, &'a [u64]>;

/// Those of a file. Scales that a source keeps beside its levels belong to their tensors.
pub fn shapes(reader: &Reader) -> Shapes<'_> {
    let records = reader.directory().tensors.iter().filter(|record| record.part.is_none());
    records.map(|record| (record.name.as_str(), record.shape.as_slice())).collect()
}

/// Whether a model has all tensors of its configuration, in their shapes, and no others. `path` is for errors, shapes are
/// rows × columns.
///
/// Error: [`Error::Model`], which names the tensor.
pub fn check(path: &Path, config: &Config, mut found: Shapes<'_>) -> Result<()> {
    let names = Names::among(|name| found.contains_key(name));
    // a model has both or none
    let normed = found.contains_key(format!("{}.weight", names.block(0, "attn_q_norm")).as_str());
    let normed = normed || config.architecture == "qwen3";
    let fail = |name: &str, expected: String, got: String| Error::Model {
        path: path.into(),
        what: format!("tensor {name}"),
        expected,
        got,
    };
    let mut take = |name: &str, shape: &[usize], needed: bool| match found.remove(name) {
        Some(own) if own.iter().copied().eq(shape.iter().map(|&n| n as u64)) => Ok(()),
        Some(own) => Err(fail(name, format!("the shape {shape:?}"), format!("{own:?}"))),
        None if needed => Err(fail(name, "a tensor of this name".into(), "none".into())),
        None => Ok(()),
    };
    let Config { width, hidden, heads, kv_heads, head, vocabulary, .. } = *config;
    take(names.embedding(), &[vocabulary, width], true)?;
    take(names.norm(), &[width], true)?;
    if let Some(output) = names.output() {
        take(output, &[vocabulary, width], config.tied == Some(false))?;
    }
    take(ROPE_DIVISORS, &[head / 2], false)?;
    for layer in 0..config.layers {
        let name = |part, kind: &str| format!("{}.{kind}", names.block(layer, part));
        for (part, len, needed) in [
            ("attn_norm", width, true),
            ("ffn_norm", width, true),
            ("attn_q_norm", head, normed),
            ("attn_k_norm", head, normed),
        ] {
            take(&name(part, "weight"), &[len], needed)?;
        }
        for (part, rows, cols) in [
            ("attn_q", heads * head, width),
            ("attn_k", kv_heads * head, width),
            ("attn_v", kv_heads * head, width),
            ("attn_output", width, heads * head),
            ("ffn_gate", hidden, width),
            ("ffn_up", hidden, width),
            ("ffn_down", width, hidden),
        ] {
            take(&name(part, "weight"), &[rows, cols], true)?;
            take(&name(part, "bias"), &[rows], false)?;
        }
    }
    // older files carry the frequencies that follow from the base
    match found.keys().find(|name| !name.ends_with(".rotary_emb.inv_freq")) {
        None => Ok(()),
        Some(name) => {
            let expected =
                format!("only tensors of a {} model of {} blocks", config.architecture, config.layers);
            Err(fail(name, expected, "one that would not be used: its texts would be wrong".into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rotary;

    fn config() -> Config {
        let (rope_base, rotary, epsilon) = (1e4, Rotary::Neighbours, 1e-5);
        let (layers, width, hidden, heads, kv_heads, head) = (2, 8, 12, 4, 2, 2);
        let (vocabulary, context, tied, architecture) = (10, 100, None, "llama".into());
        Config {
            architecture,
            layers,
            width,
            hidden,
            heads,
            kv_heads,
            head,
            vocabulary,
            context,
            rope_base,
            rotary,
            rope_scaling: None,
            epsilon,
            tied,
        }
    }

    fn tensors() -> Vec<(String, Vec<u64>)> {
        let mut all = vec![("token_embd.weight".into(), vec![10, 8]), ("output_norm.weight".into(), vec![8])];
        for layer in 0..2 {
            for (part, shape) in [
                ("attn_norm", &[8][..]),
                ("ffn_norm", &[8]),
                ("attn_q", &[8, 8]),
                ("attn_k", &[4, 8]),
                ("attn_v", &[4, 8]),
                ("attn_output", &[8, 8]),
                ("ffn_gate", &[12, 8]),
                ("ffn_up", &[12, 8]),
                ("ffn_down", &[8, 12]),
            ] {
                all.push((format!("blk.{layer}.{part}.weight"), shape.to_vec()));
            }
        }
        all
    }

    fn checked(config: &Config, tensors: &[(String, Vec<u64>)]) -> Result<()> {
        let shapes = tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
        check("model".as_ref(), config, shapes.collect())
    }

    #[test]
    fn a_model_is_all_of_its_tensors() {
        checked(&config(), &tensors()).unwrap();
        for more in
            [("output.weight", vec![10, 8]), ("rope_freqs.weight", vec![1]), ("blk.1.attn_q.bias", vec![8])]
        {
            checked(&config(), &[&tensors()[..], &[(more.0.into(), more.1)]].concat()).unwrap();
        }
        for missing in 1..tensors().len() {
            let mut all = tensors();
            let (name, _) = all.remove(missing);
            let error = checked(&config(), &all).unwrap_err().to_string();
            assert!(error.contains(&format!("tensor {name}: expected a tensor of this name")), "{error}");
        }
        for wrong in 0..tensors().len() {
            let mut all = tensors();
            all[wrong].1[0] += 1;
            let error = checked(&config(), &all).unwrap_err().to_string();
            assert!(error.contains(&format!("tensor {}: expected the shape", all[wrong].0)), "{error}");
        }
    }

    #[test]
    fn a_model_with_more_than_that_is_another() {
        for more in ["blk.2.attn_norm.weight", "blk.0.attn_norm.bias", "blk.0.ffn_gate_inp.weight"] {
            let error =
                checked(&config(), &[&tensors()[..], &[(more.into(), vec![8])]].concat()).unwrap_err();
            assert!(error.to_string().contains(&format!("tensor {more}: expected only tensors")), "{error}");
        }
        let one = [("blk.0.attn_q_norm.weight".to_owned(), vec![2])];
        let error = checked(&config(), &[&tensors()[..], &one].concat()).unwrap_err().to_string();
        assert!(error.contains("attn_k_norm"), "{error}");
        let apart = Config { tied: Some(false), ..config() };
        let error = checked(&apart, &tensors()).unwrap_err().to_string();
        assert!(error.contains("tensor output.weight: expected a tensor of this name"), "{error}");
        let qwen3 = Config { architecture: "qwen3".into(), ..config() };
        assert!(checked(&qwen3, &tensors()).unwrap_err().to_string().contains("attn_q_norm"));
    }
}

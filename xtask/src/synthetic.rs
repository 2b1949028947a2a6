//! `cargo xtask synthetic`: a model of any size to measure with, in the shapes of a Llama of 8 billion weights.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, json};

const HIDDEN: u64 = 4096;
const INNER: u64 = 14336;
/// Rows of keys and values: 8 of 32 heads.
const HEADS: u64 = 1024;
/// Rows of the embedding for each GiB, up to four.
const VOCABULARY: u64 = 32_064;

/// Weights that a thread makes at a time, from a seed of their own: the number of threads changes nothing.
const PIECE: usize = 1 << 20;

#[derive(clap::Args)]
pub struct Args {
    /// Folder to write
    path: PathBuf,
    /// Size in GiB
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1024))]
    gib: u64,
}

/// A tensor to write: name, shape, standard scale; norms are around 1.
struct Tensor {
    name: String,
    shape: Vec<u64>,
    scale: f32,
}

/// Writes `model.safetensors` (BF16, Student t of 5 degrees of freedom) and `config.json`.
pub fn run(args: &Args) -> Result<()> {
    ensure!(!args.path.exists(), "{} exists; remove it first", args.path.display());
    let name = args.path.file_name().context("the path names no folder")?.to_string_lossy();
    let staged = args.path.with_file_name(format!(".{name}.tmp"));
    let _ = fs::remove_dir_all(&staged); // of a run that was stopped
    fs::create_dir_all(&staged)?;
    let (tensors, layers) = tensors(args.gib);
    let written = write(&staged.join("model.safetensors"), &tensors).and_then(|()| {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
            "intermediate_size": INNER, "num_hidden_layers": layers, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": tensors[0].shape[0], "torch_dtype": "bfloat16",
            "tie_word_embeddings": true,
        });
        Ok(fs::write(staged.join("config.json"), serde_json::to_vec_pretty(&config)?)?)
    });
    if let Err(error) = written {
        let _ = fs::remove_dir_all(&staged);
        return Err(error);
    }
    fs::rename(&staged, &args.path)?;
    println!("{}: {} tensors in {layers} layers", args.path.display(), tensors.len());
    Ok(())
}

/// An embedding and as many layers as the size holds, but at least one; and how many layers.
fn tensors(gib: u64) -> (Vec<Tensor>, u64) {
    let tensor = |name: String, shape: &[u64], scale| Tensor { name, shape: shape.into(), scale };
    let mut all = vec![tensor("model.embed_tokens.weight".into(), &[VOCABULARY * gib.min(4), HIDDEN], 0.015)];
    let layer = 2 * HIDDEN * (2 * HIDDEN + 2 * HEADS + 3 * INNER + 2);
    let layers = ((gib << 30).saturating_sub(2 * HIDDEN * all[0].shape[0]) / layer).max(1);
    for i in 0..layers {
        let matrices: [(&str, &[u64], f32); 9] = [
            ("input_layernorm", &[HIDDEN], 0.0),
            ("mlp.down_proj", &[HIDDEN, INNER], 0.012),
            ("mlp.gate_proj", &[INNER, HIDDEN], 0.014),
            ("mlp.up_proj", &[INNER, HIDDEN], 0.013),
            ("post_attention_layernorm", &[HIDDEN], 0.0),
            ("self_attn.k_proj", &[HEADS, HIDDEN], 0.03),
            ("self_attn.o_proj", &[HIDDEN, HIDDEN], 0.011),
            ("self_attn.q_proj", &[HIDDEN, HIDDEN], 0.02),
            ("self_attn.v_proj", &[HEADS, HIDDEN], 0.01),
        ];
        let named =
            matrices.map(|(n, shape, scale)| tensor(format!("model.layers.{i}.{n}.weight"), shape, scale));
        all.extend(named);
    }
    all.push(tensor("model.norm.weight".into(), &[HIDDEN], 0.0));
    (all, layers)
}

fn write(path: &Path, tensors: &[Tensor]) -> Result<()> {
    let (mut header, mut at) = (Map::new(), 0);
    for t in tensors {
        let end = at + 2 * t.shape.iter().product::<u64>();
        let info = json!({"dtype": "BF16", "shape": t.shape, "data_offsets": [at, end]});
        header.insert(t.name.clone(), info);
        at = end;
    }
    let mut json = serde_json::to_vec(&header)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(json.len() as u64).to_le_bytes())?;
    file.write_all(&json)?;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut buffers = vec![vec![0u8; 2 * PIECE]; threads];
    for (seed, t) in tensors.iter().enumerate() {
        let count = t.shape.iter().product::<u64>() as usize;
        for first in (0..count).step_by(threads * PIECE) {
            thread::scope(|scope| {
                for (i, buffer) in buffers.iter_mut().enumerate() {
                    let piece = first + i * PIECE..count.min(first + (i + 1) * PIECE);
                    scope.spawn(move || fill(t.scale, seed, piece, buffer));
                }
            });
            buffers.iter().try_for_each(|buffer| file.write_all(buffer))?;
        }
    }
    Ok(file.into_inner().map_err(|e| e.into_error())?.sync_all()?)
}

/// Weights of a piece of a tensor, which may be empty.
fn fill(scale: f32, seed: usize, piece: Range<usize>, out: &mut Vec<u8>) {
    let mut state = (seed as u64) << 40 ^ piece.start as u64;
    let mut uniform = || {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 40) as f32 + 0.5, (z >> 16 & 0xff_ffff) as f32)
    };
    out.resize(2 * piece.len(), 0);
    for bytes in out.chunks_exact_mut(2) {
        const UNIT: f32 = 1.0 / (1 << 24) as f32;
        let (u, v) = uniform();
        // R. Bailey, Polar generation of random variates with the t-distribution, 1994
        let t = (5.0 * ((u * UNIT).powf(-0.4) - 1.0)).sqrt() * (v * UNIT * std::f32::consts::TAU).cos();
        let weight = if scale > 0.0 { scale * t } else { 1.0 + 0.05 * t };
        let bits = weight.to_bits();
        bytes.copy_from_slice(&(((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_the_distribution_and_do_not_depend_on_what_was_there() {
        let (mut a, mut b) = (Vec::new(), vec![1; 7]);
        fill(0.5, 3, 1000..201_000, &mut a);
        fill(0.5, 3, 1000..201_000, &mut b);
        assert_eq!(a, b);
        let weights: Vec<f32> = a
            .chunks_exact(2)
            .map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16))
            .collect();
        let mean =
            |of: &dyn Fn(f32) -> f32| weights.iter().map(|&w| of(w)).sum::<f32>() / weights.len() as f32;
        // the variance of t with 5 degrees of freedom is 5/3; 10 % lie beyond 2.015
        assert!((mean(&|w| w * w) - 0.25 * 5.0 / 3.0).abs() < 0.02);
        assert!((mean(&|w| if w.abs() > 0.5 * 2.015 { 1.0 } else { 0.0 }) - 0.1).abs() < 0.005);
        assert!(mean(&|w| w).abs() < 0.005);
    }

    #[test]
    fn the_size_is_the_one_asked_for() {
        for gib in [2, 4, 16] {
            let (tensors, layers) = tensors(gib);
            let bytes = tensors.iter().map(|t| 2 * t.shape.iter().product::<u64>()).sum::<u64>();
            assert!((gib << 30) >= bytes && bytes > (gib << 30) - (500 << 20), "{gib}: {bytes}");
            assert_eq!(tensors.len() as u64, 2 + 9 * layers);
        }
    }
}

//! `ecq generate` and `ecq perplexity`: texts from models.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use ecq_convert::Progress;
use ecq_llm::chat::{Message, prompt};
use ecq_llm::{Decode, Model, Options, Precision, Sampling};
use serde::Serialize;

use crate::args::{DecodeName, Generate, Perplexity, PrecisionName, Run};
use crate::output;
use crate::progress::Bar;

fn open(run: &Run) -> Result<Model> {
    let options = Options {
        decode: match run.decode {
            DecodeName::Fused => Decode::Fused,
            DecodeName::Cached => Decode::Cached,
        },
        precision: match run.precision {
            PrecisionName::Int8 => Precision::Int8,
            PrecisionName::F32 => Precision::F32,
        },
        ..Options::default()
    };
    Ok(Model::open(&run.model, options)?)
}

/// Prints what follows a prompt, as it is made.
pub fn generate(args: &Generate, bar: &Bar, quiet: bool) -> Result<()> {
    let begun = Instant::now();
    let model = open(&args.run)?;
    let tokenizer = model.tokenizer();
    let text = match args.chat {
        true => prompt(tokenizer, &[Message { role: "user".into(), content: args.prompt.clone() }])?,
        false => args.prompt.clone(),
    };
    let tokens = tokenizer.encode(&text)?;
    ensure!(!tokens.is_empty(), "--prompt has no token: give a text");
    let trained = model.config().context;
    let room = tokens.len().saturating_add(args.max_tokens.try_into()?);
    if tokens.len() >= trained {
        bail!("--prompt has {} tokens, the model was trained for {trained} with its answer", tokens.len());
    }
    let mut cache = model.cache(room.min(trained))?;
    let sampling = Sampling {
        temperature: args.temperature,
        top_k: args.top_k as usize,
        top_p: args.top_p,
        seed: args.seed,
    };
    let stopped = || bar.cancelled();
    let mut out = std::io::stdout().lock();
    if !args.chat {
        write!(out, "{}", args.prompt)?;
        out.flush()?;
    }
    let loaded = begun.elapsed();
    let start = Instant::now();
    let made = model.generate(&tokens, &mut cache, sampling, &stopped)?;
    let first = start.elapsed();
    let (mut stream, mut count, start) = (tokenizer.stream(), 0u64, Instant::now());
    for token in made.take(args.max_tokens as usize) {
        count += 1;
        if let Some(text) = stream(token?) {
            write!(out, "{text}")?;
            out.flush()?;
        }
    }
    writeln!(out)?;
    if stopped() {
        bail!("stopped");
    }
    if !quiet {
        let speed = |n: f64, seconds: f64| n / seconds.max(1e-9);
        eprintln!(
            "loaded in {:.2} s; prompt: {} tokens, {:.1} a second; text: {count} tokens, {:.1} a second",
            loaded.as_secs_f64(),
            tokens.len(),
            speed(tokens.len() as f64, first.as_secs_f64()),
            speed(count as f64, start.elapsed().as_secs_f64()),
        );
    }
    Ok(())
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    perplexity: f64,
    standard_error: f64,
    tokens: usize,
    context: usize,
    tokens_per_second: f64,
}

/// Measures how well a model foresees a text: windows of `--context` tokens, each token but the first of a window.
pub fn perplexity(args: &Perplexity, bar: &Bar) -> Result<()> {
    let text = std::fs::read(&args.text).with_context(|| format!("cannot read {}", args.text.display()))?;
    let text = String::from_utf8(text).map_err(|e| {
        anyhow::anyhow!(
            "{}: expected UTF-8, byte {} is none",
            args.text.display(),
            e.utf8_error().valid_up_to()
        )
    })?;
    let model = open(&args.run)?;
    let mut tokens = model.tokenizer().encode(&text)?;
    tokens.truncate(args.tokens.unwrap_or(u64::MAX).try_into().unwrap_or(usize::MAX));
    let context = args.context as usize;
    ensure!(tokens.len() > 1, "{}: expected at least two tokens", args.text.display());
    let mut cache = model.cache(context)?;
    let (mut surprises, start) = (Vec::new(), Instant::now());
    bar.begin("perplexity", tokens.len() as u64);
    for window in tokens.chunks(context).filter(|window| window.len() > 1) {
        if bar.cancelled() {
            bail!("stopped");
        }
        cache.truncate(0);
        let mut next = window[1..].iter();
        model.logits(window, &mut cache, |logits| {
            surprises.extend(next.next().map(|&token| surprise(logits, token)));
        })?;
        bar.advance(window.len() as u64);
    }
    bar.finish();
    let n = surprises.len() as f64;
    let mean = surprises.iter().sum::<f64>() / n;
    let variance = surprises.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    let perplexity = mean.exp();
    let measured = Measured {
        perplexity,
        standard_error: perplexity * (variance / n).sqrt(),
        tokens: surprises.len(),
        context,
        tokens_per_second: tokens.len() as f64 / start.elapsed().as_secs_f64(),
    };
    if args.json {
        return output::json(&measured);
    }
    let Measured { perplexity, standard_error, tokens, tokens_per_second, .. } = measured;
    println!(
        "perplexity {perplexity:.3} ± {standard_error:.3} over {tokens} tokens, context {context}; {tokens_per_second:.1} tokens a second"
    );
    Ok(())
}

/// Nats that a token was unexpected by.
fn surprise(logits: &[f32], token: u32) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - most).exp()).sum();
    sum.ln() - f64::from(logits[token as usize] - most)
}

//! `ecq generate`: what follows a prompt.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use ecq_convert::Progress;
use ecq_llm::chat::{Message, prompt};
use ecq_llm::{Model, ModelFile, Sampling};

use super::args::Generate;
use crate::progress::Bar;

/// Tokens that are made where `--max-tokens` does not say.
const TOKENS: usize = 256;

/// Prints what follows a prompt, as it is made.
pub fn generate(args: &Generate, bar: &Bar, quiet: bool) -> Result<()> {
    let begun = Instant::now();
    let file = super::open(&args.run.model, bar, quiet)?;
    let tokens = tokens(args, &file)?;
    let room = room(args, &file, tokens.len())?;
    let options = super::options(&args.run, room);
    let (loaded, made) = super::in_pool(|| {
        let model = super::load(file, options, quiet)?;
        Ok((begun.elapsed(), print(args, &model, &tokens, room, bar)?))
    })?;
    super::said(quiet, || {
        let speed = |n: usize, time: Duration| n as f64 / time.as_secs_f64().max(1e-9);
        format!(
            "loaded in {:.2} s; prompt: {} tokens, {:.1} a second; text: {} tokens, {:.1} a second",
            loaded.as_secs_f64(),
            tokens.len(),
            speed(tokens.len(), made.prompt),
            made.count,
            speed(made.count, made.text),
        )
    });
    Ok(())
}

/// The prompt's tokens.
fn tokens(args: &Generate, file: &ModelFile) -> Result<Vec<u32>> {
    let text = match args.chat {
        true => prompt(file.tokenizer(), &[Message { role: "user".into(), content: args.prompt.clone() }])?,
        false => args.prompt.clone(),
    };
    let tokens = file.tokenizer().encode(&text)?;
    ensure!(!tokens.is_empty(), "--prompt has no token: give a text");
    Ok(tokens)
}

/// Positions for the prompt and its answer.
fn room(args: &Generate, file: &ModelFile, prompt: usize) -> Result<usize> {
    let (trained, path) = (file.config().context, args.run.model.display());
    if prompt >= trained {
        bail!("{path}: --prompt has {prompt} tokens, the model was trained for {trained} with the answer");
    }
    match args.max_tokens {
        None => Ok(prompt.saturating_add(TOKENS).min(trained)),
        Some(most) => {
            let room = prompt.saturating_add(most as usize);
            ensure!(
                room <= trained,
                "{path}: --prompt has {prompt} tokens and --max-tokens asks for {most} more, the model was trained for \
                 {trained}: ask for at most {}",
                trained - prompt
            );
            Ok(room)
        }
    }
}

/// What was made, and how long that took.
struct Made {
    count: usize,
    prompt: Duration,
    text: Duration,
}

fn print(args: &Generate, model: &Model, tokens: &[u32], room: usize, bar: &Bar) -> Result<Made> {
    let sampling = Sampling {
        temperature: args.temperature,
        top_k: args.top_k as usize,
        top_p: args.top_p,
        seed: args.seed,
    };
    let stopped = || bar.cancelled();
    let mut cache = model.cache(room)?;
    let mut out = std::io::stdout().lock();
    if !args.chat {
        write!(out, "{}", args.prompt)?;
        out.flush()?;
    }
    let start = Instant::now();
    let text = model.generate(tokens, &mut cache, sampling, &stopped)?;
    let prompt = start.elapsed();
    let (mut stream, mut count, start) = (model.tokenizer().stream(), 0, Instant::now());
    for token in text.take(room - tokens.len()) {
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
    Ok(Made { count, prompt, text: start.elapsed() })
}

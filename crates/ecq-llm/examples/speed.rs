//! Times of single tokens and of a prompt, which other work on the machine disturbs little:
//! `cargo run --release -p ecq-llm --example speed -- MODEL.ecq [fused|cached] [f32] [gpu] [threads N] [prompt N] [tokens N]`.
use std::time::{Duration, Instant};

use ecq_llm::{Decode, Device, Model, Options, Precision, most_likely};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (file, more) = arguments.split_first().ok_or("expected MODEL.ecq")?;
    let has = |word: &str| more.iter().any(|a| a == word);
    let number = |word: &str, otherwise: usize| {
        let at = more.iter().position(|a| a == word);
        at.and_then(|at| more.get(at + 1)).map_or(Ok(otherwise), |n| n.parse())
    };
    let options = Options {
        device: if has("gpu") { Device::Gpu } else { Device::Cpu },
        decode: if has("cached") { Decode::Cached } else { Decode::Fused },
        precision: if has("f32") { Precision::F32 } else { Precision::Int8 },
        ..Options::default()
    };
    let (threads, prompt, count) = (number("threads", 1)?, number("prompt", 512)?, number("tokens", 64)?);
    // the main thread computes, too
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let start = Instant::now();
    let model = Model::open(file.as_ref(), options)?;
    let opened = start.elapsed();
    let mut cache = model.cache(prompt.max(16) + count)?;
    let mut token = most_likely(&model.next(&[504, 3575, 282, 4649, 314], &mut cache, &|| false)?);
    println!("opened in {opened:.1?}, first token {token} after {:.1?}", start.elapsed());
    // the first single one has more to do on a GPU
    token = most_likely(&model.next(&[token], &mut cache, &|| false)?);
    let (mut all, before) = (Vec::new(), on_core());
    for _ in 0..count {
        let begun = Instant::now();
        token = most_likely(&model.next(&[token], &mut cache, &|| false)?);
        all.push(begun.elapsed());
    }
    println!("on a core for a token, main thread, mean: {:.2?}", (on_core() - before) / count as u32);
    all.sort();
    let speed = |n: usize, time: Duration| n as f64 / time.as_secs_f64();
    let (best, median) = (all[0], all[all.len() / 2]);
    println!(
        "token: best {best:.2?} ({:.1} a second), median {median:.2?} ({:.1})",
        speed(1, best),
        speed(1, median)
    );
    for _ in 0..if prompt > 0 { 3 } else { 0 } {
        cache.truncate(0);
        let tokens: Vec<u32> = (0..prompt as u32).map(|i| (i * 7919 + 31) % 40_000).collect();
        let (begun, before) = (Instant::now(), on_core());
        model.next(&tokens, &mut cache, &|| false)?;
        let (time, busy) = (begun.elapsed(), on_core() - before);
        println!(
            "prompt of {prompt}: {:.1} tokens a second; on a core: {:.1}",
            speed(prompt, time),
            speed(prompt, busy)
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .filter(|l| l.starts_with("VmHWM") || l.starts_with("RssAnon"))
        .for_each(|l| println!("{l}"));
    Ok(())
}

/// How long this thread has run on a core, on Linux; else 0.
fn on_core() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

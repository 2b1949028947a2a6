//! `ecq bench`: speed and memory of a model with each strategy. Every run is a process of its own, whose peak memory is its own.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use ecq_convert::Progress;
use ecq_llm::{Choice, Decode, Device, Model, ModelFile, Options, most_likely};
use serde::{Deserialize, Serialize};

use super::args::Bench;
use super::peak::peak;
use crate::output;
use crate::progress::Bar;

/// What prompts are made of, again and again. From Persuasion by Jane Austen.
const TEXT: &str = "Sir Walter Elliot, of Kellynch Hall, in Somersetshire, was a man who, for his own amusement, never took up \
                    any book but the Baronetage; there he found occupation for an idle hour, and consolation in a \
                    distressed one. ";
/// Time between looks at a run.
const PAUSE: Duration = Duration::from_millis(10);

/// What was measured, all of it.
#[derive(Serialize)]
struct Report {
    model: String,
    device: String,
    prompt_tokens: u32,
    tokens: u32,
    runs: u32,
    strategies: Vec<Line>,
    /// How many tokens are the same in all runs of all strategies, from the first one on.
    same_tokens: usize,
}

/// Medians of a strategy.
#[derive(Serialize)]
struct Line {
    decode: &'static str,
    #[serde(flatten)]
    run: Once,
}

/// A run. Bytes and seconds.
#[derive(Clone, Serialize, Deserialize)]
struct Once {
    device: String,
    /// Bytes that weights and cache take.
    planned_memory: u64,
    load_seconds: f64,
    first_token_seconds: f64,
    prompt_tokens_per_second: f64,
    tokens_per_second: f64,
    peak_memory: Option<u64>,
    /// What was made.
    text: Vec<u32>,
}

pub fn bench(args: &Bench, bar: &Bar, quiet: bool) -> Result<()> {
    let begun = Instant::now();
    let file = super::open(&args.run.model, bar, quiet || args.json)?;
    let positions = args.prompt_tokens as usize + args.tokens as usize;
    file.check_context(positions)?;
    if args.once {
        return output::json(&super::in_pool(|| once(args, file, positions, begun))?);
    }
    let (mut strategies, mut texts) = (Vec::new(), Vec::new());
    let choices = choices(&file, &super::options(&args.run, positions))?;
    for choice in &choices {
        let runs = (0..args.runs).map(|_| child(args, file.path(), choice.decode, bar));
        let runs = runs.collect::<Result<Vec<_>>>()?;
        texts.extend(runs.iter().map(|run| run.text.clone()));
        strategies.push(Line { decode: choice.decode.name(), run: medians(&runs) });
    }
    let report = Report {
        model: args.run.model.display().to_string(),
        device: strategies.first().map(|line| line.run.device.clone()).unwrap_or_default(),
        prompt_tokens: args.prompt_tokens,
        tokens: args.tokens,
        runs: args.runs,
        strategies,
        same_tokens: same(&texts),
    };
    if args.json { output::json(&report) } else { print(&report) }
}

/// The strategies to run: the one that was asked for, or all that the device has and that fit.
fn choices(file: &ModelFile, options: &Options) -> Result<Vec<Choice>> {
    let sizes = file.sizes(options.positions);
    let one = sizes.choose(options)?;
    if options.decode != Decode::Auto {
        return Ok(vec![one]);
    }
    // what a GPU measures is one more
    let measured = (one.device == Device::Gpu).then_some(&Decode::Auto);
    let all = Decode::of(one.device).iter().chain(measured);
    let all = all.map(|&decode| sizes.choose(&Options { decode, ..*options }));
    // at least the one above fits
    Ok(all.filter_map(|choice| choice.ok()).collect())
}

/// Runs once, in this process.
fn once(args: &Bench, file: ModelFile, positions: usize, begun: Instant) -> Result<Once> {
    let prompt = prompt(&file, args.prompt_tokens as usize)?;
    let model = Model::load(file, super::options(&args.run, positions))?;
    let loaded = begun.elapsed();
    let mut cache = model.cache(positions)?;
    let never = || false;
    let start = Instant::now();
    let mut token = most_likely(&model.next(&prompt, &mut cache, &never)?);
    let (read, first) = (start.elapsed(), begun.elapsed());
    let (start, mut made) = (Instant::now(), vec![token]);
    for _ in 0..args.tokens {
        token = most_likely(&model.next(&[token], &mut cache, &never)?);
        made.push(token);
    }
    let text = start.elapsed();
    Ok(Once {
        device: super::device(&model),
        planned_memory: model.choice().bytes,
        load_seconds: loaded.as_secs_f64(),
        first_token_seconds: first.as_secs_f64(),
        prompt_tokens_per_second: f64::from(args.prompt_tokens) / read.as_secs_f64(),
        tokens_per_second: f64::from(args.tokens) / text.as_secs_f64(),
        peak_memory: peak(),
        text: made,
    })
}

/// So many tokens of a text.
fn prompt(file: &ModelFile, count: usize) -> Result<Vec<u32>> {
    let mut text = String::new();
    loop {
        text.push_str(TEXT);
        let mut tokens = file.tokenizer().encode(&text)?;
        ensure!(!tokens.is_empty(), "the tokenizer makes no tokens of English");
        if tokens.len() >= count {
            tokens.truncate(count);
            return Ok(tokens);
        }
        // as often as it takes, as far as these tell
        text = text.repeat(count.div_ceil(tokens.len()));
    }
}

/// Runs once, in a process of its own.
fn child(args: &Bench, path: &Path, decode: Decode, bar: &Bar) -> Result<Once> {
    let name = |value: Option<clap::builder::PossibleValue>| value.map(|v| v.get_name().to_owned());
    let named = [
        ("--device", name(args.run.device.to_possible_value())),
        ("--decode", Some(decode.name().to_owned())),
        ("--precision", name(args.run.precision.to_possible_value())),
        ("--memory", args.run.memory.map(|bytes| bytes.to_string())),
        ("--prompt-tokens", Some(args.prompt_tokens.to_string())),
        ("--tokens", Some(args.tokens.to_string())),
        ("--threads", Some(rayon::current_num_threads().to_string())),
    ];
    let own = std::env::current_exe().context("cannot find the program itself")?;
    let mut command = Command::new(own);
    command.args(["bench", "--quiet", "--once"]);
    for (option, value) in named {
        value.into_iter().for_each(|value| {
            command.args([option, &value]);
        });
    }
    // a name may begin with a dash
    command.arg("--").arg(path);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // a pipe has room for few tokens
    let out = child.stdout.take().map(|pipe| std::thread::spawn(|| std::io::read_to_string(pipe)));
    let err = child.stderr.take().map(|pipe| std::thread::spawn(|| std::io::read_to_string(pipe)));
    let status = loop {
        if bar.cancelled() {
            child.kill()?;
            child.wait()?;
            bail!("stopped");
        }
        match child.try_wait()? {
            Some(status) => break status,
            None => std::thread::sleep(PAUSE),
        }
    };
    let [out, err] = [out, err].map(|reader| match reader.map(std::thread::JoinHandle::join) {
        Some(Ok(read)) => read,
        _ => Ok(String::new()),
    });
    let (out, err) = (out?, err?);
    ensure!(status.success(), "{}: a run ended with {status}: {}", decode.name(), err.trim());
    Ok(serde_json::from_str(&out)?)
}

fn medians(runs: &[Once]) -> Once {
    let median = |of: fn(&Once) -> f64| {
        let mut all: Vec<f64> = runs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        let middle = all.len() / 2;
        if all.len().is_multiple_of(2) { f64::midpoint(all[middle - 1], all[middle]) } else { all[middle] }
    };
    let mut peaks: Vec<u64> = runs.iter().filter_map(|run| run.peak_memory).collect();
    peaks.sort_unstable();
    Once {
        device: runs[0].device.clone(),
        planned_memory: runs[0].planned_memory,
        load_seconds: median(|run| run.load_seconds),
        first_token_seconds: median(|run| run.first_token_seconds),
        prompt_tokens_per_second: median(|run| run.prompt_tokens_per_second),
        tokens_per_second: median(|run| run.tokens_per_second),
        peak_memory: peaks.get(peaks.len() / 2).copied(),
        text: runs[0].text.clone(),
    }
}

/// How many tokens all texts begin with.
fn same(texts: &[Vec<u32>]) -> usize {
    let Some((first, others)) = texts.split_first() else { return 0 };
    let agree = |i: &usize| others.iter().all(|other| other.get(*i) == first.get(*i));
    (0..first.len()).take_while(agree).count()
}

fn print(report: &Report) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let Report { model, device, prompt_tokens, tokens, runs, .. } = report;
    let times = if *runs == 1 { "1 run".to_owned() } else { format!("medians of {runs} runs") };
    writeln!(out, "{model} on {device}; {prompt_tokens} tokens of prompt, {tokens} made; {times}\n")?;
    writeln!(
        out,
        "{:<10} {:>8} {:>9} {:>14} {:>12} {:>12} {:>12}",
        "weights", "load s", "first s", "prompt tok/s", "text tok/s", "planned", "peak"
    )?;
    for Line { decode, run } in &report.strategies {
        writeln!(
            out,
            "{decode:<10} {:>8.2} {:>9.2} {:>14.1} {:>12.1} {:>12} {:>12}",
            run.load_seconds,
            run.first_token_seconds,
            run.prompt_tokens_per_second,
            run.tokens_per_second,
            output::mb(run.planned_memory),
            run.peak_memory.map_or("unknown".into(), output::mb),
        )?;
    }
    // the first one is that behind the prompt
    let all = *tokens as usize + 1;
    match report.same_tokens {
        same if same == all => writeln!(out, "\nsame tokens: yes, all {all} of every run")?,
        same => writeln!(out, "\nsame tokens: no, only the first {same} of {all}")?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        let run = |n: f64, peak_memory| Once {
            device: "one".into(),
            planned_memory: 1,
            load_seconds: n,
            first_token_seconds: 2.0 * n,
            prompt_tokens_per_second: -n,
            tokens_per_second: n,
            peak_memory,
            text: vec![3],
        };
        let found = medians(&[run(3.0, Some(7)), run(1.0, Some(9)), run(2.0, Some(5))]);
        let numbers = [found.load_seconds, found.first_token_seconds, found.prompt_tokens_per_second];
        assert_eq!((numbers, found.peak_memory), ([2.0, 4.0, -2.0], Some(7)));
        assert_eq!(medians(&[run(3.0, None), run(4.0, None)]).load_seconds, 3.5);
    }

    #[test]
    fn texts_are_compared_from_their_beginning() {
        let text = |tokens: &[u32]| tokens.to_vec();
        assert_eq!(same(&[text(&[1, 2, 3]), text(&[1, 2, 3])]), 3);
        assert_eq!(same(&[text(&[1, 2, 3]), text(&[1, 2, 3]), text(&[1, 9, 3])]), 1);
        assert_eq!(same(&[text(&[7])]), 1);
        assert_eq!(same(&[text(&[7]), text(&[8])]), 0);
    }
}

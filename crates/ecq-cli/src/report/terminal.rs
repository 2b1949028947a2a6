//! Tables of at most 100 columns.

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::Result;
use ecq_convert::analyze::Pooled;
use ecq_convert::analyze::projection::Projection;
use ecq_convert::analyze::schemes::COMMON;

use super::{Kind, Report, count, kinds, lossless, prediction, tokens, verdict};
use crate::output::{clean, sqnr};

/// Kinds of tensors that are listed; files and JSON have all.
const LISTED: usize = 12;

pub fn print(report: &Report, written: &[PathBuf]) -> Result<()> {
    let mut out = stdout().lock();
    let a = &report.analysis;
    let pooled = &a.pooled;
    write!(out, "{}: {} tensors pooled, ", clean(&a.model, 50), a.tensors.len())?;
    write!(out, "{} weights of {:.2} bits", count(pooled.weights), pooled.source_bits)?;
    write!(out, "; {} stored as they are", a.plain.len())?;
    match a.left_out.len() {
        0 => writeln!(out)?,
        n => writeln!(out, "; {n} left out")?,
    }
    if !a.tensors.is_empty() {
        schemes(&mut out, pooled)?;
        curve(&mut out, pooled)?;
        for text in verdict(pooled).into_iter().chain(lossless(pooled)).chain([prediction(pooled)]) {
            writeln!(out, "\n{}", wrapped(&text))?;
        }
        list(&mut out, &kinds(a))?;
    }
    if let Some(projection) = &report.projection {
        project(&mut out, projection)?;
    }
    for path in written {
        writeln!(out, "\nwritten to {}", path.display())?;
    }
    Ok(())
}

fn schemes(out: &mut impl Write, pooled: &Pooled) -> Result<()> {
    writeln!(
        out,
        "\n{:<16} {:>31}   {:>7}   {:>15}  {:>15}",
        "", "bits a weight", "error", "ecq, same dB", "ecq, same bits"
    )?;
    writeln!(
        out,
        "{:<16} {:>7} {:>7} {:>7} {:>7}   {:>7}   {:>7} {:>7}  {:>7} {:>7}",
        "scheme", "plain", "coded", "entropy", "scales", "SQNR dB", "bits", "saved", "dB", "gained"
    )?;
    for s in &pooled.schemes {
        let scales = if s.scale_bits > 0.0 { format!("{:.3}", s.scale_bits) } else { "-".into() };
        write!(
            out,
            "{:<16} {:>7.3} {:>7.3} {:>7.3} {scales:>7}",
            s.scheme, s.stored_bits, s.bits, s.entropy
        )?;
        let sqnr = sqnr(s.sqnr_db);
        write!(out, "   {sqnr:>7}")?;
        if s.ecq_bits.is_some() {
            let [bits, saved] = [s.ecq_bits, s.bits_saved].map(|x| optional(x, 3));
            let [db, gained] = [s.ecq_sqnr_db, s.db_gained].map(|x| optional(x, 2));
            write!(out, "   {bits:>7} {saved:>7}  {db:>7} {gained:>7}")?;
        }
        writeln!(out)?;
    }
    writeln!(out, "plain: without entropy coding; coded: with it, scales, tables and start states included")?;
    Ok(())
}

fn optional(number: Option<f64>, digits: usize) -> String {
    number.map_or("-".into(), |n| format!("{n:.digits$}"))
}

fn curve(out: &mut impl Write, pooled: &Pooled) -> Result<()> {
    let points = &pooled.curve.points;
    if points.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\necq against the Gaussian bound, 6.02 dB a bit (a uniform step, coded, is 0.25 bit above it)"
    )?;
    let row = |name: &str, digits: usize, of: fn(&ecq_convert::analyze::curve::Point) -> f64| {
        let numbers: Vec<_> = points.iter().map(|p| format!("{:>6.digits$}", of(p))).collect();
        format!("{name:<16} {}", numbers.join(" "))
    };
    writeln!(out, "{}", row("bits a weight", 2, |p| p.bits))?;
    writeln!(out, "{}", row("SQNR dB", 2, |p| p.sqnr_db))?;
    writeln!(out, "{}", row("bits above bound", 2, |p| p.above_bound))?;
    Ok(())
}

fn list(out: &mut impl Write, kinds: &[Kind<'_>]) -> Result<()> {
    let same = format!("ecq at {COMMON}'s dB");
    writeln!(out, "\n{:<34} {:>4} {:>8} {:>7} {:>7}  {same:>15}", "", "", "", "max", "outl.")?;
    writeln!(
        out,
        "{:<34} {:>4} {:>8} {:>7} {:>7}  {:>7} {:>7}  -4..4 rms",
        "tensors, the largest first", "", "weights", "/ rms", "/ 10^6", "bits", "saved"
    )?;
    for kind in kinds.iter().take(LISTED) {
        let n = kind.pooled.weights as f64;
        let max = kind.tensors.iter().map(|t| t.statistics.max_over_rms).fold(0.0, f64::max);
        let outliers: f64 = kind.tensors.iter().map(|t| t.statistics.outliers * t.weights as f64).sum();
        let common = kind.pooled.scheme(&COMMON.to_string());
        let [bits, saved] = [common.and_then(|s| s.ecq_bits), common.and_then(|s| s.bits_saved)];
        let times = if kind.tensors.len() > 1 { format!("x{}", kind.tensors.len()) } else { String::new() };
        writeln!(
            out,
            "{:<34} {times:>4} {:>8} {max:>7.1} {:>7.0}  {:>7} {:>7}  {}",
            clean(&kind.name, 34),
            count(kind.pooled.weights),
            1e6 * outliers / n,
            optional(bits, 3),
            optional(saved, 3),
            histogram(kind)
        )?;
    }
    if kinds.len() > LISTED {
        let more: usize = kinds[LISTED..].iter().map(|k| k.tensors.len()).sum();
        writeln!(out, "… and {more} more; --json, --csv or --html list all tensors one by one")?;
    }
    writeln!(out, "outl.: beyond 6 rms; saved: against {COMMON}, coded")?;
    Ok(())
}

/// The weights of a kind in sixteen bars.
fn histogram(kind: &Kind<'_>) -> String {
    let mut bars = [0.0; 16];
    for tensor in &kind.tensors {
        for (bar, pair) in bars.iter_mut().zip(tensor.statistics.histogram.chunks(2)) {
            *bar += pair.iter().sum::<f64>() * tensor.weights as f64;
        }
    }
    blocks(&bars)
}

/// A row of block characters.
fn blocks(shares: &[f64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = shares.iter().fold(0.0, |a: f64, &b| a.max(b));
    shares.iter().map(|&s| if s == 0.0 { ' ' } else { BLOCKS[((s / most * 8.0) as usize).min(7)] }).collect()
}

fn project(out: &mut impl Write, p: &Projection) -> Result<()> {
    let rate = p.bytes_per_second / 1e9;
    writeln!(out, "\nPROJECTION, not measured: tokens a second on {}, {rate:.1} GB/s", p.bandwidth_of)?;
    writeln!(
        out,
        "{:<24} {:>13} {:>13} {:>10} {:>9}",
        "weights held as", "bits a weight", "MB a token", "tokens/s", "SQNR dB"
    )?;
    for row in &p.rows {
        let sqnr = sqnr(row.sqnr_db);
        let (mb, tokens) = (row.bytes_per_token / 1e6, tokens(row.tokens_per_second));
        writeln!(out, "{:<24} {:>13.3} {mb:>13.2} {tokens:>10} {sqnr:>9}", row.way, row.bits)?;
    }
    for assumption in &p.assumptions {
        writeln!(out, "- {}", wrapped(assumption).replace('\n', "\n  "))?;
    }
    if let Some(name) = &p.tied {
        writeln!(out, "- {} is counted as the output matrix: the model has no other", clean(name, 50))?;
    }
    if !p.looked_up.is_empty() {
        let names: Vec<_> = p.looked_up.iter().map(|n| clean(n, 50)).collect();
        writeln!(out, "- only looked up, not counted: {}", wrapped(&names.join(", ")).replace('\n', "\n  "))?;
    }
    Ok(())
}

/// Text in lines of at most 96 characters.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= 96 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_words() {
        let text = "word ".repeat(50);
        assert!(wrapped(text.trim()).lines().all(|l| l.chars().count() <= 96 && l.starts_with("word")));
        assert_eq!(wrapped(text.trim()).replace('\n', " "), text.trim());
    }

    #[test]
    fn bars_are_as_high_as_their_shares() {
        assert_eq!(blocks(&[0.0, 0.1, 0.5, 1.0]), " ▁▅█");
        assert_eq!(blocks(&[0.0; 3]), "   ");
    }
}

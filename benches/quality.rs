//! What quantization costs a model: rows of `cargo xtask bench quality`, and what they say of each other.

use std::fmt::Write as _;

use ecq_llm::comparison::Comparison;
use serde::{Deserialize, Serialize};

/// Whose a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The model that all others were made of, without loss.
    Base,
    /// Ours.
    Ecq,
    /// llama.cpp's.
    Llama,
}

/// How a model meets a text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Perplexity.
    pub perplexity: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Mean KL divergence of its probabilities from the base's, in nats a token.
    pub kl_divergence: f64,
    /// Its standard error.
    pub kl_standard_error: f64,
    /// Share of tokens behind which both have the same most likely one.
    pub top1_agreement: f64,
}

impl Measured {
    /// Of means over a text.
    pub fn of(found: &Comparison) -> Self {
        let (perplexity, standard_error) = found.surprise.perplexity();
        let (divergence, top1_agreement) = (&found.divergence, found.agreement());
        let (kl_divergence, kl_standard_error) = (divergence.mean(), divergence.error());
        Self { perplexity, standard_error, kl_divergence, kl_standard_error, top1_agreement }
    }
}

/// A model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// A rate, or llama.cpp's name of a format.
    pub name: String,
    /// Whose it is.
    pub by: By,
    /// Whether calibration texts went into it: by statistics, or by an importance matrix.
    pub calibrated: bool,
    /// Bits a weight of the linear layers, everything included.
    pub bits: f64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Beside each text.
    pub texts: Vec<Measured>,
}

impl Row {
    /// What it is called.
    pub fn title(&self) -> String {
        let Self { name, by, calibrated, .. } = self;
        match (by, calibrated) {
            (By::Base, _) => name.clone(),
            (By::Ecq, true) => format!("ecq {name}, calibrated"),
            (By::Ecq, false) => format!("ecq {name}"),
            (By::Llama, true) => format!("{name}, matrix"),
            (By::Llama, false) => name.clone(),
        }
    }
}

/// Where a curve of bits and KL divergences has a divergence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    /// At so many bits: between neighbours ln KL is taken to be linear in bits.
    Bits(f64),
    /// Below the fewest bits that were measured, which are these.
    Under(f64),
    /// Above the most.
    Over(f64),
}

/// The bits at which a curve of bits and KL divergences has this one. `None` for an empty curve.
pub fn bits_at(curve: &[(f64, f64)], divergence: f64) -> Option<At> {
    let mut curve: Vec<_> = curve.iter().copied().filter(|(_, kl)| *kl > 0.0).collect();
    curve.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (fewest, most) = (curve.first()?, curve.last()?);
    if divergence > fewest.1 {
        return Some(At::Under(fewest.0));
    }
    let pair = curve.windows(2).rev().find(|pair| (pair[1].1..=pair[0].1).contains(&divergence));
    let Some([(first, a), (second, b)]) = pair.and_then(|pair| pair.first_chunk::<2>()) else {
        return Some(if divergence == fewest.1 { At::Bits(fewest.0) } else { At::Over(most.0) });
    };
    let part = if a > b { (a / divergence).ln() / (a / b).ln() } else { 0.0 };
    Some(At::Bits(first + part * (second - first)))
}

/// The bits that our calibrated rates need for the KL divergence that each of llama.cpp's calibrated rows has from the base on a
/// text: its title, its bits, and ours.
pub fn savings(rows: &[Row], text: usize) -> Vec<(String, f64, Option<At>)> {
    let kl = |row: &Row| row.texts.get(text).map_or(f64::NAN, |text| text.kl_divergence);
    let of = move |by| rows.iter().filter(move |row| row.by == by && row.calibrated);
    let curve: Vec<_> = of(By::Ecq).map(|row| (row.bits, kl(row))).collect();
    of(By::Llama).map(|row| (row.title(), row.bits, bits_at(&curve, kl(row)))).collect()
}

/// Rows by bits, the most first, beside one of the texts.
pub fn table(rows: &[Row], text: usize) -> String {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by(|a, b| b.bits.total_cmp(&a.bits).then_with(|| a.title().cmp(&b.title())));
    let mut out = format!(
        "{:<22} {:>6} {:>8}   {:>18}   {:>19}   {:>10}\n",
        "", "bits", "file MB", "perplexity", "KL, nat", "same first"
    );
    for row in rows {
        let Some(found) = row.texts.get(text) else { continue };
        let perplexity = format!("{:.3} ± {:.3}", found.perplexity, found.standard_error);
        let kl = format!("{:.5} ± {:.5}", found.kl_divergence, found.kl_standard_error);
        let same = format!("{:.1} %", 100.0 * found.top1_agreement);
        // writing to a String cannot fail
        let _ = writeln!(
            out,
            "{:<22} {:>6.3} {:>8.2}   {perplexity:>18}   {kl:>19}   {same:>10}",
            row.title(),
            row.bits,
            row.bytes as f64 / 1e6
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, by: By, calibrated: bool, bits: f64, kl: f64) -> Row {
        let found = Measured {
            perplexity: 30.0,
            standard_error: 1.0,
            kl_divergence: kl,
            kl_standard_error: 0.001,
            top1_agreement: 0.5,
        };
        Row { name: name.into(), by, calibrated, bits, bytes: 50_000_000, texts: vec![found] }
    }

    #[test]
    fn bits_between_rates_are_linear_in_the_logarithm() {
        // four times less for each bit, given out of order
        let curve = [(3.0, 0.16), (2.0, 0.64), (4.0, 0.04), (4.4, 0.0)];
        for (kl, bits) in [(0.64, 2.0), (0.32, 2.5), (0.16, 3.0), (0.08, 3.5), (0.04, 4.0)] {
            let found = bits_at(&curve, kl);
            assert!(matches!(found, Some(At::Bits(found)) if (found - bits).abs() < 1e-9), "{kl}: {found:?}");
        }
        // nothing is extrapolated, nor from a curve that is one point
        assert_eq!(bits_at(&curve, 0.65), Some(At::Under(2.0)));
        assert_eq!(bits_at(&curve, 0.039), Some(At::Over(4.0)));
        let one = [(3.0, 0.16)];
        let found = [0.2, 0.16, 0.1].map(|kl| bits_at(&one, kl));
        assert_eq!(found, [At::Under(3.0), At::Bits(3.0), At::Over(3.0)].map(Some));
        assert_eq!(bits_at(&curve[3..], 0.16), None);
    }

    #[test]
    fn savings_are_between_calibrated_rows() {
        let rows = [
            row("2", By::Ecq, true, 2.0, 0.64),
            row("3", By::Ecq, true, 3.0, 0.16),
            // as good with fewer bits, but nothing that was calibrated
            row("1", By::Ecq, false, 1.0, 0.32),
            row("Q3_K_M", By::Llama, true, 3.5, 0.32),
            row("Q2_K", By::Llama, false, 3.0, 0.32),
            row("Q6_K", By::Llama, true, 6.6, 0.01),
        ];
        let found = savings(&rows, 0);
        assert_eq!(found.len(), 2, "{found:?}");
        let (title, bits, ours) = &found[0];
        assert_eq!((title.as_str(), *bits), ("Q3_K_M, matrix", 3.5));
        assert!(matches!(ours, Some(At::Bits(ours)) if (ours - 2.5).abs() < 1e-9), "{ours:?}");
        assert_eq!(found[1], ("Q6_K, matrix".into(), 6.6, Some(At::Over(3.0))));
    }

    #[test]
    fn rows_are_sorted_by_bits() {
        let rows = [row("3", By::Ecq, true, 3.0, 0.16), row("Q4_K_M", By::Llama, false, 4.89, 0.0512)];
        let text = table(&rows, 0);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(lines[1])[..3], ["Q4_K_M", "4.890", "50.00"]);
        assert!(lines[1].contains("0.05120 ± 0.00100") && lines[1].ends_with("50.0 %"), "{}", lines[1]);
        assert_eq!(words(lines[2])[..4], ["ecq", "3,", "calibrated", "3.000"]);
        // of a text that was not measured there is only the head
        assert_eq!(table(&rows, 1).lines().count(), 1);
    }
}

//! What the user says of tensors by name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ecq_quant::scheme::BITS;
use ecq_quant::{Granularity, Scheme};
use globset::{Glob, GlobMatcher};

use crate::source::Source;
use crate::{Error, Result};

/// What is done with a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// It is stored as it is.
    Keep,
    /// It is coded without loss.
    Lossless,
    /// It is quantized.
    Scheme(Scheme),
    /// The native scheme, at this ratio of signal to noise in dB.
    Sqnr(f64),
    /// The native scheme, by what is known of the tensor's inputs and outputs; with a number by which whoever knows it sets the
    /// rate.
    Calibrated(f64),
}

impl FromStr for Choice {
    type Err = String;

    /// `keep`, `lossless`, a rate (`4.5`), a ratio (`25dB`), or a scheme with its granularity (`absmax4:32`, `int8:row`).
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let expected = || {
            format!(
                "'{text}': expected keep, lossless, bits a weight ({} to {}), a ratio such as 25dB, or a scheme such as \
                 absmax4:32 or int8:row",
                BITS.start(),
                BITS.end()
            )
        };
        match text {
            "keep" => return Ok(Self::Keep),
            "lossless" => return Ok(Self::Lossless),
            _ => {}
        }
        if let Ok(bits) = text.parse() {
            return if BITS.contains(&bits) { Ok(Self::Scheme(Scheme::ecq(bits))) } else { Err(expected()) };
        }
        if let Some(db) = text.to_ascii_lowercase().strip_suffix("db") {
            let db = db.trim().parse().ok().filter(|db| SQNR.contains(db));
            return db.map(Self::Sqnr).ok_or_else(expected);
        }
        let (name, granularity) = text.split_once(':').map_or((text, None), |(n, g)| (n, Some(g)));
        let granularity = granularity.map(Granularity::from_str).transpose()?;
        Scheme::named(name, granularity).map(Self::Scheme).ok_or_else(expected)
    }
}

/// Ratios of signal to noise that are asked for, in dB.
pub const SQNR: std::ops::RangeInclusive<f64> = 1.0..=50.0;

/// Choices by patterns of names; the last pattern that matches counts.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    list: Vec<(GlobMatcher, Choice)>,
}

impl Rules {
    /// Patterns are globs: `*` stands for anything, `?` for a character, `{a,b}` for either, `[0-9]` for one of these.
    ///
    /// Error: [`Error::Pattern`].
    pub fn new(list: impl IntoIterator<Item = (String, Choice)>) -> Result<Self> {
        let compile = |(pattern, choice): (String, Choice)| {
            let glob = Glob::new(&pattern).map_err(|e| Error::Pattern { pattern, why: e.kind().to_string() });
            glob.map(|glob| (glob.compile_matcher(), choice))
        };
        Ok(Self { list: list.into_iter().map(compile).collect::<Result<_>>()? })
    }

    /// The choice for a tensor, if a rule names it.
    pub fn of(&self, name: &str) -> Option<Choice> {
        self.list.iter().rev().find(|(glob, _)| glob.is_match(name)).map(|&(_, choice)| choice)
    }

    /// Whether all tensors that a rule names come back as they were, so that a file can still be lossless.
    pub fn exact(&self) -> bool {
        self.list.iter().all(|(_, choice)| matches!(choice, Choice::Keep | Choice::Lossless))
    }

    /// Checks that every pattern names a tensor. Error: [`Error::Pattern`].
    pub fn check(&self, source: &Source) -> Result<()> {
        for (glob, _) in &self.list {
            if !source.tensors().iter().any(|t| glob.is_match(&t.name)) {
                let example = source.tensors().first().map_or("", |t| &t.name);
                let why = format!("no tensor of the model has such a name; the first is called '{example}'");
                return Err(Error::Pattern { pattern: glob.glob().to_string(), why });
            }
        }
        Ok(())
    }
}

/// Factors by which errors of tensors count, from a JSON object of names and numbers.
#[derive(Clone, Debug, Default)]
pub struct Sensitivities {
    path: PathBuf,
    of: HashMap<String, f64>,
}

impl FromIterator<(String, f64)> for Sensitivities {
    fn from_iter<T: IntoIterator<Item = (String, f64)>>(factors: T) -> Self {
        Self { path: PathBuf::from("(given by the caller)"), of: factors.into_iter().collect() }
    }
}

impl Sensitivities {
    /// Reads a file such as `{"model.layers.0.mlp.down_proj.weight": 3.5}`.
    ///
    /// Error: [`Error::Sensitivities`]; numbers must be from 1e-6 to 1e6.
    pub fn read(path: &Path) -> Result<Self> {
        let bad = |why: String| Error::Sensitivities { path: path.into(), why };
        let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        let of: HashMap<String, f64> = serde_json::from_str(&text)
            .map_err(|e| bad(format!("{e}; expected an object of tensor names and numbers")))?;
        if let Some((name, value)) = of.iter().find(|(_, v)| !(1e-6..=1e6).contains(*v)) {
            return Err(bad(format!("'{name}' has {value}, expected a number from 0.000001 to 1000000")));
        }
        Ok(Self { path: path.into(), of })
    }

    /// The factor of a tensor, if the file has it.
    pub fn of(&self, name: &str) -> Option<f64> {
        self.of.get(name).copied()
    }

    /// Checks that the model has every tensor that the file names. Error: [`Error::Sensitivities`].
    pub fn check(&self, source: &Source) -> Result<()> {
        let known: std::collections::HashSet<&str> =
            source.tensors().iter().map(|t| t.name.as_str()).collect();
        let mut unknown: Vec<&str> =
            self.of.keys().map(String::as_str).filter(|name| !known.contains(name)).collect();
        unknown.sort_unstable();
        match unknown[..] {
            [] => Ok(()),
            [first, ..] => {
                let why = format!(
                    "{} of its {} tensors are not in the model, the first is '{first}'",
                    unknown.len(),
                    self.of.len()
                );
                Err(Error::Sensitivities { path: self.path.clone(), why })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_wrong_ones_say_what_is_expected() {
        assert_eq!("keep".parse(), Ok(Choice::Keep));
        assert_eq!("4.5".parse(), Ok(Choice::Scheme(Scheme::ecq(4.5))));
        assert_eq!("25dB".parse(), Ok(Choice::Sqnr(25.0)));
        let absmax = Scheme::Absmax4(Granularity::Group(32));
        assert_eq!("absmax4:32".parse(), Ok(Choice::Scheme(absmax)));
        for wrong in ["0.5", "9", "400dB", "nan", "NaNdB", "absmax5", "absmax4:x", "absmax4:0", "", "ecq"] {
            let error = wrong.parse::<Choice>().unwrap_err();
            assert!(error.contains("expected"), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_last_pattern_that_matches_counts() {
        let rules = Rules::new([
            ("*.weight".into(), Choice::Scheme(Scheme::ecq(3.0))),
            ("model.{embed,head}*".into(), Choice::Keep),
        ])
        .unwrap();
        assert_eq!(rules.of("model.head.weight"), Some(Choice::Keep));
        assert_eq!(rules.of("model.mlp.weight"), Some(Choice::Scheme(Scheme::ecq(3.0))));
        assert_eq!(rules.of("bias"), None);
        assert!(matches!(Rules::new([("a[".into(), Choice::Keep)]), Err(Error::Pattern { .. })));
    }
}

//! The schemes that quantize, by name.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ecq_format::predict::Predictor;

use crate::Error;

/// Rates that the native scheme is asked for, in bits a weight.
pub const BITS: RangeInclusive<f64> = 1.0..=8.0;

/// Over how many weights a scale is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// All of the tensor.
    Tensor,
    /// A row.
    Row,
    /// This many neighbouring columns in a row; the last group of a row may be shorter.
    Group(u64),
}

impl Granularity {
    /// Columns that share a scale, in rows of `cols`; `None` for one scale a tensor.
    pub fn columns(self, cols: u64) -> Option<u64> {
        match self {
            Self::Tensor => None,
            Self::Row => Some(cols),
            Self::Group(n) => Some(n.min(cols)),
        }
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor => f.write_str("tensor"),
            Self::Row => f.write_str("row"),
            Self::Group(n) => write!(f, "{n}"),
        }
    }
}

impl FromStr for Granularity {
    type Err = String;

    /// `tensor`, `row`, or a number of columns.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "row" => Ok(Self::Row),
            "tensor" => Ok(Self::Tensor),
            n => match n.parse() {
                Ok(n) if n > 0 => Ok(Self::Group(n)),
                _ => Err("expected a positive number of columns, \"row\" or \"tensor\"".into()),
            },
        }
    }
}

/// A lossy scheme.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scheme {
    /// The native one: a uniform step for the whole tensor, chosen so that the coded tensor takes `bits` a weight, and
    /// rounding that weighs error against rate ([`rate`](crate::rate)).
    ///
    /// Row and column scales (the square root of the rms, in eighths of an octave) make the step follow rows or columns.
    /// If neither flag is set, they are taken where they save rate at equal error.
    Ecq {
        /// Bits a weight, all side costs of the tensor included.
        bits: f64,
        /// Scale the step of each row, whether it pays or not.
        row_scales: bool,
        /// Scale the step of each column, whether it pays or not.
        column_scales: bool,
    },
    /// A uniform quantizer without any of that, to compare with: weights go to the nearest multiple of the step.
    Uniform {
        /// Bits a weight, all side costs of the tensor included.
        bits: f64,
    },
    /// 16 levels from the smallest to the largest weight.
    Affine4(Granularity),
    /// 15 levels from minus to plus the largest magnitude.
    Absmax4(Granularity),
    /// The 16 values of NF4, times the largest magnitude.
    Nf4(Granularity),
    /// 255 levels from minus to plus the largest magnitude.
    Int8(Granularity),
    /// The same, coded as differences from a prediction.
    Int8Predicted(Granularity, Prediction),
}

/// How levels of 8 bits are predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// As is cheapest: mostly not at all, for weights hardly depend on their neighbours.
    Auto,
    /// In this way, whatever it costs.
    By(Predictor),
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::By(predictor) => predictor.name(),
        })
    }
}

impl Scheme {
    /// The native scheme at a rate, with row and column scales where they pay.
    pub fn ecq(bits: f64) -> Self {
        Self::Ecq { bits, row_scales: false, column_scales: false }
    }

    /// A scheme other than the native one by its name, with its usual granularity if none is given.
    pub fn named(name: &str, granularity: Option<Granularity>) -> Option<Self> {
        match name {
            "affine4" => Some(Self::Affine4(granularity.unwrap_or(Granularity::Tensor))),
            "absmax4" => Some(Self::Absmax4(granularity.unwrap_or(Granularity::Group(32)))),
            "nf4" => Some(Self::Nf4(granularity.unwrap_or(Granularity::Group(64)))),
            "int8" => Some(Self::Int8(granularity.unwrap_or(Granularity::Row))),
            _ => None,
        }
    }

    /// The name that files carry and the command line takes.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ecq { .. } => "ecq",
            Self::Uniform { .. } => "uniform",
            Self::Affine4(_) => "affine4",
            Self::Absmax4(_) => "absmax4",
            Self::Nf4(_) => "nf4",
            Self::Int8(_) | Self::Int8Predicted(..) => "int8",
        }
    }

    /// Checks the parameters. Errors: [`Error::Rate`], [`Error::Group`].
    pub fn check(&self) -> Result<(), Error> {
        match *self {
            Self::Ecq { bits, .. } | Self::Uniform { bits } if !BITS.contains(&bits) => {
                Err(Error::Rate(bits))
            }
            Self::Affine4(g)
            | Self::Absmax4(g)
            | Self::Nf4(g)
            | Self::Int8(g)
            | Self::Int8Predicted(g, _)
                if g == Granularity::Group(0) =>
            {
                Err(Error::Group)
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ecq { bits, .. } | Self::Uniform { bits } => write!(f, "{} {bits}", self.name()),
            Self::Affine4(g) | Self::Absmax4(g) | Self::Nf4(g) | Self::Int8(g) => {
                write!(f, "{} {g}", self.name())
            }
            Self::Int8Predicted(g, prediction) => write!(f, "{} {g} {prediction}", self.name()),
        }
    }
}

//! Quantizers, their rate and their distortion.
//!
//! | step | module |
//! |---|---|
//! | which scheme, with which granularity | [`scheme`] |
//! | weights in any float type, row by row | [`weights`] |
//! | weights → levels and scales | [`quantize`]; vector loops: `rule.rs`; the two kinds of schemes: `native.rs`, `grouped.rs` |
//! | step and rounding that meet a rate | [`rate`]; what it measures on: `sorted.rs` |
//! | row and column scales of the native scheme | `factors.rs` |
//! | levels one column at a time, for whoever feeds errors back | [`grid`] |
//! | rate against distortion, for sharing bits among tensors | [`curve`] |
//! | scales in a file's form → numbers | [`groups`] |
//! | levels and scales → weights | [`values`] |
//! | rate and distortion, side by side | [`measure`] |
#![forbid(unsafe_code)]

pub mod curve;
mod error;
mod factors;
pub mod grid;
pub mod grouped;
pub mod groups;
pub mod measure;
mod native;
pub mod quantize;
pub mod rate;
mod rule;
pub mod scheme;
mod sorted;
pub mod values;
pub mod weights;

pub use curve::Curve;
pub use error::Error;
pub use scheme::{Granularity, Prediction, Scheme};

//! Quantizers, their rate and their distortion.
//!
//! | step | module |
//! |---|---|
//! | which scheme, with which granularity | [`scheme`] |
//! | weights in any float type, row by row | [`weights`] |
//! | weights → levels and scales | [`quantize`] |
//! | the step that meets a rate | [`rate`] |
//! | scales in a file's form → numbers | [`groups`] |
//! | rate against distortion, for sharing bits among tensors | [`curve`] |
//! | levels and scales → weights | [`values`] |
//! | rate and distortion, side by side | [`measure`] |
#![forbid(unsafe_code)]

pub mod curve;
mod error;
pub mod groups;
pub mod measure;
pub mod quantize;
pub mod rate;
pub mod scheme;
pub mod values;
pub mod weights;

pub use curve::Curve;
pub use error::Error;
pub use scheme::{Granularity, Scheme};

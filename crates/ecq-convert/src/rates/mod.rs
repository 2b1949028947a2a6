//! How many bits each tensor gets: one multiplier for all of them, and rules by name.
//!
//! | step | module |
//! |---|---|
//! | patterns of names → what is done with those tensors; sensitivities from a file | [`rules`] |
//! | names → sensitivities of tensors that no file lists | [`sensitivity`] |
//! | rate-distortion curves of all tensors → bits for each | [`share`] |
//! | bits for each, until the file has its size | [`size`] |

pub mod rules;
pub mod sensitivity;
pub mod share;
pub mod size;

pub use rules::{Choice, Rules, Sensitivities};
pub use share::{Allocation, RateControl, Target};

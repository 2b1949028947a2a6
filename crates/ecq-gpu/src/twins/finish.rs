//! The twin of `kernels/finish.wgsl`.

use super::{Result, get};
use crate::params::Params;

/// Adds up what [`fused()`](super::fused()) writes for several strips: in `strips` as many numbers for each of `p.strips` as
/// `y` has room for.
///
/// Error: [`Outside`](super::Error::Outside).
pub fn finish(p: &Params, strips: &[f32], y: &mut [f32]) -> Result<()> {
    let numbers = y.len() as u64;
    for (at, sum) in y.iter_mut().enumerate() {
        *sum = get("strips", strips, at as u64)?;
        for strip in 1..u64::from(p.strips) {
            *sum += get("strips", strips, at as u64 + strip * numbers)?;
        }
    }
    Ok(())
}

//! Advanced SIMD of 64-bit ARM.

pub(crate) mod nibble;

//! Plain floats.

use ecq_quant::values::from_bytes;
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use super::{BlockError, check_len};
use crate::source::SourceType;

/// Reads little-endian F32, F16, BF16 or 8-bit float values, exactly.
///
/// # Errors
/// When the type is another, or `bytes` does not hold `out.len()` values.
pub fn to_f32(dtype: &SourceType, bytes: &[u8], out: &mut [f32]) -> Result<(), BlockError> {
    let size = dtype.float_bytes().ok_or_else(|| BlockError::NotFloat(dtype.name().to_owned()))?;
    check_len("bytes of values", bytes.len(), out.len().saturating_mul(size))?;
    match dtype {
        SourceType::F32 => {
            for (bytes, out) in bytes.chunks_exact(4).zip(out) {
                *out = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
        SourceType::F16 => f16_to_f32(bytes, out),
        other => {
            let format =
                other.pattern_format().ok_or_else(|| BlockError::NotFloat(other.name().to_owned()))?;
            from_bytes(format, bytes, out);
        }
    }
    Ok(())
}

/// Half precision through an aligned buffer, for which the processor's own conversion can be used.
fn f16_to_f32(bytes: &[u8], out: &mut [f32]) {
    const RUN: usize = 1024;
    let mut bits = [0u16; RUN];
    for (bytes, out) in bytes.chunks(2 * RUN).zip(out.chunks_mut(RUN)) {
        let bits = &mut bits[..out.len()];
        for (bits, bytes) in bits.iter_mut().zip(bytes.chunks_exact(2)) {
            *bits = u16::from_le_bytes([bytes[0], bytes[1]]);
        }
        bits.reinterpret_cast::<f16>().convert_to_f32_slice(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::BlockType;

    #[test]
    fn every_half_and_bfloat_reads_as_its_own_value() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        // From an odd address, as a file may have it.
        let shifted = [&[0], &bytes[..]].concat();
        let mut out = vec![0.0; 1 << 16];
        to_f32(&SourceType::F16, &shifted[1..], &mut out).unwrap();
        for (bits, &value) in (0..=u16::MAX).zip(&out) {
            let expected = f16::from_bits(bits).to_f32();
            assert!(value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan());
        }
        to_f32(&SourceType::BF16, &shifted[1..], &mut out).unwrap();
        assert!((0..=u16::MAX).zip(&out).all(|(bits, value)| value.to_bits() == u32::from(bits) << 16));
    }

    #[test]
    fn floats_are_checked_for_type_and_length() {
        let mut out = [0.0; 2];
        to_f32(&SourceType::F32, &[0, 0, 128, 63, 0, 0, 0, 192], &mut out).unwrap();
        assert_eq!(out, [1.0, -2.0]);
        assert!(matches!(to_f32(&SourceType::F32, &[0; 7], &mut out), Err(BlockError::Length { .. })));
        assert!(matches!(
            to_f32(&SourceType::Block(BlockType::Q8_0), &[0; 8], &mut out),
            Err(BlockError::NotFloat(_))
        ));
    }
}

//! Escapes of a tile: (position, exact level), ascending, as LEB128 numbers.

/// Appends `v` as LEB128: seven bits a byte, low first, the top bit set on all but the last.
fn put(mut v: u64, out: &mut Vec<u8>) {
    while v > 0x7f {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn get(bytes: &mut &[u8]) -> Option<u64> {
    let mut v = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        v |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(v);
        }
    }
    None
}

/// Bytes that [`write`] needs for an escape of this level after a gap of this many weights.
pub(crate) fn bytes_for(gap: f64, level: i64) -> f64 {
    let of = |v: f64| if v < 128.0 { 1.0 } else { (v.log2() / 7.0).floor() + 1.0 };
    of(gap) + of(2.0 * level.unsigned_abs() as f64)
}

/// Writes ascending (position, level) pairs: the gap since the last escape, then the level zigzag-coded.
pub(crate) fn write(escapes: &[(u32, i32)], out: &mut Vec<u8>) {
    let mut next = 0;
    for &(position, level) in escapes {
        put(u64::from(position - next), out);
        put(u64::from((level as u32) << 1 ^ (level >> 31) as u32), out);
        next = position + 1;
    }
}

/// Calls `each(position, level)` for every escape; positions ascend and stay below `weights`.
pub fn read(mut bytes: &[u8], weights: usize, mut each: impl FnMut(usize, i32)) -> Result<(), String> {
    let mut next = 0u64;
    while !bytes.is_empty() {
        let position = next + get(&mut bytes).ok_or("an escape's position is cut short or too long")?;
        let zigzag = get(&mut bytes).ok_or("an escape's level is cut short or too long")?;
        let zigzag = u32::try_from(zigzag).map_err(|_| "an escape's level does not fit 32 bits")?;
        if position >= weights as u64 {
            return Err(format!("an escape at position {position} of {weights} weights"));
        }
        each(position as usize, (zigzag >> 1) as i32 ^ -((zigzag & 1) as i32));
        next = position + 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn escapes_come_back(set in prop::collection::btree_map(0u32..1 << 24, any::<i32>(), 0..200)) {
            let list: Vec<_> = set.into_iter().collect();
            let mut bytes = Vec::new();
            write(&list, &mut bytes);
            let mut back = Vec::new();
            read(&bytes, 1 << 24, |p, l| back.push((p as u32, l))).unwrap();
            prop_assert_eq!(&back, &list);
            for cut in 0..bytes.len() {
                let mut some = Vec::new();
                let _ = read(&bytes[..cut], 1 << 24, |p, l| some.push((p as u32, l)));
                prop_assert!(list.starts_with(&some));
            }
        }

        #[test]
        fn any_bytes_are_escapes_in_order_or_an_error(bytes: Vec<u8>, weights in 0usize..100_000) {
            let mut last = None;
            let _ = read(&bytes, weights, |p, _| {
                assert!(p < weights && last < Some(p));
                last = Some(p);
            });
        }
    }
}

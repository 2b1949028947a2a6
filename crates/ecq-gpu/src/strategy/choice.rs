//! Which matrices are worth their memory once packed. No device: only times and sizes.

/// What was measured of a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Seconds of a product from coded weights.
    pub fused: f64,
    /// Seconds of one from packed weights.
    pub plain: f64,
    /// Bytes of these.
    pub bytes: u64,
}

/// Whether each matrix shall be packed: those that save most time for each byte first, as long as they fit the budget.
pub fn choose(measured: &[Measured], budget: u64) -> Vec<bool> {
    let gain = |m: &Measured| (m.fused - m.plain) / m.bytes.max(1) as f64;
    let mut order: Vec<usize> = (0..measured.len()).filter(|&i| gain(&measured[i]) > 0.0).collect();
    order.sort_by(|&a, &b| gain(&measured[b]).total_cmp(&gain(&measured[a])).then(a.cmp(&b)));
    let (mut chosen, mut left) = (vec![false; measured.len()], budget);
    for i in order {
        if measured[i].bytes <= left {
            left -= measured[i].bytes;
            chosen[i] = true;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fused: f64, plain: f64, bytes: u64) -> Measured {
        Measured { fused, plain, bytes }
    }

    #[test]
    fn the_best_gains_per_byte_are_chosen() {
        let all = [of(3.0, 1.0, 10), of(9.0, 1.0, 100), of(2.0, 1.0, 2), of(1.0, 1.0, 1), of(1.0, 5.0, 1)];
        assert_eq!(choose(&all, 0), [false; 5]);
        assert_eq!(choose(&all, 2), [false, false, true, false, false]);
        assert_eq!(choose(&all, 12), [true, false, true, false, false]);
        // the large one does not fit any more; smaller ones behind it would
        assert_eq!(choose(&all, 111), [true, false, true, false, false]);
        assert_eq!(choose(&all, 112), [true, true, true, false, false]);
        assert_eq!(choose(&all, u64::MAX), [true, true, true, false, false]);
    }

    #[test]
    fn what_gains_nothing_is_left_alone() {
        let odd = [of(f64::NAN, 1.0, 1), of(1.0, f64::INFINITY, 1), of(1.0, 1.0, 0), of(1.0, 2.0, 0)];
        assert_eq!(choose(&odd, u64::MAX), [false; 4]);
        assert_eq!(choose(&[of(2.0, 1.0, 0), of(2.0, 1.0, 5), of(2.0, 1.0, 5)], 5), [true, true, false]);
        assert_eq!(choose(&[], 5), [false; 0]);
    }
}

//! From the histogram of a tensor's levels to the cheapest way to code them.

use prefix_core::Lengths;
use rans_core::nibble;

use crate::escapes;
use crate::levels::Split;

/// Most raw bits of a plan: a histogram does not reach further.
const MOST_RAW_BITS: u32 = 8;
/// Levels are counted one by one within this distance of the centre, and together beyond.
const REACH: i64 = 2048;

/// How often each level occurs.
#[derive(Clone, Debug)]
pub struct Histogram {
    center: i32,
    /// Of the levels within reach, ascending; the last counts all others.
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// An empty histogram around `center`, the level at which signs fold.
    pub fn new(center: i32) -> Self {
        Self { center, counts: vec![0; 2 * REACH as usize + 1], total: 0 }
    }

    /// Counts a level.
    pub fn add(&mut self, level: i32) {
        self.add_all(&[level]);
    }

    /// Counts levels.
    pub fn add_all(&mut self, levels: &[i32]) {
        let first = self.center.wrapping_sub(REACH as i32);
        for level in levels {
            // wrapping: what does not fit 32 bits is far outside either way
            let at = (level.wrapping_sub(first) as u32).min(2 * REACH as u32);
            self.counts[at as usize] += 1;
        }
        self.total += levels.len() as u64;
    }

    /// Counts a level that occurs `count` times.
    pub fn add_many(&mut self, level: i32, count: u64) {
        let first = self.center.wrapping_sub(REACH as i32);
        let at = (level.wrapping_sub(first) as u32).min(2 * REACH as u32);
        self.counts[at as usize] += count;
        self.total += count;
    }

    /// Number of levels within reach, and beyond.
    fn split(&self) -> (&[u64], u64) {
        let (last, within) = self.counts.split_last().unwrap_or((&0, &[]));
        (within, *last)
    }

    /// Counts all levels of another histogram around the same centre.
    pub fn merge(mut self, other: &Self) -> Self {
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self.total += other.total;
        self
    }

    /// Number of levels counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// (level, count) of the levels that occur within reach of the centre, ascending.
    pub fn levels(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        let first = i64::from(self.center) - REACH;
        let all = self.split().0.iter().enumerate().map(move |(i, &c)| ((first + i as i64) as i32, c));
        all.filter(|&(_, c)| c > 0)
    }

    /// Order-0 entropy in bits a level, levels beyond reach counted as one symbol.
    pub fn entropy(&self) -> f64 {
        entropy(self.counts.iter().copied())
    }

    /// The 16 neighbouring levels that hold the most: where they begin.
    fn best_window(&self) -> i32 {
        let within = self.split().0;
        let sum = |at: usize| within[at..at + 16].iter().sum::<u64>();
        let middle = REACH as usize;
        let far = |at: usize| (at + 8).abs_diff(middle);
        let at = (0..=within.len() - 16).max_by_key(|&at| (sum(at), usize::MAX - far(at))).unwrap_or(0);
        (i64::from(self.center) - REACH + at as i64) as i32
    }
}

/// Order-0 entropy of counts, in bits a symbol.
pub fn entropy(counts: impl Iterator<Item = u64> + Clone) -> f64 {
    let total = counts.clone().sum::<u64>() as f64;
    counts.filter(|&c| c > 0).map(|c| c as f64 / total * (total / c as f64).log2()).sum()
}

/// How often each nibble of a split occurs.
pub(crate) struct NibbleCounts {
    total: u64,
    counts: [u64; 16],
    /// Sum of the levels' absolute values by nibble, for the size of escapes.
    magnitude: [u64; 16],
    /// The same for levels that have no nibble.
    beyond: u64,
}

impl NibbleCounts {
    /// For this many levels; those that are not added have no nibble.
    pub fn new(total: u64) -> Self {
        Self { total, counts: [0; 16], magnitude: [0; 16], beyond: 0 }
    }

    /// Counts levels of a nibble and of this absolute value.
    pub fn add(&mut self, nibble: usize, level: u64, count: u64) {
        self.counts[nibble] += count;
        self.magnitude[nibble] += level * count;
    }

    /// Declares all others to have this absolute value.
    pub fn outside(&mut self, level: u64) {
        self.beyond = level * (self.total - self.counts.iter().sum::<u64>());
    }
}

/// How the levels of a tensor are coded, and what it costs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The split into nibble and raw bits.
    pub split: Split,
    /// Frequencies of the nibbles; a nibble with frequency 0 escapes.
    pub freqs: nibble::Frequencies,
    /// The nibble that stands at escapes: the most frequent one.
    pub filler: u8,
    /// Estimated bits of nibbles, raw bits and escapes together.
    pub bits: f64,
    /// Order-0 entropy of the nibble plane, in bits a weight.
    pub nibble_entropy: f64,
    /// Number of escapes.
    pub escapes: u64,
}

impl Plan {
    /// The cheapest plan over all numbers of raw bits in `raw_bits`. Of plans within 0.01 % the one with fewer raw bits
    /// wins: it decodes faster. `None` for an empty histogram.
    pub fn cheapest(histogram: &Histogram, raw_bits: std::ops::RangeInclusive<u32>) -> Option<Self> {
        let mut best: Option<Self> = None;
        for r in *raw_bits.start()..=MOST_RAW_BITS.min(*raw_bits.end()) {
            let center = if r == 0 { histogram.best_window() } else { histogram.center };
            if let Some(plan) = Self::for_split(histogram, Split { raw_bits: r, center })
                && best.as_ref().is_none_or(|b| plan.bits < b.bits * 0.9999)
            {
                best = Some(plan);
            }
        }
        best
    }

    /// The cheapest plan with this split.
    pub fn for_split(histogram: &Histogram, split: Split) -> Option<Self> {
        Self::for_counts(split, &Self::nibbles(histogram, split))
    }

    /// The plan by which a nibble plane was made in which nibbles occur so often, those at escapes counted. `None` if there
    /// are none. Its cost is without escapes.
    pub fn of_plane(split: Split, counts: &[u64; 16]) -> Option<Self> {
        let freqs = nibble::fast_frequencies(counts).ok()?;
        // the last of the most frequent ones, as in `for_counts`
        let filler = (0..16).max_by_key(|&s| counts[s]).unwrap_or(0) as u8;
        Some(Self::cost(counts.iter().sum(), split, freqs, counts, filler, (0, 0.0)))
    }

    /// What these levels cost with the frequencies and the split of this plan. The histogram must have the same centre.
    #[must_use]
    pub fn applied(&self, histogram: &Histogram) -> Self {
        let NibbleCounts { total, counts, magnitude, beyond } = Self::nibbles(histogram, self.split);
        let mut kept = counts;
        let mut escapes = (total - counts.iter().sum::<u64>(), beyond as f64);
        for (s, _) in self.freqs.as_array().iter().enumerate().filter(|(_, f)| **f == 0) {
            kept[s] = 0;
            escapes = (escapes.0 + counts[s], escapes.1 + magnitude[s] as f64);
        }
        kept[usize::from(self.filler)] += escapes.0;
        Self::cost(total, self.split, self.freqs, &kept, self.filler, escapes)
    }

    fn nibbles(histogram: &Histogram, split: Split) -> NibbleCounts {
        let mut counts = NibbleCounts::new(histogram.total);
        for (level, count) in histogram.levels() {
            if let Some((nibble, _)) = split.split(level) {
                counts.add(nibble.into(), level.unsigned_abs().into(), count);
            } else {
                counts.beyond += u64::from(level.unsigned_abs()) * count;
            }
        }
        counts.beyond += histogram.split().1 * REACH as u64;
        counts
    }

    /// The cheapest plan with this split: the rarest nibbles escape as long as that is cheaper than a frequency.
    pub(crate) fn for_counts(split: Split, counts: &NibbleCounts) -> Option<Self> {
        let NibbleCounts { total, counts, magnitude, beyond } = counts;
        let outside = (total - counts.iter().sum::<u64>(), *beyond as f64);
        let mut rarest: Vec<usize> = (0..16).filter(|&s| counts[s] > 0).collect();
        rarest.sort_by_key(|&s| counts[s]);
        let filler = rarest.last().copied().unwrap_or(0) as u8;
        let mut best: Option<Self> = None;
        for drop in 0..rarest.len().max(1) {
            let mut kept = *counts;
            let mut escapes = outside;
            for &s in &rarest[..drop] {
                kept[s] = 0;
                escapes = (escapes.0 + counts[s], escapes.1 + magnitude[s] as f64);
            }
            kept[usize::from(filler)] += escapes.0;
            let freqs = nibble::fast_frequencies(&kept).ok()?;
            let plan = Self::cost(*total, split, freqs, &kept, filler, escapes);
            if best.as_ref().is_none_or(|b| plan.bits < b.bits) {
                best = Some(plan);
            }
        }
        best
    }

    /// Bits a weight that a prefix code of pairs takes beyond the entropy of the frequencies, if neighbours in a column do
    /// not depend on each other.
    pub fn prefix_loss(&self) -> f64 {
        let freqs = self.freqs.as_array().map(u64::from);
        let pairs: [u64; 256] = std::array::from_fn(|pair| freqs[pair & 15] * freqs[pair >> 4]);
        let bits = Lengths::from_counts(&pairs).ok().and_then(|lengths| lengths.cost(&pairs)).unwrap_or(0);
        let total: u64 = pairs.iter().sum();
        bits as f64 / total as f64 / 2.0 - entropy(freqs.into_iter())
    }

    fn cost(
        total: u64,
        split: Split,
        freqs: nibble::Frequencies,
        counts: &[u64; 16],
        filler: u8,
        escapes: (u64, f64),
    ) -> Self {
        let coded = counts.iter().zip(freqs.as_array()).filter(|(c, _)| **c > 0);
        let nibble_bits: f64 = coded.map(|(&c, &f)| c as f64 * (256.0 / f64::from(f)).log2()).sum();
        let mut bits = nibble_bits + (u64::from(split.raw_bits) * total) as f64;
        if escapes.0 > 0 {
            let gap = total as f64 / escapes.0 as f64;
            bits += 8.0 * escapes.0 as f64 * escapes::bytes_for(gap, (escapes.1 / escapes.0 as f64) as i64);
        }
        let nibble_entropy = entropy(counts.iter().copied());
        Self { split, freqs, filler, bits, nibble_entropy, escapes: escapes.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laplace(step: f64) -> Histogram {
        let mut h = Histogram::new(0);
        let n = 1_000_000;
        for i in 0..n {
            let u = (f64::from(i) + 0.5) / f64::from(n) - 0.5;
            let w = -u.signum() * (1.0 - 2.0 * u.abs()).ln();
            h.add((w / step).floor() as i32);
        }
        h
    }

    #[test]
    fn finer_steps_take_more_raw_bits_and_stay_near_the_entropy() {
        let mut last = 0;
        for step in [2.0, 0.4, 0.2, 0.1, 0.05, 0.02] {
            let h = laplace(step);
            let plan = Plan::cheapest(&h, 0..=8).unwrap();
            assert!(plan.split.raw_bits >= last, "{step}");
            last = plan.split.raw_bits;
            let loss = plan.bits / h.total() as f64 / h.entropy();
            assert!(loss < 1.012, "step {step}: {} raw bits, {loss}", last);
        }
        assert!(last >= 3);
    }

    #[test]
    fn the_plan_of_other_levels_costs_more_and_its_own_the_same() {
        let (fine, coarse) = (laplace(0.2), laplace(0.8));
        let plan = Plan::for_split(&fine, Split { raw_bits: 2, center: 0 }).unwrap();
        assert_eq!(plan.applied(&fine).bits, plan.bits);
        let own = Plan::for_split(&coarse, plan.split).unwrap();
        let applied = plan.applied(&coarse);
        assert!(applied.bits > own.bits && applied.bits < 1.5 * own.bits, "{} {}", applied.bits, own.bits);
        assert_eq!(applied.freqs.as_array(), plan.freqs.as_array());
    }

    #[test]
    fn a_prefix_code_loses_little_but_where_there_is_hardly_any_entropy() {
        let of =
            |step| Plan::for_split(&laplace(step), Split { raw_bits: 1, center: 0 }).unwrap().prefix_loss();
        for step in [0.1, 0.2, 0.4] {
            assert!((0.0..0.04).contains(&of(step)), "{step}: {}", of(step));
        }
        let mut skewed = Histogram::new(0);
        [(0, 98), (1, 2)].iter().for_each(|&(level, count)| skewed.add_many(level, count));
        assert!(Plan::cheapest(&skewed, 0..=0).unwrap().prefix_loss() > 0.3);
        let mut alone = Histogram::new(0);
        alone.add_many(5, 100);
        assert_eq!(Plan::cheapest(&alone, 0..=0).unwrap().prefix_loss(), 0.0);
    }

    #[test]
    fn a_rare_outlier_escapes_instead_of_taking_a_frequency() {
        let mut h = Histogram::new(8);
        (0..1_000_000).for_each(|i| h.add(4 + (i & 7)));
        h.add(15);
        let plan = Plan::cheapest(&h, 0..=8).unwrap();
        assert_eq!((plan.split.raw_bits, plan.escapes), (0, 1));
        assert!(plan.bits < 3.0001e6);
    }

    #[test]
    fn levels_at_the_ends_of_the_integers_are_escapes() {
        let mut h = Histogram::new(0);
        for level in [i32::MIN, i32::MAX, 0, 0, 0] {
            h.add(level);
        }
        let plan = Plan::cheapest(&h, 0..=8).unwrap();
        assert_eq!(plan.escapes, 2);
        assert!(Plan::cheapest(&Histogram::new(0), 0..=8).is_none());
    }
}

//! A sorted sample of weights: levels at any step are counted, and errors summed, by a search for each threshold.

use ecq_format::plan::Histogram;

use crate::rule::Steps;

/// Magnitudes above are counted together: a histogram reaches no further.
const MOST: i32 = 2048;

/// Weights divided by the factors of their row and column, ascending.
pub(crate) struct Sorted {
    x: Vec<f32>,
    /// Before each x: the sums of the squared factors, of these times x, and of these times x².
    sums: Vec<[f64; 3]>,
}

/// The weights of a level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub level: i32,
    pub count: u64,
    /// Sums of the squared factors, of these times x, and of these times x².
    pub sums: [f64; 3],
}

/// The weights of all levels that occur, and their sum of squared errors.
pub(crate) struct Cells {
    pub cells: Vec<Cell>,
    pub error: f64,
}

/// A weight's x and factor, in an integer that is ordered as x.
pub(crate) fn packed(x: f32, factor: f32) -> u64 {
    let bits = x.to_bits();
    // negative floats descend as their bits ascend
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(ordered) << 32 | u64::from(factor.to_bits())
}

fn unpacked(packed: u64) -> (f32, f32) {
    let ordered = (packed >> 32) as u32;
    let bits = if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered };
    (f32::from_bits(bits), f32::from_bits(packed as u32))
}

impl Sorted {
    /// Of weights, each packed with its factor by [`packed`].
    pub fn new(mut packed: Vec<u64>) -> Self {
        // by the bits of x: a radix sort, several times as fast as one that compares, which took a quarter of the search
        radsort::sort_by_key(&mut packed, |&p| (p >> 32) as u32);
        let mut before = [0.0; 3];
        let mut sums = Vec::with_capacity(packed.len() + 1);
        sums.push(before);
        let x = packed.iter().map(|&p| {
            let (x, factor) = unpacked(p);
            let (wide, weight) = (f64::from(x), f64::from(factor) * f64::from(factor));
            before = [before[0] + weight, before[1] + weight * wide, before[2] + weight * wide * wide];
            sums.push(before);
            x
        });
        Self { x: x.collect(), sums }
    }

    /// Number of weights.
    pub fn len(&self) -> usize {
        self.x.len()
    }

    /// Sum of the squared weights.
    pub fn square(&self) -> f64 {
        self.sums.last().map_or(0.0, |s| s[2])
    }

    /// The largest magnitude of x.
    pub fn largest(&self) -> f32 {
        let ends = [self.x.first(), self.x.last()];
        ends.into_iter().flatten().fold(0.0, |a, x| a.max(x.abs()))
    }

    /// The magnitude of x that one weight in 50 exceeds; unlike the largest it does not follow outliers.
    pub fn typical(&self) -> f32 {
        // the tails on both sides, taken off from the longer one at a time
        let (mut low, mut high) = (0, self.x.len().saturating_sub(1));
        for _ in 0..self.x.len() / 50 {
            if -self.x[low] > self.x[high] { low += 1 } else { high -= 1 }
        }
        let at = |i: usize| self.x.get(i).map_or(0.0, |x| x.abs());
        at(low).max(at(high))
    }

    /// Counts the levels of these steps.
    pub fn cells(&self, steps: &Steps) -> Cells {
        let zero = self.x.partition_point(|&x| x < 0.0);
        let mut cells = Vec::new();
        let magnitude = |x: f32| steps.magnitude(x.abs() / steps.step);
        // away from zero on both sides, from cell to cell that is not empty
        let mut end = zero;
        while end > 0 {
            let m = magnitude(self.x[end - 1]);
            let start = if m > MOST { 0 } else { self.x[..end].partition_point(|&x| magnitude(x) > m) };
            cells.push(self.cell(steps.signed(m, true), start, end));
            end = start;
        }
        let mut start = zero;
        while start < self.x.len() {
            let m = magnitude(self.x[start]);
            let past = self.x[start..].partition_point(|&x| magnitude(x) <= m);
            let end = if m > MOST { self.x.len() } else { start + past };
            cells.push(self.cell(steps.signed(m, false), start, end));
            start = end;
        }
        let error = self.error(steps, &cells, |level| f64::from(level) + steps.bias());
        Cells { cells, error }
    }

    fn cell(&self, level: i32, start: usize, end: usize) -> Cell {
        let (a, b) = (self.sums[start], self.sums[end]);
        Cell { level, count: (end - start) as u64, sums: std::array::from_fn(|i| b[i] - a[i]) }
    }

    /// Sum of squared errors if levels mean `value(level)` steps.
    pub fn error(&self, steps: &Steps, cells: &[Cell], value: impl Fn(i32) -> f64) -> f64 {
        let step = f64::from(steps.step);
        let of = |c: &Cell| {
            if i64::from(c.level).abs() > i64::from(MOST) {
                return c.sums[0] * step * step / 12.0; // many levels in one
            }
            let t = value(c.level) * step;
            c.sums[2] - t * (2.0 * c.sums[1] - t * c.sums[0])
        };
        let error = cells.iter().map(of).sum::<f64>();
        // what rounding leaves of the squares is no error
        if error < self.square() * 1e-11 { 0.0 } else { error }
    }
}

impl Cells {
    /// How often each level occurs.
    pub fn histogram(&self) -> Histogram {
        let mut histogram = Histogram::new(0);
        self.cells.iter().for_each(|c| histogram.add_many(c.level, c.count));
        histogram
    }
}

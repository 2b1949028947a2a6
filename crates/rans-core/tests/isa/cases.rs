//! Cases from seeds: numbers, frequencies of every shape, and symbols that have them.

use rans_core::Frequencies;

/// A generator with a seed of its own for each test.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 32) as usize) % n
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// How many shapes of frequencies there are.
pub const SHAPES: usize = 10;

/// Frequencies of every shape: flat, nearly one symbol, exactly one, two of several sizes, random ones, random even ones.
pub fn frequencies<const N: usize, const TOTAL: u32>(
    shape: usize,
    random: &mut Random,
) -> Frequencies<N, TOTAL> {
    let total = TOTAL as u16;
    let mut freqs = [0; N];
    let place = random.below(N);
    let other = (place + 1 + random.below(N - 1)) % N;
    let mut two = |f: u16| (freqs[place], freqs[other]) = (f, total - f);
    match shape {
        0 => freqs = [total / N as u16; N],
        // every symbol but one is rare, the frequent one the first or the last or in between
        1..=3 => {
            freqs = [1; N];
            freqs[[0, N - 1, place][shape - 1]] = total + 1 - N as u16;
        }
        4 => two(total),
        5 => two(total - 1),
        6 => two(total / 2),
        7 => two(total / 2 + 1 + random.below(usize::from(total) / 2 - 1) as u16),
        _ => {
            let unit = if shape == 8 { 2 } else { 1 };
            let mut left = total / unit;
            while left > 0 {
                let parts = 1 + random.below(8);
                let f = 1 + random.below(usize::from(left).div_ceil(parts)) as u16;
                freqs[random.below(N)] += unit * f;
                left -= f;
            }
        }
    }
    Frequencies::new(freqs).unwrap()
}

/// Symbols as these frequencies have them.
pub fn symbols<const N: usize, const TOTAL: u32>(
    freqs: &Frequencies<N, TOTAL>,
    n: usize,
    random: &mut Random,
) -> Vec<u8> {
    let all = freqs.as_array().iter().enumerate();
    let slots: Vec<u8> = all.flat_map(|(s, &f)| vec![s as u8; usize::from(f)]).collect();
    (0..n).map(|_| slots[random.below(TOTAL as usize)]).collect()
}

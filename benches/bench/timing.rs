//! Times of contestants that take turns, so that what disturbs the machine disturbs them alike.

use std::time::{Duration, Instant};

/// Something to be timed.
pub struct Contestant<'a> {
    /// What the table calls it.
    pub name: String,
    /// Units of work in a call: weights, bytes.
    pub work: f64,
    run: Box<dyn FnMut() + 'a>,
}

impl<'a> Contestant<'a> {
    /// `run` does `work` units of work.
    pub fn new(name: impl Into<String>, work: usize, run: impl FnMut() + 'a) -> Self {
        Self { name: name.into(), work: work as f64, run: Box::new(run) }
    }
}

/// What a contestant reached, in units of work a second.
#[derive(Clone, Debug)]
pub struct Rate {
    /// What the table calls it.
    pub name: String,
    /// Median of all rounds.
    pub median: f64,
    /// The best round.
    pub best: f64,
    rounds: Vec<f64>,
}

impl Rate {
    /// Of rounds in units of work a second.
    pub fn new(name: impl Into<String>, rounds: Vec<f64>) -> Self {
        let best = rounds.iter().copied().fold(0.0, f64::max);
        Self { name: name.into(), median: median(rounds.clone()), best, rounds }
    }

    /// How many times as fast as `other`: the median of the ratios of single rounds.
    pub fn ratio(&self, other: &Self) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(a, b)| a / b).collect())
    }
}

/// The middle one.
pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Rounds in which each contestant runs once, until `time` is over; nine at least, after one to warm up.
pub fn race(time: Duration, contestants: Vec<Contestant<'_>>) -> Vec<Rate> {
    let mut contestants = contestants;
    contestants.iter_mut().for_each(|c| (c.run)());
    let mut rounds: Vec<Vec<f64>> = vec![Vec::new(); contestants.len()];
    let begun = Instant::now();
    while rounds[0].len() < 9 || begun.elapsed() < time {
        for (c, rounds) in contestants.iter_mut().zip(&mut rounds) {
            let start = Instant::now();
            (c.run)();
            rounds.push(c.work / start.elapsed().as_secs_f64());
        }
    }
    contestants.into_iter().zip(rounds).map(|(c, rounds)| Rate::new(c.name, rounds)).collect()
}

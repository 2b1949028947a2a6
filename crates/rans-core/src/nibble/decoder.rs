//! A stream to symbols, a few steps at a time.

use super::{DecodeTable, GROUP, LOW, MAX_LANES, Strips, VERBATIM};
use crate::{Error, Isa};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::{InstructionSet, arch};

/// Most bytes that a step can take: one a lane.
const MOST_A_STEP: usize = MAX_LANES;

/// Decodes a stream in pieces of whole steps, so that a caller can use the symbols while they are in cache.
///
/// The end of a stream and streams of a single symbol are nothing special: [`Self::advance`] until
/// [`Strips::steps`] steps are done, then [`Self::finish`].
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    isa: Isa,
    table: &'a DecodeTable,
    strips: Strips,
    bytes: &'a [u8],
    at: usize,
    step: usize,
    state: [u16; MAX_LANES],
}

impl<'a> Decoder<'a> {
    /// Reads the start states. Errors: [`Error::Truncated`], [`Error::StateBelowBound`], [`Error::TrailingBytes`].
    pub fn new(isa: Isa, table: &'a DecodeTable, strips: Strips, bytes: &'a [u8]) -> Result<Self, Error> {
        let mut state = [LOW as u16; MAX_LANES];
        let mut at = 0;
        if table.single.is_none() && strips.symbols > 0 {
            at = 2 * strips.lanes;
            let head = bytes.get(..at).ok_or(Error::Truncated { at: bytes.len() })?;
            for (x, pair) in state.iter_mut().zip(head.as_chunks::<2>().0) {
                *x = u16::from_le_bytes(*pair);
            }
            if let Some(lane) = state[..strips.lanes].iter().position(|&x| u32::from(x) < LOW) {
                return Err(Error::StateBelowBound { lane });
            }
        } else if !bytes.is_empty() {
            return Err(Error::TrailingBytes { left: bytes.len() });
        }
        Ok(Self { isa, table, strips, bytes, at, step: 0, state })
    }

    /// Steps that are done.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Decodes the next `steps` steps: the symbols of strip g, 64 a step until its end, go to `out[g * pitch..]`.
    ///
    /// Errors: [`Error::Truncated`], after which further results mean nothing; [`Error::Layout`] if `out` is too short, or
    /// if there are not so many steps.
    pub fn advance(&mut self, steps: usize, out: &mut [u8], pitch: usize) -> Result<(), Error> {
        let end = self.step.saturating_add(steps);
        if end > self.strips.steps() {
            return Err(Error::Layout { holds: self.strips.steps(), given: end });
        }
        let reach = |group: usize| {
            let len = self.len(group).min(end.saturating_mul(GROUP)).saturating_sub(self.step * GROUP);
            if len > 0 { group.saturating_mul(pitch).saturating_add(len) } else { 0 }
        };
        let needed = (0..self.groups()).map(reach).max().unwrap_or(0);
        if needed > out.len() {
            return Err(Error::Layout { holds: needed, given: out.len() });
        }
        let mut done = 0;
        while self.step < end {
            let out = beyond(out, done * GROUP);
            let (groups, even) = self.even();
            let even = even.min(end - self.step);
            let now = if even > 0 {
                self.full(groups, even, out, pitch)?;
                even
            } else {
                // where strips end differently, one step at a time
                if groups > 0 {
                    self.full(groups, 1, out, pitch)?;
                }
                (groups..self.groups()).try_for_each(|group| self.partial(group, out, pitch))?;
                1
            };
            (self.step, done) = (self.step + now, done + now);
        }
        Ok(())
    }

    fn groups(&self) -> usize {
        self.strips.lanes / GROUP
    }

    /// Symbols of a strip.
    fn len(&self, group: usize) -> usize {
        let (start, end) = self.strips.span(group);
        end - start
    }

    /// The leading groups of which every lane codes a symbol in this step, and for how many steps the other groups are
    /// at their end and these go on.
    fn even(&self) -> (usize, usize) {
        let left = |group: usize| {
            let coded = if self.table.single.is_some() { 0 } else { VERBATIM };
            (self.len(group) / GROUP).saturating_sub(coded).saturating_sub(self.step)
        };
        let groups = (0..self.groups()).take_while(|&g| left(g) > 0).count();
        let rest = groups < self.groups() && self.len(groups) > self.step * GROUP;
        if groups == 0 || rest { (groups, 0) } else { (groups, left(groups - 1)) }
    }

    /// Steps in which every lane of these groups codes a symbol.
    fn full(&mut self, groups: usize, steps: usize, out: &mut [u8], pitch: usize) -> Result<(), Error> {
        if let Some(symbol) = self.table.single {
            (0..groups).for_each(|g| out[g * pitch..][..steps * GROUP].fill(symbol));
            return Ok(());
        }
        let (table, state, bytes) = (self.table, &mut self.state[..groups * GROUP], self.bytes);
        let mut all = Steps { table, state, bytes, at: self.at, count: steps, out, pitch };
        let mut done = decode(self.isa, &mut all);
        self.at = all.at;
        if done < steps {
            // fast paths read ahead: the last bytes get zeros behind them, enough for one step more than there is
            let mut tail = [0; 2 * MOST_A_STEP];
            let left = &self.bytes[self.at..];
            tail[..left.len()].copy_from_slice(left);
            let out = beyond(all.out, done * GROUP);
            let mut rest = Steps { bytes: &tail, at: 0, count: steps - done, out, ..all };
            done += decode(self.isa, &mut rest);
            self.at += rest.at;
        }
        let end = self.bytes.len();
        if self.at > end || done < steps {
            self.at = self.at.min(end);
            return Err(Error::Truncated { at: end });
        }
        Ok(())
    }

    /// One step of a group some of whose lanes are at their end.
    fn partial(&mut self, group: usize, out: &mut [u8], pitch: usize) -> Result<(), Error> {
        let out = beyond(out, group.saturating_mul(pitch)); // a strip that is at its end may lie anywhere
        for (lanes, count) in self.strips.counts(group) {
            let left = count.saturating_sub(self.step);
            if left == 0 {
                continue;
            }
            let first = group * GROUP;
            let state = &mut self.state[first + lanes.start..first + lanes.end];
            let both = out[lanes].iter_mut().zip(state);
            if let Some(symbol) = self.table.single {
                both.for_each(|(out, _)| *out = symbol);
            } else if left > VERBATIM {
                for (out, x) in both {
                    *out = pull(self.table, x, self.bytes, &mut self.at)?;
                }
            } else {
                let place = VERBATIM.min(count) - left;
                both.for_each(|(out, x)| *out = (*x >> (4 * place)) as u8 & 15);
            }
        }
        Ok(())
    }

    /// Checks that every lane ended in a start state and no byte is left.
    ///
    /// Errors: [`Error::Layout`] if steps are left, [`Error::EndState`], [`Error::TrailingBytes`].
    pub fn finish(self) -> Result<(), Error> {
        if self.step < self.strips.steps() {
            return Err(Error::Layout { holds: self.strips.steps(), given: self.step });
        }
        for group in 0..self.groups() {
            for (lanes, count) in self.strips.counts(group) {
                let carried = if self.table.single.is_some() { 0 } else { VERBATIM.min(count) };
                let first = group * GROUP + lanes.start;
                let wrong = |&x: &u16| u32::from(x) >> (4 * carried) != LOW >> (4 * carried);
                if let Some(i) = self.state[first..][..lanes.len()].iter().position(wrong) {
                    return Err(Error::EndState { lane: first + i });
                }
            }
        }
        match self.bytes.len() - self.at {
            0 => Ok(()),
            left => Err(Error::TrailingBytes { left }),
        }
    }
}

/// What lies from `at` on, if anything does.
fn beyond(out: &mut [u8], at: usize) -> &mut [u8] {
    let at = at.min(out.len());
    &mut out[at..]
}

/// Decodes a symbol of a lane; returns it with the state before the refill.
#[inline(always)]
fn symbol(table: &DecodeTable, state: u16) -> (u8, u32) {
    let entry = table.slot[usize::from(state as u8)];
    let symbol = entry & 15;
    let freq = u32::from(table.freq[usize::from(symbol)]);
    (symbol, ((freq * u32::from(state)) >> 8).wrapping_add_signed(-i32::from(entry as i8 >> 4)))
}

/// [`symbol`], and the refill. Error: [`Error::Truncated`].
fn pull(table: &DecodeTable, state: &mut u16, bytes: &[u8], at: &mut usize) -> Result<u8, Error> {
    let (symbol, mut x) = symbol(table, *state);
    if x < LOW {
        let &byte = bytes.get(*at).ok_or(Error::Truncated { at: *at })?;
        *at += 1;
        x = x << 8 | u32::from(byte);
    }
    *state = x as u16;
    Ok(symbol)
}

/// Steps in which every lane of some groups codes a symbol.
pub(crate) struct Steps<'a> {
    pub table: &'a DecodeTable,
    /// 64 states a group.
    pub state: &'a mut [u16],
    pub bytes: &'a [u8],
    /// Where the stream goes on.
    pub at: usize,
    /// Number of steps.
    pub count: usize,
    /// The symbols of group g go to `out[g * pitch..]`, which has room for 64 a step.
    pub out: &'a mut [u8],
    pub pitch: usize,
}

/// Decodes; returns how many steps. Stops before one for which `bytes` may not hold enough: a byte a lane.
fn decode(isa: Isa, steps: &mut Steps<'_>) -> usize {
    match isa.set() {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => arch::avx2::nibble::decode(isa, steps),
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => arch::avx512::nibble_decode::decode(isa, steps),
        #[cfg(target_arch = "aarch64")]
        InstructionSet::Neon => arch::neon::nibble::decode(isa, steps),
        _ => scalar(steps),
    }
}

/// The reference of all fast paths.
fn scalar(steps: &mut Steps<'_>) -> usize {
    let Steps { table, state, bytes, at, count, out, pitch } = steps;
    for step in 0..*count {
        if bytes.len() - *at < state.len() {
            return step;
        }
        let mut next = *at;
        for (group, lanes) in state.chunks_exact_mut(GROUP).enumerate() {
            for (state, out) in lanes.iter_mut().zip(&mut out[group * *pitch + step * GROUP..]) {
                let (symbol, x) = symbol(table, *state);
                *out = symbol;
                // every other lane or so refills: a branch would be mispredicted all the time
                let (refill, byte) = (x < LOW, u32::from(bytes[next]));
                *state = core::hint::select_unpredictable(refill, x << 8 | byte, x) as u16;
                next += usize::from(refill);
            }
        }
        *at = next;
    }
    *count
}

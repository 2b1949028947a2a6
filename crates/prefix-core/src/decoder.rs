//! Streams to symbols.

#[cfg(target_arch = "x86_64")]
use crate::arch::{self, InstructionSet};
use crate::blocks::{Turn, Turns};
use crate::{Blocks, DecodeTable, Error, Isa, LANES, LEAD};

/// Decodes a stream into `out`, as fast as this CPU can: the symbols of the blocks in order, each block row by row.
///
/// Errors: [`Error::Layout`], [`Error::StreamLength`], [`Error::Truncated`], [`Error::Filling`],
/// [`Error::TrailingBytes`]. On an error the contents of `out` are unspecified.
pub fn decode(table: &DecodeTable, blocks: &Blocks, stream: &[u8], out: &mut [u8]) -> Result<(), Error> {
    decode_with(Isa::best(), table, blocks, stream, out)
}

/// [`decode`] with a given instruction set.
pub fn decode_with(
    isa: Isa,
    table: &DecodeTable,
    blocks: &Blocks,
    stream: &[u8],
    out: &mut [u8],
) -> Result<(), Error> {
    let mut run = Run::start(*blocks, stream, out)?;
    match isa.set() {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => arch::avx2::steps(isa, table, &mut run),
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => arch::avx512::steps(isa, table, &mut run),
        _ => run.steps(table),
    }
    run.finish(table)
}

/// A stream on its way.
pub(crate) struct Run<'a> {
    /// The word of each lane in which its next bit is, unless all 32 are used.
    pub(crate) lo: [u32; LANES],
    /// The word of each lane after that.
    pub(crate) hi: [u32; LANES],
    /// Bits of `lo` that are used.
    pub(crate) used: [u32; LANES],
    pub(crate) words: &'a [[u8; 4]],
    /// Words that are taken.
    pub(crate) taken: usize,
    turns: Turns,
    /// Room for the symbols of these turns.
    out: &'a mut [u8],
}

impl<'a> Run<'a> {
    fn start(blocks: Blocks, stream: &'a [u8], out: &'a mut [u8]) -> Result<Self, Error> {
        if out.len() != blocks.symbols() {
            return Err(Error::Layout { holds: blocks.symbols(), given: out.len() });
        }
        let (words, []) = stream.as_chunks() else {
            return Err(Error::StreamLength { given: stream.len() });
        };
        let word = |place| words.get(place).map_or(0, |&word| u32::from_le_bytes(word));
        let lo = core::array::from_fn(word);
        if let Some(lane) = lo.iter().position(|lo| lo.trailing_zeros() < LEAD) {
            return Err(Error::Filling { lane });
        }
        let hi = core::array::from_fn(|lane| word(LANES + lane));
        let taken = words.len().min(2 * LANES);
        Ok(Self { lo, hi, used: [LEAD; LANES], words, taken, turns: blocks.turns(), out })
    }

    /// There is a word for each lane, and one more: the last word is for [`Self::finish`].
    #[inline]
    pub(crate) fn enough(&self) -> bool {
        self.words.len() - self.taken > LANES
    }

    /// The next turn, with room for its symbols.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<(Turn, &'a mut [u8])> {
        let turn = self.turns.next()?;
        let (out, rest) = core::mem::take(&mut self.out).split_at_mut(turn.symbols());
        self.out = rest;
        Some((turn, out))
    }

    /// Decodes as long as there are [`Self::enough`] words and turns: what vector paths do in its place.
    fn steps(&mut self, table: &DecodeTable) {
        while self.enough()
            && let Some((turn, out)) = self.next()
        {
            if turn.two {
                let (first, second) = out.split_at_mut(turn.width);
                self.turn(table, first, second);
            } else {
                self.turn(table, out, &mut []);
            }
        }
    }

    /// A symbol of each lane, or two, and then words for those that have used one.
    #[inline(always)]
    fn turn(&mut self, table: &DecodeTable, first: &mut [u8], second: &mut [u8]) {
        let words = &self.words[self.taken..][..LANES];
        let mut next = 0;
        for (lane, symbol) in first.iter_mut().enumerate() {
            let Self { lo, hi, used, .. } = self;
            let (lo, hi, used) = (&mut lo[lane], &mut hi[lane], &mut used[lane]);
            let mut window = (u64::from(*hi) << 32 | u64::from(*lo)) >> *used;
            let bits;
            (*symbol, bits) = table.get(window);
            *used += bits;
            if let Some(symbol) = second.get_mut(lane) {
                window >>= bits;
                let bits;
                (*symbol, bits) = table.get(window);
                *used += bits;
            }
            // every other lane or so takes a word: a branch would be mispredicted all the time
            let (refill, word) = (*used >= 32, u32::from_le_bytes(words[next % LANES]));
            *lo = core::hint::select_unpredictable(refill, *hi, *lo);
            *hi = core::hint::select_unpredictable(refill, word, *hi);
            *used %= 32;
            next += usize::from(refill);
        }
        self.taken += next;
    }

    /// Decodes what is left, and checks that the stream is what an encoder writes.
    fn finish(mut self, table: &DecodeTable) -> Result<(), Error> {
        let len = self.words.len();
        // of each lane, how many bits of `lo` and `hi` come from the stream; all, if there were enough words so far
        let mut stored =
            core::array::from_fn(|lane| 32 * (u32::from(lane < len) + u32::from(LANES + lane < len)));
        // who took the last word
        let mut last = len.saturating_sub(1) % LANES;
        while let Some((turn, out)) = self.next() {
            for (i, symbol) in out.iter_mut().enumerate() {
                let lane = i % turn.width;
                let bits;
                (*symbol, bits) = table.get(self.window(lane));
                self.used[lane] += bits;
            }
            for (lane, stored) in stored[..turn.width].iter_mut().enumerate() {
                if self.used[lane] >= 32 {
                    *stored = stored.checked_sub(32).ok_or(Error::Truncated { lane })?;
                    self.lo[lane] = self.hi[lane];
                    self.hi[lane] = 0;
                    self.used[lane] -= 32;
                    if let Some(&word) = self.words.get(self.taken) {
                        self.hi[lane] = u32::from_le_bytes(word);
                        *stored += 32;
                        self.taken += 1;
                        last = lane;
                    }
                }
            }
        }
        self.check(&stored, last)
    }

    /// The bits of a lane that are next.
    fn window(&self, lane: usize) -> u64 {
        (u64::from(self.hi[lane]) << 32 | u64::from(self.lo[lane])) >> self.used[lane]
    }

    /// Checks where the lanes ended.
    fn check(&self, stored: &[u32; LANES], last: usize) -> Result<(), Error> {
        let len = self.words.len();
        for (lane, &stored) in stored.iter().enumerate() {
            // a lane without a word cannot have got beyond its first one; the lead needs none
            let lead_only = lane >= len && self.used[lane] == LEAD;
            if self.used[lane] > stored && !lead_only {
                return Err(Error::Truncated { lane });
            }
            if self.window(lane) != 0 {
                return Err(Error::Filling { lane });
            }
        }
        if self.taken < len {
            return Err(Error::TrailingBytes { left: 4 * (len - self.taken) });
        }
        // the last word holds a bit of a code, if its lane still has it
        let before = if len <= LANES { LEAD } else { 0 };
        match stored[last].checked_sub(32) {
            Some(start) if self.used[last] <= start + before => Err(Error::TrailingBytes { left: 4 }),
            _ => Ok(()),
        }
    }
}

//! Streams to symbols, several side by side.

use super::{DecodeTable, LANES, LOW, STATES, Steps, VERBATIM, same_length};
#[cfg(target_arch = "x86_64")]
use crate::arch;
use crate::{Error, InstructionSet, Isa};

/// Most streams that are decoded at the same time.
const MOST: usize = 4;

/// Streams that are decoded at the same time: with AVX2, the states of more do not fit into registers.
fn side_by_side(isa: Isa) -> usize {
    match isa.set() {
        InstructionSet::Avx512 => MOST,
        InstructionSet::Avx2 => 2,
        InstructionSet::Scalar | InstructionSet::Neon => 1,
    }
}

/// Decodes runs, first to last.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    pub(crate) state: [u32; LANES],
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Decoder<'a> {
    /// Reads the start states. Errors: [`Error::Truncated`], [`Error::StateBelowBound`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let head = bytes.get(..STATES).ok_or(Error::Truncated { at: bytes.len() })?;
        let mut state = [0; LANES];
        for (lane, b) in head.chunks_exact(4).enumerate() {
            state[lane] = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            if state[lane] < LOW {
                return Err(Error::StateBelowBound { lane });
            }
        }
        Ok(Self { state, bytes, at: STATES })
    }

    /// Decodes a run of `out.len()` symbols with one table. Error: [`Error::Truncated`].
    pub fn run(&mut self, table: &DecodeTable, out: &mut [u8]) -> Result<(), Error> {
        for out in out.chunks_mut(LANES) {
            if out.len() == LANES && self.enough() {
                self.step(table, out);
                continue;
            }
            for (lane, symbol) in out.iter_mut().enumerate() {
                *symbol = self.pull(lane, table)?;
            }
        }
        Ok(())
    }

    /// Decodes a run in which symbol i uses `tables[contexts[i]]`. `contexts` must be as long as `out`.
    ///
    /// Errors: [`Error::Truncated`], [`Error::NoSuchTable`], [`Error::Layout`].
    pub fn run_with_contexts(
        &mut self,
        tables: &[DecodeTable],
        contexts: &[u8],
        out: &mut [u8],
    ) -> Result<(), Error> {
        same_length(contexts, out)?;
        for (i, symbol) in out.iter_mut().enumerate() {
            let table = usize::from(contexts[i]);
            *symbol = self.pull(i % LANES, tables.get(table).ok_or(Error::NoSuchTable { table })?)?;
        }
        Ok(())
    }

    /// There is a word for each lane.
    fn enough(&self) -> bool {
        self.bytes.len() - self.at >= 2 * LANES
    }

    /// A symbol of each lane. There must be a word for each lane.
    fn step(&mut self, table: &DecodeTable, out: &mut [u8]) {
        let (words, _) = self.bytes[self.at..].as_chunks::<2>();
        let mut next = 0;
        for (state, out) in self.state.iter_mut().zip(out) {
            let (symbol, x) = symbol(table, *state);
            *out = symbol;
            // every other lane or so refills: a branch would be mispredicted all the time
            let (refill, word) = (x < LOW, u32::from(u16::from_le_bytes(words[next])));
            *state = core::hint::select_unpredictable(refill, x << 16 | word, x);
            next += usize::from(refill);
        }
        self.at += 2 * next;
    }

    /// A symbol of one lane. Error: [`Error::Truncated`].
    #[inline]
    fn pull(&mut self, lane: usize, table: &DecodeTable) -> Result<u8, Error> {
        let (symbol, mut x) = symbol(table, self.state[lane]);
        if x < LOW {
            let word = self.bytes.get(self.at..self.at + 2).ok_or(Error::Truncated { at: self.at })?;
            self.at += 2;
            x = x << 16 | u32::from(u16::from_le_bytes([word[0], word[1]]));
        }
        self.state[lane] = x;
        Ok(symbol)
    }

    /// Checks that every lane ends in a start state and no byte is left; returns the payloads.
    ///
    /// Errors: [`Error::EndState`], [`Error::TrailingBytes`].
    pub fn finish(self) -> Result<[u16; LANES], Error> {
        match self.finish_prefix()? {
            (payload, []) => Ok(payload),
            (_, rest) => Err(Error::TrailingBytes { left: rest.len() }),
        }
    }

    /// Checks that every lane ends in a start state; returns the payloads and the bytes after the stream.
    ///
    /// Error: [`Error::EndState`].
    pub fn finish_prefix(self) -> Result<([u16; LANES], &'a [u8]), Error> {
        match self.state.iter().position(|x| x >> 16 != 1) {
            Some(lane) => Err(Error::EndState { lane }),
            None => Ok((self.state.map(|x| x as u16), &self.bytes[self.at..])),
        }
    }
}

/// Decodes a symbol of a lane; returns it with the state before the refill.
#[inline(always)]
fn symbol(table: &DecodeTable, state: u32) -> (u8, u32) {
    let entry = table.0[(state & 0xfff) as usize];
    let freq = ((entry >> 12) & 0xfff) + 1;
    ((entry >> 24) as u8, freq * (state >> 12) + (entry & 0xfff))
}

/// A stream for [`decode_many`], and what came of it.
#[derive(Debug)]
pub struct Job<'a> {
    steps: Steps,
    bytes: &'a [u8],
    out: &'a mut [u8],
    result: Result<(), Error>,
}

impl<'a> Job<'a> {
    /// To decode `bytes` into `out`.
    pub fn new(steps: Steps, bytes: &'a [u8], out: &'a mut [u8]) -> Self {
        Self { steps, bytes, out, result: Ok(()) }
    }

    /// After [`decode_many`]: what [`decode`] would have returned.
    pub fn result(&self) -> Result<(), Error> {
        self.result
    }
}

/// A stream on its way.
pub(crate) struct Run<'j, 'a> {
    /// Its states and bytes.
    pub(crate) decoder: Decoder<'a>,
    /// All symbols of the stream.
    pub(crate) out: &'j mut [u8],
    /// Steps that are done.
    pub(crate) done: usize,
    steps: Steps,
    result: &'j mut Result<(), Error>,
}

impl<'j, 'a> Run<'j, 'a> {
    /// Reads the start states. If that fails, the job is done.
    fn start(job: &'j mut Job<'a>) -> Option<Self> {
        let Job { steps, bytes, out, result } = job;
        let decoder = if out.len() == steps.symbols() {
            Decoder::new(bytes)
        } else {
            Err(Error::Layout { holds: steps.symbols(), given: out.len() })
        };
        *result = decoder.as_ref().map(|_| ()).map_err(|&e| e);
        Some(Self { decoder: decoder.ok()?, out, done: 0, steps: *steps, result })
    }

    /// Steps that a fast path may do: all 32 lanes code a symbol, and there are bytes for the next one.
    fn ahead(&self) -> usize {
        if !self.decoder.enough() {
            return 0;
        }
        // narrow steps, and all after them, are for `rest`
        let coded = self.steps.full().saturating_sub(VERBATIM);
        coded.min(self.steps.full_at_first()).saturating_sub(self.done)
    }

    /// Decodes what is left without vectors.
    fn finish(mut self, table: &DecodeTable) {
        *self.result = self.rest(table).and_then(|()| {
            let payload = self.decoder.finish()?;
            let steps = self.steps;
            let carried = |lane| VERBATIM.min(steps.count(lane));
            match (0..LANES).find(|&lane| u32::from(payload[lane]) >> (8 * carried(lane)) != 0) {
                Some(lane) => Err(Error::EndState { lane }),
                None => Ok(()),
            }
        });
    }

    fn rest(&mut self, table: &DecodeTable) -> Result<(), Error> {
        while self.ahead() > 0 {
            self.decoder.step(table, &mut self.out[self.done * LANES..]);
            self.done += 1;
        }
        let out = &mut self.out[self.done * LANES..];
        for ((lane, step), symbol) in self.steps.places(self.done).zip(out) {
            let coded = self.steps.count(lane).saturating_sub(VERBATIM);
            *symbol = match step.checked_sub(coded) {
                Some(place) => (self.decoder.state[lane] >> (8 * place)) as u8,
                None => self.decoder.pull(lane, table)?,
            };
        }
        Ok(())
    }
}

/// Where a fast path reads and writes.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Cursor {
    /// The next word.
    pub(crate) next: *const u8,
    end: *const u8,
    /// The symbols of the next step.
    pub(crate) to: *mut u8,
}

#[cfg(target_arch = "x86_64")]
impl Cursor {
    /// Nowhere.
    pub(crate) const NONE: Self =
        Self { next: core::ptr::null(), end: core::ptr::null(), to: core::ptr::null_mut() };

    /// At `next` there is a word for each lane.
    pub(crate) fn enough(&self) -> bool {
        self.end.addr() - self.next.addr() >= 2 * LANES
    }
}

#[cfg(target_arch = "x86_64")]
impl Run<'_, '_> {
    /// The cursor, with room for `steps` steps.
    pub(crate) fn cursor(&mut self, steps: usize) -> Cursor {
        let Decoder { bytes, at, .. } = self.decoder;
        let to = self.out[self.done * LANES..][..steps * LANES].as_mut_ptr();
        Cursor { next: bytes[at..].as_ptr(), end: bytes.as_ptr_range().end, to }
    }

    /// `steps` steps are done and led to `cursor`.
    pub(crate) fn advance(&mut self, cursor: Cursor, steps: usize) {
        self.decoder.at = cursor.next.addr() - self.decoder.bytes.as_ptr().addr();
        self.done += steps;
    }
}

/// Decodes a stream into `out`, as fast as this CPU can.
///
/// Errors: [`Error::Layout`], [`Error::Truncated`], [`Error::StateBelowBound`], [`Error::EndState`],
/// [`Error::TrailingBytes`]. On an error the contents of `out` are unspecified.
pub fn decode(table: &DecodeTable, steps: &Steps, bytes: &[u8], out: &mut [u8]) -> Result<(), Error> {
    decode_with(Isa::best(), table, steps, bytes, out)
}

/// [`decode`] with a given instruction set.
pub fn decode_with(
    isa: Isa,
    table: &DecodeTable,
    steps: &Steps,
    bytes: &[u8],
    out: &mut [u8],
) -> Result<(), Error> {
    let mut job = Job::new(*steps, bytes, out);
    decode_many(isa, table, core::slice::from_mut(&mut job));
    job.result
}

/// Decodes streams of one table, a few of them at the same time; each job then has its own result.
///
/// Streams of any lengths and shapes go together, best the long ones first.
pub fn decode_many(isa: Isa, table: &DecodeTable, jobs: &mut [Job<'_>]) {
    let mut jobs = jobs.iter_mut();
    let mut runs = [const { None }; MOST];
    let mut count = 0;
    loop {
        while count < side_by_side(isa)
            && let Some(job) = jobs.next()
        {
            runs[count] = Run::start(job);
            count += usize::from(runs[count].is_some());
        }
        if count == 0 {
            return;
        }
        let steps = runs[..count].iter().flatten().map(Run::ahead).min().unwrap_or(0);
        let done = if steps > 0 { byte_steps(isa, table, &mut runs[..count], steps) } else { 0 };
        // those that no fast path can bring further finish, and the last ones take their places
        for i in (0..count).rev() {
            if let Some(run) = runs[i].take_if(|run| run.ahead() == 0 || (steps > 0 && done == 0)) {
                run.finish(table);
                count -= 1;
                runs.swap(i, count);
            }
        }
    }
}

/// Decodes up to `steps` steps of all runs, in which every lane codes a symbol; returns how many.
///
/// Stops before a step for which a stream may not hold enough: a word a lane.
fn byte_steps(isa: Isa, table: &DecodeTable, runs: &mut [Option<Run<'_, '_>>], steps: usize) -> usize {
    match isa.set() {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => arch::avx2::byte::decode(isa, table, runs, steps),
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => arch::avx512::byte::decode(isa, table, runs, steps),
        _ => {
            let _ = (table, runs, steps);
            0 // `Run::rest` is the reference
        }
    }
}

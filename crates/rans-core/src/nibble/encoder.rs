//! Symbols to a stream, backwards.

use super::{EncodeTable, GROUP, LOW, MAX_LANES, Strips, VERBATIM, check_count, max_len};
use crate::{Error, Isa};
#[cfg(target_arch = "x86_64")]
use crate::{InstructionSet, arch};

/// Codes `symbols` into the start of `out`, as fast as this CPU can, and returns the length in bytes.
///
/// A plane with a single symbol has an empty stream. `out` of [`max_len`] bytes is always enough.
/// Errors: [`Error::Layout`], [`Error::SymbolWithoutFrequency`], [`Error::BufferTooSmall`].
pub fn encode(table: &EncodeTable, strips: &Strips, symbols: &[u8], out: &mut [u8]) -> Result<usize, Error> {
    encode_with(Isa::best(), table, strips, symbols, out)
}

/// [`encode`] with a given instruction set.
pub fn encode_with(
    isa: Isa,
    table: &EncodeTable,
    strips: &Strips,
    symbols: &[u8],
    out: &mut [u8],
) -> Result<usize, Error> {
    check_count(strips, symbols.len())?;
    if !known(isa, table, symbols) {
        let absent = |&s: &u8| table.absent[usize::from(s)];
        let position = symbols.iter().position(absent).unwrap_or(0);
        return Err(Error::SymbolWithoutFrequency { position, symbol: symbols[position] });
    }
    if table.single.is_some() || symbols.is_empty() {
        return Ok(0);
    }
    let (given, head) = (out.len(), 2 * strips.lanes);
    if given < head {
        return Err(Error::BufferTooSmall { needed: max_len(strips), given });
    }
    let mut encoder = Encoder {
        isa,
        table,
        strips,
        symbols,
        state: [LOW as u16; MAX_LANES],
        refill: &mut out[head..],
        at: given - head,
    };
    encoder.verbatim();
    encoder.run().ok_or(Error::BufferTooSmall { needed: max_len(strips), given })?;
    let Encoder { state, at, .. } = encoder;
    for (bytes, x) in out.as_chunks_mut::<2>().0.iter_mut().zip(&state[..strips.lanes]) {
        *bytes = x.to_le_bytes();
    }
    out.copy_within(head + at.., head);
    Ok(given - at)
}

/// Whether every symbol has a frequency.
fn known(isa: Isa, table: &EncodeTable, symbols: &[u8]) -> bool {
    match isa.set() {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => arch::avx512::nibble_encode::known(isa, table, symbols),
        _ => !symbols.iter().fold(false, |any, &s| any | table.absent[usize::from(s)]),
    }
}

struct Encoder<'a> {
    isa: Isa,
    table: &'a EncodeTable,
    strips: &'a Strips,
    symbols: &'a [u8],
    state: [u16; MAX_LANES],
    /// Refill bytes grow downwards from the end of this buffer; they begin at `at`.
    refill: &'a mut [u8],
    at: usize,
}

impl Encoder<'_> {
    /// Puts the last symbols of all lanes into their states.
    fn verbatim(&mut self) {
        for group in 0..self.strips.lanes / GROUP {
            let start = self.strips.span(group).0;
            for (lanes, count) in self.strips.counts(group) {
                let carried = VERBATIM.min(count);
                for place in 0..carried {
                    let step = count - carried + place;
                    let symbols = &self.symbols[start + step * GROUP..];
                    for lane in lanes.clone() {
                        self.state[group * GROUP + lane] |= u16::from(symbols[lane]) << (4 * place);
                    }
                }
            }
        }
    }

    /// Codes all other symbols. `None` if the buffer is full.
    fn run(&mut self) -> Option<()> {
        let groups = self.strips.lanes / GROUP;
        // steps in which every lane of a group codes a symbol, and in which any does
        let all = |group: usize| self.strips.counts(group)[1].1.saturating_sub(VERBATIM);
        let any = |group: usize| {
            self.strips
                .counts(group)
                .iter()
                .filter(|c| !c.0.is_empty())
                .map(|c| c.1)
                .max()
                .unwrap_or(0)
                .saturating_sub(VERBATIM)
        };
        let mut end = any(0); // strips do not get longer
        while end > 0 {
            let step = end - 1;
            let full = (0..groups).take_while(|&g| all(g) > step).count();
            let coded = (full..groups).take_while(|&g| any(g) > step).count();
            for group in (full..full + coded).rev() {
                self.partial(group, step)?;
            }
            let from = if coded > 0 {
                step
            } else if full < groups {
                any(full)
            } else {
                0
            };
            end = from;
            let steps = step + 1 - from;
            self.full(full, from, steps)?;
        }
        Some(())
    }

    /// A step of a group some of whose lanes are at their end.
    fn partial(&mut self, group: usize, step: usize) -> Option<()> {
        let start = self.strips.span(group).0 + step * GROUP;
        for (lanes, count) in self.strips.counts(group).into_iter().rev() {
            if count > step + VERBATIM {
                let state = &mut self.state[group * GROUP..][lanes.clone()];
                push_all(self.table, state, &self.symbols[start..][lanes], self.refill, &mut self.at)?;
            }
        }
        Some(())
    }

    /// `steps` steps from step `from` on, in which every lane of the first groups codes a symbol.
    fn full(&mut self, groups: usize, from: usize, steps: usize) -> Option<()> {
        if groups == 0 {
            return Some(());
        }
        let (pitch, state) = (self.strips.strip, &mut self.state[..groups * GROUP]);
        let symbols = &self.symbols[from * GROUP..];
        let left = match self.isa.set() {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => arch::avx512::nibble_encode::encode(
                self.isa,
                self.table,
                state,
                symbols,
                pitch,
                steps,
                self.refill,
                &mut self.at,
            ),
            _ => steps,
        };
        // what is left where room is short, or without a fast path: the reference
        for step in (0..left).rev() {
            for (group, state) in state.chunks_exact_mut(GROUP).enumerate().rev() {
                let symbols = &symbols[group * pitch + step * GROUP..][..GROUP];
                push_all(self.table, state, symbols, self.refill, &mut self.at)?;
            }
        }
        Some(())
    }
}

/// Codes a symbol in each lane, the last lane first. `None` if the buffer is full.
fn push_all(
    table: &EncodeTable,
    state: &mut [u16],
    symbols: &[u8],
    refill: &mut [u8],
    at: &mut usize,
) -> Option<()> {
    let mut next = *at;
    for (state, &symbol) in state.iter_mut().zip(symbols).rev() {
        let s = usize::from(symbol & 15);
        let (f, x) = (u32::from(table.freq[s]), u32::from(*state));
        let full = x >= f << 8;
        if next == 0 && full {
            return None;
        }
        // every other lane or so is full: a branch would be mispredicted all the time
        if let Some(below) = refill.get_mut(next.wrapping_sub(1)) {
            *below = x as u8;
        }
        next -= usize::from(full);
        let x = core::hint::select_unpredictable(full, x >> 8, x);
        let q = ((u64::from(x) * u64::from(table.reciprocal[s])) >> 24) as u32;
        let slot = table.slot[usize::from(table.first[s] as u8 + (x - q * f) as u8)];
        *state = (q << 8) as u16 | u16::from(slot);
    }
    *at = next;
    Some(())
}

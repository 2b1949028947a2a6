//! Counts to lengths of codes, and lengths to bytes.

use crate::{Error, MAX_BITS};

/// In place of a length: the symbol is the only one, and its code has no bits.
const ALONE: u8 = 15;

/// Windows of `MAX_BITS` bits.
const WINDOWS: u32 = 1 << MAX_BITS;

/// Lengths of the codes of 256 symbols: a complete code of 1 to 12 bits for some of them, or of no bits for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths([u8; 256]);

impl Lengths {
    /// Bytes of a serialised code.
    pub const BYTES: usize = 128;

    /// The lengths with the fewest bits for these counts; symbols that do not occur get no code.
    ///
    /// Integer arithmetic and a fixed order of equal counts: every machine gets the same code.
    /// Error: [`Error::NoSymbols`] if all counts are zero.
    pub fn from_counts(counts: &[u64; 256]) -> Result<Self, Error> {
        let mut order = [0; 256];
        let mut present = 0;
        for (s, _) in (0..=255).zip(counts).filter(|&(_, &count)| count > 0) {
            order[present] = s;
            present += 1;
        }
        let order = &mut order[..present];
        order.sort_unstable_by_key(|&s| (counts[usize::from(s)], s));
        let mut lengths = [0; 256];
        match *order {
            [] => return Err(Error::NoSymbols),
            [symbol] => lengths[usize::from(symbol)] = ALONE,
            _ => package_merge(order, counts, &mut lengths),
        }
        Ok(Self(lengths))
    }

    /// Serialises the code to the start of `out` and returns the length, [`Self::BYTES`].
    ///
    /// Four bits a symbol, symbol 0 in the low half of byte 0: 0 for no code, 1 to 12 for its length, 15 for the only
    /// symbol. Error: [`Error::BufferTooSmall`].
    pub fn write(&self, out: &mut [u8]) -> Result<usize, Error> {
        let given = out.len();
        let out = out.get_mut(..Self::BYTES).ok_or(Error::BufferTooSmall { needed: Self::BYTES, given })?;
        for (byte, [low, high]) in out.iter_mut().zip(self.0.as_chunks().0) {
            *byte = low | high << 4;
        }
        Ok(Self::BYTES)
    }

    /// Reads a code from the start of `bytes` and returns it with its length, [`Self::BYTES`].
    ///
    /// Errors: [`Error::LengthTable`], [`Error::Incomplete`].
    pub fn read(bytes: &[u8]) -> Result<(Self, usize), Error> {
        let table = bytes.get(..Self::BYTES).ok_or(Error::LengthTable { at: bytes.len() })?;
        let mut lengths = [0; 256];
        for (at, (&byte, pair)) in table.iter().zip(lengths.as_chunks_mut().0).enumerate() {
            *pair = [byte & 15, byte >> 4];
            if pair.iter().any(|&l| u32::from(l) > MAX_BITS && l != ALONE) {
                return Err(Error::LengthTable { at });
            }
        }
        let cover = |&l: &u8| match l {
            0 => 0,
            ALONE => WINDOWS,
            _ => WINDOWS >> l,
        };
        let covered = lengths.iter().map(cover).sum();
        if covered == WINDOWS { Ok((Self(lengths), Self::BYTES)) } else { Err(Error::Incomplete { covered }) }
    }

    /// Bits of a symbol's code: 1 to 12, or 0 for the only symbol; `None` if it has no code.
    pub fn get(&self, symbol: u8) -> Option<u32> {
        match self.0[usize::from(symbol)] {
            0 => None,
            ALONE => Some(0),
            length => Some(u32::from(length)),
        }
    }

    /// Bits of all codes of symbols with these counts; `None` if one that occurs has no code. Saturates.
    pub fn cost(&self, counts: &[u64; 256]) -> Option<u64> {
        let mut occurring = (0..=255).zip(counts).filter(|&(_, &count)| count > 0);
        occurring.try_fold(0u64, |sum, (s, count)| {
            Some(sum.saturating_add(count.saturating_mul(u64::from(self.get(s)?))))
        })
    }

    /// Symbol, code (its first bit lowest) and length of every code, by symbol.
    pub(crate) fn codes(&self) -> impl Iterator<Item = (u8, u16, u32)> {
        // the first code of each length, as a number of that many bits
        let mut next = [0u16; MAX_BITS as usize + 1];
        let mut code = 0;
        for (bits, next) in (0..).zip(&mut next).skip(1) {
            *next = code;
            let codes = self.0.iter().filter(|&&length| length == bits).count();
            code = (code + codes as u16) << 1;
        }
        (0..=255).filter_map(move |symbol| {
            let bits = self.get(symbol)?;
            let code = next[bits as usize];
            next[bits as usize] += 1;
            // the only symbol has code 0 of no bits
            Some((symbol, code.reverse_bits().checked_shr(16 - bits).unwrap_or(0), bits))
        })
    }
}

/// Package-merge: adds to the lengths of two or more symbols, given by ascending count.
///
/// Each level has the symbols and the packages of the level before, by weight; two neighbours are a package of the
/// next level. The cheapest 2n - 2 items of the last level hold each symbol as many times as its code has bits. As
/// the cheapest items of a level are always the cheapest symbols and the cheapest packages, which items are symbols is
/// all that must be kept of a level.
fn package_merge(order: &[u8], counts: &[u64; 256], lengths: &mut [u8; 256]) {
    let most = 2 * order.len() - 2;
    let mut is_symbol = [[false; 2 * 256]; MAX_BITS as usize];
    let mut packages = [0u128; 256];
    let mut count = 0;
    for level in &mut is_symbol {
        let before = packages;
        let before = &before[..count];
        let (mut symbols, mut merged, mut first) = (0, 0, 0);
        count = 0;
        for (i, is_symbol) in level[..most].iter_mut().enumerate() {
            let symbol = order.get(symbols).map(|&s| u128::from(counts[usize::from(s)]));
            let weight = match (symbol, before.get(merged)) {
                (Some(symbol), package) if package.is_none_or(|&p| symbol <= p) => {
                    symbols += 1;
                    *is_symbol = true;
                    symbol
                }
                (_, Some(&package)) => {
                    merged += 1;
                    package
                }
                (_, None) => break,
            };
            if i % 2 == 0 {
                first = weight;
            } else {
                packages[count] = first + weight;
                count += 1;
            }
        }
    }
    let mut items = most;
    for level in is_symbol.iter().rev() {
        let symbols = level[..items].iter().filter(|&&is_symbol| is_symbol).count();
        order[..symbols].iter().for_each(|&s| lengths[usize::from(s)] += 1);
        items = 2 * (items - symbols);
    }
}

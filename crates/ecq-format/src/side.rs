//! Side data (scales, minima): planes of bytes, each coded with the `byte` codec, with another plane as context
//! where that is cheaper.
//!
//! The side entry: a context byte for each plane (255: none; else the index of an earlier plane of equal length), the
//! length of the tables as a little-endian u32, the tables, the stream, zeros to fill up. Plane p has one table, or one
//! for each value that occurs in its context plane, ascending. All planes are runs of one stream, in order, with
//! payload 0. No stream follows when all planes are empty.
//!
//! Why contexts: the low byte of a binary16 scale depends on its high byte where scales are few (an embedding's 885 K
//! scales take 537 values: 8.2 instead of 10.2 bits), and a minimum's high byte depends on its scale's (3.1 bits, 2.4
//! with the context, on Q4_1 layers). The encoder measures and keeps what is cheapest, tables included.

use rans_core::byte::{DecodeTable, Decoder, EncodeTable, Encoder, Frequencies, max_len};

use crate::directory::MAX_PARAMS_PER_BYTE;

const NONE: u8 = 255;

/// A plane as it will be coded.
struct Choice {
    context: u8,
    tables: Vec<Frequencies>,
    /// Table index of each value of the context plane.
    table_of: [u8; 256],
    bits: f64,
}

/// The planes of a tensor, coded.
pub struct Side {
    pub(crate) lengths: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Side {
    /// Codes planes; no planes are no bytes.
    pub fn new(planes: &[Vec<u8>]) -> Self {
        let bytes = if planes.is_empty() { Vec::new() } else { encode(planes) };
        Self { lengths: planes.iter().map(Vec::len).collect(), bytes }
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// Codes planes of bytes; [`decode`] with the same lengths gives them back.
///
/// Planes must be fewer than 255.
pub fn encode(planes: &[Vec<u8>]) -> Vec<u8> {
    let chosen: Vec<Choice> = (0..planes.len()).map(|p| choose(planes, p)).collect();
    let mut out: Vec<u8> = chosen.iter().map(|c| c.context).collect();
    let mut tables: Vec<u8> = Vec::new();
    for freqs in chosen.iter().flat_map(|c| &c.tables) {
        let mut bytes = [0; Frequencies::MAX_BYTES];
        let len = freqs.write(&mut bytes).unwrap_or(0); // MAX_BYTES are enough
        tables.extend(&bytes[..len]);
    }
    out.extend((tables.len() as u32).to_le_bytes());
    out.extend(tables);
    let symbols: usize = planes.iter().map(Vec::len).sum();
    if symbols > 0 {
        out.extend(stream(planes, &chosen, symbols));
    }
    // the reader allocates no more than this much for a byte that it has seen
    let least = (symbols as u64).div_ceil(MAX_PARAMS_PER_BYTE) as usize;
    out.resize(out.len().max(least), 0);
    out
}

fn stream(planes: &[Vec<u8>], chosen: &[Choice], symbols: usize) -> Vec<u8> {
    let mut bytes = vec![0; max_len(symbols)];
    let coded = Encoder::new([0; 32], &mut bytes).and_then(|mut encoder| {
        for (plane, choice) in planes.iter().zip(chosen).rev() {
            let tables: Vec<_> = choice.tables.iter().map(EncodeTable::new).collect();
            match planes.get(usize::from(choice.context)) {
                Some(context) => {
                    let index: Vec<u8> = context.iter().map(|&c| choice.table_of[usize::from(c)]).collect();
                    encoder.run_with_contexts(&tables, &index, plane)?;
                }
                None => tables.iter().try_for_each(|table| encoder.run(table, plane))?,
            }
        }
        Ok(encoder.finish())
    });
    // every symbol was counted and the buffer holds the worst case
    bytes.truncate(coded.expect("a buffer of max_len and tables that hold every symbol"));
    bytes
}

/// The cheapest of no context and each earlier plane of equal length.
fn choose(planes: &[Vec<u8>], p: usize) -> Choice {
    let flat = vec![0; planes[p].len()];
    let mut best = model(&planes[p], &flat, NONE);
    for (c, context) in planes[..p].iter().enumerate().filter(|(_, c)| c.len() == planes[p].len()) {
        let other = model(&planes[p], context, c as u8);
        if other.bits < best.bits {
            best = other;
        }
    }
    best
}

fn model(plane: &[u8], context: &[u8], index: u8) -> Choice {
    let mut counts = vec![[0u64; 256]; 256];
    for (&v, &c) in plane.iter().zip(context) {
        counts[usize::from(c)][usize::from(v)] += 1;
    }
    let mut choice = Choice { context: index, tables: Vec::new(), table_of: [0; 256], bits: 0.0 };
    for (value, counts) in counts.iter().enumerate() {
        let Ok(freqs) = Frequencies::from_counts(counts) else { continue };
        let coded = counts.iter().zip(freqs.as_array()).filter(|(c, _)| **c > 0);
        choice.bits += coded.map(|(&c, &f)| c as f64 * (4096.0 / f64::from(f)).log2()).sum::<f64>();
        let mut bytes = [0; Frequencies::MAX_BYTES];
        choice.bits += 8.0 * freqs.write(&mut bytes).unwrap_or(0) as f64;
        choice.table_of[value] = choice.tables.len() as u8;
        choice.tables.push(freqs);
    }
    choice
}

/// Decodes planes of these lengths. The error says what is corrupt.
pub fn decode(bytes: &[u8], lengths: &[usize]) -> Result<Vec<Vec<u8>>, String> {
    let total = lengths.iter().try_fold(0u64, |a, &n| a.checked_add(n as u64));
    if total.is_none_or(|n| n.div_ceil(MAX_PARAMS_PER_BYTE) > bytes.len() as u64) {
        return Err(format!("{} bytes cannot stand for planes of {lengths:?}", bytes.len()));
    }
    let cut = || "the side data ends early".to_owned();
    let (contexts, rest) = bytes.split_at_checked(lengths.len()).ok_or_else(cut)?;
    let (len, rest) = rest.split_at_checked(4).ok_or_else(cut)?;
    let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
    let (mut tables, stream) = rest.split_at_checked(len).ok_or_else(cut)?;
    let mut planes: Vec<Vec<u8>> = Vec::with_capacity(lengths.len());
    if total == Some(0) {
        planes.resize(lengths.len(), Vec::new());
        return if tables.is_empty() { check_fill(stream).map(|()| planes) } else { Err(cut()) };
    }
    // trailing zeros fill up; the stream's own length follows from its symbols
    let mut decoder = Decoder::new(stream).map_err(|e| e.to_string())?;
    for (&length, &context) in lengths.iter().zip(contexts) {
        let mut plane = vec![0; length];
        if length > 0 {
            let context = match planes.get(usize::from(context)) {
                Some(c) if c.len() == length => Some(c),
                None if context == NONE => None,
                _ => {
                    return Err(format!(
                        "plane {} has no context plane {context} of its length",
                        planes.len()
                    ));
                }
            };
            read_plane(&mut decoder, &mut tables, context, &mut plane)?;
        }
        planes.push(plane);
    }
    let (payload, fill) = decoder.finish_prefix().map_err(|e| e.to_string())?;
    if payload != [0; 32] {
        return Err("the stream does not end where its encoder began".into());
    }
    if !tables.is_empty() {
        return Err(format!("{} bytes of tables are left", tables.len()));
    }
    check_fill(fill).map(|()| planes)
}

fn read_plane(
    decoder: &mut Decoder,
    tables: &mut &[u8],
    context: Option<&Vec<u8>>,
    plane: &mut [u8],
) -> Result<(), String> {
    let mut occurs = [context.is_none(); 256];
    context.into_iter().flatten().for_each(|&c| occurs[usize::from(c)] = true);
    let mut table_of = [0u8; 256];
    let mut built = Vec::new();
    for value in (0..256).filter(|&v| occurs[v] && (context.is_some() || v == 0)) {
        let (freqs, len) = Frequencies::read(tables).map_err(|e| e.to_string())?;
        *tables = &tables[len..];
        table_of[value] = built.len() as u8;
        built.push(DecodeTable::new(&freqs));
    }
    match context {
        None => decoder.run(&built[0], plane),
        Some(c) => {
            let index: Vec<u8> = c.iter().map(|&c| table_of[usize::from(c)]).collect();
            decoder.run_with_contexts(&built, &index, plane)
        }
    }
    .map_err(|e| e.to_string())
}

fn check_fill(fill: &[u8]) -> Result<(), String> {
    if fill.iter().all(|&b| b == 0) { Ok(()) } else { Err("bytes other than zero after the stream".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn planes_come_back(
            n in 0usize..3000, spread in 1u32..256, follow in any::<bool>(), seed in any::<u32>(), extra in 0usize..40,
        ) {
            let mut x = seed;
            let mut draw = || { x = x.wrapping_mul(1664525).wrapping_add(1013904223); x >> 16 };
            let a: Vec<u8> = (0..n).map(|_| (draw() % spread) as u8).collect();
            let b = a.iter().map(|&a| if follow { a ^ (draw() & 3) as u8 } else { draw() as u8 }).collect();
            let planes = vec![a, b, vec![7; extra]];
            let bytes = encode(&planes);
            let lengths = [n, n, extra];
            prop_assert_eq!(decode(&bytes, &lengths).unwrap(), planes);
            for cut in 0..bytes.len() {
                prop_assert!(decode(&bytes[..cut], &lengths).is_err());
            }
        }

        #[test]
        fn any_bytes_decode_or_are_an_error(bytes: Vec<u8>, a in 0usize..2000, b in 0usize..2000) {
            let _ = decode(&bytes, &[a, b, a]);
        }
    }

    #[test]
    fn a_dependent_plane_costs_what_it_adds() {
        let high: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2654435761) >> 28) as u8).collect();
        let low: Vec<u8> = high.iter().map(|&h| h.wrapping_mul(37)).collect();
        let bytes = encode(&[high, low]);
        assert!(bytes.len() < 51_000, "{}", bytes.len());
    }

    #[test]
    fn constant_planes_are_tiny_yet_justify_their_length() {
        let planes = vec![vec![1; 10_000_000]];
        let bytes = encode(&planes);
        assert!(bytes.len() < 2600);
        assert_eq!(decode(&bytes, &[10_000_000]).unwrap(), planes);
        assert!(decode(&bytes, &[usize::MAX]).is_err());
    }
}

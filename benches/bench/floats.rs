//! BF16 without loss, on one thread.

use std::time::Duration;

use anyhow::{Context, Result};
use ecq_benches::gaussian;
use ecq_format::encode::{Encoder, Profile};
use ecq_format::pattern::{self, FloatFormat};
use ecq_format::tile::{TileDecoder, TileEntry};

use crate::report::{Ratio, Report};
use crate::timing::{Contestant, race};

const COLS: usize = 4096;

/// Coded tiles and what decodes them.
struct Coded {
    tiles: Vec<(Vec<u8>, TileEntry)>,
    tile_bytes: usize,
    decoder: TileDecoder,
}

impl Coded {
    fn new(weights: &[u8]) -> Self {
        let mut tiles = Vec::new();
        let (tile_bytes, decoder) = encode(weights, |bytes, entry| tiles.push((bytes.to_vec(), entry)));
        Self { tiles, tile_bytes, decoder }
    }

    fn decode(&self, out: &mut [u8]) {
        for (out, (bytes, entry)) in out.chunks_mut(self.tile_bytes).zip(&self.tiles) {
            self.decoder.decode_floats(bytes, *entry, out).expect("it decodes");
        }
    }
}

/// Everything that the converter does with a tensor: counting, planning, coding, checksums. Returns the bytes of a
/// decoded tile, and what decodes it.
fn encode(weights: &[u8], mut sink: impl FnMut(&[u8], TileEntry)) -> (usize, TileDecoder) {
    let (pattern, plan) = pattern::plan(FloatFormat::Bf16, weights, COLS).expect("there are weights");
    let shape = [(weights.len() / 2 / COLS) as u64, COLS as u64];
    let encoder =
        Encoder::floats("bf16", &shape, Profile::Cpu, &plan, pattern, weights).expect("a valid shape");
    let done: Result<(), std::convert::Infallible> = encoder.run(|_, tile| {
        let (bytes, entry) = tile.expect("the weights that were counted");
        sink(bytes, entry);
        Ok(())
    });
    let Ok(()) = done;
    let coded = encoder.coded();
    ((2 * coded.tile_rows * coded.cols) as usize, TileDecoder::new(coded, encoder.frequencies()))
}
/// Decoding and encoding of BF16.
pub fn bf16(report: &mut Report, rows: usize, time: Duration) -> Result<()> {
    // the upper halves of f32 Gaussian weights of a usual size
    let piece: Vec<u8> = gaussian(1 << 21)
        .iter()
        .flat_map(|w| (((0.02 * w) as f32).to_bits() >> 16).to_le_bytes()[..2].to_vec())
        .collect();
    let weights: Vec<u8> = piece.into_iter().cycle().take(2 * rows * COLS).collect();
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().context("cannot start a thread")?;
    let coded = one.install(|| Coded::new(&weights));
    let mut out = vec![0; weights.len()];
    coded.decode(&mut out);
    assert!(out == weights, "decoded weights differ");
    let section = "BF16 without loss, Gaussian weights, one thread";
    let packed: Vec<_> =
        weights.chunks(1 << 20).map(|c| zstd::bulk::compress(c, 1)).collect::<Result<_, _>>()?;
    let mut piece = vec![0; 1 << 20];
    let rows = vec![
        Contestant::new("decode", weights.len(), || coded.decode(&mut out)),
        Contestant::new("encode, counts and checksums included", weights.len(), || {
            one.install(|| encode(&weights, |bytes, _| _ = std::hint::black_box(bytes)));
        }),
        Contestant::new("zstd -1, decode", weights.len(), || {
            for packed in &packed {
                zstd::bulk::decompress_to_buffer(packed, &mut piece).expect("zstd decompresses");
            }
        }),
    ];
    report.rates(section, "GB/s of BF16", &race(time, rows), Some("zstd -1, decode"));
    let size = |bytes: usize| bytes as f64 / weights.len() as f64;
    let zstd = size(packed.iter().map(Vec::len).sum());
    let ours = size(coded.tiles.iter().map(|(bytes, _)| bytes.len() + 12).sum());
    let ratio = Ratio { value: ours / zstd, to: "zstd -1".into() };
    report.figure(section, "size", ours, "of the source", Some(ratio));
    Ok(())
}

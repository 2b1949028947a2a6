//! Where the tiles of the format come from: the same product from a single stream, in which every row decodes all rows
//! before it. Only for small matrices: the work grows with the square of the rows.

use anyhow::{Context, Result, ensure};
use bytemuck::{Pod, Zeroable};
use ecq_format::reader::CodedTensor;
use ecq_gpu::engine::read;
use ecq_gpu::shader::{Binding, pipeline};
use ecq_gpu::wgpu::{BindGroupDescriptor, BindGroupEntry, Buffer, BufferUsages};
use ecq_gpu::{Clock, Engine, upload};

use super::contest::TOLERANCE;
use super::tensors::exact;
use crate::timing::median;

/// Weights that are not too many for this.
pub const MOST: usize = 1 << 20;

/// Frequencies of nibbles that sum to 2^12.
type Frequencies = rans_core::Frequencies<16, 4096>;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
    first: i32,
    step: f32,
}

/// What it took.
#[derive(Clone, Copy, Debug)]
pub struct Flat {
    /// Median.
    pub seconds: f64,
    /// Of the rounds.
    pub best: f64,
    /// Length of the stream.
    pub bytes: u64,
}

/// Times a product with nibbles of one scale, after its answer was checked.
pub fn flat(engine: &Engine, clock: &Clock, tensor: &CodedTensor<'_>) -> Result<Flat> {
    let coded = tensor.coded();
    let (rows, cols, values) = (coded.rows as usize, coded.cols as usize, &coded.values);
    ensure!(
        coded.raw_bits == 0 && values.bias == 0.0 && values.offset == 0.0,
        "expected nibbles of one scale"
    );
    let mut nibbles: Vec<u8> = Vec::with_capacity(rows * cols);
    let mut levels = Vec::new();
    for tile in 0..tensor.tiles() {
        tensor.levels(tile, &mut levels)?;
        nibbles.extend(levels.iter().map(|q| (q - coded.center).clamp(0, 15) as u8));
    }
    let mut counts = [0; 16];
    nibbles.iter().for_each(|&n| counts[usize::from(n)] += 1);
    let freqs = Frequencies::from_counts(&counts)?;
    let (words, slots) = encode(&nibbles, freqs.as_array());
    let x: Vec<f32> = (0..cols).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();

    let params =
        Params { rows: rows as u32, cols: cols as u32, first: coded.center, step: values.step as f32 };
    let uniform = upload::buffer(engine, "flat", size_of::<Params>() as u64, BufferUsages::UNIFORM)?;
    engine.queue().write_buffer(&uniform, 0, bytemuck::bytes_of(&params));
    let bits: Vec<u32> = x.iter().map(|v| v.to_bits()).collect();
    let read_only = [upload::words(engine, "flat", &words)?, upload::words(engine, "flat", &slots)?];
    let x_buffer = upload::words(engine, "flat", &bits)?;
    let y = upload::buffer(engine, "flat", 4 * rows as u64, BufferUsages::STORAGE | BufferUsages::COPY_SRC)?;
    let [words, slots] = &read_only;
    let run = dispatch(engine, clock, [&uniform, words, slots, &x_buffer, &y], rows)?;
    run()?;
    let found = read(engine.device(), engine.queue(), &y, 4 * rows as u64)?;
    let exact = exact(tensor, &x)?;
    let off = |&(row, e): &(usize, f64)| (f64::from(f32::from_bits(found[row])) - e).powi(2);
    let error: f64 = exact[0].iter().map(off).sum();
    let norm: f64 = exact[0].iter().map(|(_, e)| e * e).sum();
    let error = (error / norm).sqrt();
    ensure!(error <= TOLERANCE, "one stream: the product is off by {error:e} of its norm");
    let rounds = (0..3).map(|_| run()).collect::<Result<Vec<_>>>()?;
    let best = rounds.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(Flat { seconds: median(rounds), best, bytes: words.size() })
}

/// What runs the kernel and says how long it took.
fn dispatch<'a>(
    engine: &Engine,
    clock: &'a Clock,
    buffers: [&Buffer; 5],
    rows: usize,
) -> Result<impl Fn() -> Result<f64> + 'a> {
    use Binding::{Read, Uniform, Write};
    let bindings = [Uniform(0), Read(1), Read(2), Read(3), Write(4)];
    let source = include_str!("flat.wgsl");
    let pipeline = pipeline(engine.device(), "flat_stream", source, &bindings, true).context("one stream")?;
    let entries: Vec<_> = (0..)
        .zip(buffers)
        .map(|(binding, buffer)| BindGroupEntry { binding, resource: buffer.as_entire_binding() })
        .collect();
    let group = engine.device().create_bind_group(&BindGroupDescriptor {
        label: Some("flat"),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    });
    Ok(move || {
        clock.time(|encoder| {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(rows.div_ceil(64) as u32, 1, 1);
            Ok(())
        })
    })
}

/// One stream of 16-bit words after a state of 32 bits, two words in each of the result; and the table of its slots.
fn encode(nibbles: &[u8], freqs: &[u16; 16]) -> (Vec<u32>, Vec<u32>) {
    let mut starts = [0u32; 16];
    let mut slots = Vec::with_capacity(4096);
    for (s, &f) in freqs.iter().enumerate() {
        starts[s] = slots.len() as u32;
        slots.extend((0..u32::from(f)).map(|place| s as u32 | (u32::from(f) - 1) << 4 | place << 16));
    }
    let (mut state, mut words) = (1u32 << 16, Vec::new());
    for &nibble in nibbles.iter().rev() {
        let (f, start) = (u32::from(freqs[usize::from(nibble)]), starts[usize::from(nibble)]);
        if u64::from(state) >= u64::from(f) << 20 {
            words.push(state as u16);
            state >>= 16;
        }
        state = (state / f) << 12 | (state % f + start);
    }
    words.extend([(state >> 16) as u16, state as u16]);
    words.reverse();
    if words.len() % 2 == 1 {
        words.push(0);
    }
    (words.chunks_exact(2).map(|w| u32::from(w[1]) << 16 | u32::from(w[0])).collect(), slots)
}

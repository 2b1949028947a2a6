//! Products of one matrix with vectors: from the coded form, from packed integers, and in the layout of ggml.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ecq_benches::ggml::{Q4, Q8};
use ecq_benches::tensor::{NAME, Repeated, write};
use ecq_cpu::{Matrix, Packed, Precision};
use ecq_format::directory::{Codec, Scales};
use ecq_format::encode::Levels;
use ecq_format::reader::{CodedTensor, Tensor};
use ecq_format::tile::TileParts;
use ecq_format::{Limits, Reader};
use rans_core::Isa;

use crate::report::Report;
use crate::timing::{Contestant, race};

/// What the weights are multiples of.
const STEP: f32 = 0.015625;

/// A kind of tensor, and how much of it is measured.
struct Kind {
    name: &'static str,
    /// How many times as many levels as nibbles have.
    wider: i32,
    raw_bits: u32,
    scales: Scales,
}

/// Products of a matrix of this size with one vector and with more.
pub fn products(report: &mut Report, rows: usize, cols: usize, time: Duration) -> Result<()> {
    let none = Scales::None;
    for kind in [
        Kind { name: "nibbles", wider: 1, raw_bits: 0, scales: none },
        Kind {
            name: "nibbles, scales of groups of 32",
            wider: 1,
            raw_bits: 0,
            scales: Scales::Group { size: 32, min: false },
        },
        Kind { name: "nibbles and sign", wider: 2, raw_bits: 1, scales: none },
        Kind { name: "nibbles and 4 raw bits", wider: 16, raw_bits: 4, scales: none },
    ] {
        one(report, rows, cols, time, &kind)?;
    }
    codebooks(report, rows, cols, time)
}

/// The same weights with their levels looked up in a codebook and without.
fn codebooks(report: &mut Report, rows: usize, cols: usize, time: Duration) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let levels = Repeated::gaussian(cols, 1);
    let x: Vec<f32> = (0..8 * cols).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
    let expected = expected(&levels, rows, cols, &x);
    for (scales, of_groups) in
        [(Scales::None, ""), (Scales::Group { size: 32, min: false }, ", scales of groups of 32")]
    {
        let reader = |codebook: bool| -> Result<Reader> {
            let path = folder.path().join(format!("{codebook}.ecq"));
            write(&path, rows, &levels, 0..=0, scales, codebook)?;
            Ok(Reader::open(&path, Limits::default())?)
        };
        let readers = [reader(false)?, reader(true)?];
        let tensors = [coded(&readers[0])?, coded(&readers[1])?];
        let matrices = [Matrix::new(&tensors[0])?, Matrix::new(&tensors[1])?];
        for (precision, what) in [(Precision::Int8, "int8"), (Precision::F32, "f32")] {
            for count in [1, 8] {
                let x = matrices[0].activations(precision, &x[..count * cols]);
                let tolerance = if precision == Precision::F32 { 1e-4 } else { 2e-2 };
                let contestant = |(matrix, name): (_, &str)| {
                    let (matrix, x): (&Matrix<'_>, _) = (matrix, &x);
                    let mut y = vec![0.0; count * rows];
                    matrix.multiply_serial(x, &mut y)?;
                    close(&y, &expected, tolerance).context("from the coded form")?;
                    let run = move || matrix.multiply_serial(x, &mut y).expect("a sound file");
                    Ok(Contestant::new(name, rows * cols, run))
                };
                let names = ["levels", "codebook"];
                let both = matrices.iter().zip(names).map(contestant).collect::<Result<Vec<_>>>()?;
                let section = format!("Products with a codebook{of_groups}, {what} x {count}");
                report.rates(&section, "G weights/s", &race(time / 4, both), Some("levels"));
            }
        }
    }
    Ok(())
}

fn coded(reader: &Reader) -> Result<Box<CodedTensor<'_>>> {
    let Tensor::Coded(tensor) = reader.tensor(NAME)? else { anyhow::bail!("the tensor is not coded") };
    Ok(tensor)
}

fn one(report: &mut Report, rows: usize, cols: usize, time: Duration, kind: &Kind) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let path = folder.path().join("a.ecq");
    let levels = Repeated::gaussian(cols, kind.wider);
    let size = write(&path, rows, &levels, kind.raw_bits..=kind.raw_bits, kind.scales, false)?;
    let reader = Reader::open(&path, Limits::default())?;
    let tensor = coded(&reader)?;
    let (matrix, packed) = (Matrix::new(&tensor)?, Packed::new(&tensor)?);
    let x: Vec<f32> = (0..8 * cols).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
    let expected = expected(&levels, rows, cols, &x);
    let weights = rows * cols;
    let mut contestants = vec![Contestant::new("decode only", weights, || decode(&tensor))];
    for (precision, what) in [(Precision::Int8, "int8"), (Precision::F32, "f32")] {
        for count in [1, 8] {
            let x = matrix.activations(precision, &x[..count * cols]);
            let tolerance = if precision == Precision::F32 { 1e-4 } else { 2e-2 };
            let (matrix, packed) = (&matrix, &packed);
            let columns = if count == 1 { "" } else { ", 8 columns" };
            let mut y = vec![0.0; count * rows];
            matrix.multiply_serial(&x, &mut y)?;
            close(&y, &expected, tolerance).context("from the coded form")?;
            y.fill(0.0);
            packed.multiply_serial(&x, &mut y);
            close(&y, &expected, tolerance).context("from packed integers")?;
            let (mut z, x) = (y.clone(), std::rc::Rc::new(x));
            let x2 = x.clone();
            contestants.push(Contestant::new(format!("coded, {what}{columns}"), weights, move || {
                matrix.multiply_serial(&x, &mut y).expect("a sound file")
            }));
            let name = format!("packed int{}, {what}{columns}", packed.bits());
            contestants.push(Contestant::new(name, weights, move || packed.multiply_serial(&x2, &mut z)));
        }
    }
    if kind.raw_bits == 0 && kind.scales == Scales::None {
        let mut codes = vec![0; weights];
        levels.fill(0..rows, &mut codes);
        let (q4, q8) = (Q4::new(cols, STEP, &codes), Q8::new(&x[..cols]));
        let mut y = vec![0.0; rows];
        q4.multiply(&q8, &mut y);
        close(&y, &expected, 2e-2).context("in the layout of ggml")?;
        contestants
            .push(Contestant::new("Q4_0 x Q8_0, layout of ggml", weights, move || q4.multiply(&q8, &mut y)));
    }
    let bits = 8.0 * size as f64 / weights as f64;
    let section = format!("Products, {rows} x {cols}, one thread: {}, {bits:.3} bits a weight", kind.name);
    let base = if kind.raw_bits == 0 && kind.scales == Scales::None {
        "Q4_0 x Q8_0, layout of ggml"
    } else {
        "coded, int8"
    };
    report.rates(&section, "G weights/s", &race(time, contestants), Some(base));
    if kind.raw_bits == 0 && kind.scales == Scales::None {
        threads(report, &matrix, &x[..cols], time)
    } else {
        Ok(())
    }
}

/// One thread and two. Many products in a row: it takes the system some tens of milliseconds to put threads that have
/// slept on cores of their own.
fn threads(report: &mut Report, matrix: &Matrix<'_>, x: &[f32], time: Duration) -> Result<()> {
    const TIMES: usize = 40;
    for (precision, what) in [(Precision::Int8, "int8"), (Precision::F32, "f32")] {
        let x = matrix.activations(precision, x);
        let row = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let (pool, x) = (pool.context("cannot start threads")?, &x);
            let mut y = vec![0.0; matrix.rows()];
            Ok(Contestant::new(
                format!("threads: {threads}"),
                TIMES * matrix.rows() * matrix.cols(),
                move || {
                    let all = || (0..TIMES).try_for_each(|_| matrix.multiply(x, &mut y));
                    pool.install(all).expect("a sound file")
                },
            ))
        };
        let rows = [1, 2].into_iter().map(row).collect::<Result<Vec<_>>>()?;
        let section = format!("Products, coded, {what}, by threads");
        report.rates(&section, "G weights/s", &race(time, rows), Some("threads: 1"));
    }
    Ok(())
}

/// Rows that are checked against sums in f64: first, last, and some between.
fn checked(rows: usize) -> impl Iterator<Item = usize> {
    (0..rows).step_by((rows / 64).max(1)).chain([rows - 1])
}

/// (place in y, value) of some rows for 8 vectors.
fn expected(levels: &Repeated, rows: usize, cols: usize, x: &[f32]) -> Vec<(usize, f64)> {
    let mut row = vec![0; cols];
    let mut all = Vec::new();
    for r in checked(rows) {
        levels.fill(r..r + 1, &mut row);
        for (m, x) in x.chunks_exact(cols).enumerate() {
            let sum: f64 = row.iter().zip(x).map(|(&q, &x)| f64::from(q) * f64::from(x)).sum();
            all.push((m * rows + r, f64::from(STEP) * sum));
        }
    }
    all
}

/// Root mean square of the differences, relative to that of the values.
fn close(y: &[f32], expected: &[(usize, f64)], tolerance: f64) -> Result<()> {
    let pairs = expected.iter().filter_map(|&(at, e)| Some((f64::from(*y.get(at)?), e)));
    let (error, power) = pairs.fold((0.0, 0.0), |(a, b), (y, e)| (a + (y - e) * (y - e), b + e * e));
    let relative = (error / power).sqrt();
    ensure!(relative <= tolerance, "a product is wrong: relative error {relative}");
    Ok(())
}

/// Nibbles of all tiles, panel by panel, to the same buffer.
fn decode(tensor: &CodedTensor<'_>) {
    let coded = tensor.coded();
    let Codec::Nibble(lanes) = coded.codec else { return };
    let (cols, groups) = (coded.cols as usize, lanes as usize / 64);
    let mut panel = vec![0; groups * 1024];
    for i in 0..tensor.tiles() {
        let (bytes, entry) = tensor.tile(i).expect("a sound file");
        let rows = tensor.rows(i).len();
        let parts = TileParts::new(bytes, entry, coded.split(), rows * cols).expect("a sound file");
        let steps = tensor.decoder().nibble_steps(Isa::best(), parts.stream, rows).expect("nibbles");
        let mut steps = steps.expect("a sound file");
        for _ in 0..rows.div_ceil(groups) {
            for block in (0..cols / 64).step_by(16) {
                steps.advance((cols / 64 - block).min(16), &mut panel, 1024).expect("a sound file");
            }
        }
        steps.finish().expect("a sound file");
    }
}

//! Products of one matrix, quickly: `cargo run --release --example speed -p ecq-benches -- ROWS COLS [ISA]`.
//! Figures are 10^9 weights a second, the best of several runs, on one thread and on two.

use std::time::Instant;

use ecq_benches::ggml::{Q4, Q8};
use ecq_benches::tensor::{Gaussian, NAME, write};
use ecq_cpu::{Isa, Matrix, Packed, Precision};
use ecq_format::directory::{Codec, Scales};
use ecq_format::encode::Levels;
use ecq_format::reader::{CodedTensor, Tensor};
use ecq_format::tile::TileParts;
use ecq_format::{Limits, Reader};

/// The shortest of seven runs, in seconds.
fn best(mut run: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..7).map(time).fold(f64::INFINITY, f64::min)
}

/// Nibbles of all tiles, panel by panel, to the same buffer.
fn decode(isa: Isa, tensor: &CodedTensor<'_>) {
    let coded = tensor.coded();
    let Codec::Nibble(lanes) = coded.codec else { return };
    let (cols, groups) = (coded.cols as usize, lanes as usize / 64);
    let mut panel = vec![0; groups * 1024];
    for i in 0..tensor.tiles() {
        let (bytes, entry) = tensor.tile(i).expect("a sound file");
        let rows = tensor.rows(i).len();
        let parts = TileParts::new(bytes, entry, coded.split(), rows * cols).expect("a sound file");
        let steps = tensor.decoder().nibble_steps(isa, parts.stream, rows).expect("nibbles");
        let mut steps = steps.expect("a sound file");
        for _ in 0..rows.div_ceil(groups) {
            for block in (0..cols / 64).step_by(16) {
                steps.advance((cols / 64 - block).min(16), &mut panel, 1024).expect("a sound file");
            }
        }
        steps.finish().expect("a sound file");
    }
}

/// What the others are compared with.
fn ggml(rows: usize, cols: usize) {
    let mut levels = vec![0; rows * cols];
    Gaussian::new(cols, 1).fill(0..rows, &mut levels);
    let q4 = Q4::new(cols, 0.015625, &levels);
    let x: Vec<f32> = (0..cols).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
    let x = Q8::new(&x);
    let mut y = vec![0.0; rows];
    let time = best(|| q4.multiply(&x, &mut y));
    println!("Q4_0 x Q8_0: {:6.2}", (rows * cols) as f64 / time / 1e9);
}

fn main() {
    let mut sizes = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let (rows, cols) = (sizes.next().unwrap_or(4096), sizes.next().unwrap_or(14336));
    let set = std::env::args().nth(3).unwrap_or_default();
    let isa = Isa::all().find(|isa| isa.set().name() == set).unwrap_or(Isa::best());
    let weights = (rows * cols) as f64;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.ecq");
    let group = Scales::Group { size: 32, min: false };
    ggml(rows, cols);
    for (name, wider, raw, scales) in [
        ("r = 0", 1, 0..=0, Scales::None),
        ("r = 0, groups of 32", 1, 0..=0, group),
        ("r = 1", 2, 1..=1, Scales::None),
        ("r = 4", 16, 4..=4, Scales::None),
    ] {
        let size = write(&path, rows, &Gaussian::new(cols, wider), raw, scales).expect("room for a file");
        let reader = Reader::open(&path, Limits::default()).expect("a sound file");
        let Ok(Tensor::Coded(tensor)) = reader.tensor(NAME) else { panic!("a coded tensor") };
        println!("{name}: {:.3} bits a weight", 8.0 * size as f64 / weights);
        decode(isa, &tensor);
        println!("  decode only {:6.2}", weights / best(|| decode(isa, &tensor)) / 1e9);
        let matrix = Matrix::with_isa(isa, &tensor).expect("sound scales");
        let packed = Packed::with_isa(isa, &tensor).expect("a sound file");
        let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
        for precision in [Precision::Int8, Precision::F32] {
            for count in [1, 2, 8, 64] {
                let x: Vec<f32> = (0..cols * count).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
                let x = matrix.activations(precision, &x);
                let mut y = vec![0.0; rows * count];
                let one = best(|| matrix.multiply_serial(&x, &mut y).expect("a sound file"));
                let both = best(|| two.install(|| matrix.multiply(&x, &mut y)).expect("a sound file"));
                let from_packed = best(|| packed.multiply_serial(&x, &mut y));
                let [one, both, from_packed] = [one, both, from_packed].map(|s| weights / s / 1e9);
                let bits = packed.bits();
                println!(
                    "  {precision:?} x {count:2}: {one:6.2}, two threads {both:6.2}; int{bits} {from_packed:6.2}"
                );
            }
        }
    }
}

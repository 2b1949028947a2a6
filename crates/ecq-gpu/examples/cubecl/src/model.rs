//! A file with one coded tensor, and what the CPU makes of it.

use std::error::Error;
use std::path::Path;

use ecq_format::directory::{Extent, Role, SourceFile};
use ecq_format::encode::Profile;
use ecq_format::reader::CodedTensor;
use ecq_format::side::Side;
use ecq_format::writer::{TensorHead, Writer};
use ecq_quant::quantize::Quantized;
use ecq_quant::scheme::Scheme;
use ecq_quant::values::Dequantizer;
use ecq_quant::weights::Dense;

/// Writes a file whose tensor "w" has so many rows and columns of noise, at 3.5 bits a weight.
pub fn write(path: &Path, rows: usize, cols: usize) -> Result<(), Box<dyn Error>> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let weights: Vec<f32> = (0..rows * cols).map(|_| 0.02 * (0..4).map(|_| uniform()).sum::<f32>()).collect();
    let dense = Dense::new(&weights, cols).ok_or("no whole number of rows")?;
    let scheme = Scheme::Ecq { bits: 3.5, row_scales: false, column_scales: false };
    let quantized = Quantized::new(scheme, &dense, Profile::Gpu)?;
    let shape = [rows as u64, cols as u64];
    let encoder = quantized.encoder(&shape, Profile::Gpu)?;

    // a file says what it was made from; here that is nothing but the weights
    let source = Extent { file: 0, offset: 0, len: 4 * weights.len() as u64 };
    let mut writer = Writer::create(path, false, 0)?;
    let head = TensorHead { name: "w", shape: &shape, dtype: "F32", source };
    writer.coded(head, &encoder, &Side::new(quantized.planes()), |_| true)?;
    let verbatim = writer.blob("noise", Role::Verbatim, &[])?;
    let (name, format, size, sha256) = ("noise".into(), "gguf".into(), source.len, "0".repeat(64));
    writer.finish(vec![SourceFile { name, format, size, sha256, verbatim }], false)?;
    Ok(())
}

/// Products of the decoded tensor with the vectors that lie one after another in `x`, in f64, and the sum of the sizes of
/// the terms of each, which rounding is measured by.
pub fn products(tensor: &CodedTensor<'_>, x: &[f32]) -> ecq_format::Result<Vec<(f64, f64)>> {
    let (rows, cols) = (tensor.coded().rows as usize, tensor.coded().cols as usize);
    let dequantizer = Dequantizer::of(tensor)?;
    let (mut weights, mut levels) = (vec![0.0; rows * cols], Vec::new());
    for tile in 0..tensor.tiles() {
        tensor.levels(tile, &mut levels)?;
        let range = tensor.rows(tile);
        dequantizer.fill(range.clone(), &levels, &mut weights[range.start * cols..range.end * cols]);
    }
    let product = |row: &[f32], x: &[f32]| {
        let terms = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    };
    Ok(x.chunks(cols).flat_map(|x| weights.chunks(cols).map(move |row| product(row, x))).collect())
}

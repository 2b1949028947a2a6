//! Models from strangers: GGUF, safetensors, and what a folder says of packed weights.

use std::path::Path;

use ecq_convert::convert::{Options, Treatment, convert_source};
use ecq_convert::rates::{RateControl, Sensitivities, Target};
use ecq_convert::source::{Source, SourceLimits};
use ecq_convert::{Silent, verify};
use ecq_format::encode::Profile;
use ecq_format::{Limits, Reader};
use ecq_quant::Scheme;
use ecq_quant::scheme::{Granularity, Prediction};

use crate::place;

/// Bytes of sources are few; a tensor may still claim many more weights than it has bytes.
fn limits() -> SourceLimits {
    SourceLimits { max_header: 1 << 20, max_tensors: 1 << 10, max_name: 1 << 10, ..SourceLimits::default() }
}

/// A GGUF file.
pub fn gguf(bytes: &[u8]) {
    convert(&place::file("model.gguf", bytes), bytes);
}

/// A safetensors file. Its header says where it ends; what comes behind that is the `config.json` of a folder with it.
pub fn safetensors(bytes: &[u8]) {
    let (model, config) = bytes.split_at(end(bytes).unwrap_or(bytes.len()));
    let path = place::file("model.safetensors", model);
    if config.is_empty() {
        return convert(&path, bytes);
    }
    let folder = place::path("folder");
    let _ = std::fs::create_dir(&folder);
    std::fs::write(folder.join("config.json"), config).expect("room for a small file");
    std::fs::write(folder.join("model.safetensors"), model).expect("room for a small file");
    convert(&folder, bytes);
}

/// Where a safetensors file ends by what its header says.
pub fn end(bytes: &[u8]) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let header: serde_json::Value = serde_json::from_slice(rest.get(..length)?).ok()?;
    let ends = header.as_object()?.values().filter_map(|entry| entry["data_offsets"][1].as_u64());
    let end = usize::try_from(ends.max().unwrap_or(0)).ok()?.checked_add(8 + length)?;
    (end <= bytes.len()).then_some(end)
}

/// The longest input that is converted to a rate.
const SEARCHED: usize = 2 << 10;

/// Ways to convert: without loss mostly, because then everything can be checked; seldom by the native scheme, whose search
/// for a rate takes a hundred times as long, and of long inputs a second.
fn treatment(choice: u8, bytes: usize) -> Treatment {
    match choice % 64 {
        0 | 1 if bytes > SEARCHED => Treatment::Lossless,
        0 => Treatment::Lossy(Scheme::ecq(3.0)),
        1 => Treatment::Shared(RateControl {
            target: Target::Bits(3.5),
            sensitivities: Sensitivities::default(),
            row_scales: false,
            column_scales: false,
        }),
        2..6 => Treatment::Lossy(Scheme::Nf4(Granularity::Group(64))),
        6..10 => Treatment::Lossy(Scheme::Absmax4(Granularity::Row)),
        10..14 => Treatment::Lossy(Scheme::Int8Predicted(Granularity::Row, Prediction::Auto)),
        _ => Treatment::Lossless,
    }
}

/// What can be opened can be converted or is refused; what was converted is whole, and rebuilds to what it came from.
fn convert(path: &Path, bytes: &[u8]) {
    let Ok(source) = Source::open(path, &limits()) else { return };
    // one way an input, and always the same
    let choice = bytes.iter().fold(0u8, |sum, &b| sum.rotate_left(1) ^ b);
    let profile = if choice & 128 == 0 { Profile::Cpu } else { Profile::Gpu };
    let options = Options { profile, overwrite: true, ..Options::new(treatment(choice, bytes.len())) };
    let output = place::path("converted.ecq");
    if convert_source(&source, &output, &options, &Silent).is_err() {
        return;
    }
    let reader = Reader::open(&output, Limits::default()).expect("what was written can be read");
    let verified = verify::verify(&reader, Some(&source), &Silent).expect("what was written is whole");
    assert_ne!(verified.identical, Some(false), "rebuilt, and not what it was");
}

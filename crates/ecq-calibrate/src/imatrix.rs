//! Importance matrices of llama.cpp: mean squares of the inputs of layers, which are the diagonals of second moments.
//!
//! There are two kinds of files. The newer one is GGUF, with tensors `NAME.in_sum2` (sums of squares) and `NAME.counts`
//! (how many they are of). The older one is a list: a number of entries; of each the length of its name, the name, how often
//! it was seen, its number of values and these, already divided by what they are sums of and multiplied by how often it was
//! seen. All integers have 32 bits, all numbers are little-endian.

use std::collections::BTreeMap;
use std::path::Path;

use ecq_convert::blocks::to_f32;
use ecq_convert::source::{Source, SourceLimits};
use ecq_llm::{Config, Uncompressed};

use crate::block::{INPUT_OF, INPUTS, LAYERS};
use crate::error::Result;
use crate::gather::{moments, names, output_name, tensor};
use crate::statistics::{About, Statistics, bad};
use crate::texts::Texts;

/// Longest name and most values of an entry of the older kind: what is beyond is no such file.
const LONGEST: usize = 1 << 10;
const MOST: usize = 1 << 24;

/// Mean squares by llama.cpp's names of tensors.
type Squares = BTreeMap<String, Vec<f32>>;

/// What an importance matrix says of a model. No gradients: these it does not have.
///
/// Errors: [`Error::Statistics`](crate::Error::Statistics) if the file is none, has nothing of this model's layers, or other
/// numbers of inputs than they have.
pub fn read(path: &Path, model: &Uncompressed<'_>) -> Result<Statistics> {
    let squares = match std::fs::File::open(path).map(|mut file| {
        let mut magic = [0; 4];
        std::io::Read::read_exact(&mut file, &mut magic).map(|()| magic)
    }) {
        Ok(Ok(magic)) if &magic == b"GGUF" => gguf(path)?,
        _ => listed(path)?,
    };
    let Config { layers, width, hidden, heads, head, .. } = *model.config();
    let mut about = About::new(String::new(), Texts::default());
    let (mut tensors, mut missing) = (BTreeMap::new(), Vec::new());
    let mut take = |tensor: String, theirs: &str, inputs: String, size: usize| {
        let found = squares.get(theirs).filter(|squares| squares.iter().any(|&s| s > 0.0));
        if let Some(squares) = found {
            if squares.len() != size {
                let why = format!(
                    "{theirs}: expected {size} inputs, found {}: it is of another model",
                    squares.len()
                );
                return Err(bad(path, why));
            }
            if !squares.iter().all(|s| s.is_finite() && *s >= 0.0) {
                return Err(bad(path, format!("{theirs}: expected squares, found numbers that are none")));
            }
            tensors.entry(inputs.clone()).or_insert_with(|| squares.clone());
        } else {
            missing.push(tensor.clone());
        }
        about.inputs.insert(tensor, found.map(|_| inputs));
        Ok(())
    };
    for layer in 0..layers {
        for (part, input) in LAYERS.into_iter().zip(INPUT_OF) {
            let size = [width, heads * head, width, hidden][input];
            let theirs = format!("blk.{layer}.{part}.weight");
            take(tensor(model, layer, part), &theirs, moments(layer, INPUTS[input]), size)?;
        }
    }
    if tensors.is_empty() {
        return Err(bad(path, "expected squares of this model's layers, found none of them".into()));
    }
    if !missing.is_empty() {
        tracing::warn!(
            "{}: says nothing of {} tensors, the first is {}: their inputs count the same",
            path.display(),
            missing.len(),
            missing[0]
        );
    }
    let output = output_name(model);
    let known = squares.get("output.weight").filter(|squares| squares.len() == width);
    known.map(|squares| tensors.insert(names::OUTPUT.into(), squares.clone()));
    about.inputs.insert(model.names().embedding().into(), None);
    about.inputs.insert(output.into(), known.map(|_| names::OUTPUT.into()));
    Ok(Statistics::of(path, about, tensors))
}

/// The newer kind.
fn gguf(path: &Path) -> Result<Squares> {
    let source = Source::open(path, &SourceLimits::default()).map_err(|e| bad(path, e.to_string()))?;
    let numbers = |name: &str| {
        let tensor = source.tensors().iter().find(|tensor| tensor.name == name)?;
        let mut out = vec![0.0; tensor.shape.iter().product::<u64>() as usize];
        to_f32(&tensor.dtype, source.data(tensor), &mut out).ok()?;
        Some(out)
    };
    let mut squares = Squares::new();
    for tensor in source.tensors() {
        let Some(name) = tensor.name.strip_suffix(".in_sum2") else { continue };
        let (Some(mut sums), Some(counts)) = (numbers(&tensor.name), numbers(&format!("{name}.counts")))
        else {
            return Err(bad(path, format!("{name}: expected sums and counts of F32")));
        };
        if counts.len() != 1 || counts[0] <= 0.0 {
            continue; // experts, or never seen
        }
        sums.iter_mut().for_each(|sum| *sum /= counts[0]);
        squares.insert(name.into(), sums);
    }
    Ok(squares)
}

/// The older kind.
fn listed(path: &Path) -> Result<Squares> {
    let bytes = std::fs::read(path).map_err(|e| bad(path, format!("cannot read: {e}")))?;
    let expected =
        "expected statistics written by ecq convert --statistics, or an importance matrix of llama.cpp";
    entries(&bytes).ok_or_else(|| bad(path, expected.into()))
}

fn entries(bytes: &[u8]) -> Option<Squares> {
    let mut rest = bytes;
    let mut take = |n: usize| {
        let (own, behind) = rest.split_at_checked(n)?;
        rest = behind;
        Some(own)
    };
    let number = |bytes: &[u8]| Some(i32::from_le_bytes(bytes.try_into().ok()?));
    let mut squares = Squares::new();
    for _ in 0..number(take(4)?)? {
        let length = usize::try_from(number(take(4)?)?).ok().filter(|n| *n <= LONGEST)?;
        let name = std::str::from_utf8(take(length)?).ok()?;
        let seen = number(take(4)?)?;
        let count = usize::try_from(number(take(4)?)?).ok().filter(|n| *n <= MOST)?;
        let values = take(4 * count)?.as_chunks().0;
        if seen > 0 {
            let mean = |b: &[u8; 4]| f32::from_le_bytes(*b) / seen as f32;
            squares.insert(name.into(), values.iter().map(mean).collect());
        }
    }
    (!squares.is_empty()).then_some(squares)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(name: &str, seen: i32, values: &[f32]) -> Vec<u8> {
        let mut out = (name.len() as i32).to_le_bytes().to_vec();
        out.extend(name.as_bytes());
        out.extend(seen.to_le_bytes());
        out.extend((values.len() as i32).to_le_bytes());
        values.iter().for_each(|v| out.extend(v.to_le_bytes()));
        out
    }

    #[test]
    fn a_list_is_read_or_refused() {
        let list = [
            &3i32.to_le_bytes()[..],
            &entry("blk.0.attn_q.weight", 4, &[4.0, 8.0]),
            &entry("never", 0, &[1.0]),
            &entry("b", 1, &[0.5]),
            b"what is behind is not looked at",
        ]
        .concat();
        let squares = entries(&list).unwrap();
        assert_eq!(squares["blk.0.attn_q.weight"], [1.0, 2.0]);
        assert_eq!(squares.len(), 2);
        // cut anywhere before the end of the list, it is none
        let end = list.len() - 31;
        assert!((0..end).all(|n| entries(&list[..n]).is_none()));
        for wrong in [&[0u8; 4][..], &[255; 64], b"\x01\0\0\0\xff\xff\xff\x7f", b"{\"a\": 1}"] {
            assert!(entries(wrong).is_none());
        }
    }
}

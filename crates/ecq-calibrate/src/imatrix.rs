//! Importance matrices of llama.cpp: mean squares of the inputs of layers, which are the diagonals of second moments.
//!
//! There are two kinds of files. The newer one is GGUF, with tensors `NAME.in_sum2` (sums of squares) and `NAME.counts`
//! (how many they are of). The older one is a list: a number of entries; of each the length of its name, the name, how often
//! it was seen, its number of values and these, already divided by what they are sums of and multiplied by how often it was
//! seen. All integers have 32 bits, all numbers are little-endian.

use std::collections::BTreeMap;
use std::io::Read;
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
/// Longest file, in bytes: of a model of some hundred billion weights.
const LARGEST: u64 = 1 << 28;

const EXPECTED: &str =
    "expected statistics written by ecq convert --statistics, or an importance matrix of llama.cpp";

/// Mean squares by llama.cpp's names of tensors.
type Squares = BTreeMap<String, Vec<f32>>;

/// What an importance matrix says of a model. No gradients: these it does not have.
///
/// Errors: [`Error::Statistics`](crate::Error::Statistics) if the file is none, has nothing of this model's layers, or other
/// numbers of inputs than they have.
pub fn read(path: &Path, model: &Uncompressed<'_>) -> Result<Statistics> {
    let bytes = bytes(path)?;
    let squares = if bytes.starts_with(b"GGUF") { gguf(path)? } else { listed(path, &bytes)? };
    let Config { layers, width, hidden, heads, head, .. } = *model.config();
    let mut about = About::new(String::new(), Texts::default());
    let (mut tensors, mut missing) = (BTreeMap::new(), 0);
    for layer in 0..layers {
        for (input, size) in [width, heads * head, width, hidden].into_iter().enumerate() {
            let sharing =
                || (0..LAYERS.len()).filter(|&part| INPUT_OF[part] == input).map(|part| LAYERS[part]);
            let theirs = sharing().map(|part| format!("blk.{layer}.{part}.weight"));
            let found = first(path, &squares, theirs, size)?;
            missing += usize::from(found.is_none());
            let name = found.is_some().then(|| moments(layer, INPUTS[input]));
            found.map(|own| tensors.insert(moments(layer, INPUTS[input]), own.clone()));
            about.inputs.extend(sharing().map(|part| (tensor(model, layer, part), name.clone())));
        }
    }
    if tensors.is_empty() {
        return Err(bad(path, "expected squares of this model's layers, found none of them".into()));
    }
    if missing > 0 {
        tracing::warn!("{}: {missing} inputs of layers are not in it; they count the same", path.display());
    }
    let output = first(path, &squares, ["output.weight".to_owned()], width)?;
    output.map(|own| tensors.insert(names::OUTPUT.into(), own.clone()));
    about.inputs.insert(model.names().embedding().into(), None);
    about.inputs.insert(output_name(model).into(), output.map(|_| names::OUTPUT.into()));
    Ok(Statistics::of(path, about, tensors))
}

/// Of the first of these names that has some, the mean squares of so many inputs. `None` if all are 0, or not there.
fn first<'a>(
    path: &Path,
    squares: &'a Squares,
    theirs: impl IntoIterator<Item = String>,
    size: usize,
) -> Result<Option<&'a Vec<f32>>> {
    let Some((name, found)) = theirs.into_iter().find_map(|name| squares.get(&name).map(|s| (name, s)))
    else {
        return Ok(None);
    };
    if found.len() != size {
        let why = format!("{name}: expected {size} inputs, found {}: it is of another model", found.len());
        return Err(bad(path, why));
    }
    if !found.iter().all(|square| square.is_finite() && *square >= 0.0) {
        return Err(bad(path, format!("{name}: expected squares, found numbers that are none")));
    }
    Ok(found.iter().any(|&square| square > 0.0).then_some(found))
}

/// The file. Error: it is none, or longer than such a file is.
fn bytes(path: &Path) -> Result<Vec<u8>> {
    let cannot = |e| bad(path, format!("cannot read: {e}"));
    let about = path.metadata().map_err(cannot)?;
    if !about.is_file() || about.len() > LARGEST {
        return Err(bad(path, EXPECTED.into()));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes)).map_err(cannot)?;
    Ok(bytes)
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
        let [count] = counts[..] else { continue }; // experts
        if count == 0.0 {
            continue; // never seen
        }
        sums.iter_mut().for_each(|sum| *sum /= count);
        squares.insert(name.into(), sums);
    }
    Ok(squares)
}

/// The older kind.
fn listed(path: &Path, bytes: &[u8]) -> Result<Squares> {
    entries(bytes).ok_or_else(|| bad(path, EXPECTED.into()))
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

    /// A GGUF file of tensors of F32.
    fn written(tensors: &[(&str, &[f32])]) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend([tensors.len() as u64, 0].map(u64::to_le_bytes).concat());
        let mut offset = 0u64;
        for (name, values) in tensors {
            out.extend((name.len() as u64).to_le_bytes());
            out.extend(name.as_bytes());
            out.extend(1u32.to_le_bytes());
            out.extend((values.len() as u64).to_le_bytes());
            out.extend(0u32.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += (4 * values.len() as u64).next_multiple_of(32);
        }
        for (_, values) in tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            values.iter().for_each(|v| out.extend(v.to_le_bytes()));
        }
        out
    }

    #[test]
    fn a_gguf_file_has_sums_and_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("imatrix.gguf");
        let read = |tensors: &[(&str, &[f32])]| {
            std::fs::write(&path, written(tensors)).unwrap();
            gguf(&path)
        };
        let sums = ("blk.0.ffn_up.weight.in_sum2", &[8.0, 4.0][..]);
        let squares = read(&[
            sums,
            ("blk.0.ffn_up.weight.counts", &[4.0]),
            ("never.in_sum2", &[1.0]),
            ("never.counts", &[0.0]),
            ("experts.in_sum2", &[1.0]),
            ("experts.counts", &[1.0, 2.0]),
        ]);
        let squares = squares.unwrap();
        assert_eq!(squares["blk.0.ffn_up.weight"], [2.0, 1.0]);
        assert_eq!(squares.len(), 1);
        let message = read(&[sums]).unwrap_err().to_string();
        assert!(message.contains("blk.0.ffn_up.weight: expected sums and counts"), "{message}");
        let numbers = |values: &[f32]| {
            let squares = Squares::from([("a".to_owned(), values.to_vec())]);
            first(&path, &squares, ["b".to_owned(), "a".to_owned()], 2).map(|found| found.cloned())
        };
        assert_eq!(numbers(&[1.0, 2.0]).unwrap(), Some(vec![1.0, 2.0]));
        assert_eq!(numbers(&[0.0, 0.0]).unwrap(), None);
        assert!(numbers(&[1.0]).unwrap_err().to_string().contains("a: expected 2 inputs, found 1"));
        assert!([-1.0, f32::NAN].into_iter().all(|odd| numbers(&[1.0, odd]).is_err()));
    }
}

//! A file of statistics while it is being gathered: what an interruption leaves, the next run continues.
//!
//! It begins as the complete file does. Behind the tensors stand, in the same way, the numbers that are needed to go on, and
//! then how many steps are complete, which of two copies of these numbers they left, and its CRC-32. That is written when all
//! that it speaks of is on the disk. A complete file is cut behind its tensors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Result as IoResult, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::statistics::{About, KEY, bad};

/// A file that is being written, in any order.
pub struct Writer {
    path: PathBuf,
    file: File,
    /// Offset and number of values.
    places: BTreeMap<String, (u64, usize)>,
    /// Where the tensors end.
    end: u64,
    /// Where what tells of steps is.
    last: u64,
    kept: Kept,
    /// How often steps are kept; never in a file that nobody can find again.
    every: Option<Duration>,
    since: Instant,
}

/// Tensors by name, and their shapes.
pub type Shapes = Vec<(String, Vec<usize>)>;

/// What tells of steps, at the end of an unfinished file.
#[derive(Clone, Copy, Default)]
struct Kept {
    /// Twice the number of steps that are complete, and which of two copies of what is needed to go on they left.
    word: u64,
    /// CRC-32 of that copy.
    crc: u64,
}

/// Length of [`Kept`] in a file.
const KEPT: u64 = 16;

impl Kept {
    fn bytes(self) -> [u8; KEPT as usize] {
        let mut bytes = [0; KEPT as usize];
        bytes[..8].copy_from_slice(&self.crc.to_le_bytes());
        bytes[8..].copy_from_slice(&self.word.to_le_bytes());
        bytes
    }

    fn read(file: &mut File) -> IoResult<Self> {
        let mut both = [[0; 8]; 2];
        file.seek(SeekFrom::End(-(KEPT as i64)))?;
        file.read_exact(both.as_flattened_mut())?;
        let [crc, word] = both.map(u64::from_le_bytes);
        Ok(Self { word, crc })
    }
}

impl Writer {
    /// Begins a file whose tensors of f32 have these shapes, or goes on with one that was begun with the same. `state` are
    /// tensors that are there until it is complete, after this many `steps`. Steps are kept if some time, `every`, has passed
    /// since the last one.
    ///
    /// Errors: [`Error::Statistics`] if the file cannot be read or written, [`Error::Other`] if it is another one. `path` is for
    /// errors.
    pub fn new(
        path: &Path,
        mut file: File,
        about: &About,
        (shapes, state): (&Shapes, &Shapes),
        (every, steps): (Option<Duration>, usize),
    ) -> Result<Self> {
        let about = serde_json::to_string(about).map_err(|e| bad(path, e.to_string()))?;
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), serde_json::json!({ KEY: about }));
        let (mut places, mut end) = (BTreeMap::new(), 0);
        for (name, shape) in shapes {
            let len: usize = shape.iter().product();
            let offsets = [end, end + 4 * len];
            header.insert(
                name.clone(),
                serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets }),
            );
            places.insert(name.clone(), (end as u64, len));
            end += 4 * len;
        }
        let tensors = end as u64;
        for (name, shape) in state {
            let len = shape.iter().product();
            places.insert(name.clone(), (end as u64, len));
            end += 4 * len;
        }
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let header = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
        let first = header.len() as u64;
        places.values_mut().for_each(|place| place.0 += first);
        let (end, last) = (first + tensors, first + end as u64);
        let begun =
            begun(&mut file, &header, (end, last)).map_err(|e| bad(path, format!("cannot write: {e}")))?;
        let kept = match begun {
            Begun::Complete => Kept { word: 2 * steps as u64, crc: 0 },
            Begun::Here(kept) if kept.word / 2 < steps as u64 => kept,
            Begun::Here(_) => return Err(other(path, "it is damaged")),
            Begun::Other => return Err(other(path, "it is not of these texts and this model")),
        };
        Ok(Self { path: path.into(), file, places, end, last, kept, every, since: Instant::now() })
    }

    /// Steps that are complete.
    pub fn done(&self) -> usize {
        (self.kept.word / 2) as usize
    }

    /// Writes a tensor.
    ///
    /// Error: [`Error::Statistics`] also for numbers that are none.
    ///
    /// # Panics
    /// If it was not announced, or has another length.
    pub fn put(&mut self, name: &str, values: &[f32]) -> Result<()> {
        self.put_parts(name, [values]).map(drop)
    }

    /// [`Self::put`] of a tensor in parts. Returns its CRC-32.
    fn put_parts<'a>(&mut self, name: &str, parts: impl IntoIterator<Item = &'a [f32]>) -> Result<u32> {
        let (offset, len) = self.places[name];
        let cannot = |path: &Path, e| bad(path, format!("cannot write: {e}"));
        self.file.seek(SeekFrom::Start(offset)).map_err(|e| cannot(&self.path, e))?;
        let (mut written, mut crc) = (0, crc32fast::Hasher::new());
        for part in parts {
            if let Some(value) = part.iter().find(|value| !value.is_finite()) {
                return Err(bad(&self.path, format!("{name}: expected finite numbers, found {value}")));
            }
            let bytes: &[u8] = bytemuck::cast_slice(part); // little-endian machines only, as all of ours
            self.file.write_all(bytes).map_err(|e| cannot(&self.path, e))?;
            crc.update(bytes);
            written += part.len();
        }
        assert_eq!(written, len, "{name}");
        Ok(crc.finalize())
    }

    /// Reads a tensor that was written.
    ///
    /// # Panics
    /// If it was not announced.
    pub fn get(&mut self, name: &str) -> Result<Vec<f32>> {
        let (offset, len) = self.places[name];
        let mut values = vec![0.0f32; len];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        let got = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.read_exact(bytes));
        got.map_err(|e| bad(&self.path, format!("cannot read: {e}")))?;
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(values),
            false => Err(other(&self.path, "what it has for going on is damaged")),
        }
    }

    /// What was kept under a name with the last step.
    pub fn kept(&mut self, name: &str) -> Result<Vec<f32>> {
        let values = self.get(&copy_name(name, self.kept.word % 2))?;
        match u64::from(crc32fast::hash(bytemuck::cast_slice(&values))) == self.kept.crc {
            true => Ok(values),
            false => Err(other(&self.path, "what it has for going on is damaged")),
        }
    }

    /// Keeps that so many steps are complete, if it is time for that: what is needed to go on is written, in the copy that was
    /// not kept last.
    pub fn keep<'a>(
        &mut self,
        steps: usize,
        name: &str,
        parts: impl IntoIterator<Item = &'a [f32]>,
    ) -> Result<()> {
        if self.every.is_none_or(|every| self.since.elapsed() < every) {
            return Ok(());
        }
        let copy = 1 - self.kept.word % 2;
        let crc = self.put_parts(&copy_name(name, copy), parts)?.into();
        let kept = Kept { word: 2 * steps as u64 + copy, crc };
        let last = self.last;
        let keep = |file: &mut File| {
            file.sync_data()?;
            file.seek(SeekFrom::Start(last))?;
            file.write_all(&kept.bytes())?;
            file.sync_data()
        };
        keep(&mut self.file).map_err(|e| bad(&self.path, format!("cannot write: {e}")))?;
        (self.kept, self.since) = (kept, Instant::now());
        Ok(())
    }

    /// The file, complete.
    pub fn finish(self) -> Result<File> {
        self.file.set_len(self.end).map_err(|e| bad(&self.path, format!("cannot write: {e}")))?;
        Ok(self.file)
    }
}

fn other(path: &Path, why: &'static str) -> Error {
    Error::Other { path: path.into(), why }
}

/// Whether an interrupted run left something to go on with in a file that [`gather`](crate::gather()) was given.
pub fn goes_on(file: &mut File) -> bool {
    Kept::read(file).is_ok_and(|kept| kept.word != 0)
}

/// The name of a copy of what is needed to go on.
pub fn copy_name(name: &str, copy: u64) -> String {
    format!("{name}.{copy}")
}

/// What a file is before a run.
enum Begun {
    /// It was begun in the same way, and so many steps are kept.
    Here(Kept),
    /// It only lacks its name.
    Complete,
    Other,
}

/// Begins a file with a header, whose tensors end and whose steps are told at such places; or finds how far one is.
fn begun(file: &mut File, header: &[u8], (end, last): (u64, u64)) -> IoResult<Begun> {
    let (mut found, length) = (Vec::new(), file.metadata()?.len());
    file.seek(SeekFrom::Start(0))?;
    Read::by_ref(file).take(header.len() as u64).read_to_end(&mut found)?;
    if found == header && length == end {
        return Ok(Begun::Complete);
    }
    if found == header && length == last + KEPT {
        return Ok(Begun::Here(Kept::read(file)?));
    }
    // one that was begun by another command, but of which no step was kept, is no loss
    let ours = found.windows(KEY.len()).take(64).any(|name| name == KEY.as_bytes());
    if length > 0 && (!ours || goes_on(file)) {
        return Ok(Begun::Other);
    }
    file.set_len(0)?;
    file.set_len(last + KEPT)?; // zeros: no step, whatever happens to the header
    file.seek(SeekFrom::Start(0))?;
    file.write_all(header)?;
    Ok(Begun::Here(Kept::default()))
}

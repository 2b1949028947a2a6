//! A file of statistics while it is being gathered: what an interruption leaves, the next run continues.
//!
//! It begins as the complete file does. Behind the tensors stand, in the same way, the numbers that are needed to go on, and
//! then a word: how many steps are complete, and which of two copies of these numbers they left. The word is written when all
//! that it speaks of is on the disk. A complete file is cut behind its tensors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Result as IoResult, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::statistics::{About, KEY, bad};

/// A file that is being written, in any order.
pub struct Writer {
    path: PathBuf,
    file: File,
    /// Offset and number of values.
    places: BTreeMap<String, (u64, usize)>,
    /// Where the tensors end.
    end: u64,
    /// Where the word is.
    word: u64,
    done: u64,
    /// How often steps are kept; never in a file that nobody can find again.
    every: Option<Duration>,
    kept: Instant,
}

/// Tensors by name, and their shapes.
pub type Shapes = Vec<(String, Vec<usize>)>;

impl Writer {
    /// Begins a file whose tensors of f32 have these shapes, or goes on with one that was begun with the same. `state` are
    /// tensors that are there until it is complete. Steps are kept if some time, `every`, has passed since the last one.
    ///
    /// Error: [`Error::Statistics`](crate::Error::Statistics) if the file cannot be read or written. `path` is for errors.
    pub fn new(
        path: &Path,
        mut file: File,
        about: &About,
        (shapes, state): (&Shapes, &Shapes),
        every: Option<Duration>,
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
        let word = first + end as u64;
        let done = begun(&mut file, &header, word).map_err(|e| bad(path, format!("cannot write: {e}")))?;
        let (path, kept) = (path.into(), Instant::now());
        Ok(Self { path, file, places, end: first + tensors, word, done, every, kept })
    }

    /// Steps that are complete.
    pub fn done(&self) -> usize {
        (self.done / 2) as usize
    }

    /// Which of two copies of what is needed to go on was kept last.
    pub fn copy(&self) -> u64 {
        self.done % 2
    }

    /// Writes a tensor.
    ///
    /// # Panics
    /// If it was not announced, or has another length.
    pub fn put(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let (offset, len) = self.places[name];
        assert_eq!(values.len(), len, "{name}");
        let bytes: &[u8] = bytemuck::cast_slice(values); // little-endian machines only, as all of ours
        let put = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.write_all(bytes));
        put.map_err(|e| bad(&self.path, format!("cannot write: {e}")))
    }

    /// Reads a tensor that was written.
    ///
    /// # Panics
    /// If it was not announced.
    pub fn get(&mut self, name: &str) -> Result<Vec<f32>> {
        let (offset, len) = self.places[name];
        let mut values = vec![0.0; len];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        let got = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.read_exact(bytes));
        got.map_err(|e| bad(&self.path, format!("cannot read: {e}")))?;
        Ok(values)
    }

    /// Whether it is time to keep a step.
    pub fn due(&self) -> bool {
        self.every.is_some_and(|every| self.kept.elapsed() >= every)
    }

    /// Keeps that so many steps are complete: `state` is written, in the copy that was not kept last.
    pub fn keep(&mut self, steps: usize, state: (&str, &[f32])) -> Result<()> {
        let copy = 1 - self.copy();
        self.put(&copy_name(state.0, copy), state.1)?;
        let word = 2 * steps as u64 + copy;
        let keep = |file: &mut File| {
            file.sync_data()?;
            file.seek(SeekFrom::Start(self.word))?;
            file.write_all(&word.to_le_bytes())?;
            file.sync_data()
        };
        keep(&mut self.file).map_err(|e| bad(&self.path, format!("cannot write: {e}")))?;
        (self.done, self.kept) = (word, Instant::now());
        Ok(())
    }

    /// The file, complete.
    pub fn finish(self) -> Result<File> {
        self.file.set_len(self.end).map_err(|e| bad(&self.path, format!("cannot write: {e}")))?;
        Ok(self.file)
    }
}

/// Whether an interrupted run left something to go on with in a file that [`gather`](crate::gather()) was given.
pub fn goes_on(file: &mut File) -> bool {
    let mut word = [0; 8];
    let read = file.seek(SeekFrom::End(-8)).and_then(|_| file.read_exact(&mut word));
    read.is_ok() && u64::from_le_bytes(word) != 0
}

/// The name of a copy of what is needed to go on.
pub fn copy_name(name: &str, copy: u64) -> String {
    format!("{name}.{copy}")
}

/// The word of a file that begins like this and is complete up to it, or that of a new one.
fn begun(file: &mut File, header: &[u8], word: u64) -> IoResult<u64> {
    let mut found = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(header.len() as u64).read_to_end(&mut found)?;
    if found == header && file.metadata()?.len() == word + 8 {
        let mut done = [0; 8];
        file.seek(SeekFrom::Start(word))?;
        file.read_exact(&mut done)?;
        return Ok(u64::from_le_bytes(done));
    }
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(header)?;
    file.set_len(word + 8)?; // zeros: no step
    Ok(0)
}

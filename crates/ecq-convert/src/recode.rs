//! `.ecq` to `.ecq` in the codecs of another profile, without loss.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ecq_format::directory::TensorRecord;
use ecq_format::encode::{Encoder, Levels, Profile, histogram, layout};
use ecq_format::ordered::ordered;
use ecq_format::plan::Plan;
use ecq_format::predict::Differences;
use ecq_format::reader::{CodedTensor, Tensor};
use ecq_format::side::Side;
use ecq_format::tile::TileParts;
use ecq_format::writer::TensorHead;
use ecq_format::{Reader, Writer};

use crate::convert::{header_for, profile_for};
use crate::inspect::sum;
use crate::progress::step;
use crate::{Error, Progress, Result};

/// Most weights that decoded tiles have together, but for one tile of any size: 256 MiB of levels.
const MOST_KEPT: u64 = 1 << 26;

/// Writes a file again in the codecs and tiles of a profile. Returns its length.
///
/// Levels, scales, values, everything else stays; what was lossless restores the same sources. A file that comes back to
/// the profile it was converted for is the same again byte for byte, but for floats of more than a million weights and tensors
/// that shared a table: their frequencies were estimates, and are then exact. Memory holds a batch of tiles and the scales of
/// one tensor. The output stands under its name only when it is complete.
///
/// Errors: damage of the input, naming the tensor; [`Error::OntoInput`], and what writing gives.
pub fn recode(
    reader: &Reader,
    output: &Path,
    profile: Profile,
    overwrite: bool,
    progress: &dyn Progress,
) -> Result<u64> {
    if output.canonicalize().is_ok_and(|path| reader.path().canonicalize().is_ok_and(|input| input == path)) {
        return Err(Error::OntoInput(output.into()));
    }
    let directory = reader.directory();
    let header = header_for(directory.tensors.iter().map(|t| t.name.len()));
    let mut job = Job { reader, profile, progress, writer: Writer::create(output, overwrite, header)? };
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    progress.begin(&format!("recoding to {name}"), sum(directory.tensors.iter().map(|t| t.source.len)));
    // coded ones must come first, and parts after what they are parts of; else as they were
    let mut records: Vec<_> = directory.tensors.iter().collect();
    records.sort_by_key(|t| (t.coded.is_none(), t.part.is_none(), reader.position(t)));
    for record in records {
        job.tensor(record)?;
        reader.used(reader.stored_bytes(record));
    }
    for (i, blob) in directory.blobs.iter().enumerate() {
        job.writer.blob(&blob.name, blob.role, &reader.blob(i)?)?;
        step(progress, 0)?;
    }
    let sealed = job.writer.seal(directory.sources.clone(), directory.lossless)?;
    reader.check()?;
    Ok(sealed.publish()?)
}

/// A file on its way.
struct Job<'a> {
    reader: &'a Reader,
    profile: Profile,
    progress: &'a dyn Progress,
    writer: Writer,
}

impl Job<'_> {
    fn tensor(&mut self, record: &TensorRecord) -> Result<()> {
        let TensorRecord { name, shape, dtype, source, .. } = record;
        let head = TensorHead { name, shape, dtype, source: *source };
        match self.reader.load(record)? {
            Tensor::Plain(bytes) => self.writer.plain(head, self.reader.plain_type(record), bytes)?,
            Tensor::Part(part) => self.writer.part(head, part.clone(), record.crc)?,
            Tensor::Coded(tensor) => return self.coded(head, &tensor),
        }
        step(self.progress, source.len)
    }

    fn coded(&mut self, head: TensorHead<'_>, tensor: &CodedTensor<'_>) -> Result<()> {
        let (coded, progress) = (tensor.coded(), self.progress);
        let inconsistent = |why: String| Error::Inconsistent {
            path: self.reader.path().into(),
            name: head.name.into(),
            why,
        };
        let profile = profile_for(coded.weights(), self.profile);
        // finds all damage before anything relies on the tiles
        let plan = plan(tensor, progress)?;
        let stored = Stored::new(tensor);
        let (rows, cols) = (coded.rows as usize, coded.cols as usize);
        let tile_rows = layout(coded.rows, coded.cols, profile).1 as usize;
        let differences =
            coded.predictor.map(|p| Differences { levels: &stored, tile_rows, cols, predictor: p });
        let (levels, plan) = match &differences {
            None => (&stored as &dyn Levels, plan),
            Some(differences) => {
                let counts = |center| histogram(differences, rows, cols, center);
                // the first number of a codebook is that of the centre
                let again = match coded.values.codebook {
                    Some(_) => Plan::for_split(&counts(coded.center), coded.split()),
                    None => Plan::cheapest(&counts(0), 0..=8),
                };
                (differences as &dyn Levels, again.unwrap_or(plan))
            }
        };
        let encoder = Encoder::again(coded, head.shape, profile, &plan, levels).map_err(inconsistent)?;
        let side = Side::new(&tensor.side()?);
        let len = head.source.len;
        let share = |row: usize| (u128::from(len) * row as u128 / rows as u128) as u64;
        let go_on = |rows: Range<usize>| {
            progress.advance(share(rows.end) - share(rows.start));
            !progress.cancelled()
        };
        self.writer.coded(head, &encoder, &side, go_on)?;
        stored.failed().map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Decodes all tiles once, and finds the plan by which they were made.
fn plan(tensor: &CodedTensor<'_>, progress: &dyn Progress) -> Result<Plan> {
    type Made = (Vec<i32>, Vec<u8>, [u64; 16], Option<Error>);
    let coded = tensor.coded();
    let count = |tile: usize, levels: &mut Vec<i32>, nibbles: &mut Vec<u8>| -> Result<[u64; 16]> {
        tensor.levels(tile, levels)?;
        let (bytes, entry) = tensor.tile(tile)?;
        nibbles.resize(levels.len(), 0);
        let parts = TileParts::new(bytes, entry, coded.split(), levels.len());
        let decoded = parts.and_then(|parts| tensor.decoder().nibbles(parts.stream, nibbles));
        decoded.map_err(|why| tensor.corrupt(tile, why))?;
        let mut counts = [0; 16];
        nibbles.iter().for_each(|&n| counts[usize::from(n & 15)] += 1);
        Ok(counts)
    };
    let make = |tile: usize, (levels, nibbles, counts, failed): &mut Made| match count(tile, levels, nibbles)
    {
        Ok(all) => *counts = all,
        Err(error) => *failed = Some(error),
    };
    let mut total = [0; 16];
    ordered(tensor.tiles(), make, |(_, _, counts, failed)| {
        total.iter_mut().zip(counts).for_each(|(sum, n)| *sum += *n);
        failed.take().map_or(Ok(()), Err)?;
        step(progress, 0)
    })?;
    Plan::of_plane(coded.split(), &total).ok_or_else(|| tensor.corrupt(0, "it is empty".into()).into())
}

/// A tile that is decoded, or is just being.
type Decoded = Arc<OnceLock<Vec<i32>>>;

/// The levels of a coded tensor in any rows. Keeps the last tiles: those of another height take their rows from them.
struct Stored<'a> {
    tensor: &'a CodedTensor<'a>,
    tiles: Mutex<VecDeque<(usize, Decoded)>>,
    keep: usize,
    /// The first tile that could not be decoded; its levels are zeros.
    failed: Mutex<Option<ecq_format::Error>>,
}

impl<'a> Stored<'a> {
    fn new(tensor: &'a CodedTensor<'a>) -> Self {
        let coded = tensor.coded();
        let wanted = 2 * rayon::current_num_threads() as u64 + 2;
        let keep = (MOST_KEPT / (coded.tile_rows * coded.cols).max(1)).clamp(1, wanted) as usize;
        Self { tensor, tiles: Mutex::default(), keep, failed: Mutex::default() }
    }

    fn failed(self) -> Option<ecq_format::Error> {
        self.failed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn tile(&self, tile: usize) -> Decoded {
        let mut tiles = self.tiles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = tiles.iter().find(|(i, _)| *i == tile) {
            return Arc::clone(found);
        }
        let new = Decoded::default();
        tiles.push_back((tile, Arc::clone(&new)));
        if tiles.len() > self.keep {
            tiles.pop_front();
        }
        new
    }

    fn decode(&self, tile: usize) -> Vec<i32> {
        let mut levels = Vec::new();
        if let Err(error) = self.tensor.levels(tile, &mut levels) {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            levels.clear();
            levels.resize(self.tensor.rows(tile).len() * self.tensor.coded().cols as usize, 0);
        }
        levels
    }
}

impl Levels for Stored<'_> {
    fn fill(&self, rows: Range<usize>, out: &mut [i32]) {
        let (height, cols) = (self.tensor.coded().tile_rows as usize, self.tensor.coded().cols as usize);
        let (mut row, mut out) = (rows.start, out);
        while row < rows.end {
            let tile = self.tile(row / height);
            let levels = tile.get_or_init(|| self.decode(row / height));
            let first = row % height;
            let count = (height - first).min(rows.end - row);
            let (here, rest) = out.split_at_mut(count * cols);
            here.copy_from_slice(&levels[first * cols..][..count * cols]);
            (row, out) = (row + count, rest);
        }
    }
}

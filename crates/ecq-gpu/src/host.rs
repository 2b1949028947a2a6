//! A tensor as the words of its buffers: gathered in RAM, or sent to a device while its tiles are decoded.

use ecq_format::reader::CodedTensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::escapes;
use crate::layout::{Escape, PADDING, Resident, Tile};
use crate::params::Params;
use crate::plan::{self, Limits, Part, TileSize};
use crate::side::{self, Places};
use crate::tiles::Tiles;

/// What takes the words of a part's tiles: raw bits and streams.
pub trait Sink {
    /// Takes the words of the next tile. Errors are those of whoever takes them.
    fn take(&mut self, words: &[u32]) -> Result<()>;
}

/// Streams of a part of a tensor.
#[derive(Clone, Debug)]
pub struct Streams<S> {
    /// Raw bits and streams, tile by tile.
    pub words: S,
    /// For each tile: where its raw bits begin in `words`, and each of its streams.
    pub first: Vec<u32>,
}

/// The words of all buffers of a tensor; those of its streams are where `S` has them.
#[derive(Clone, Debug)]
pub struct Host<S> {
    /// What it has beside its tiles.
    pub resident: Resident,
    /// In the order of rows.
    pub parts: Vec<Part>,
    /// For each part.
    pub streams: Vec<Streams<S>>,
    /// For each part: scales; nothing without any.
    pub sides: Vec<Vec<u32>>,
    /// For each part: where its scales are.
    pub places: Vec<Places>,
    /// For each part: escapes; nothing without any.
    pub escapes: Vec<Vec<u32>>,
}

impl Sink for Vec<u32> {
    fn take(&mut self, words: &[u32]) -> Result<()> {
        self.extend_from_slice(words);
        Ok(())
    }
}

impl Host<Vec<u32>> {
    /// A tensor in RAM, in parts that fit a device with these limits, as a [`Matrix`](crate::Matrix) has it in GPU memory;
    /// `what` is for errors.
    ///
    /// Errors: [`Error::Tensor`](crate::Error::Tensor) if it is corrupt, [`Error::Limit`](crate::Error::Limit).
    pub fn new(what: &str, tensor: &CodedTensor<'_>, limits: &Limits) -> Result<Self> {
        let mut host = Self::gather(what, tensor, limits, |_| Ok(Vec::new()))?;
        // what lanes read ahead
        host.streams.iter_mut().for_each(|part| part.words.extend([0; PADDING as usize]));
        Ok(host)
    }
}

impl<S: Sink> Host<S> {
    /// Decodes all tiles of a tensor, to validate them, and hands their words to what `open` makes for each part.
    ///
    /// A few tiles are held at a time; tensors that must be coded anew are held whole.
    /// Errors: [`Error::Tensor`](crate::Error::Tensor) for corrupt tiles, [`Error::Limit`](crate::Error::Limit); those of
    /// the sinks.
    pub fn gather(
        what: &str,
        tensor: &CodedTensor<'_>,
        limits: &Limits,
        mut open: impl FnMut(&Part) -> Result<S>,
    ) -> Result<Self> {
        let tiles = Tiles::of(tensor)?;
        let (code, codes) = tiles.code();
        let mut resident = side::resident(tensor, tiles.shape(), code, codes)?;
        let scales = std::mem::take(&mut resident.side);
        let side = |rows: usize| scales.words(rows);
        let plan =
            |sizes: &[TileSize]| plan::parts(what, &tiles.shape(), &resident.form, sizes, side, limits);
        let own: Option<Vec<TileSize>> = (0..tiles.units()).map(|unit| tiles.size(unit)).collect();
        let (mut streams, mut escapes) = (Vec::new(), Vec::new());
        let parts = match own {
            Some(sizes) => {
                let parts = plan(&sizes)?;
                for part in &parts {
                    let mut filling = Filling::new(open(part)?);
                    // a few tiles for each thread at a time
                    let step = 4 * rayon::current_num_threads();
                    for start in part.tiles.clone().step_by(step) {
                        let some = start..part.tiles.end.min(start + step);
                        let decoded: Vec<_> = some.into_par_iter().map(|unit| tiles.unit(unit)).collect();
                        for unit in decoded {
                            unit?.into_iter().try_for_each(|tile| filling.tile(tile, &mut escapes))?;
                        }
                    }
                    streams.push(filling.streams);
                }
                parts
            }
            None => {
                let all: Vec<_> = (0..tiles.units()).into_par_iter().map(|unit| tiles.unit(unit)).collect();
                let all: Vec<Tile> =
                    all.into_iter().collect::<ecq_format::Result<Vec<_>>>()?.into_iter().flatten().collect();
                let parts = plan(&all.iter().map(Tile::size).collect::<Vec<_>>())?;
                let mut rest = all.into_iter();
                for part in &parts {
                    let mut filling = Filling::new(open(part)?);
                    for tile in rest.by_ref().take(part.tiles.len()) {
                        filling.tile(tile, &mut escapes)?;
                    }
                    streams.push(filling.streams);
                }
                parts
            }
        };
        let packed = escapes::Packed::new(escapes, &resident.shape, resident.form.value);
        resident.form.escapes = packed.is_some();
        let rows = || parts.iter().map(|part| part.rows.clone());
        let escapes = packed.iter().flat_map(|packed| rows().map(|rows| packed.part(rows))).collect();
        let (mut sides, places): (Vec<_>, Vec<_>) = rows().map(|rows| scales.part(rows)).unzip();
        if !resident.form.has_side() {
            sides.clear();
        }
        Ok(Self { resident, parts, streams, sides, places, escapes })
    }

    /// For each part: the parameters of kernels whose values are those of packed weights (`plain`, which
    /// [`Kernel::as_packed`](crate::variant::Kernel::as_packed) tells), or of all others.
    pub fn params(&self, plain: bool) -> Vec<Params> {
        let parts = self.parts.iter().zip(&self.places);
        parts.map(|(part, places)| Params::new(&self.resident, part, places, plain)).collect()
    }
}

/// Fills the streams of a part.
struct Filling<S> {
    streams: Streams<S>,
    /// Words so far.
    at: u32,
}

impl<S: Sink> Filling<S> {
    fn new(words: S) -> Self {
        Self { streams: Streams { words, first: Vec::new() }, at: 0 }
    }

    fn tile(&mut self, tile: Tile, escapes: &mut Vec<Escape>) -> Result<()> {
        self.streams.first.push(self.at);
        self.streams.first.extend(tile.starts.iter().map(|start| self.at + start));
        self.streams.words.take(&tile.words)?;
        self.at += tile.words.len() as u32;
        escapes.extend(tile.escapes);
        Ok(())
    }
}

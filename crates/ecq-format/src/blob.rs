//! Blobs of an open file, unpacked piece by piece.

use std::io::Read;

use crate::directory::Blob;
use crate::{Error, Reader, Result};

/// Largest zstd window that is unpacked: 8 MiB, which levels below 20 do not exceed.
const MAX_ZSTD_WINDOW_LOG: u32 = 23;
/// Bytes of a piece.
const PIECE: usize = 64 << 10;

/// The bytes of a blob in pieces: as many as the directory says, or an error.
pub struct Unpacker<'a> {
    reader: &'a Reader,
    blob: &'a Blob,
    packed: Packed<'a>,
    /// Bytes that are still to come.
    left: u64,
    piece: Vec<u8>,
}

enum Packed<'a> {
    Plain(&'a [u8]),
    Zstd(zstd::Decoder<'a, &'a [u8]>),
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(reader: &'a Reader, blob: &'a Blob, stored: &'a [u8]) -> Result<Self> {
        let corrupt = |e: std::io::Error| reader.corrupt(&blob.name, "blob", e.to_string());
        let packed = if blob.zstd {
            let mut decoder = zstd::Decoder::with_buffer(stored).map_err(corrupt)?;
            decoder.window_log_max(MAX_ZSTD_WINDOW_LOG).map_err(corrupt)?;
            Packed::Zstd(decoder)
        } else {
            Packed::Plain(stored)
        };
        Ok(Self { reader, blob, packed, left: blob.size, piece: vec![0; PIECE] })
    }

    /// The next bytes, at most `most` of them, which is not 0; none at the end. Error: [`Error::Corrupt`].
    pub fn next(&mut self, most: u64) -> Result<&[u8]> {
        let wanted = most.min(self.left).min(PIECE as u64) as usize;
        // at the end one byte more is asked for, which must not be there
        let found = self.read(wanted.max(1))?;
        if found > wanted || (found == 0 && self.left > 0) {
            return Err(self.wrong_size());
        }
        self.left -= found as u64;
        Ok(&self.piece[..found])
    }

    fn read(&mut self, most: usize) -> Result<usize> {
        let piece = &mut self.piece[..most];
        let read = match &mut self.packed {
            Packed::Plain(bytes) => bytes.read(piece),
            Packed::Zstd(decoder) => decoder.read(piece),
        };
        read.map_err(|e| self.reader.corrupt(&self.blob.name, "blob", e.to_string()))
    }

    fn wrong_size(&self) -> Error {
        let why = format!("not the {} bytes that the directory says", self.blob.size);
        self.reader.corrupt(&self.blob.name, "blob", why)
    }
}

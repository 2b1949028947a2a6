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
    unpacked: Box<dyn Read + Send + 'a>,
    /// Bytes that are still to come.
    left: u64,
    piece: Vec<u8>,
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(reader: &'a Reader, blob: &'a Blob, stored: &'a [u8]) -> Result<Self> {
        let corrupt = |e: std::io::Error| reader.corrupt(&blob.name, "blob", e.to_string());
        let unpacked: Box<dyn Read + Send + 'a> = if blob.zstd {
            let mut decoder = zstd::Decoder::with_buffer(stored).map_err(corrupt)?;
            decoder.window_log_max(MAX_ZSTD_WINDOW_LOG).map_err(corrupt)?;
            Box::new(decoder)
        } else {
            Box::new(stored)
        };
        Ok(Self { reader, blob, unpacked, left: blob.size, piece: vec![0; PIECE] })
    }

    /// The next bytes, at most `most` of them, which is not 0; none at the end. Error: [`Error::Corrupt`].
    pub fn next(&mut self, most: u64) -> Result<&[u8]> {
        let wanted = most.min(self.left).min(PIECE as u64) as usize;
        // at the end one byte more is asked for, which must not be there
        let read = self.unpacked.read(&mut self.piece[..wanted.max(1)]);
        let found = read.map_err(|e| self.corrupt(e.to_string()))?;
        if found > wanted || (found == 0 && self.left > 0) {
            return Err(self.corrupt(format!("not the {} bytes that the directory says", self.blob.size)));
        }
        self.left -= found as u64;
        Ok(&self.piece[..found])
    }

    fn corrupt(&self, why: String) -> Error {
        self.reader.corrupt(&self.blob.name, "blob", why)
    }
}

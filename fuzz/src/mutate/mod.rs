//! Changes that keep a file readable: parts of its JSON, bytes of its parts, and everything that vouches for them made to
//! fit again.

mod container;
mod json;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::sources;
use container::Container;

/// libFuzzer's own changes of bytes: of a buffer, its length in use and the most that may be; returns the new length.
pub type Plain = fn(&mut [u8], usize, usize) -> usize;

/// Changes a `.ecq` file: its directory, the header of the container, bytes of entries. Checksums fit afterwards.
pub fn ecq(data: &mut [u8], size: usize, max: usize, seed: u32, plain: Plain) -> usize {
    let mut random = SmallRng::seed_from_u64(seed.into());
    let changed = Container::parse(&data[..size]).map(|mut file| {
        for _ in 0..random.random_range(1..=3) {
            file.change(&mut random, plain);
        }
        file.sealed()
    });
    store(data, size, max, changed.filter(|_| !random.random_ratio(1, 16)), plain)
}

/// Changes a safetensors file and the `config.json` behind it. The length of the header fits afterwards.
pub fn safetensors(data: &mut [u8], size: usize, max: usize, seed: u32, plain: Plain) -> usize {
    let mut random = SmallRng::seed_from_u64(seed.into());
    let changed = changed_safetensors(&data[..size], &mut random, plain);
    store(data, size, max, changed.filter(|_| !random.random_ratio(1, 16)), plain)
}

fn changed_safetensors(bytes: &[u8], random: &mut SmallRng, plain: Plain) -> Option<Vec<u8>> {
    let (model, config) = bytes.split_at(sources::end(bytes)?);
    let (length, rest) = model.split_first_chunk::<8>()?;
    let (header, data) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
    let (mut header, mut data) = (header.to_vec(), data.to_vec());
    let mut config = config.to_vec();
    match random.random_range(0..4) {
        0 | 1 => text(&mut header, random, plain),
        2 => in_place(&mut data, plain),
        _ => text(&mut config, random, plain),
    }
    Some([&(header.len() as u64).to_le_bytes(), &header[..], &data, &config].concat())
}

/// Changes one of several texts with zero bytes between them. Anything that is no such texts is changed as it comes.
pub fn texts(data: &mut [u8], size: usize, max: usize, seed: u32, plain: Plain) -> usize {
    let mut random = SmallRng::seed_from_u64(seed.into());
    let changed = (!data.starts_with(b"GGUF")).then(|| {
        let mut all: Vec<Vec<u8>> = data[..size].split(|&b| b == 0).map(<[u8]>::to_vec).collect();
        let one = random.random_range(0..all.len());
        text(&mut all[one], &mut random, plain);
        all.join(&0)
    });
    store(data, size, max, changed.filter(|_| !random.random_ratio(1, 16)), plain)
}

/// A text of JSON is changed as such, another one as bytes.
fn text(bytes: &mut Vec<u8>, random: &mut SmallRng, plain: Plain) {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(mut value) => {
            for _ in 0..random.random_range(1..=3) {
                json::change(&mut value, random);
            }
            *bytes = value.to_string().into_bytes();
        }
        Err(_) => {
            let (len, most) = (bytes.len(), bytes.len() + 64);
            bytes.resize(most, 0);
            let len = plain(bytes, len, most);
            bytes.truncate(len);
        }
    }
}

/// Changes bytes and keeps their number.
fn in_place(bytes: &mut [u8], plain: Plain) {
    let len = bytes.len();
    if len > 0 {
        let now = plain(bytes, len, len);
        bytes[now..].fill(0);
    }
}

fn store(data: &mut [u8], size: usize, max: usize, changed: Option<Vec<u8>>, plain: Plain) -> usize {
    match changed.filter(|bytes| bytes.len() <= max) {
        Some(bytes) => {
            data[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        }
        None => plain(data, size, max),
    }
}

//! One strip compressed. Enters: filtered rows and the effort. Leaves: a piece of a deflate stream that ends on a
//! whole byte. Photographs go by [`runs`](super::runs); what repeats itself (drawings, text, screens) by zlib.

use flate2::{Compress, Compression, FlushCompress};

use super::{Effort, runs};

/// zlib must do this much better on a sample for a strip to be worth its time.
const WORTH: f64 = 0.95;
const SAMPLE_PART: usize = 8;
const SAMPLE_LEVEL: u32 = 2;

pub(super) fn compress(filtered: &[u8], effort: Effort) -> Vec<u8> {
    match effort {
        Effort::Level(0) => stored(filtered),
        Effort::Fast | Effort::Level(1) => runs::compress(filtered),
        Effort::Level(level @ 2..=4) => {
            if repeats_itself(filtered) {
                zlib(filtered, level.into())
            } else {
                runs::compress(filtered)
            }
        }
        Effort::Level(level) => {
            let (by_zlib, by_runs) = (zlib(filtered, level.into()), runs::compress(filtered));
            if by_zlib.len() < by_runs.len() { by_zlib } else { by_runs }
        }
    }
}

/// Whether looking for repetitions pays, from a look at the middle of the strip.
fn repeats_itself(filtered: &[u8]) -> bool {
    let size = filtered.len() / SAMPLE_PART;
    let sample = &filtered[(filtered.len() - size) / 2..][..size];
    (zlib(sample, SAMPLE_LEVEL).len() as f64) < runs::compress(sample).len() as f64 * WORTH
}

/// Blocks that are not the last, with a length, its complement and the bytes themselves.
fn stored(data: &[u8]) -> Vec<u8> {
    const MOST: usize = u16::MAX as usize;
    let mut out = Vec::with_capacity(data.len() + data.len().div_ceil(MOST) * 5);
    for part in data.chunks(MOST) {
        let len = part.len() as u16;
        out.push(0);
        out.extend(len.to_le_bytes());
        out.extend((!len).to_le_bytes());
        out.extend(part);
    }
    out
}

/// Sync-flushed, so that it ends on a whole byte and is not the last block.
fn zlib(data: &[u8], level: u32) -> Vec<u8> {
    let mut state = Compress::new(Compression::new(level), false);
    let mut out = Vec::with_capacity(data.len() / 2 + 64);
    loop {
        let read = state.total_in() as usize;
        if state.compress_vec(&data[read..], &mut out, FlushCompress::Sync).is_err() {
            // It refuses nothing but misuse; stored bytes are always right.
            return stored(data);
        }
        // Room to spare after a flush means that it is complete.
        if state.total_in() as usize == data.len() && out.len() < out.capacity() {
            return out;
        }
        out.reserve(data.len() / 2 + 64);
    }
}

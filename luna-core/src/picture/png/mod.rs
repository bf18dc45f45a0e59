//! PNG files written. Enters: pixels, effort, bit depth, metadata. Leaves: a PNG. The picture is cut into strips of
//! rows that are filtered and compressed on all cores; their pieces join into one zlib stream, a chunk each.

mod code;
mod filter;
mod runs;
mod strip;

use rayon::prelude::*;

use super::{BitDepth, Effort, Metadata, Pixels};
use crate::{Error, ErrorKind, Result};
use filter::Rows;

/// Bytes of a strip: large enough that a code of its own pays, small enough that every core has several.
const STRIP_BYTES: usize = 192 << 10;
/// Deflate, a window of 32 KiB, default effort; made a multiple of 31.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x9c];
/// A final block with nothing in it.
const ZLIB_END: [u8; 2] = [0x03, 0x00];

pub(super) fn encode(pixels: &Pixels<'_>, effort: Effort, bits: BitDepth, metadata: &Metadata) -> Result<Vec<u8>> {
    let (bytes, value_bytes) = match bits {
        BitDepth::Eight => (pixels.to_u8()?, 1),
        BitDepth::Sixteen => (pixels.to_u16()?.into_iter().flat_map(u16::to_be_bytes).collect(), 2),
    };
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut out, b"IHDR", &header(pixels, value_bytes))?;
    colour_space(&mut out)?;
    for (key, text) in metadata.entries() {
        text_chunk(&mut out, key, text)?;
    }
    if let Some(packet) = metadata.xmp() {
        chunk(&mut out, b"iTXt", &international("XML:com.adobe.xmp", packet))?;
    }
    let rows = Rows {
        bytes: &bytes,
        row_bytes: pixels.width() * pixels.channels() * value_bytes,
        pixel_bytes: pixels.channels() * value_bytes,
    };
    for piece in pieces(rows, effort) {
        chunk(&mut out, b"IDAT", &piece)?;
    }
    chunk(&mut out, b"IEND", &[])?;
    Ok(out)
}

fn header(pixels: &Pixels<'_>, value_bytes: usize) -> [u8; 13] {
    let colour = match pixels.channels() {
        1 => 0,
        3 => 2,
        _ => 6,
    };
    let mut header = [0; 13];
    header[..4].copy_from_slice(&(pixels.width() as u32).to_be_bytes());
    header[4..8].copy_from_slice(&(pixels.height() as u32).to_be_bytes());
    header[8] = value_bytes as u8 * 8;
    header[9] = colour;
    header
}

/// sRGB by name, and the gamma and primaries that the standard asks for beside it, for readers that know only those.
fn colour_space(out: &mut Vec<u8>) -> Result<()> {
    const PRIMARIES: [u32; 8] = [31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000];
    chunk(out, b"sRGB", &[0])?;
    chunk(out, b"gAMA", &45455u32.to_be_bytes())?;
    chunk(out, b"cHRM", &PRIMARIES.map(u32::to_be_bytes).concat())
}

/// Latin-1 texts go into the plain chunk that every reader knows, others into the international one.
fn text_chunk(out: &mut Vec<u8>, key: &str, text: &str) -> Result<()> {
    match text.chars().map(|character| u8::try_from(character).ok()).collect::<Option<Vec<u8>>>() {
        Some(latin) => chunk(out, b"tEXt", &[key.as_bytes(), b"\0", &latin].concat()),
        None => chunk(out, b"iTXt", &international(key, text)),
    }
}

/// Not compressed, no language, no translated key.
fn international(key: &str, text: &str) -> Vec<u8> {
    [key.as_bytes(), b"\0\0\0\0\0", text.as_bytes()].concat()
}

fn chunk(out: &mut Vec<u8>, name: &[u8; 4], body: &[u8]) -> Result<()> {
    let Some(size) = u32::try_from(body.len()).ok().filter(|&size| size <= i32::MAX as u32) else {
        return Err(Error::new(ErrorKind::LimitExceeded, "a PNG chunk passes 2 GiB").found(body.len().to_string()));
    };
    let start = out.len() + 4;
    out.extend(size.to_be_bytes());
    out.extend(name);
    out.extend(body);
    let check = crc32fast::hash(&out[start..]);
    out.extend(check.to_be_bytes());
    Ok(())
}

/// The zlib stream, a piece for each strip and a last one that ends it.
fn pieces(rows: Rows<'_>, effort: Effort) -> Vec<Vec<u8>> {
    let strip_rows = (STRIP_BYTES / (rows.row_bytes + 1)).max(1);
    let count = rows.count().div_ceil(strip_rows);
    let strips: Vec<_> = (0..count)
        .into_par_iter()
        .map(|index| {
            let first = index * strip_rows;
            let last = (first + strip_rows).min(rows.count());
            let filtered = rows.filtered(first..last, effort);
            let mut sum = simd_adler32::Adler32::new();
            sum.write(&filtered);
            (strip::compress(&filtered, effort), sum.finish(), filtered.len())
        })
        .collect();
    let mut sum = 1;
    let mut pieces = Vec::with_capacity(count + 1);
    for (mut piece, strip_sum, len) in strips {
        sum = joined_adler(sum, strip_sum, len);
        if pieces.is_empty() {
            piece.splice(..0, ZLIB_HEADER);
        }
        pieces.push(piece);
    }
    let mut end = ZLIB_END.to_vec();
    end.extend(sum.to_be_bytes());
    pieces.push(end);
    pieces
}

/// The Adler-32 sum of two parts, from the sum of each and the length of the second.
fn joined_adler(first: u32, second: u32, second_len: usize) -> u32 {
    const BASE: u64 = 65521;
    let (a1, b1) = (u64::from(first & 0xffff), u64::from(first >> 16));
    let (a2, b2) = (u64::from(second & 0xffff), u64::from(second >> 16));
    let a = (a1 + a2 + BASE - 1) % BASE;
    let b = (b1 + b2 + (second_len as u64 % BASE) * (a1 + BASE - 1)) % BASE;
    (b << 16 | a) as u32
}

#[cfg(test)]
mod tests;

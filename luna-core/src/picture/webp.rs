//! WebP files written. Enters: pixels, a quality or none for lossless, metadata. Leaves: an extended WebP with sRGB
//! profile, EXIF and XMP. libwebp makes the picture's own chunks; the container is put together here.

use webp::{Encoder, PixelLayout, WebPConfig};

use super::{Metadata, Pixels, SRGB_PROFILE, exif};
use crate::{Error, ErrorKind, Result};

const MOST_SIDE: usize = 16_383;
/// Speed against size, of 0..6: what libwebp itself, and Pillow, take.
const METHOD: i32 = 4;
/// For lossless files quality means effort: much beyond this, seconds buy percents.
const LOSSLESS_EFFORT: f32 = 25.0;
const LOSSLESS_METHOD: i32 = 2;

/// Which chunks the extended header announces.
const HAS_ICC: u8 = 0x20;
const HAS_ALPHA: u8 = 0x10;
const HAS_EXIF: u8 = 0x08;
const HAS_XMP: u8 = 0x04;

pub(super) fn encode(pixels: &Pixels<'_>, quality: Option<u8>, metadata: &Metadata) -> Result<Vec<u8>> {
    pixels.check_side("WebP", MOST_SIDE)?;
    let simple = picture(pixels, quality)?;
    let exif = exif::block(metadata);
    let chunks = simple.get(12..).ok_or_else(|| failed("it returned no chunks"))?;
    let flags = HAS_ICC
        | if pixels.channels() == 4 { HAS_ALPHA } else { 0 }
        | if exif.is_some() { HAS_EXIF } else { 0 }
        | if metadata.xmp().is_some() { HAS_XMP } else { 0 };
    let mut header = vec![flags, 0, 0, 0];
    header.extend(&(pixels.width() as u32 - 1).to_le_bytes()[..3]);
    header.extend(&(pixels.height() as u32 - 1).to_le_bytes()[..3]);
    let mut out = b"RIFF\0\0\0\0WEBP".to_vec();
    chunk(&mut out, b"VP8X", &header)?;
    chunk(&mut out, b"ICCP", SRGB_PROFILE)?;
    copy_picture_chunks(&mut out, chunks)?;
    if let Some(block) = exif {
        chunk(&mut out, b"EXIF", &block)?;
    }
    if let Some(packet) = metadata.xmp() {
        chunk(&mut out, b"XMP ", packet.as_bytes())?;
    }
    let size = u32::try_from(out.len() - 8).map_err(|_| failed("the file passes 4 GiB"))?;
    out[4..8].copy_from_slice(&size.to_le_bytes());
    Ok(out)
}

/// A WebP file as libwebp makes it, without metadata.
fn picture(pixels: &Pixels<'_>, quality: Option<u8>) -> Result<Vec<u8>> {
    let bytes = pixels.to_colour_u8()?;
    let layout = if pixels.channels() == 4 { PixelLayout::Rgba } else { PixelLayout::Rgb };
    let mut config = WebPConfig::new().map_err(|()| failed("its versions disagree"))?;
    match quality {
        Some(quality) => {
            config.quality = f32::from(quality);
            config.method = METHOD;
        }
        None => {
            config.lossless = 1;
            config.quality = LOSSLESS_EFFORT;
            config.method = LOSSLESS_METHOD;
            // Colours under full transparency are pixels too.
            config.exact = 1;
        }
    }
    let encoder = Encoder::new(&bytes, layout, pixels.width() as u32, pixels.height() as u32);
    let memory = encoder.encode_advanced(&config).map_err(|error| failed(&format!("{error:?}")))?;
    Ok(memory.to_vec())
}

/// The picture's own chunks; libwebp adds an extended header of its own where there is alpha. Odd ones get a zero byte at
/// their end, which no decoder looks at: ComfyUI's reader of metadata does not skip the byte that pads an odd chunk.
fn copy_picture_chunks(out: &mut Vec<u8>, mut chunks: &[u8]) -> Result<()> {
    while let Some((head, rest)) = chunks.split_at_checked(8) {
        let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let body = rest.get(..size).ok_or_else(|| failed("a chunk is cut off"))?;
        if matches!(&head[..4], b"VP8 " | b"VP8L" | b"ALPH") {
            let name = [head[0], head[1], head[2], head[3]];
            let mut body = body.to_vec();
            body.resize(size.next_multiple_of(2), 0);
            chunk(out, &name, &body)?;
        }
        chunks = rest.get(size.next_multiple_of(2)..).unwrap_or_default();
    }
    Ok(())
}

fn chunk(out: &mut Vec<u8>, name: &[u8; 4], body: &[u8]) -> Result<()> {
    let size = u32::try_from(body.len()).map_err(|_| failed("a chunk passes 4 GiB"))?;
    out.extend(name);
    out.extend(size.to_le_bytes());
    out.extend(body);
    if body.len() % 2 == 1 {
        out.push(0);
    }
    Ok(())
}

fn failed(why: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the WebP encoder failed: {why}"))
}

//! JPEG files written. Enters: pixels, a quality, metadata. Leaves: a baseline JPEG with sRGB profile and EXIF.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::{Metadata, Pixels, SRGB_PROFILE, exif};
use crate::{Error, ErrorKind, Result};

/// Bytes that a segment holds beside its length.
const MOST_SEGMENT: usize = 65_533;
const EXIF: &[u8] = b"Exif\0\0";
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

pub(super) fn encode(pixels: &Pixels<'_>, quality: u8, metadata: &Metadata) -> Result<Vec<u8>> {
    pixels.check_side("JPEG", 65_535)?;
    let colour = match pixels.channels() {
        1 => ColorType::Luma,
        3 => ColorType::Rgb,
        _ => {
            return Err(Error::new(ErrorKind::InvalidInput, "a JPEG has no alpha")
                .expected("1 or 3 channels")
                .found("4")
                .remedy("save as PNG or WebP, or drop the alpha channel first"));
        }
    };
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, quality);
    // As libjpeg's users know it: full colour resolution only where little is to be saved.
    encoder.set_sampling_factor(if quality > 95 { SamplingFactor::R_4_4_4 } else { SamplingFactor::R_4_2_0 });
    // Optimised Huffman tables would save some 3 %, but come with one scan per colour, which not every decoder reads.
    if let Some(block) = exif::block(metadata) {
        encoder.add_app_segment(1, segment("EXIF data", EXIF, &block)?).map_err(failed)?;
    }
    if let Some(packet) = metadata.xmp() {
        encoder.add_app_segment(1, segment("XMP packet", XMP, packet.as_bytes())?).map_err(failed)?;
    }
    encoder.add_icc_profile(SRGB_PROFILE).map_err(failed)?;
    let bytes = pixels.to_u8()?;
    encoder.encode(&bytes, pixels.width() as u16, pixels.height() as u16, colour).map_err(failed)?;
    Ok(out)
}

fn segment(what: &str, start: &[u8], rest: &[u8]) -> Result<Vec<u8>> {
    if start.len() + rest.len() > MOST_SEGMENT {
        return Err(Error::new(ErrorKind::InvalidInput, format!("the {what} is too long for a JPEG"))
            .expected(format!("at most {} bytes", MOST_SEGMENT - start.len()))
            .found(rest.len().to_string())
            .remedy("save as PNG or WebP, or leave the workflow out"));
    }
    Ok([start, rest].concat())
}

fn failed(error: jpeg_encoder::EncodingError) -> Error {
    Error::new(ErrorKind::Internal, format!("the JPEG encoder failed: {error}")).source(error)
}

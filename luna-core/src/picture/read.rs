//! Picture files read. Enters: a path or bytes of a PNG, JPEG or WebP. Leaves: an [`Image`] the right way up, its
//! values v/255 or v/65535 exactly. It trusts the content, never the extension, and no size before it met a limit.

use std::{
    fs::File,
    io::{Cursor, Read},
    path::Path,
};

use image::{
    DynamicImage, ImageDecoder, ImageError,
    codecs::{jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder},
    error::LimitErrorKind,
    metadata::Orientation,
};

use super::sniff::{Readable, sniff};
use crate::{Error, ErrorKind, Image, Limits, Result, limits::check_at_most};

/// Reads a picture file: shape `[1, height, width, channels]` with 1 (grey), 3 (RGB) or 4 channels (alpha).
///
/// PNG of any kind (palettes and transparent colours are resolved; of an animation its default picture), JPEG (CMYK
/// becomes RGB), WebP (of an animation the first frame). EXIF orientation is applied; colour profiles are not.
///
/// # Errors
/// `NotFound` and `Io` for the file itself, `Unsupported` with the name of what it is for other contents,
/// `InvalidFile` for damage, `LimitExceeded` before memory is taken for more than `limits` allow.
pub fn read_picture(path: &Path, limits: &Limits) -> Result<Image> {
    let refused = |error| Error::io(format!("read {}", path.display()), error);
    let file = File::open(path).map_err(refused)?;
    let metadata = file.metadata().map_err(refused)?;
    if metadata.is_dir() {
        let error = Error::new(ErrorKind::InvalidInput, format!("{} is a folder", path.display()));
        return Err(error.expected("a picture file"));
    }
    check_file_size(metadata.len(), limits).map_err(|error| error.at(path.display()))?;
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // A pipe or a growing file has no length to check beforehand.
    file.take(limits.picture_file_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(refused)?;
    decode(&bytes, limits).map_err(|error| error.at(path.display()))
}

/// Reads a picture from the bytes of its file; see [`read_picture`].
///
/// # Errors
/// `Unsupported`, `InvalidFile` and `LimitExceeded` as there.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Image> {
    check_file_size(bytes.len() as u64, limits)?;
    let reader = Cursor::new(bytes);
    match sniff(bytes)? {
        Readable::Png => {
            let decoder = PngDecoder::with_limits(reader, decoder_limits(limits)).map_err(wrong_file)?;
            finish(decoder, limits)
        }
        Readable::Jpeg => {
            check_jpeg(bytes)?;
            finish(JpegDecoder::new(reader).map_err(wrong_file)?, limits)
        }
        Readable::Webp => finish(WebPDecoder::new(reader).map_err(wrong_file)?, limits),
    }
}

fn check_file_size(bytes: u64, limits: &Limits) -> Result<()> {
    check_at_most("bytes in a picture file", bytes, limits.picture_file_bytes)
}

fn decoder_limits(limits: &Limits) -> image::Limits {
    let side = u32::try_from(limits.image_side).unwrap_or(u32::MAX);
    let mut theirs = image::Limits::no_limits();
    theirs.max_image_width = Some(side);
    theirs.max_image_height = Some(side);
    // The picture (up to 4 channels of 16 bits) and as much again for the decoder's work.
    theirs.max_alloc = Some((limits.image_pixels as u64).saturating_mul(16).saturating_add(64 << 20));
    theirs
}

fn finish(mut decoder: impl ImageDecoder, limits: &Limits) -> Result<Image> {
    let (width, height) = decoder.dimensions();
    check_at_most("pixels along a side of an image", u64::from(width.max(height)), limits.image_side as u64)?;
    check_at_most("pixels in an image", u64::from(width) * u64::from(height), limits.image_pixels as u64)?;
    decoder.set_limits(decoder_limits(limits)).map_err(wrong_file)?;
    // Broken EXIF data is no reason to refuse the picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(wrong_file)?;
    picture.apply_orientation(orientation);
    to_image(picture)
}

fn to_image(picture: DynamicImage) -> Result<Image> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let (channels, data) = match picture {
        DynamicImage::ImageLuma8(pixels) => (1, from_bytes(pixels.as_raw())),
        DynamicImage::ImageRgb8(pixels) => (3, from_bytes(pixels.as_raw())),
        DynamicImage::ImageRgba8(pixels) => (4, from_bytes(pixels.as_raw())),
        DynamicImage::ImageLumaA8(_) => (4, from_bytes(picture.into_rgba8().as_raw())),
        DynamicImage::ImageLuma16(pixels) => (1, from_words(pixels.as_raw())),
        DynamicImage::ImageRgb16(pixels) => (3, from_words(pixels.as_raw())),
        DynamicImage::ImageRgba16(pixels) => (4, from_words(pixels.as_raw())),
        DynamicImage::ImageLumaA16(_) => (4, from_words(picture.into_rgba16().as_raw())),
        other => {
            let error = Error::new(ErrorKind::Unsupported, "the picture's pixels have an unknown layout");
            return Err(error.found(format!("{:?}", other.color())));
        }
    };
    Image::new([1, height, width, channels], data)
}

fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    let table: [f32; 256] = std::array::from_fn(|value| value as f32 / 255.0);
    bytes.iter().map(|&value| table[value as usize]).collect()
}

fn from_words(words: &[u16]) -> Vec<f32> {
    words.iter().map(|&value| f32::from(value) / 65535.0).collect()
}

fn wrong_file(error: ImageError) -> Error {
    let (kind, message) = match &error {
        ImageError::Limits(limit) if matches!(limit.kind(), LimitErrorKind::Unsupported { .. }) => {
            (ErrorKind::Unsupported, "the picture's size cannot be checked")
        }
        ImageError::Limits(_) => (ErrorKind::LimitExceeded, "the picture is too large"),
        ImageError::Unsupported(_) => (ErrorKind::Unsupported, "this kind of picture cannot be read"),
        _ => (ErrorKind::InvalidFile, "the picture file is damaged or truncated"),
    };
    Error::new(kind, message).found(error.to_string()).source(error)
}

/// The decoder fills what a truncated JPEG lacks with grey, and mixes up the colours of a baseline JPEG that has them in
/// scans of their own; both are refused here instead.
fn check_jpeg(bytes: &[u8]) -> Result<()> {
    match scans_to_end(bytes) {
        Some(Scans::Readable) => Ok(()),
        Some(Scans::OnePerColour) => Err(Error::new(ErrorKind::Unsupported, "this kind of JPEG cannot be read")
            .expected("a progressive JPEG, or a baseline one with all colours in one scan")
            .found("a baseline JPEG with one scan for each colour")
            .remedy("save it as PNG, or as a JPEG without optimised tables")),
        None => Err(Error::new(ErrorKind::InvalidFile, "the JPEG is truncated")
            .expected("an end-of-image marker")
            .found(format!("the end of the file after {} bytes", bytes.len()))),
    }
}

enum Scans {
    Readable,
    OnePerColour,
}

/// Walks the markers (so that a thumbnail's end does not count) up to the end of the image.
fn scans_to_end(bytes: &[u8]) -> Option<Scans> {
    let mut baseline_colours = 0;
    let mut scans = Scans::Readable;
    const RESTART: std::ops::RangeInclusive<u8> = 0xd0..=0xd7;
    let mut at = 2;
    loop {
        // Outside of scan data a marker stands right here, perhaps after fill bytes; inside, 0xff 0x00 is a value.
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        at += bytes[at..].iter().position(|&byte| byte != 0xff)?;
        let marker = bytes[at];
        at += 1;
        match marker {
            0xd9 => return Some(scans),
            0x00 | 0x01 => {}
            marker if RESTART.contains(&marker) => {}
            _ => {
                match marker {
                    0xc0 | 0xc1 => baseline_colours = *bytes.get(at + 7)?,
                    0xda if *bytes.get(at + 2)? < baseline_colours => scans = Scans::OnePerColour,
                    _ => {}
                }
                let length = bytes.get(at..at + 2)?;
                at += usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
}

#[cfg(test)]
mod tests;

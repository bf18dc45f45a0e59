//! AVIF files written, by the crate `ravif` (rav1e inside, all Rust). Enters: pixels, a quality, metadata. Leaves: an AVIF
//! of 10 bits, full colour resolution, that states sRGB in its AV1 stream and holds EXIF.

use ravif::{Encoder, Img, RGB8, RGBA8};

use super::{Metadata, Pixels, exif};
use crate::{Error, ErrorKind, Result};

/// Of 1 (slow) to 10: from here on slower means several times slower and some percents smaller.
const SPEED: u8 = 8;

pub(super) fn encode(pixels: &Pixels<'_>, quality: u8, metadata: &Metadata) -> Result<Vec<u8>> {
    pixels.check_side("AVIF", 65_535)?;
    if metadata.xmp().is_some() {
        return Err(Error::new(ErrorKind::InvalidInput, "Luna's AVIF files hold no XMP packet")
            .remedy("save as PNG, WebP or JPEG, or leave XMP out"));
    }
    let mut encoder = Encoder::new().with_quality(quality.into()).with_alpha_quality(quality.into()).with_speed(SPEED);
    if let Some(block) = exif::block(metadata) {
        // With the offset that HEIF puts before it, the block is stored in one part, and ComfyUI reads the first part only.
        encoder = encoder.with_exif([&[0; 4][..], &block].concat());
    }
    let bytes = pixels.to_colour_u8()?;
    let (width, height) = (pixels.width(), pixels.height());
    let encoded = if pixels.channels() == 4 {
        let values: Vec<_> = bytes.chunks_exact(4).map(|four| RGBA8::new(four[0], four[1], four[2], four[3])).collect();
        encoder.encode_rgba(Img::new(&values, width, height))
    } else {
        let values: Vec<_> = bytes.chunks_exact(3).map(|three| RGB8::new(three[0], three[1], three[2])).collect();
        encoder.encode_rgb(Img::new(&values, width, height))
    };
    let encoded = encoded
        .map_err(|error| Error::new(ErrorKind::Internal, format!("the AVIF encoder failed: {error}")).source(error))?;
    Ok(encoded.avif_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(channels: usize, quality: u8, metadata: &Metadata) -> Vec<u8> {
        let values: Vec<u8> = (0..11 * 17 * channels).map(|i| (i * i % 251) as u8).collect();
        encode(&Pixels::from_u8(11, 17, channels, &values).unwrap(), quality, metadata).unwrap()
    }

    fn has(file: &[u8], bytes: &[u8]) -> bool {
        file.windows(bytes.len()).any(|window| window == bytes)
    }

    #[test]
    fn files_state_size_and_making() {
        let metadata = Metadata::none().with("prompt", "{}").unwrap().with("parameters", "été").unwrap();
        for channels in [1, 3, 4] {
            let file = file(channels, 80, &metadata);
            assert_eq!(&file[4..12], b"ftypavif");
            assert!(has(&file, &exif::block(&metadata).unwrap()));
            assert!(has(&file, b"ispe\0\0\0\0\0\0\0\x11\0\0\0\x0b"), "width and height");
            assert_eq!(has(&file, b"auxC"), channels == 4, "alpha is an item of its own");
        }
    }

    #[test]
    fn quality_costs_bytes_and_xmp_is_refused() {
        let none = Metadata::none();
        assert!(file(3, 95, &none).len() > file(3, 20, &none).len());
        let xmp = none.with_xmp("<rdf:RDF/>").unwrap();
        let error = encode(&Pixels::from_u8(1, 1, 3, &[0; 3]).unwrap(), 80, &xmp).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

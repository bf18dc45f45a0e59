//! Picture files: PNG, JPEG and WebP bytes in and out, AVIF out. Enters: a file or bytes, or pixels with a format. Leaves: an
//! [`Image`](crate::Image), or the bytes of a file. It knows no model and no job.
//!
//! ```
//! use luna_core::{Limits, picture::{self, Format, Metadata, Pixels}};
//! let pixels = Pixels::from_u8(1, 2, 3, &[0, 128, 255, 255, 128, 0])?;
//! let file = picture::encode(&pixels, Format::PNG, &Metadata::none())?;
//! let image = picture::decode(&file, &Limits::default())?;
//! assert_eq!((image.height(), image.width(), image.channels()), (1, 2, 3));
//! assert_eq!(image.data()[1], 128.0 / 255.0);
//! # Ok::<(), luna_core::Error>(())
//! ```

#[cfg(feature = "avif")]
mod avif;
mod exif;
mod format;
mod jpeg;
mod metadata;
mod pixels;
mod png;
mod read;
mod resample;
mod sniff;
mod webp;

use std::path::{Path, PathBuf};

use crate::{
    Result,
    files::{IfExists, write_atomically},
};

pub use format::{BitDepth, Effort, Format};
pub use metadata::Metadata;
pub use pixels::Pixels;
pub use read::{decode, read_picture};
pub use resample::{Filter, Resampling, resample};

/// The colour space of every picture file that Luna writes, as LittleCMS makes it ("no copyright, use freely").
const SRGB_PROFILE: &[u8] = include_bytes!("srgb.icc");

/// The bytes of a picture file.
///
/// f32 values become integers as ComfyUI's `SaveImage` makes them: clipped to 0..1, scaled by 255 (65535 for 16 bits)
/// and cut off, not rounded. Grey and alpha are kept where the format has them; WebP and AVIF store grey as RGB.
///
/// # Errors
/// `NonFinite` for a NaN among the pixels; `InvalidInput` for alpha in a JPEG or metadata that the format cannot
/// hold; `LimitExceeded` for a side that the format does not allow (16383 for WebP, 65535 for JPEG); `Unsupported` for AVIF
/// without the feature `avif`.
pub fn encode(pixels: &Pixels<'_>, format: Format, metadata: &Metadata) -> Result<Vec<u8>> {
    match format {
        Format::Png { effort, bits } => png::encode(pixels, effort, bits, metadata),
        Format::WebpLossy { quality } => webp::encode(pixels, Some(quality), metadata),
        Format::WebpLossless => webp::encode(pixels, None, metadata),
        Format::Jpeg { quality } => jpeg::encode(pixels, quality, metadata),
        #[cfg(feature = "avif")]
        Format::Avif { quality } => avif::encode(pixels, quality, metadata),
        #[cfg(not(feature = "avif"))]
        Format::Avif { .. } => Err(format::without_avif()),
    }
}

/// Encodes and writes a picture file, whole or not at all, and returns the path that was taken.
///
/// # Errors
/// Those of [`encode`] and [`write_atomically`].
pub fn write_picture(
    path: &Path,
    pixels: &Pixels<'_>,
    format: Format,
    metadata: &Metadata,
    if_exists: IfExists,
) -> Result<PathBuf> {
    write_atomically(path, &encode(pixels, format, metadata)?, if_exists)
}

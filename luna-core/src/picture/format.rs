//! Which picture file is to be written, and how. Enters: an extension or an option. Leaves: a checked [`Format`].

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// A picture file format with its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Format {
    /// PNG: lossless but for the rounding to its bit depth.
    Png {
        /// How much work is spent on a small file.
        effort: Effort,
        /// Bits per value.
        bits: BitDepth,
    },
    /// WebP with loss, 8 bits, quality 0 (small) to 100.
    WebpLossy {
        /// 0 to 100.
        quality: u8,
    },
    /// WebP without loss, 8 bits.
    WebpLossless,
    /// JPEG, quality 1 (small) to 100.
    Jpeg {
        /// 1 to 100.
        quality: u8,
    },
    /// AVIF, 10 bits, quality 1 (small) to 100. Needs the feature `avif`; Luna writes such files and reads none.
    Avif {
        /// 1 to 100.
        quality: u8,
    },
}

/// How much work is spent on a small PNG. The default is level 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Effort {
    /// The least work that still compresses.
    Fast,
    /// 0 (stored) to 9, as zlib counts.
    Level(u8),
}

impl Default for Effort {
    fn default() -> Self {
        Self::Level(4)
    }
}

/// Bits per value of a PNG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BitDepth {
    /// 0 to 255.
    #[default]
    Eight,
    /// 0 to 65535.
    Sixteen,
}

impl Format {
    /// PNG, 8 bits, default effort.
    pub const PNG: Self = Self::Png { effort: Effort::Level(4), bits: BitDepth::Eight };
    /// Lossy WebP of quality 90.
    pub const WEBP: Self = Self::WebpLossy { quality: 90 };
    /// JPEG of quality 90.
    pub const JPEG: Self = Self::Jpeg { quality: 90 };
    /// AVIF of quality 80.
    pub const AVIF: Self = Self::Avif { quality: 80 };

    /// The format that a file name asks for by its extension, in any case, with default options.
    ///
    /// # Errors
    /// `Unsupported` for an extension that Luna does not write.
    pub fn from_path(path: &Path) -> Result<Self> {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        match extension.as_str() {
            "png" => Ok(Self::PNG),
            "webp" => Ok(Self::WEBP),
            "jpg" | "jpeg" | "jpe" | "jfif" => Ok(Self::JPEG),
            "avif" => Ok(Self::AVIF),
            _ => Err(Error::new(ErrorKind::Unsupported, format!("{} has no known picture extension", path.display()))
                .expected(".png, .webp, .jpg, .jpeg or .avif")
                .found(if extension.is_empty() { "none".to_owned() } else { format!(".{extension}") })),
        }
    }

    /// The extension of its files, without the dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Png { .. } => "png",
            Self::WebpLossy { .. } | Self::WebpLossless => "webp",
            Self::Jpeg { .. } => "jpg",
            Self::Avif { .. } => "avif",
        }
    }

    /// The format's name, as options and messages spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Png { .. } => "png",
            Self::WebpLossy { .. } => "webp",
            Self::WebpLossless => "webp-lossless",
            Self::Jpeg { .. } => "jpeg",
            Self::Avif { .. } => "avif",
        }
    }

    /// Whether what is read back equals what was written, once it was rounded to the bit depth.
    pub const fn is_lossless(self) -> bool {
        matches!(self, Self::Png { .. } | Self::WebpLossless)
    }

    /// Refuses levels and qualities out of range, and a format that this build does not write.
    ///
    /// # Errors
    /// `InvalidInput`, `Unsupported`.
    pub fn check(self) -> Result<()> {
        let (what, value, range) = match self {
            Self::Png { effort: Effort::Level(level), .. } => ("PNG level", level, 0..=9),
            Self::WebpLossy { quality } => ("WebP quality", quality, 0..=100),
            Self::Jpeg { quality } => ("JPEG quality", quality, 1..=100),
            Self::Avif { .. } if !cfg!(feature = "avif") => return Err(without_avif()),
            Self::Avif { quality } => ("AVIF quality", quality, 1..=100),
            Self::Png { effort: Effort::Fast, .. } | Self::WebpLossless => return Ok(()),
        };
        if range.contains(&value) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, format!("the {what} is out of range"))
            .expected(format!("{} to {}", range.start(), range.end()))
            .found(value.to_string()))
    }
}

/// What a build without the feature answers.
pub(super) fn without_avif() -> Error {
    Error::new(ErrorKind::Unsupported, "this Luna was built without AVIF")
        .remedy("build it with `--features avif`, or choose another format")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_name_formats_in_any_case() {
        let avif = ("e.avif", Format::AVIF);
        for (name, format) in [("a.PNG", Format::PNG), ("b/c.webp", Format::WEBP), ("d.JpEg", Format::JPEG), avif] {
            assert_eq!(Format::from_path(Path::new(name)).unwrap(), format);
        }
        for format in [Format::PNG, Format::WEBP, Format::JPEG] {
            let path = Path::new("x").with_extension(format.extension());
            assert_eq!(Format::from_path(&path).unwrap(), format);
        }
        let error = Format::from_path(Path::new("a.gif")).unwrap_err();
        assert_eq!((error.kind(), error.finding()), (ErrorKind::Unsupported, Some(".gif")));
        assert!(Format::from_path(Path::new("png")).is_err());
    }

    #[test]
    fn options_out_of_range_are_refused() {
        assert!(Format::Png { effort: Effort::Level(10), bits: BitDepth::Eight }.check().is_err());
        assert!(Format::Jpeg { quality: 0 }.check().is_err());
        assert!(Format::WebpLossy { quality: 101 }.check().is_err());
        assert!(Format::WebpLossy { quality: 0 }.check().is_ok());
        assert!(Format::Avif { quality: 0 }.check().is_err());
        assert_eq!(Format::AVIF.check().is_ok(), cfg!(feature = "avif"));
    }
}

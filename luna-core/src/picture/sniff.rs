//! What some bytes are, by their content. Enters: the beginning of a file. Leaves: a format that can be read, or the
//! name of what it is instead. It reads no further than a few dozen bytes.

use crate::{Error, ErrorKind};

/// A picture format that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readable {
    Png,
    Jpeg,
    Webp,
}

/// The format of a file that starts with `bytes`.
///
/// # Errors
/// `InvalidFile` for an empty file, `Unsupported` with the name of what it is.
pub(super) fn sniff(bytes: &[u8]) -> Result<Readable, Error> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Ok(Readable::Png);
    }
    if bytes.starts_with(b"\xff\xd8\xff") {
        return Ok(Readable::Jpeg);
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Ok(Readable::Webp);
    }
    if bytes.is_empty() {
        return Err(Error::new(ErrorKind::InvalidFile, "the picture file is empty"));
    }
    let found = name_of(bytes);
    let error = Error::new(ErrorKind::Unsupported, "not a picture that can be read")
        .expected("PNG, JPEG or WebP")
        .found(found.unwrap_or_else(|| format!("unknown bytes ({})", hex(bytes))));
    Err(match found_is_picture(bytes) {
        true => error.remedy("convert it to PNG first"),
        false => error,
    })
}

fn hex(bytes: &[u8]) -> String {
    let shown: Vec<_> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    shown.join(" ")
}

/// Beginnings of pictures that Luna does not read.
const PICTURES: &[(&[u8], &str)] = &[
    (b"GIF87a", "a GIF"),
    (b"GIF89a", "a GIF"),
    (b"BM", "a BMP picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"II+\0", "a BigTIFF picture"),
    (b"MM\0+", "a BigTIFF picture"),
    (b"8BPS", "a Photoshop document"),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (b"#?RADIANCE", "a Radiance HDR picture"),
    (b"qoif", "a QOI picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\0\0\x01\0", "a Windows icon"),
    (b"DDS ", "a DirectDraw surface"),
    (b"gimp xcf", "a GIMP document"),
];

/// Beginnings of files that people hand over by mistake.
const OTHERS: &[(&[u8], &str)] = &[
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive (a torch .pt or .ckpt file is one)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    (b"GGUF", "a GGUF model"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x7fELF", "a program"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (b"RIFF", "a RIFF file (AVI or WAV)"),
];

fn prefix(table: &[(&[u8], &'static str)], bytes: &[u8]) -> Option<&'static str> {
    table.iter().find(|(start, _)| bytes.starts_with(start)).map(|&(_, name)| name)
}

fn found_is_picture(bytes: &[u8]) -> bool {
    prefix(PICTURES, bytes).is_some()
        || brand(bytes).is_some_and(|(_, picture)| picture)
        || text(bytes) == Some("an SVG drawing")
}

fn name_of(bytes: &[u8]) -> Option<String> {
    let known = brand(bytes).map(|(name, _)| name).or_else(|| text(bytes));
    let known = known.or_else(|| safetensors(bytes).then_some("a safetensors file"));
    known.or_else(|| prefix(PICTURES, bytes)).or_else(|| prefix(OTHERS, bytes)).map(str::to_owned)
}

/// ISO media files say what they are by a brand: name, and whether it is a still picture.
fn brand(bytes: &[u8]) -> Option<(&'static str, bool)> {
    if bytes.get(4..8) != Some(b"ftyp") {
        return None;
    }
    Some(match bytes.get(8..12)? {
        b"avif" | b"avis" => ("an AVIF picture", true),
        b"heic" | b"heix" | b"heim" | b"heis" | b"mif1" | b"msf1" | b"hevc" => ("a HEIC picture", true),
        _ => ("a video (MP4 or QuickTime)", false),
    })
}

fn text(bytes: &[u8]) -> Option<&'static str> {
    let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let lower = start[..start.len().min(512)].to_ascii_lowercase();
    if lower.starts_with(b"<!doctype html") || lower.starts_with(b"<html") {
        return Some("an HTML page; a download may have failed");
    }
    if lower.starts_with(b"<svg") || lower.starts_with(b"<?xml") && lower.windows(4).any(|part| part == b"<svg") {
        return Some("an SVG drawing");
    }
    let inner = lower.strip_prefix(b"{").or_else(|| lower.strip_prefix(b"["))?.trim_ascii_start();
    inner.starts_with(b"\"").then_some("JSON text; a download may have failed")
}

/// A little-endian header length, then JSON.
fn safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk() else { return false };
    rest.first() == Some(&b'{') && (2..1 << 32).contains(&u64::from_le_bytes(*length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_called_by_their_names() {
        for (bytes, name) in [
            (&b"GIF89a\x01\0"[..], "a GIF"),
            (b"\0\0\0 ftypavif", "an AVIF picture"),
            (b"\0\0\0\x20ftypheic", "a HEIC picture"),
            (b"  <!DOCTYPE HTML><title>404", "an HTML page; a download may have failed"),
            (b"\xef\xbb\xbf<svg xmlns", "an SVG drawing"),
            (b"\x40\0\0\0\0\0\0\0{\"__metadata__\"", "a safetensors file"),
            (b"{\"error\": 1}", "JSON text; a download may have failed"),
            (b"RIFF\0\0\0\0AVI LIST", "a RIFF file (AVI or WAV)"),
            (b"[tool]\n", "unknown bytes (5b 74 6f 6f 6c 5d 0a)"),
            (b"hello", "unknown bytes (68 65 6c 6c 6f)"),
        ] {
            let error = sniff(bytes).unwrap_err();
            assert_eq!((error.kind(), error.finding()), (ErrorKind::Unsupported, Some(name)));
        }
        assert_eq!(sniff(b"").unwrap_err().kind(), ErrorKind::InvalidFile);
    }
}

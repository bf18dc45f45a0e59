//! Files that are not safetensors: says what they are and what to do.

use crate::{Error, ErrorKind, Result};

/// Refuses bytes that are recognisably another format.
pub(super) fn refuse(bytes: &[u8]) -> Result<()> {
    let Some((what, remedy)) = identify(bytes) else { return Ok(()) };
    let kind = if bytes.is_empty() { ErrorKind::InvalidFile } else { ErrorKind::Unsupported };
    Err(Error::new(kind, "this is not a safetensors file").expected("a safetensors file").found(what).remedy(remedy))
}

fn identify(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const CONVERT: &str = "Luna never runs pickles, which can carry code; convert it: in Python, \
        `safetensors.torch.save_file(torch.load(PATH, weights_only=True)[\"state_dict\"], OUT)`";
    const AGAIN: &str = "download the file itself again, not the page that shows it";
    let text = bytes.get(..512).unwrap_or(bytes).trim_ascii_start().to_ascii_lowercase();
    if bytes.is_empty() {
        Some(("an empty file", "download it again"))
    } else if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x80, 0x02]) || bytes.starts_with(&[0x80, 0x04]) {
        Some(("a PyTorch pickle (.ckpt, .pt, .pth or .bin)", CONVERT))
    } else if text.starts_with(b"<!doctype") || text.starts_with(b"<html") || text.starts_with(b"<?xml") {
        Some(("an HTML or XML page, perhaps a download error saved under this name", AGAIN))
    } else if bytes.starts_with(b"version https://git-lfs") {
        Some(("a Git LFS pointer", "run `git lfs pull`"))
    } else if bytes.starts_with(b"\x89PNG") || bytes.starts_with(b"\xff\xd8\xff") || bytes.starts_with(b"RIFF") {
        Some(("a picture", "name a model file here"))
    } else {
        None
    }
}

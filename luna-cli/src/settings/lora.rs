//! Which LoRAs a command applies. Shared by all that take `--lora`.

use crate::args::{LoraArgs, ModeArg};
use luna_core::{Error, ErrorKind, Result};
use std::path::PathBuf;

/// LoRAs in their order, and how they are applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Loras {
    pub entries: Vec<LoraEntry>,
    pub mode: ModeArg,
    /// Whether every adapter for the model must be applied.
    pub strict: bool,
}

/// One LoRA.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraEntry {
    pub file: PathBuf,
    pub strength: f64,
}

impl Loras {
    /// # Errors
    /// `InvalidInput` for a strength that is no finite number.
    pub fn new(args: LoraArgs) -> Result<Self> {
        Ok(Self {
            entries: args.loras.iter().map(|text| entry(text)).collect::<Result<_>>()?,
            mode: args.mode.unwrap_or(ModeArg::Functional),
            strict: args.strict,
        })
    }
}

/// `FILE` or `FILE:STRENGTH`. A colon may be part of a path: on Windows one stands after the drive.
fn entry(text: &str) -> Result<LoraEntry> {
    let whole = || LoraEntry { file: text.into(), strength: 1.0 };
    let Some((file, strength)) = text.rsplit_once(':') else { return Ok(whole()) };
    if strength.contains(['/', '\\']) || strength.ends_with(".safetensors") {
        return Ok(whole());
    }
    match strength.parse::<f64>() {
        Ok(strength) if strength.is_finite() && !file.is_empty() => Ok(LoraEntry { file: file.into(), strength }),
        _ => Err(Error::new(ErrorKind::InvalidInput, "--lora is wrong")
            .expected("FILE or FILE:STRENGTH with a finite number, such as ink.safetensors:0.8")
            .found(format!("`{text}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strength_stands_after_the_last_colon() {
        for (text, file, strength) in [
            ("ink.safetensors", "ink.safetensors", 1.0),
            ("ink.safetensors:0.8", "ink.safetensors", 0.8),
            ("a:b/ink:-1.5", "a:b/ink", -1.5),
            ("C:\\ink.safetensors", "C:\\ink.safetensors", 1.0),
            ("C:\\ink.safetensors:2", "C:\\ink.safetensors", 2.0),
            ("C:ink.safetensors", "C:ink.safetensors", 1.0),
        ] {
            assert_eq!(entry(text).unwrap(), LoraEntry { file: file.into(), strength });
        }
        for wrong in ["ink.safetensors:strong", "ink:", ":1", "ink:nan", "ink:inf"] {
            assert_eq!(entry(wrong).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
        }
    }
}

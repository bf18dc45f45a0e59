//! LoRAs as they are typed, for every command that takes some.

use clap::Args;
use std::{convert::Infallible, path::PathBuf, str::FromStr};

/// LoRAs that change what the model computes for this call.
#[derive(Debug, Args)]
#[command(next_help_heading = "LoRA")]
pub struct LoraArgs {
    /// Apply this LoRA, a file or a PEFT folder; may be given several times. One strength is for denoiser and text
    /// encoders, two are for each [default strength: 1]
    #[arg(long, value_name = "FILE[:STRENGTH | :MODEL:CLIP]")]
    pub lora: Vec<LoraArg>,
    /// Make an error of every part of a LoRA for this model that cannot be applied
    #[arg(long)]
    pub lora_strict: bool,
}

/// A LoRA with its strengths.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraArg {
    pub file: PathBuf,
    /// For the denoiser.
    pub model: f64,
    /// For the text encoders.
    pub clip: f64,
}

impl FromStr for LoraArg {
    type Err = Infallible;

    /// Takes at most two numbers off the end: what stands before them is the file, colons and all.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let number = |text: &'_ str| -> Option<(usize, f64)> {
            let (before, last) = text.rsplit_once(':')?;
            Some((before.len(), last.trim().parse().ok()?))
        };
        let (file, model, clip) = match number(text) {
            None => (text, 1.0, 1.0),
            Some((end, last)) => match number(&text[..end]) {
                None => (&text[..end], last, last),
                Some((start, first)) => (&text[..start], first, last),
            },
        };
        Ok(Self { file: file.into(), model, clip })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strengths_are_taken_off_the_end() {
        for (text, file, model, clip) in [
            ("ink.safetensors", "ink.safetensors", 1.0, 1.0),
            ("ink.safetensors:0.7", "ink.safetensors", 0.7, 0.7),
            ("a/ink.safetensors:0.8:-0.5", "a/ink.safetensors", 0.8, -0.5),
            (r"C:\loras\ink.safetensors:1e0", r"C:\loras\ink.safetensors", 1.0, 1.0),
            (r"C:\loras\ink.safetensors", r"C:\loras\ink.safetensors", 1.0, 1.0),
            ("ink:strong", "ink:strong", 1.0, 1.0),
        ] {
            let found: LoraArg = text.parse().unwrap();
            assert_eq!(found, LoraArg { file: file.into(), model, clip }, "{text}");
        }
    }
}

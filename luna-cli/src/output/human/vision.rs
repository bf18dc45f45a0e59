//! Outcomes of `vision` and `describe` in lines for a person.

use super::{line, peak, shape, units};
use crate::commands::{DescribeOutcome, VisionOutcome, lora_notes};
use std::io::{self, Write};

/// What was encoded.
pub fn vision(out: &mut impl Write, vision: &VisionOutcome) -> io::Result<()> {
    let of = match vision.inputs.as_slice() {
        [input] => input.display().to_string(),
        inputs => format!("{} files", inputs.len()),
    };
    let how = if vision.preprocessed { ", already preprocessed" } else { "" };
    writeln!(out, "{}: features of {of}{how}", vision.output.display())?;
    for (name, dims) in &vision.tensors {
        writeln!(out, "  {name:<18} {}", shape(dims))?;
    }
    let model = &vision.model;
    let (kind, layers, channels) = (&model.kind, model.layers, model.channels);
    let looks = format!("{} pixels in patches of {}", model.image_size, model.patch_size);
    line(out, "model", format!("{}, {kind}, {layers} layers of {channels}, {looks}", model.name))?;
    line(out, "time", format!("{} in {}", units::seconds(vision.seconds), vision.precision))?;
    peak(out, vision.peak_memory_bytes)
}

/// The answer and nothing else, so that it can be piped on.
pub fn describe(out: &mut impl Write, describe: &DescribeOutcome) -> io::Result<()> {
    match &describe.text {
        _ if describe.show_ids => {
            let ids: Vec<String> = describe.ids.iter().map(u32::to_string).collect();
            writeln!(out, "{}", ids.join(" "))
        }
        _ if describe.streamed => writeln!(out),
        Some(text) => writeln!(out, "{text}"),
        None => Ok(()),
    }
}

/// What was done otherwise than asked for.
pub fn notes(vision: &VisionOutcome) -> Vec<String> {
    vision.fallbacks.iter().map(|fallback| fallback.message.clone()).collect()
}

/// The same, and what a person should know about an answer that is not whole.
pub fn describe_notes(describe: &DescribeOutcome) -> Vec<String> {
    let cut_off = match describe.finish.as_str() {
        "max_tokens" => Some(format!("ended after {} tokens; --max-tokens allows more", describe.ids.len())),
        "context_full" => Some("ended where the model's context does".to_owned()),
        _ => None,
    };
    let loras = describe.loras.iter().flat_map(|loras| lora_notes(&loras.coverage));
    describe.fallbacks.iter().map(|fallback| fallback.message.clone()).chain(loras).chain(cut_off).collect()
}

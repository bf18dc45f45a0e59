//! What is told of prompts: `text` and `tokenize`.

use super::{how, line, peak, shape, units};
use crate::commands::{TextOutcome, TokenizeOutcome};
use luna_core::tokenizer::TokenPiece;
use std::io::{self, Write};

pub fn text(out: &mut impl Write, text: &TextOutcome) -> io::Result<()> {
    writeln!(out, "{}: conditioning for {}", text.output.display(), text.recipe)?;
    for prompt in &text.prompts {
        let pooled = prompt.pooled_shape.map(|pooled| format!(", pooled {}", shape(&pooled))).unwrap_or_default();
        let masked = if prompt.masked { ", with its mask" } else { "" };
        line(out, prompt.tensor, format!("{}{pooled}{masked}", shape(&prompt.shape)))?;
    }
    for encoder in &text.encoders {
        let layers = format!("{} layers, {} channels", encoder.layers, encoder.channels);
        line(out, &encoder.encoder, format!("{}, {layers}", encoder.model))?;
    }
    for lora in &text.loras {
        lora.coverage.files.iter().try_for_each(|file| line(out, "lora", format!("{file}, on {}", lora.model)))?;
    }
    line(out, "time", format!("{}, {} to load", how(&text.call), units::seconds(text.load_seconds)))?;
    peak(out, text.peak_memory_bytes)
}

pub fn notes(text: &TextOutcome) -> Vec<String> {
    let caution = text.caution.map(|caution| format!("this is {caution}"));
    let mut problems: Vec<_> =
        text.prompts.iter().flat_map(|prompt| &prompt.embedding_problems).map(|it| it.message.clone()).collect();
    // The positive and the negative prompt may name the same.
    let mut told = std::collections::HashSet::new();
    problems.retain(|problem| told.insert(problem.clone()));
    let fallbacks = text.call.fallbacks.iter().map(|fallback| fallback.message.clone());
    let parts = text.loras.iter().flat_map(|lora| &lora.coverage.files).filter(|file| !file.is_complete());
    let loras = parts.map(|file| format!("not all of a LoRA applies: {file}; --json names every part"));
    let tags = text.malformed_tags.iter().map(|tag| format!("the tag `{tag}` cannot be read and was left out"));
    caution.into_iter().chain(problems).chain(loras).chain(tags).chain(fallbacks).collect()
}

pub fn tokenize(out: &mut impl Write, tokenize: &TokenizeOutcome) -> io::Result<()> {
    for (number, chunk) in (1..).zip(&tokenize.chunks) {
        writeln!(out, "{}, chunk {number} of {}: {} tokens", tokenize.encoder, tokenize.chunks.len(), chunk.len())?;
        let mut rest = &chunk[..];
        while let Some(token) = rest.first() {
            // Padding is told once.
            let same = rest.iter().take_while(|other| other.0 == token.0).count();
            let id = match &token.0.piece {
                TokenPiece::Id(id) => id.to_string(),
                TokenPiece::Embedding { name, row } => format!("embedding:{name}[{row}]"),
            };
            let times = if same > 1 { format!("  {same} times") } else { String::new() };
            writeln!(out, "  {id:<8} {}{times}", token.0.weight)?;
            rest = &rest[same..];
        }
    }
    Ok(())
}

pub fn tokenize_notes(tokenize: &TokenizeOutcome) -> Vec<String> {
    let missing = tokenize.missing_embeddings.iter();
    missing.map(|name| format!("embedding `{name}` left out: there is no usable file of this name")).collect()
}

//! What is told of LoRAs.

use super::{line, units};
use crate::commands::LoraInspectOutcome;
use std::io::{self, Write};

pub fn inspect(out: &mut impl Write, inspect: &LoraInspectOutcome) -> io::Result<()> {
    let LoraInspectOutcome { file, bytes, adapters, .. } = inspect;
    writeln!(out, "{}: LoRA, {adapters} adapters, {}", file.display(), units::bytes(*bytes))?;
    line(out, "made for", inspect.made_for.unwrap_or("a model that names and sizes do not tell").to_owned())?;
    let kinds: Vec<_> = inspect.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    line(out, "kinds", kinds.join(", "))?;
    line(out, "digest", inspect.digest.clone())?;
    for entry in &inspect.unsupported {
        line(out, "refused", format!("`{}`: {}", entry.key, entry.what))?;
    }
    for part in &inspect.components {
        let coverage = &part.coverage;
        let counts = [
            (coverage.applied.len(), "apply"),
            (coverage.unmatched.len(), "have no layer"),
            (coverage.wrong_shape.len(), "do not fit"),
            (coverage.unsupported.len(), "are not supported"),
            (coverage.elsewhere, "are for other components"),
        ];
        let counts = counts.iter().filter(|(count, what)| *count > 0 || *what == "apply");
        let counts: Vec<_> = counts.map(|(count, what)| format!("{count} {what}")).collect();
        writeln!(out, "\n{}: {}", part.component.replace('_', " "), counts.join(", "))?;
        for entry in &coverage.unmatched {
            let nearest = entry.nearest.as_ref().map(|nearest| format!(" (nearest: `{nearest}`)")).unwrap_or_default();
            line(out, "no layer", format!("`{}`{nearest}", entry.key))?;
        }
        for entry in &coverage.wrong_shape {
            let shapes = format!("{} for a layer of {}", entry.found, entry.expected);
            line(out, "no fit", format!("`{}` is {shapes}, `{}`", entry.key, entry.target))?;
        }
    }
    Ok(())
}

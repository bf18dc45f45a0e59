//! What is told of LoRAs.

use super::{line, units};
use crate::commands::{LoraBenchOutcome, LoraInspectOutcome};
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

pub fn bench(out: &mut impl Write, bench: &LoraBenchOutcome) -> io::Result<()> {
    let LoraBenchOutcome { model, input, precision, device, threads, .. } = bench;
    writeln!(out, "{model}\n{input}, {precision} on {device}, {threads} threads\n")?;
    writeln!(out, "{:<20} {:>10} {:>10} {:>9} {:>10}", "", "best", "median", "of plain", "memory")?;
    for row in &bench.rows {
        let (best, median) = (units::seconds(row.best_seconds), units::seconds(row.median_seconds));
        let memory = row.memory_bytes.map_or_else(|| "-".to_owned(), units::bytes);
        let way = row.way.replace('_', " ");
        writeln!(out, "{way:<20} {best:>10} {median:>10} {:>9.3} {memory:>10}", row.ratio)?;
    }
    writeln!(out)?;
    line(out, "layers", format!("{} adapters; functional: {}", bench.adapters, bench.patched))?;
    let [read, resolve, merge, unmerge] =
        [bench.read_seconds, bench.resolve_seconds, bench.merge_seconds, bench.unmerge_seconds].map(units::seconds);
    line(out, "reading", format!("{read}, resolving {resolve}"))?;
    line(out, "merging", format!("{merge}, dropping the copy {unmerge}"))?;
    let [lora, layer] = [bench.lora_bytes, bench.largest_layer_bytes].map(units::bytes);
    line(out, "memory", format!("the LoRA {lora}, the largest layer {layer} in f32"))?;
    let signed = |bytes: i64| format!("{}{}", if bytes < 0 { "-" } else { "+" }, units::bytes(bytes.unsigned_abs()));
    for (way, extra) in [("functional", bench.functional_extra_bytes), ("merged", bench.merged_extra_bytes)] {
        extra.map_or(Ok(()), |extra| line(out, way, format!("{} at most beside plain", signed(extra))))?;
    }
    Ok(())
}

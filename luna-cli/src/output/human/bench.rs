//! What is told of measurements.

use super::{line, peak, shape, size, units};
use crate::commands::{BenchOutcome, DenoiserBenchOutcome, LayersOutcome, TextBenchOutcome, Timing};
use std::io::{self, Write};

pub fn vae(out: &mut impl Write, bench: &BenchOutcome) -> io::Result<()> {
    let caution = bench.vae.caution.map(|caution| format!(" ({caution})")).unwrap_or_default();
    writeln!(out, "{}, {}{caution}, {} parameters", bench.vae.name, bench.vae.family, units::count(bench.parameters))?;
    let size = size([bench.size, bench.size]);
    writeln!(out, "{size}, {} on {}, {} threads\n", bench.precision, bench.device, bench.threads)?;
    writeln!(out, "{:<8} {:>10} {:>10} {:>9} {:>9}  share of peak", "", "best", "median", "GFLOP", "GFLOP/s")?;
    for timing in &bench.timings {
        let Timing { direction, best_seconds, median_seconds, gflop, gflops, share_of_peak, call, .. } = timing;
        let share = percent(*share_of_peak);
        let tiles = call.tiling.as_ref().map(|tiling| format!("  in {} tiles", tiling.tiles)).unwrap_or_default();
        let (best, median) = (units::seconds(*best_seconds), units::seconds(*median_seconds));
        writeln!(out, "{direction:<8} {best:>10} {median:>10} {gflop:>9.1} {gflops:>9.1}  {share}{tiles}")?;
    }
    for timing in &bench.timings {
        layers(out, timing.direction, timing.layers.as_ref())?;
    }
    writeln!(out)?;
    machine(out, bench.peak_gflops)?;
    peak(out, bench.peak_memory_bytes)
}

pub fn unet(out: &mut impl Write, bench: &DenoiserBenchOutcome) -> io::Result<()> {
    let DenoiserBenchOutcome { model, precision, device, threads, callers, .. } = bench;
    writeln!(out, "{}, {}, {} parameters", model.name, model.family, units::count(bench.parameters))?;
    let (shape, tokens) = (shape(&bench.shape), bench.context_tokens);
    writeln!(
        out,
        "{shape} with {tokens} context tokens, {precision} on {device}, {threads} threads, {callers} callers\n"
    )?;
    let (best, median) = (units::seconds(bench.best_seconds), units::seconds(bench.median_seconds));
    line(out, "a call", format!("{best} at best, {median} in the middle, attention {}", bench.attention))?;
    line(out, "all", format!("{} calls a second", units::three_digits(bench.calls_per_second)))?;
    rate(out, [bench.gflop, bench.gflops], bench.share_of_peak)?;
    machine(out, bench.peak_gflops)?;
    line(out, "loading", units::seconds(model.load_seconds))?;
    line(out, "weights", units::bytes(model.weight_bytes))?;
    let held = [("loaded", bench.loaded_memory_bytes), ("running", bench.running_memory_bytes)];
    for (name, bytes) in held {
        bytes.map_or(Ok(()), |bytes| line(out, name, format!("{} held by the process", units::bytes(bytes))))?;
    }
    peak(out, bench.peak_memory_bytes)?;
    layers(out, "one call", bench.layers.as_ref())
}

pub fn text(out: &mut impl Write, bench: &TextBenchOutcome) -> io::Result<()> {
    let TextBenchOutcome { model, precision, device, threads, tokens, .. } = bench;
    writeln!(out, "{model}, {}", bench.encoders.join(" and "))?;
    writeln!(out, "{tokens} tokens, {precision} on {device}, {threads} threads\n")?;
    let (best, median) = (units::seconds(bench.best_seconds), units::seconds(bench.median_seconds));
    line(
        out,
        "a call",
        format!("{best} at best, {median} in the middle, {} the first", units::seconds(bench.first_seconds)),
    )?;
    rate(out, [bench.gflop, bench.gflops], bench.share_of_peak)?;
    machine(out, bench.peak_gflops)?;
    line(out, "loading", units::seconds(bench.load_seconds))?;
    line(out, "weights", units::bytes(bench.weight_bytes))?;
    peak(out, bench.peak_memory_bytes)?;
    layers(out, "one call", bench.layers.as_ref())
}

fn rate(out: &mut impl Write, [gflop, gflops]: [f64; 2], share: Option<f64>) -> io::Result<()> {
    let share = share.map(|share| format!(", {:.0} % of the peak", share * 100.0)).unwrap_or_default();
    line(out, "rate", format!("{gflop:.1} GFLOP a call at {gflops:.1} GFLOP/s{share}"))
}

fn machine(out: &mut impl Write, peak: Option<f64>) -> io::Result<()> {
    peak.map_or(Ok(()), |peak| line(out, "peak", format!("{peak:.0} GFLOP/s in f32, measured just now")))
}

/// What each layer took, where that was asked.
fn layers(out: &mut impl Write, run: &str, outcome: Option<&LayersOutcome>) -> io::Result<()> {
    let Some(outcome) = outcome else { return Ok(()) };
    let part = |seconds: f64| format!("{:.1} %", 100.0 * seconds / outcome.seconds);
    let rows = outcome.layers.iter().map(|layer| {
        let rate = if layer.gflop > 0.0 { format!("{:.1}", layer.gflops) } else { "-".to_owned() };
        let share = percent(layer.share_of_peak.filter(|_| layer.gflop > 0.0));
        (layer.layer.as_str(), layer.calls.to_string(), layer.seconds, rate, share)
    });
    let rest = ("all else", String::new(), outcome.rest_seconds, String::new(), String::new());
    let rows: Vec<_> = rows.chain([rest]).collect();
    let width = rows.iter().map(|row| row.0.len()).max().unwrap_or_default();
    writeln!(out, "\n{:<width$} {:>6} {:>10} {:>8} {:>9}  share of peak", run, "calls", "time", "part", "GFLOP/s")?;
    for (name, calls, seconds, rate, share) in rows {
        let time = units::seconds(seconds);
        writeln!(out, "{name:<width$} {calls:>6} {time:>10} {:>8} {rate:>9}  {share}", part(seconds))?;
    }
    Ok(())
}

fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |share| format!("{:.0} %", share * 100.0))
}

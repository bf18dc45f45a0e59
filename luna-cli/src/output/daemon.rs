//! What a daemon tells, in lines for a person.

use super::units;
use crate::commands::{ServeOutcome, StartOutcome, StatusOutcome, UnloadOutcome};
use serde_json::{Map, Value};
use std::io::{self, Write};

pub fn served(out: &mut impl Write, served: &ServeOutcome) -> io::Result<()> {
    let rest = if served.finished { "" } else { "; some work was not finished in time" };
    writeln!(out, "{} requests were answered{rest}", served.requests)
}

pub fn started(out: &mut impl Write, started: &StartOutcome) -> io::Result<()> {
    writeln!(out, "{}", started.address)?;
    started.watch.iter().try_for_each(|watch| writeln!(out, "{watch}"))
}

pub fn unloaded(out: &mut impl Write, unloaded: &UnloadOutcome) -> io::Result<()> {
    unloaded.freed.iter().try_for_each(|name| writeln!(out, "{name}: freed"))?;
    unloaded.when_returned.iter().try_for_each(|name| writeln!(out, "{name}: freed when its requests are done"))?;
    writeln!(out, "{} freed", units::bytes(unloaded.freed_bytes))
}

/// Models, pools, clients and memory as tables.
pub fn status(out: &mut impl Write, outcome: &StatusOutcome) -> io::Result<()> {
    let status = &outcome.status;
    let uptime = status.get("uptime_seconds").and_then(Value::as_f64).unwrap_or_default();
    writeln!(
        out,
        "luna {} at {}: {}, up {}, {} requests, {} connections",
        word(status.get("version")),
        outcome.address,
        word(status.get("status")),
        units::seconds(uptime),
        word(status.get("total_requests")),
        word(status.get("connections")),
    )?;
    if let Some(watch) = status.get("watch").and_then(Value::as_str) {
        writeln!(out, "watch: http://{watch}/")?;
    }
    memory(out, status)?;
    writeln!(out, "\n{:<12} {:>9} {:>7} {:>7} {:>9} {:>8}", "pool", "workers", "busy", "waiting", "done", "refused")?;
    for pool in rows(status.get("pools")) {
        let workers = format!(
            "{} ({}..{})",
            word(pool.get("active_workers")),
            word(pool.get("min_workers")),
            word(pool.get("max_workers"))
        );
        writeln!(
            out,
            "{:<12} {workers:>9} {:>7} {:>7} {:>9} {:>8}",
            word(pool.get("type")),
            word(pool.get("busy_workers")),
            word(pool.get("queue_depth")),
            word(pool.get("total_requests")),
            word(pool.get("refused")),
        )?;
    }
    commands(out, status)?;
    let models: Vec<_> = rows(status.get("models")).collect();
    if !models.is_empty() {
        writeln!(out, "\n{:<32} {:>10} {:>6}  components", "model", "memory", "in use")?;
    }
    for model in models {
        let bytes = model["bytes"].as_u64().map_or("?".to_owned(), units::bytes);
        let components: Vec<_> = rows(model.get("components")).filter_map(Value::as_str).collect();
        let components = components.join(", ");
        writeln!(out, "{:<32} {bytes:>10} {:>6}  {components}", word(model.get("name")), word(model.get("leases")))?;
    }
    Ok(())
}

fn memory(out: &mut impl Write, status: &Map<String, Value>) -> io::Result<()> {
    if let Some(memory) = status.get("memory") {
        let bytes = |key: &str| memory[key].as_u64().map_or("?".to_owned(), units::bytes);
        let (models, budget) = (bytes("models"), bytes("models_budget"));
        let (resident, available, total) = (bytes("resident"), bytes("available"), bytes("total"));
        writeln!(out, "memory: {resident} in use, {models} of {budget} for models, {available} of {total} available")?;
    }
    for gpu in rows(status.get("gpus")) {
        let bytes = |key: &str| gpu[key].as_u64().map_or("?".to_owned(), units::bytes);
        let (index, name) = (word(gpu.get("index")), word(gpu.get("name")));
        writeln!(out, "GPU {index}: {name}, {} of {} in use", bytes("used"), bytes("total"))?;
    }
    Ok(())
}

/// What was asked for, and how long it took.
fn commands(out: &mut impl Write, status: &Map<String, Value>) -> io::Result<()> {
    let Some(commands) = status.get("commands").and_then(Value::as_object).filter(|commands| !commands.is_empty())
    else {
        return Ok(());
    };
    let heads = ["requests", "errors", "busy", "half in", "95 % in"];
    write!(out, "\n{:<24}", "command")?;
    heads.iter().try_for_each(|head| write!(out, " {head:>9}"))?;
    writeln!(out)?;
    for (name, counters) in commands {
        let time = |key: &str| counters[key].as_f64().map_or("?".to_owned(), |ms| units::seconds(ms / 1e3));
        let cells = [
            word(counters.get("requests")),
            word(counters.get("errors")),
            word(counters.get("busy")),
            time("p50_ms"),
            time("p95_ms"),
        ];
        write!(out, "{name:<24}")?;
        cells.iter().try_for_each(|cell| write!(out, " {cell:>9}"))?;
        writeln!(out)?;
    }
    Ok(())
}

/// The text in place of what stands on a terminal of so many rows and columns, without flicker: each line is overwritten, and
/// nothing is left of what was longer. What does not fit is cut off.
pub fn in_place(text: &[u8], (rows, columns): (u16, u16)) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let mut screen = b"\x1b[H".to_vec();
    for (row, line) in text.lines().take(usize::from(rows).max(2) - 1).enumerate() {
        if row > 0 {
            screen.extend_from_slice(b"\r\n");
        }
        screen.extend(line.chars().take(usize::from(columns)).collect::<String>().as_bytes());
        screen.extend_from_slice(b"\x1b[K");
    }
    screen.extend_from_slice(b"\r\n\x1b[J");
    screen
}

fn rows(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

/// A number or a text without quotes.
fn word(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_overwritten_line_by_line_and_holds_no_more_than_fits() {
        let screen = in_place("one\ntwo, longer\nthree\n".as_bytes(), (3, 6));
        assert_eq!(String::from_utf8(screen).unwrap(), "\x1b[Hone\x1b[K\r\ntwo, l\x1b[K\r\n\x1b[J");
        assert!(in_place(b"a\nb", (0, 0)).ends_with(b"\x1b[J"));
    }
}

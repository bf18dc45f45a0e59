//! What a daemon tells, in lines for a person.

use super::units;
use crate::commands::{ServeOutcome, StatusOutcome, UnloadOutcome};
use serde_json::Value;
use std::io::{self, Write};

pub fn served(out: &mut impl Write, served: &ServeOutcome) -> io::Result<()> {
    let rest = if served.finished { "" } else { "; some work was not finished in time" };
    writeln!(out, "{} requests were answered{rest}", served.requests)
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
    if let Some(memory) = status.get("memory") {
        let bytes = |key: &str| memory[key].as_u64().map_or("?".to_owned(), units::bytes);
        let (models, budget) = (bytes("models"), bytes("models_budget"));
        let (resident, available) = (bytes("resident"), bytes("available"));
        writeln!(out, "memory: {resident} in use, {models} of {budget} for models, {available} available")?;
    }
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

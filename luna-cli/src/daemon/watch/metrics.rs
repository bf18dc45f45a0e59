//! Numbers for Prometheus, in its text format. Enters: the daemon's state. Leaves: counters, gauges and histograms, in
//! seconds and bytes.

use super::{board::Board, http::Answer};
use crate::daemon::{
    counters::{BUCKETS_MS, CommandCounters},
    status::Snapshot,
};
use std::{fmt::Write, sync::atomic::Ordering};

pub fn answer(board: &Board) -> Answer {
    let mut text = Text::default();
    let snapshot = board.daemon.snapshot();
    daemon(&mut text, &snapshot, board);
    memory(&mut text, &snapshot);
    pools(&mut text, &snapshot, board);
    commands(&mut text, &snapshot);
    models(&mut text, &snapshot);
    saves(&mut text, &snapshot);
    Answer {
        status: 200,
        kind: "text/plain; version=0.0.4; charset=utf-8",
        fields: Vec::new(),
        body: text.0.into_bytes(),
    }
}

/// Lines of the format.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // A string takes whatever is written.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.family(name, kind, help);
            self.line(name, &[], value);
        }
    }
}

fn daemon(text: &mut Text, snapshot: &Snapshot, board: &Board) {
    text.family("luna_info", "gauge", "What this daemon is.");
    let labels = [("version", snapshot.version), ("device", &snapshot.device), ("precision", &snapshot.precision)];
    text.line("luna_info", &labels, 1.0);
    text.single("luna_uptime_seconds", "gauge", "Seconds since the start.", Some(snapshot.uptime_seconds));
    let ready = f64::from(u8::from(board.is_ready()));
    text.single("luna_ready", "gauge", "Whether it takes work.", Some(ready));
    text.single("luna_connections", "gauge", "Connections of clients.", Some(snapshot.connections as f64));
    let listeners = board.listeners.load(Ordering::Relaxed) as f64;
    text.single("luna_watch_listeners", "gauge", "WebSockets that watch.", Some(listeners));
    let dropped = board.dropped.load(Ordering::Relaxed) as f64;
    text.single("luna_watch_dropped_total", "counter", "WebSockets let go because they did not read.", Some(dropped));
    text.family("luna_watch_answers_total", "counter", "Requests of those who watch, by status.");
    for (status, count) in board.answers() {
        text.line("luna_watch_answers_total", &[("status", &status.to_string())], count as f64);
    }
}

fn memory(text: &mut Text, snapshot: &Snapshot) {
    let memory = &snapshot.memory;
    let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
    text.single("luna_resident_bytes", "gauge", "Physical memory of this process.", bytes(memory.resident));
    text.single("luna_peak_resident_bytes", "gauge", "The most it has been.", bytes(memory.peak_resident));
    text.single("luna_memory_available_bytes", "gauge", "Memory that the system can give.", bytes(memory.available));
    text.single("luna_memory_total_bytes", "gauge", "Memory that the system has.", bytes(memory.total));
    text.single("luna_models_bytes", "gauge", "Weights in memory.", Some(memory.models as f64));
    text.single("luna_models_budget_bytes", "gauge", "The most that they may take.", Some(memory.models_budget as f64));
    if snapshot.gpus.is_empty() {
        return;
    }
    for (name, help) in [("used", "in use by all processes"), ("total", "in all")] {
        let family = format!("luna_gpu_memory_{name}_bytes");
        text.family(&family, "gauge", &format!("Memory of a GPU {help}."));
        for gpu in &snapshot.gpus {
            let value = if name == "used" { gpu.used } else { gpu.total };
            text.line(&family, &[("gpu", &gpu.index.to_string()), ("name", &gpu.name)], value as f64);
        }
    }
}

fn pools(text: &mut Text, snapshot: &Snapshot, board: &Board) {
    type Value = fn(&crate::daemon::status::PoolSnapshot) -> f64;
    let families: [(&str, &str, &str, Value); 9] = [
        ("luna_pool_workers", "gauge", "Workers there are.", |pool| pool.active_workers as f64),
        ("luna_pool_workers_min", "gauge", "The fewest there may be.", |pool| pool.min_workers as f64),
        ("luna_pool_workers_max", "gauge", "The most there may be.", |pool| pool.max_workers as f64),
        ("luna_pool_busy_workers", "gauge", "Workers at work.", |pool| pool.busy_workers as f64),
        ("luna_pool_queue_depth", "gauge", "Requests that wait.", |pool| pool.queue_depth as f64),
        ("luna_pool_queue_bound", "gauge", "Requests that may wait or run.", |pool| pool.queue_bound as f64),
        ("luna_pool_finished_total", "counter", "Requests that workers finished.", |pool| pool.total_requests as f64),
        ("luna_pool_refused_total", "counter", "Requests refused because too much waited.", |pool| pool.refused as f64),
        ("luna_pool_panicked_total", "counter", "Requests that panicked.", |pool| pool.panicked as f64),
    ];
    for (name, kind, help, value) in families {
        text.family(name, kind, help);
        for pool in &snapshot.pools {
            text.line(name, &[("pool", pool.name)], value(pool));
        }
    }
    text.family("luna_pool_scalings_total", "counter", "Workers started and ended.");
    for ((pool, event), count) in board.scalings() {
        text.line("luna_pool_scalings_total", &[("pool", pool), ("event", event)], count as f64);
    }
}

fn commands(text: &mut Text, snapshot: &Snapshot) {
    text.family("luna_requests_total", "counter", "Requests answered, by command and outcome.");
    for (command, of) in &snapshot.commands {
        for (outcome, count) in of.counters.outcomes() {
            text.line("luna_requests_total", &[("command", command), ("outcome", outcome)], count as f64);
        }
    }
    type Value = fn(&CommandCounters) -> f64;
    let families: [(&str, &str, Value); 3] = [
        ("luna_fallbacks_total", "Things done otherwise than asked for.", |counters| counters.fallbacks as f64),
        ("luna_queue_seconds_total", "Time that requests waited.", |counters| counters.queue_ms / 1e3),
        ("luna_compute_seconds_total", "Time that requests were worked on.", |counters| counters.compute_ms / 1e3),
    ];
    for (name, help, value) in families {
        text.family(name, "counter", help);
        for (command, of) in &snapshot.commands {
            text.line(name, &[("command", command)], value(&of.counters));
        }
    }
    text.family("luna_request_seconds", "histogram", "Time from a request's arrival to its answer.");
    for (command, of) in &snapshot.commands {
        histogram(text, command, &of.counters);
    }
}

fn histogram(text: &mut Text, command: &str, counters: &CommandCounters) {
    let mut below = 0;
    for (bucket, count) in counters.latency.buckets().iter().enumerate() {
        below += count;
        let bound = BUCKETS_MS.get(bucket).map_or("+Inf".to_owned(), |bound| (bound / 1e3).to_string());
        text.line("luna_request_seconds_bucket", &[("command", command), ("le", &bound)], below as f64);
    }
    let sum = (counters.queue_ms + counters.compute_ms) / 1e3;
    text.line("luna_request_seconds_sum", &[("command", command)], sum);
    text.line("luna_request_seconds_count", &[("command", command)], below as f64);
}

fn models(text: &mut Text, snapshot: &Snapshot) {
    text.family("luna_model_bytes", "gauge", "Memory of a model's weights; 0 for one that is not loaded.");
    for model in &snapshot.models {
        text.line("luna_model_bytes", &[("model", &model.name)], model.bytes as f64);
    }
    text.family("luna_model_leases", "gauge", "Requests that use a model now.");
    for model in &snapshot.models {
        text.line("luna_model_leases", &[("model", &model.name)], model.leases as f64);
    }
}

fn saves(text: &mut Text, snapshot: &Snapshot) {
    let Some(saves) = &snapshot.saves else { return };
    let under_way = saves.jobs.saturating_sub(saves.jobs_finished) as f64;
    text.single("luna_save_jobs_under_way", "gauge", "Save jobs that are not finished.", Some(under_way));
    text.single("luna_save_jobs_total", "counter", "Save jobs taken.", Some(saves.jobs as f64));
    text.single("luna_save_bytes_total", "counter", "Bytes of files written.", Some(saves.bytes_written as f64));
    text.single("luna_save_queue_bytes", "gauge", "Pixels that wait or are worked on.", Some(saves.queue_bytes as f64));
    text.family("luna_save_pictures_total", "counter", "Pictures by their fate.");
    let fates = [
        ("written", saves.written),
        ("rejected", saves.rejected),
        ("failed", saves.failed),
        ("cancelled", saves.cancelled),
    ];
    for (fate, count) in fates {
        text.line("luna_save_pictures_total", &[("fate", fate)], count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.line("a", &[("b", "c\"d\\e\nf")], 0.5);
        text.single("g", "gauge", "Help.", None);
        assert_eq!(text.0, "a{b=\"c\\\"d\\\\e\\nf\"} 0.5\n");
    }
}

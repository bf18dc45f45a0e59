//! What is said over the WebSocket. Enters: the daemon's state and its workers' comings and goings. Leaves: JSON, `status`
//! and `scaling` with just the fields that monitors of Luna know, `details` and `history` with everything for the page.

use super::history::{History, Sample};
use crate::daemon::{events::Scaled, status::Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Monitors count memory in these.
const GIB: f64 = (1u64 << 30) as f64;

/// What a listener may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    Status,
    Details,
    History,
}

/// What a listener sends.
#[derive(Deserialize)]
#[serde(tag = "type")]
enum Request {
    #[serde(rename = "get_status")]
    Status,
    #[serde(rename = "get_details")]
    Details,
    #[serde(rename = "get_history")]
    History,
}

/// Reads what a listener sent.
///
/// # Errors
/// The message that answers what nobody understands.
pub fn read(text: &str) -> Result<Wanted, String> {
    match serde_json::from_str(text) {
        Ok(Request::Status) => Ok(Wanted::Status),
        Ok(Request::Details) => Ok(Wanted::Details),
        Ok(Request::History) => Ok(Wanted::History),
        Err(_) => {
            let expected = r#"{"type": "get_status"}, {"type": "get_details"} or {"type": "get_history"}"#;
            Err(json!({ "type": "error", "data": { "message": format!("expected {expected}") } }).to_string())
        }
    }
}

#[derive(Serialize)]
struct Status<'a> {
    status: &'a str,
    version: &'a str,
    device: &'a str,
    precision: &'a str,
    uptime_seconds: f64,
    total_requests: u64,
    /// Of the device: a GPU's memory, or this process's and the system's.
    vram_used_gb: Option<f64>,
    vram_total_gb: Option<f64>,
    vae_pool: Option<Pool<'a>>,
    clip_pool: Option<Pool<'a>>,
}

#[derive(Serialize)]
struct Pool<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    active_workers: usize,
    queue_depth: usize,
    total_requests: u64,
    worker_ids: &'a [usize],
}

/// A worker was started or ended, as monitors are told.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Scaling {
    pub event: &'static str,
    pub pool: &'static str,
    pub worker_id: usize,
    pub active_workers: usize,
    pub vram_available_gb: Option<f64>,
    /// Seconds since 1970: for the history, not for monitors.
    #[serde(skip)]
    pub time: f64,
}

impl Scaling {
    pub fn new(scaled: Scaled, available: Option<u64>, time: f64) -> Self {
        Self {
            event: if scaled.up { "scale_up" } else { "scale_down" },
            pool: known_as(scaled.pool),
            worker_id: scaled.worker,
            active_workers: scaled.workers,
            vram_available_gb: available.map(gib),
            time,
        }
    }
}

/// The name of a pool that monitors know.
fn known_as(pool: &'static str) -> &'static str {
    if pool == "text" { "clip" } else { pool }
}

fn gib(bytes: u64) -> f64 {
    (bytes as f64 / GIB * 1000.0).round() / 1000.0
}

pub fn status(snapshot: &Snapshot) -> String {
    let pool = |name| {
        let pool = snapshot.pools.iter().find(|pool| pool.name == name)?;
        Some(Pool {
            kind: known_as(pool.name),
            active_workers: pool.active_workers,
            queue_depth: pool.queue_depth,
            total_requests: pool.total_requests,
            worker_ids: &pool.worker_ids,
        })
    };
    let (used, total) = snapshot.device_memory();
    let status = Status {
        status: snapshot.status,
        version: snapshot.version,
        device: &snapshot.device,
        precision: &snapshot.precision,
        uptime_seconds: (snapshot.uptime_seconds * 10.0).round() / 10.0,
        total_requests: snapshot.total_requests,
        vram_used_gb: used.map(gib),
        vram_total_gb: total.map(gib),
        vae_pool: pool("vae"),
        clip_pool: pool("text"),
    };
    json!({ "type": "status", "data": status }).to_string()
}

pub fn scaling(scaling: &Scaling) -> String {
    json!({ "type": "scaling", "data": scaling }).to_string()
}

pub fn details(snapshot: &Snapshot, sample: Option<&Sample>) -> String {
    json!({ "type": "details", "data": { "snapshot": snapshot, "sample": sample } }).to_string()
}

pub fn history(history: &History) -> String {
    let scalings: Vec<_> =
        history.scalings().iter().map(|scaling| json!({ "time": scaling.time, "data": scaling })).collect();
    json!({ "type": "history", "data": { "samples": history.samples(), "scalings": scalings } }).to_string()
}

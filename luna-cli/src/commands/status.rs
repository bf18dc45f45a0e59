//! `status` and `unload`: a daemon's state, and memory given back.

use super::remote;
use crate::{output::Output, settings::DaemonAddress};
use luna_core::{
    CancelToken, Result,
    protocol::{GetStatus, UnloadModels},
};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{thread, time::Duration};

/// How often `status --watch` tells.
const PAUSE: Duration = Duration::from_secs(1);

/// What `status` saw.
#[derive(Serialize)]
pub struct StatusOutcome {
    pub address: String,
    /// As the daemon tells it.
    pub status: Map<String, Value>,
}

/// What `unload` did.
#[derive(Serialize)]
pub struct UnloadOutcome {
    pub freed: Vec<String>,
    pub when_returned: Vec<String>,
    pub freed_bytes: u64,
}

/// Asks once, or again and again until the token is cancelled.
pub fn status(address: &DaemonAddress, watch: bool, token: &CancelToken, output: &Output) -> Result<StatusOutcome> {
    let client = remote::connect(address)?;
    loop {
        let status = client.call(&GetStatus {}, &[])?.reply;
        let outcome = StatusOutcome { address: address.address.clone(), status };
        if !watch || token.is_cancelled() {
            return Ok(outcome);
        }
        output.refresh(&outcome)?;
        thread::sleep(PAUSE);
        if token.is_cancelled() {
            return Ok(outcome);
        }
    }
}

pub fn unload(address: &DaemonAddress, models: Vec<String>) -> Result<UnloadOutcome> {
    let told = remote::connect(address)?.call(&UnloadModels { models }, &[])?.reply;
    Ok(UnloadOutcome { freed: told.freed, when_returned: told.when_returned, freed_bytes: told.freed_bytes })
}

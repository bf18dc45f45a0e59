//! A daemon's denoisers.

use super::{Daemon, not_yet_known, report};
use crate::{
    call::Watch,
    coverage::Fate,
    error::Result,
    options::{attention_of, luna_report},
};
use luna_core::{
    Prediction,
    diffusion::ForwardInput,
    protocol::{CacheOutcome, DenoiserInfo, ModelForward},
};
use std::sync::{Arc, OnceLock};

/// A denoiser of a daemon.
pub(crate) struct RemoteModel {
    daemon: Arc<Daemon>,
    name: String,
    info: OnceLock<DenoiserInfo>,
}

impl RemoteModel {
    pub(crate) fn load(daemon: &Arc<Daemon>, path: &str) -> Result<Self> {
        Ok(Self { daemon: daemon.clone(), name: daemon.model(path)?, info: OnceLock::new() })
    }

    /// What the daemon told of it.
    pub(crate) fn info(&self) -> Result<&DenoiserInfo> {
        self.info.get().ok_or_else(|| not_yet_known("denoiser").into())
    }

    /// One step. `asked` says how; the model's name is added here.
    pub(crate) fn forward(
        &self,
        input: &ForwardInput,
        asked: ModelForward,
        watch: &Watch,
    ) -> Result<(Prediction, luna_report, Option<Fate>)> {
        let request = ModelForward { model: Some(self.name.clone()), ..asked };
        let (prediction, answer) = self.daemon.client.model_forward(input, &request, &watch.request())?;
        let reply = answer.reply;
        let mut told = report(&answer.head, &reply.report.precision, reply.report.seconds, watch);
        told.attention = attention_of(&reply.report.attention);
        if let Some(CacheOutcome { hit, consecutive_hits, difference }) = reply.report.cache {
            told.cached_steps(hit, consecutive_hits, difference);
        }
        let fate = reply.loras.map(|outcome| Fate::told(&reply.model.family, outcome));
        let _ = self.info.set(reply.model);
        Ok((prediction, told, fate))
    }
}

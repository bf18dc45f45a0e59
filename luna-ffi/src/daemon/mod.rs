//! Models of a daemon. Enters: what calls ask for, in the library's values. Leaves: the same values and reports as
//! models in this process give.

mod model;
mod save;
mod text;
mod vae;
mod vision;

pub(crate) use model::RemoteModel;
pub(crate) use text::{RemoteText, TextAsked, refuse_folders};
pub(crate) use vae::RemoteVae;
pub(crate) use vision::{RemoteVision, RemoteVlm, VlmAsked, VlmPictures};

use crate::{
    call::Watch,
    error::Result,
    options::{LUNA_FALLBACK_TILED, LUNA_FALLBACK_WIDENED, luna_report},
};
use luna_core::{
    Error, ErrorKind, Limits, Precision,
    checkpoint::Checkpoint,
    client::{Client, ClientSettings},
    protocol::{LoraCachePut, RegisterModelByPath, ReplyHead, TensorRef},
    text::{ClipActivation, EncoderKind},
};
use std::{path::Path, sync::Arc, time::Duration};

/// Models that every daemon carries, by name.
const BUNDLED: [&str; 2] = ["moonlet", "demo"];

/// How a file is to be read where that is to be said.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reading<'a> {
    /// The only text encoder that is wanted.
    pub(crate) encoder: Option<EncoderKind>,
    /// The `tokenizer.json`.
    pub(crate) tokenizer: Option<&'a Path>,
    /// The activation of a CLIP, which no daemon is told.
    pub(crate) activation: Option<ClipActivation>,
}

/// A daemon that listens.
pub(crate) struct Daemon {
    pub(crate) client: Client,
}

impl Daemon {
    /// Connects, or says why not.
    pub(crate) fn connect(address: &str, settings: ClientSettings) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { client: Client::connect(address, settings)? }))
    }

    /// What the daemon knows a model by: the name of one that it has, or else the id of a file or folder, which the
    /// daemon reads where it may, and is sent where it may not. `./name` is a path.
    pub(crate) fn model(&self, path: &str) -> Result<String> {
        let known = self.client.list_models()?;
        if BUNDLED.contains(&path) || known.iter().any(|model| model.name == path || model.model_id == path) {
            return Ok(path.to_owned());
        }
        Ok(self.client.put_model(Path::new(path), None)?.model_id)
    }

    /// As [`Daemon::model`], read as it is said. Only a daemon that may read the files can be given a tokenizer.
    pub(crate) fn model_read(&self, path: &str, reading: Reading) -> Result<String> {
        let encoder = reading.encoder.map(EncoderKind::name);
        if reading.activation.is_some() {
            return Err(not_remote("an activation of one's own").into());
        }
        match (encoder, reading.tokenizer) {
            (None, None) => self.model(path),
            (encoder, None) => Ok(self.client.put_model(Path::new(path), encoder)?.model_id),
            (_, Some(_)) => self.vlm(path, reading, None),
        }
    }

    /// As [`Daemon::model_read`], with the vision part of a GGUF file.
    pub(crate) fn vlm(&self, path: &str, reading: Reading, projector: Option<&Path>) -> Result<String> {
        if reading.tokenizer.is_none() && projector.is_none() {
            return self.model_read(path, reading);
        }
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string();
        let request = RegisterModelByPath {
            model_path: real(Path::new(path)),
            encoder: reading.encoder.map(|encoder| encoder.name().to_owned()),
            tokenizer: reading.tokenizer.map(real),
            projector: projector.map(real),
            ..RegisterModelByPath::default()
        };
        Ok(self.client.call(&request, &[])?.reply.model_id)
    }

    /// Sends a LoRA file that is in memory, and gives its id.
    pub(crate) fn put_lora(&self, name: &str, bytes: &[u8]) -> Result<String> {
        let checkpoint = Checkpoint::from_bytes(name, bytes.to_vec(), &Limits::default())?;
        let tensors = checkpoint.tensors().map(|tensor| TensorRef::stored(&tensor)).collect::<Result<Vec<_>, _>>()?;
        let request = LoraCachePut { name: name.to_owned(), metadata: checkpoint.metadata().clone() };
        Ok(self.client.call(&request, &tensors)?.reply.lora_id)
    }

    /// Bytes of a model's weights in the daemon's memory.
    pub(crate) fn bytes(&self, name: &str) -> Result<u64> {
        let known = self.client.list_models()?;
        let found = known.into_iter().find(|model| model.name == name || model.model_id == name);
        Ok(found.map_or(0, |model| model.bytes))
    }
}

/// A fault of what a daemon is not asked to do.
pub(crate) fn not_remote(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{what} cannot be had from a daemon"))
        .remedy("ask a session of luna_open, or leave it out")
}

/// A fact that a daemon tells with a model's first call.
pub(crate) fn not_yet_known(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the daemon has not told of this {what} yet"))
        .expected("a call of it before")
        .remedy("ask again after the first call")
}

/// What every report of a daemon's says.
pub(crate) fn report(head: &ReplyHead, precision: &str, seconds: f64, watch: &Watch) -> luna_report {
    let precision = Precision::ALL.into_iter().find(|known| known.name() == precision).unwrap_or_default();
    let seconds = if seconds.is_finite() { seconds.clamp(0.0, 1e9) } else { 0.0 };
    let mut told = luna_report::new(precision, Duration::from_secs_f64(seconds));
    told.queue_nanoseconds = (head.queue_ms.max(0.0) * 1e6) as u64;
    for notice in &head.fallbacks {
        watch.warn("daemon", &notice.message);
        told.fallbacks |= match notice.name.as_str() {
            "tiled" => LUNA_FALLBACK_TILED,
            "widened_to_f32" => LUNA_FALLBACK_WIDENED,
            _ => 0,
        };
    }
    told
}

//! Commands about which models the daemon holds.

use super::{
    super::{Daemon, models::Reading, reply::Reply},
    control::denied,
};
use luna_core::{
    Error, ErrorKind, Limits,
    checkpoint::Checkpoint,
    protocol::{Fault, Message, Models, RegisterModel, RegisterModelByPath, UnloadModels},
    text::EncoderKind,
};

pub fn list(daemon: &Daemon) -> Result<Reply, Fault> {
    Ok(Reply::of(&Models { models: daemon.models() })?)
}

pub fn register_by_path(daemon: &Daemon, request: &RegisterModelByPath) -> Result<Reply, Fault> {
    let path = daemon.roots.resolve(&request.model_path)?;
    let resolve = |path: &Option<String>| path.as_deref().map(|path| daemon.roots.resolve(path)).transpose();
    let (tokenizer, projector) = (resolve(&request.tokenizer)?, resolve(&request.projector)?);
    let reading = Reading { encoder: encoder(request.encoder.as_deref())?, tokenizer, projector };
    Ok(Reply::of(&daemon.register_path(&path, request.name.as_deref(), reading)?)?)
}

/// The frame's tensors are the checkpoint.
pub fn register(daemon: &Daemon, request: &RegisterModel, message: &Message) -> Result<Reply, Fault> {
    if message.tensors().len() == 0 {
        return Err(Error::new(ErrorKind::InvalidInput, "the frame holds no tensors to register").into());
    }
    let file = message.to_file(&request.metadata);
    let checkpoint = Checkpoint::from_bytes(&request.name, file, &Limits::default())?;
    let reading = Reading { encoder: encoder(request.encoder.as_deref())?, ..Reading::default() };
    Ok(Reply::of(&daemon.register_upload(&checkpoint, &request.name, reading)?)?)
}

fn encoder(name: Option<&str>) -> Result<Option<EncoderKind>, Fault> {
    Ok(name.map(str::parse).transpose()?)
}

pub fn unload(daemon: &Daemon, request: &UnloadModels) -> Result<Reply, Fault> {
    if !daemon.settings.allow_unload {
        return Err(denied("unload_models"));
    }
    Ok(Reply::of(&daemon.unload(&request.models)?)?)
}

//! Commands about which models the daemon holds.

use super::{
    super::{Daemon, reply::Reply},
    control::denied,
};
use luna_core::{
    Error, ErrorKind, Limits,
    checkpoint::Checkpoint,
    protocol::{Fault, Message, Models, RegisterModel, RegisterModelByPath, UnloadModels},
};

pub fn list(daemon: &Daemon) -> Result<Reply, Fault> {
    Ok(Reply::of(&Models { models: daemon.models() })?)
}

pub fn register_by_path(daemon: &Daemon, request: &RegisterModelByPath) -> Result<Reply, Fault> {
    let path = daemon.roots.resolve(&request.model_path)?;
    Ok(Reply::of(&daemon.register_path(&path, request.name.as_deref())?)?)
}

/// The body of the frame is a safetensors file: it is the checkpoint.
pub fn register(daemon: &Daemon, request: &RegisterModel, message: Message) -> Result<Reply, Fault> {
    if message.tensors().len() == 0 {
        return Err(Error::new(ErrorKind::InvalidInput, "the frame holds no tensors to register").into());
    }
    let checkpoint = Checkpoint::from_bytes(&request.name, message.into_body(), &Limits::default())?;
    Ok(Reply::of(&daemon.register_upload(&checkpoint, &request.name)?)?)
}

pub fn unload(daemon: &Daemon, request: &UnloadModels) -> Result<Reply, Fault> {
    if !daemon.settings.allow_unload {
        return Err(denied("unload_models"));
    }
    Ok(Reply::of(&daemon.unload(&request.models)?)?)
}

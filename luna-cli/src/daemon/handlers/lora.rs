//! LoRAs in the cache.

use super::super::{Daemon, convert, reply::Reply};
use luna_core::{
    Error, ErrorKind,
    lora::LoraSource,
    protocol::{Fault, LoraCacheCheck, LoraCacheGet, LoraCachePut, LoraChecked, Message, TensorRef},
};

pub fn put(daemon: &Daemon, request: &LoraCachePut, message: &Message) -> Result<Reply, Fault> {
    if message.tensors().len() == 0 {
        return Err(Error::new(ErrorKind::InvalidInput, "the frame holds no tensors of a LoRA").into());
    }
    let lora = daemon.loras.put(&request.name, message.to_file(&request.metadata))?;
    Ok(Reply::of(&convert::lora_info(&lora, LoraSource::Read))?)
}

pub fn get(daemon: &Daemon, request: &LoraCacheGet) -> Result<Reply, Fault> {
    let found = daemon.loras.find(&request.lora)?;
    let reply = Reply::of(&convert::lora_info(&found.lora, found.source))?;
    if !request.tensors {
        return Ok(reply);
    }
    let checkpoint = daemon.loras.checkpoint(&found.lora)?;
    checkpoint.tensors().try_fold(reply, |reply, tensor| Ok(reply.with_tensor(&TensorRef::stored(&tensor)?)))
}

pub fn check(daemon: &Daemon, request: &LoraCacheCheck) -> Result<Reply, Fault> {
    let source = daemon.loras.check(&request.lora);
    let told = source.map(|source| convert::source_name(source).to_owned());
    Ok(Reply::of(&LoraChecked { cached: source.is_some(), source: told })?)
}

pub fn stats(daemon: &Daemon) -> Result<Reply, Fault> {
    Ok(Reply::of(&daemon.loras.stats())?)
}

//! Steps of a sampler.

use super::{
    super::{Daemon, convert, reply::Reply},
    Caller,
};
use luna_core::{
    diffusion::ForwardOptions,
    protocol::{AttentionModeSet, Fault, Forwarded, Message, ModelForward, SetAttentionMode},
};

pub fn forward(daemon: &Daemon, request: &ModelForward, message: &Message, caller: &Caller) -> Result<Reply, Fault> {
    let defaults = daemon.defaults(caller.client);
    let tensors = convert::StepTensors::read(message)?;
    let precision = convert::precision(request.precision.as_deref(), &defaults)?;
    let attention = convert::attention(request.attention.as_deref(), &defaults)?;
    let (name, denoiser) = daemon.denoiser(request.model.as_deref())?;
    let (patches, loras) = daemon.loras.for_denoiser(request, &denoiser, &caller.call)?.unzip();
    let owner = format!("{}{}/", caller.client.first_blocks(), denoiser.id());
    let cache = request.cache.as_ref().map(|wish| convert::cached_sequence(&daemon.first_blocks, &owner, wish));
    let options = ForwardOptions { precision, attention: Some(attention), patches, cache, call: caller.call.clone() };
    let predicted = denoiser.forward(&tensors.input()?, &options)?;
    let reply = Reply::of(&Forwarded {
        model: convert::denoiser_info(&name, &denoiser),
        loras,
        report: convert::forward_report(&predicted.report),
    })?;
    let shape = predicted.prediction.shape();
    let notices = convert::forward_notices(&predicted.report);
    Ok(reply.noting(notices).with("out", shape, predicted.prediction.into_data()))
}

/// The mode holds for the client, not for others: nobody's results change because somebody else said so.
pub fn set_attention(client: &super::super::clients::Client, request: &SetAttentionMode) -> Result<Reply, Fault> {
    let mode = request.mode.parse()?;
    let previous = client.set_attention(mode);
    Ok(Reply::of(&AttentionModeSet { mode: mode.name().to_owned(), previous: previous.name().to_owned() })?)
}

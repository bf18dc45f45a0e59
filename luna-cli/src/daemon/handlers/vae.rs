//! Pictures to latents and back.

use super::{
    super::{Daemon, convert, reply::Reply},
    Caller,
};
use luna_core::protocol::{Fault, Message, VaeDecode, VaeDecoded, VaeEncode, VaeEncoded};

pub fn encode(daemon: &Daemon, request: &VaeEncode, message: &Message, caller: &Caller) -> Result<Reply, Fault> {
    let (name, vae) = daemon.vae(request.vae.as_deref())?;
    let options = convert::encode_options(request, &vae, &daemon.defaults(caller.client), caller.call.clone())?;
    let encoded = vae.encode(&convert::image(message)?, &options)?;
    let reply = Reply::of(&VaeEncoded {
        vae: convert::vae_info(&name, &vae),
        encoded_size: encoded.size,
        report: convert::vae_report(&encoded.report),
    })?;
    let shape = encoded.latent.shape();
    Ok(reply.noting(convert::vae_notices(&encoded.report)).with("latents", shape, encoded.latent.into_data()))
}

pub fn decode(daemon: &Daemon, request: &VaeDecode, message: &Message, caller: &Caller) -> Result<Reply, Fault> {
    let (name, vae) = daemon.vae(request.vae.as_deref())?;
    let options = convert::decode_options(request, &vae, &daemon.defaults(caller.client), caller.call.clone())?;
    let decoded = vae.decode(&convert::latent(message, request, &vae)?, &options)?;
    let reply =
        Reply::of(&VaeDecoded { vae: convert::vae_info(&name, &vae), report: convert::vae_report(&decoded.report) })?;
    let shape = decoded.image.shape();
    Ok(reply.noting(convert::vae_notices(&decoded.report)).with("pixels", shape, decoded.image.into_data()))
}

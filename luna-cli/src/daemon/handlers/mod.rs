//! What each command does, a file for each family. Enters: a request and its tensors. Leaves: a reply or a fault.

mod control;
mod diffusion;
mod lora;
mod models;
mod save;
mod text;
mod vae;
mod vision;

use super::{Daemon, clients::Client, connection::Peer, pools::PoolKind, reply::Reply};
use luna_core::{
    Call, Error, ErrorKind,
    protocol::{EventKind, Fault, Message, Request},
};
use std::sync::Arc;

/// The text that makes a worker panic when its tokens are asked for, in tests of this crate.
#[cfg(test)]
pub const PANIC: &str = "this worker panics";

/// Who asks, for work that takes a worker.
pub struct Caller<'a> {
    pub client: &'a Client,
    /// Cancellation and progress.
    pub call: Call,
    /// Sends an event of this request.
    pub tell: &'a (dyn Fn(EventKind) + Sync),
}

/// Where a request is worked on.
pub enum Where {
    /// At once, by the thread that read it.
    Here,
    /// By a worker.
    Pool(PoolKind),
}

/// Where a request is worked on, by its cost.
pub fn place(request: &Request) -> Where {
    match request {
        Request::RegisterModel(_)
        | Request::RegisterModelByPath(_)
        | Request::LoraCachePut(_)
        | Request::LoraCacheGet(_) => Where::Pool(PoolKind::Load),
        Request::ModelForward(_) => Where::Pool(PoolKind::Diffusion),
        Request::EncodeVision(_) | Request::VlmGenerate(_) => Where::Pool(PoolKind::Vision),
        Request::VaeEncode(_) | Request::VaeDecode(_) => Where::Pool(PoolKind::Vae),
        Request::ClipTokenize(_)
        | Request::ClipEncode(_)
        | Request::ClipEncodeSdxl(_)
        | Request::ClipEncodeFromTokens(_)
        | Request::ZimageEncode(_) => Where::Pool(PoolKind::Text),
        _ => Where::Here,
    }
}

/// What `negotiate_ipc` tells, whoever asks.
///
/// # Errors
/// `Internal` only.
pub fn offer(daemon: &Daemon) -> Result<Reply, Fault> {
    control::negotiate_ipc(daemon)
}

/// Does what is quick.
///
/// # Errors
/// The command's faults.
pub fn here(daemon: &Arc<Daemon>, peer: &Arc<Peer>, request: Request, message: Message) -> Result<Reply, Fault> {
    match request {
        Request::Hello(_) => {
            Err(Error::new(ErrorKind::InvalidInput, "this connection has shaken hands already").into())
        }
        Request::NegotiateIpc(_) => control::negotiate_ipc(daemon),
        Request::Ping(_) => control::ping(),
        Request::Echo(_) => control::echo(message),
        Request::GetInfo(_) => control::get_info(daemon),
        Request::GetStatus(_) => control::get_status(daemon),
        Request::ListModels(_) => models::list(daemon),
        Request::UnloadModels(request) => models::unload(daemon, &request),
        Request::SetAttentionMode(request) => diffusion::set_attention(peer.client(), &request),
        Request::LoraCacheCheck(request) => lora::check(daemon, &request),
        Request::LoraCacheStats(_) => lora::stats(daemon),
        Request::SaveImagesAsync(request) => save::submit(daemon, &request, &message),
        Request::SubmitAsync(request) => save::submit_task(daemon, &request, &message),
        Request::JobStatus(request) => save::status(daemon, &request),
        Request::JobCancel(request) => save::cancel(daemon, &request),
        Request::Cancel(request) => control::cancel(daemon, peer, &request),
        Request::Reset(_) => control::reset(daemon, peer),
        Request::Shutdown(_) => control::shutdown(daemon),
        other => Err(misplaced(&other)),
    }
}

/// Does what takes a worker.
///
/// # Errors
/// The command's faults.
pub fn work(daemon: &Daemon, request: Request, message: &Message, caller: &Caller) -> Result<Reply, Fault> {
    #[cfg(test)]
    if matches!(&request, Request::ClipTokenize(request) if request.text == PANIC) {
        panic!("{PANIC}");
    }
    match request {
        Request::RegisterModel(request) => models::register(daemon, &request, message),
        Request::RegisterModelByPath(request) => models::register_by_path(daemon, &request),
        Request::LoraCachePut(request) => lora::put(daemon, &request, message),
        Request::LoraCacheGet(request) => lora::get(daemon, &request),
        Request::VaeEncode(request) => vae::encode(daemon, &request, message, caller),
        Request::VaeDecode(request) => vae::decode(daemon, &request, message, caller),
        Request::ClipTokenize(request) => text::tokenize(daemon, &request, caller),
        Request::ClipEncode(request) => text::encode(daemon, &request, caller),
        Request::ClipEncodeSdxl(request) => text::encode_sdxl(daemon, &request, caller),
        Request::ClipEncodeFromTokens(request) => text::encode_from_tokens(daemon, &request, caller),
        Request::ZimageEncode(request) => text::zimage_encode(daemon, &request, caller),
        Request::ModelForward(request) => diffusion::forward(daemon, &request, message, caller),
        Request::EncodeVision(request) => vision::encode(daemon, &request, message, caller),
        Request::VlmGenerate(request) => vision::generate(daemon, &request, message, caller),
        other => Err(misplaced(&other)),
    }
}

fn misplaced(request: &Request) -> Fault {
    Error::new(ErrorKind::Internal, format!("`{}` went astray in the daemon", request.name())).into()
}

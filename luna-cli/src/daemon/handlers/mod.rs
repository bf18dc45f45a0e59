//! What each command does, a file for each family. Enters: a request and its tensors. Leaves: a reply or a fault.

mod control;
mod models;
mod text;
mod vae;

use super::{Daemon, connection::Peer, pools::PoolKind, reply::Reply};
use luna_core::{
    Call, Error, ErrorKind,
    protocol::{Fault, Message, Request},
};
use std::sync::Arc;

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
        Request::RegisterModel(_) | Request::RegisterModelByPath(_) => Where::Pool(PoolKind::Load),
        Request::VaeEncode(_) | Request::VaeDecode(_) => Where::Pool(PoolKind::Vae),
        Request::ClipTokenize(_)
        | Request::ClipEncode(_)
        | Request::ClipEncodeSdxl(_)
        | Request::ClipEncodeFromTokens(_)
        | Request::ZimageEncode(_) => Where::Pool(PoolKind::Text),
        _ => Where::Here,
    }
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
        Request::Ping(_) => control::ping(),
        Request::Echo(_) => control::echo(message),
        Request::GetInfo(_) => control::get_info(daemon),
        Request::GetStatus(_) => control::get_status(daemon),
        Request::ListModels(_) => models::list(daemon),
        Request::UnloadModels(request) => models::unload(daemon, &request),
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
pub fn work(daemon: &Daemon, request: Request, message: Message, call: Call) -> Result<Reply, Fault> {
    match request {
        Request::RegisterModel(request) => models::register(daemon, &request, message),
        Request::RegisterModelByPath(request) => models::register_by_path(daemon, &request),
        Request::VaeEncode(request) => vae::encode(daemon, &request, &message, call),
        Request::VaeDecode(request) => vae::decode(daemon, &request, &message, call),
        Request::ClipTokenize(request) => text::tokenize(daemon, &request, call),
        Request::ClipEncode(request) => text::encode(daemon, &request, call),
        Request::ClipEncodeSdxl(request) => text::encode_sdxl(daemon, &request, call),
        Request::ClipEncodeFromTokens(request) => text::encode_from_tokens(daemon, &request, call),
        Request::ZimageEncode(request) => text::zimage_encode(daemon, &request, call),
        other => Err(misplaced(&other)),
    }
}

fn misplaced(request: &Request) -> Fault {
    Error::new(ErrorKind::Internal, format!("`{}` went astray in the daemon", request.name())).into()
}

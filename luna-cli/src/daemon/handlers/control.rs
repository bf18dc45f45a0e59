//! Commands about the daemon itself. All are quick.

use super::super::{
    Daemon,
    connection::Peer,
    pools::PoolKind,
    reply::{Reply, Tensors},
};
use luna_core::{
    Error, ErrorKind,
    protocol::{
        Cancel, Cancelled, Echoed, Empty, Fault, Info, IpcOffer, Message, Pong, PoolInfo, Reason, Request, ResetDone,
        VERSION,
    },
};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

pub fn negotiate_ipc(daemon: &Daemon) -> Result<Reply, Fault> {
    Ok(Reply::of(&IpcOffer { unix: daemon.near.get().cloned() })?)
}

pub fn ping() -> Result<Reply, Fault> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    Ok(Reply::of(&Pong { pong: true, time })?)
}

pub fn echo(message: Message) -> Result<Reply, Fault> {
    let reply = Reply::of(&Echoed { tensors: message.tensors().len() })?;
    Ok(Reply { tensors: Tensors::Same(Box::new(message)), ..reply })
}

pub fn get_info(daemon: &Daemon) -> Result<Reply, Fault> {
    let settings = &daemon.settings;
    let pool = |kind: PoolKind| {
        let bounds = settings.pools.get(kind.name());
        let (min_workers, max_workers) = (*bounds.workers.start(), *bounds.workers.end());
        (kind.name().to_owned(), PoolInfo { min_workers, max_workers, queue: bounds.queue })
    };
    Ok(Reply::of(&Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: VERSION,
        pid: std::process::id(),
        device: daemon.runtime.device().to_string(),
        precision: settings.compute.precision.to_string(),
        threads: daemon.runtime.threads(),
        commands: Request::NAMES.iter().map(|name| (*name).to_owned()).collect(),
        pools: PoolKind::ALL.into_iter().map(pool).collect(),
        frame_bytes: settings.frame_bytes,
        shutdown_allowed: settings.allow_shutdown,
        unload_allowed: settings.allow_unload,
    })?)
}

pub fn get_status(daemon: &Daemon) -> Result<Reply, Fault> {
    Ok(Reply::of(&daemon.snapshot())?)
}

pub fn cancel(daemon: &Daemon, peer: &Peer, request: &Cancel) -> Result<Reply, Fault> {
    let job = peer.job(request.request);
    if let Some(job) = &job {
        job.cancel(daemon, None);
    }
    Ok(Reply::of(&Cancelled { found: job.is_some() })?)
}

pub fn reset(daemon: &Daemon, peer: &Arc<Peer>) -> Result<Reply, Fault> {
    let mut done = ResetDone { requests: 0, connections: 0 };
    for other in daemon.clients.peers().into_iter().filter(|other| Arc::ptr_eq(other.client(), peer.client())) {
        for job in other.jobs() {
            job.cancel(daemon, None);
            done.requests += 1;
        }
        if other.number != peer.number {
            other.outbox.end();
            done.connections += 1;
        }
    }
    Ok(Reply::of(&done)?)
}

pub fn shutdown(daemon: &Daemon) -> Result<Reply, Fault> {
    if !daemon.settings.allow_shutdown {
        return Err(denied("shutdown"));
    }
    daemon.drain();
    Ok(Reply::of(&Empty {})?)
}

/// The daemon's settings forbid a command to clients.
pub fn denied(command: &str) -> Fault {
    let error = Error::new(ErrorKind::InvalidInput, format!("the daemon's settings forbid `{command}` to clients"));
    Fault::because(Reason::Denied, error)
}

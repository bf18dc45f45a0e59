//! Requests and replies about the daemon itself.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The first request of every connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// The version of the protocol that the client speaks.
    pub protocol: u32,
    /// Who the client is. Connections with one name count as one client, for fairness and for `reset`; a connection
    /// without a name is a client of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The daemon's token, where it asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// `negotiate_ipc`: whether there is a nearer way for clients on the same machine. It may stand before `hello`, and
/// asks for no token: the nearer way begins with a handshake of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NegotiateIpc {}

/// The reply to `negotiate_ipc`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IpcOffer {
    /// The name of the daemon's Unix socket in Linux's abstract namespace, without the zero byte before it; `None` where
    /// the client had better stay where it is.
    pub unix: Option<String>,
}

/// The reply to `hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version of the protocol that will be spoken.
    pub protocol: u32,
    /// Name and version of the daemon.
    pub server: String,
    /// Bytes of the largest body that the daemon takes.
    pub frame_bytes: u64,
}

/// `ping`: whether the daemon is there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ping {}

/// The reply to `ping`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    /// Always true.
    pub pong: bool,
    /// The daemon's clock, in seconds since 1970.
    pub time: f64,
}

/// `echo`: the tensors come back as they are, to measure the way there and back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Echo {}

/// The reply to `echo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echoed {
    /// How many tensors came.
    pub tensors: usize,
}

/// `get_info`: what does not change while the daemon runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetInfo {}

/// The reply to `get_info`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// Luna's version.
    pub version: String,
    /// The protocol's version.
    pub protocol: u32,
    /// The daemon's process.
    pub pid: u32,
    /// Where models live.
    pub device: String,
    /// Precision of activations where a request names none.
    pub precision: String,
    /// CPU threads that all workers share.
    pub threads: usize,
    /// Every command that it knows.
    pub commands: Vec<String>,
    /// Its pools by name.
    pub pools: BTreeMap<String, PoolInfo>,
    /// Bytes of the largest body that it takes.
    pub frame_bytes: u64,
    /// Whether clients may end it.
    pub shutdown_allowed: bool,
    /// Whether clients may unload models.
    pub unload_allowed: bool,
}

/// The bounds of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// Fewest workers.
    pub min_workers: usize,
    /// Most workers.
    pub max_workers: usize,
    /// Requests that may wait or run; past them a request is refused as `busy`.
    pub queue: u64,
}

/// `get_status`: what changes. Its reply is the daemon's snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetStatus {}

/// `cancel`: a request of this connection that waits or runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// Its id.
    pub request: u64,
}

/// The reply to `cancel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Whether there was such a request. It is answered with `cancelled`, unless it was done first.
    pub found: bool,
}

/// `reset`: ends what this client has waiting and running, on all its connections, and closes its other connections.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reset {}

/// The reply to `reset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetDone {
    /// Requests that were ended.
    pub requests: usize,
    /// Other connections that were closed.
    pub connections: usize,
}

/// `shutdown`: the daemon finishes what it has accepted, within bounded time, and ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {}

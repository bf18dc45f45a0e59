//! The door for clients on this machine: a Unix socket in Linux's abstract namespace, which leaves no file behind. Other
//! systems have none.

use luna_core::ipc::Stream;
use std::io;

/// Waits for connections, under a name that no other daemon has. It is no secret: who connects shakes hands as over TCP.
#[cfg(target_os = "linux")]
pub struct NearDoor {
    socket: std::os::unix::net::UnixListener,
    name: String,
}

#[cfg(target_os = "linux")]
impl NearDoor {
    /// Listens.
    pub fn open() -> io::Result<Self> {
        use std::{
            hash::{BuildHasher, RandomState},
            os::{linux::net::SocketAddrExt, unix::net::SocketAddr},
        };
        // The keys of a map's hasher are random.
        let random = || RandomState::new().hash_one(std::process::id());
        let name = format!("luna-{:016x}{:016x}", random(), random());
        let socket = std::os::unix::net::UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        Ok(Self { socket, name })
    }

    /// What clients connect to.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for the next connection.
    pub fn accept(&self) -> io::Result<Stream> {
        Ok(self.socket.accept()?.0.into())
    }
}

/// There is none.
#[cfg(not(target_os = "linux"))]
pub enum NearDoor {}

#[cfg(not(target_os = "linux"))]
impl NearDoor {
    pub fn open() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn name(&self) -> &str {
        match *self {}
    }

    pub fn accept(&self) -> io::Result<Stream> {
        match *self {}
    }
}

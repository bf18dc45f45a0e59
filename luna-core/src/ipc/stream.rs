//! A connection of either kind. Enters: sockets. Leaves: bytes, and descriptors where the kind can carry them.

use super::system::{self, Descriptor, Local};
use std::{
    collections::VecDeque,
    io::{self, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

/// A connection: by TCP, or between processes of one machine, where descriptors can be sent along.
#[derive(Debug)]
pub struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Local(Local),
}

/// Does the same with either kind.
macro_rules! either {
    ($stream:expr, $inner:ident => $work:expr) => {
        match &$stream.0 {
            Kind::Tcp($inner) => $work,
            Kind::Local($inner) => $work,
        }
    };
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self(Kind::Tcp(stream))
    }
}

impl From<Local> for Stream {
    fn from(stream: Local) -> Self {
        Self(Kind::Local(stream))
    }
}

impl Stream {
    /// Connects to a listener of this name in the abstract namespace of this machine's Unix sockets.
    ///
    /// # Errors
    /// Where there is none, or the system has no such thing.
    pub fn connect(name: &str) -> io::Result<Self> {
        system::connect(name).map(Self::from)
    }

    /// Whether both sides are on this machine and descriptors can be sent.
    pub fn is_local(&self) -> bool {
        matches!(self.0, Kind::Local(_))
    }

    /// The TCP socket, if it is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.0 {
            Kind::Tcp(stream) => Some(stream),
            Kind::Local(_) => None,
        }
    }

    /// The same connection once more.
    ///
    /// # Errors
    /// Those of the system.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match &self.0 {
            Kind::Tcp(stream) => stream.try_clone()?.into(),
            Kind::Local(stream) => stream.try_clone()?.into(),
        })
    }

    /// Ends both directions.
    ///
    /// # Errors
    /// Those of the system, such as for a connection that has ended.
    pub fn shutdown(&self) -> io::Result<()> {
        either!(self, stream => stream.shutdown(Shutdown::Both))
    }

    /// How long reading and writing wait.
    ///
    /// # Errors
    /// Those of the system.
    pub fn set_timeouts(&self, read: Option<Duration>, write: Option<Duration>) -> io::Result<()> {
        either!(self, stream => {
            stream.set_read_timeout(read)?;
            stream.set_write_timeout(write)
        })
    }

    /// Reads, and keeps the descriptors that come along. If it may not wait and nothing has come, it says
    /// [`io::ErrorKind::WouldBlock`], where the system can do that.
    pub(super) fn receive(
        &self,
        buffer: &mut [u8],
        descriptors: &mut VecDeque<Descriptor>,
        waits: bool,
    ) -> io::Result<usize> {
        match &self.0 {
            Kind::Tcp(stream) => system::receive(stream, buffer, waits),
            Kind::Local(stream) => stream.receive(buffer, descriptors, waits),
        }
    }

    /// Writes all, and sends a descriptor along.
    pub(super) fn send(&self, bytes: &[u8], descriptor: Option<&Descriptor>) -> io::Result<()> {
        match &self.0 {
            Kind::Tcp(stream) => (&mut &*stream).write_all(bytes),
            Kind::Local(stream) => stream.send(bytes, descriptor),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, stream => (&mut &*stream).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

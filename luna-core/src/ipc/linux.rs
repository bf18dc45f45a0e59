//! Linux: Unix sockets in the abstract namespace, which leave no file behind, and memory files (`memfd`), which have no
//! name at all.

use crate::{Error, ErrorKind, Result, checkpoint::SharedMap, limits::check_at_most};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, memfd_create},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recv, recvmsg, sendmsg,
    },
};
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    net::{Shutdown, TcpStream},
    ops::Range,
    os::{
        fd::{AsFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
    sync::atomic::AtomicU32,
    time::Duration,
};

/// Whether this system can share memory between processes.
pub const AVAILABLE: bool = true;

/// Descriptors that one call to the system takes in. More than one come only from those who want no good.
const AT_ONCE: usize = 4;

pub(super) type Descriptor = OwnedFd;

/// A connection within this machine.
#[derive(Debug)]
pub struct Local(UnixStream);

/// One that a listener has accepted.
impl From<UnixStream> for super::Stream {
    fn from(stream: UnixStream) -> Self {
        Local(stream).into()
    }
}

pub(super) fn connect(name: &str) -> io::Result<Local> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?).map(Local)
}

/// Reads from a TCP socket.
pub(super) fn receive(stream: &TcpStream, buffer: &mut [u8], waits: bool) -> io::Result<usize> {
    Ok(recv(stream, buffer, flags(waits))?.0)
}

fn flags(waits: bool) -> RecvFlags {
    if waits { RecvFlags::empty() } else { RecvFlags::DONTWAIT }
}

impl Local {
    #[cfg(test)]
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        UnixStream::pair().map(|(one, other)| (Self(one), Self(other)))
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    pub(super) fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(time)
    }

    pub(super) fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        self.0.set_write_timeout(time)
    }

    pub(super) fn receive(
        &self,
        buffer: &mut [u8],
        descriptors: &mut VecDeque<Descriptor>,
        waits: bool,
    ) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got =
            recvmsg(&self.0, &mut [IoSliceMut::new(buffer)], &mut control, flags(waits) | RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                descriptors.extend(came);
            }
        }
        Ok(got.bytes)
    }

    pub(super) fn send(&self, bytes: &[u8], descriptor: Option<&Descriptor>) -> io::Result<()> {
        let Some(descriptor) = descriptor else { return (&self.0).write_all(bytes) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let rights = [descriptor.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&rights)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let sent = loop {
            match sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        // The descriptor went with the first byte.
        (&self.0).write_all(&bytes[sent..])
    }
}

impl Write for &Local {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A segment of memory that two processes share.
pub(super) struct Memory {
    map: SharedMap,
    descriptor: OwnedFd,
}

impl Memory {
    /// Of so many bytes, all zero. It can neither grow nor shrink.
    pub(super) fn create(bytes: usize) -> Result<Self> {
        let failed = |error: io::Error| Error::io("make shared memory", error);
        let made = memfd_create("luna", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
        let file = File::from(made.map_err(|error| failed(error.into()))?);
        file.set_len(bytes as u64).map_err(failed)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&file, seals).map_err(|error| failed(error.into()))?;
        Ok(Self { map: SharedMap::new(&file)?, descriptor: file.into() })
    }

    /// What another process has made. Its size meets `most` before it is mapped, and cannot shrink after.
    pub(super) fn open(descriptor: OwnedFd, most: usize) -> Result<Self> {
        let look = || fstat(&descriptor).map_err(|error| Error::io("look at shared memory", error.into()));
        check_at_most("bytes of shared memory", look()?.st_size as u64, most as u64)?;
        let file = File::from(descriptor);
        let map = SharedMap::new(&file)?;
        // It may have grown between the two looks.
        check_at_most("bytes of shared memory", map.len() as u64, most as u64)?;
        if map.len() <= super::HEAD {
            return Err(Error::new(ErrorKind::InvalidInput, "the shared memory is too small"));
        }
        Ok(Self { map, descriptor: file.into() })
    }

    pub(super) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn read(&self, part: Range<usize>) -> &[u8] {
        self.map.read(part)
    }

    pub(super) fn write(&self, at: usize, bytes: &[u8]) {
        self.map.write(at, bytes);
    }

    pub(super) fn word(&self) -> &AtomicU32 {
        self.map.word()
    }
}

//! Systems without shared memory of this kind: everything goes by TCP. Types of which there is no value.

use crate::{Error, ErrorKind, Result};
use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    ops::Range,
    sync::atomic::AtomicU32,
    time::Duration,
};

/// Whether this system can share memory between processes.
pub const AVAILABLE: bool = false;

#[derive(Debug)]
pub(super) enum Descriptor {}

/// A connection within this machine.
#[derive(Debug)]
pub enum Local {}

pub(super) fn connect(_name: &str) -> io::Result<Local> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Reads from a TCP socket. Not all of these systems can do so without waiting, so that it always waits.
pub(super) fn receive(mut stream: &TcpStream, buffer: &mut [u8], _waits: bool) -> io::Result<usize> {
    stream.read(buffer)
}

impl Local {
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        match *self {}
    }

    pub(super) fn shutdown(&self, _how: Shutdown) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn set_read_timeout(&self, _time: Option<Duration>) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn set_write_timeout(&self, _time: Option<Duration>) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn receive(
        &self,
        _buffer: &mut [u8],
        _descriptors: &mut VecDeque<Descriptor>,
        _waits: bool,
    ) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn send(&self, _bytes: &[u8], _descriptor: Option<&Descriptor>) -> io::Result<()> {
        match *self {}
    }
}

impl Write for &Local {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        match **self {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match **self {}
    }
}

pub(super) enum Memory {}

impl Memory {
    pub(super) fn create(_bytes: usize) -> Result<Self> {
        Err(Error::new(ErrorKind::Unsupported, "this system shares no memory between processes"))
    }

    pub(super) fn open(descriptor: Descriptor, _most: usize) -> Result<Self> {
        match descriptor {}
    }

    pub(super) fn descriptor(&self) -> &Descriptor {
        match *self {}
    }

    pub(super) fn len(&self) -> usize {
        match *self {}
    }

    pub(super) fn read(&self, _part: Range<usize>) -> &[u8] {
        match *self {}
    }

    pub(super) fn write(&self, _at: usize, _bytes: &[u8]) {
        match *self {}
    }

    pub(super) fn word(&self) -> &AtomicU32 {
        match *self {}
    }
}

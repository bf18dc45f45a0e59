//! Frames: a 4-byte big-endian length and a body. Enters: a stream. Leaves: bodies. A length meets its limit before
//! memory is allocated, and memory grows only as bytes arrive.

use super::{
    Role, SharedPlace, TensorRef,
    body::{head, shared_head, wrong},
};
use crate::{Error, ErrorKind, Result, limits::check_at_most};
use std::io::{self, Read, Write};

/// The most that is allocated before the first byte of a body has come.
const FIRST_ALLOCATION: usize = 16 << 20;

/// Bytes of a body that are zeroed at a time, to be read into.
const ZEROED: usize = 256 << 10;

/// Below this a whole frame is written in one piece.
const ONE_WRITE: usize = 64 << 10;

/// Upper bounds for a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrameLimits {
    /// Bytes of a body; 4 GiB at most, as its length has 4 bytes.
    pub frame_bytes: u64,
    /// Bytes of a body's header.
    pub header_bytes: u64,
    /// Tensors in a body.
    pub tensors: usize,
    /// Dimensions of a tensor.
    pub tensor_rank: usize,
}

impl Default for FrameLimits {
    /// 512 MiB a frame, 8 MiB a header, 20 000 tensors of 8 dimensions.
    fn default() -> Self {
        Self { frame_bytes: 512 << 20, header_bytes: 8 << 20, tensors: 20_000, tensor_rank: 8 }
    }
}

impl FrameLimits {
    /// The defaults with another bound for a whole body.
    pub fn of_bytes(frame_bytes: u64) -> Self {
        Self { frame_bytes: frame_bytes.min(u64::from(u32::MAX)), ..Self::default() }
    }
}

/// Reads the body of the next frame; `None` where the stream ends between two frames.
///
/// # Errors
/// As [`read_length`] and [`read_rest`].
pub fn read_body(reader: &mut impl Read, limits: &FrameLimits) -> Result<Option<Vec<u8>>> {
    read_length(reader, limits)?.map(|length| read_rest(reader, length)).transpose()
}

/// Reads the length of the next body; `None` where the stream ends between two frames.
///
/// # Errors
/// `LimitExceeded` for a length above the limit; `Io` for a stream that ends within the length or fails.
pub fn read_length(reader: &mut impl Read, limits: &FrameLimits) -> Result<Option<usize>> {
    let mut length = [0; 4];
    let mut got = 0;
    while got < length.len() {
        match reader.read(&mut length[got..]) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let length = u32::from_be_bytes(length);
    check_at_most("bytes in a frame", length.into(), limits.frame_bytes)?;
    usize::try_from(length).map(Some).map_err(|_| wrong("a frame is too large for this machine"))
}

/// Reads a body of this length, which has met its limit.
///
/// # Errors
/// `Io` for a stream that ends too soon or fails, `OutOfMemory`.
pub fn read_rest(reader: &mut impl Read, length: usize) -> Result<Vec<u8>> {
    let (mut body, mut got) = (Vec::new(), 0);
    while got < length {
        // Not all at once: what has just been zeroed is still in the caches when it is read into.
        if body.len() - got < ZEROED / 2 && body.len() < length {
            grow(&mut body, length)?;
        }
        match reader.read(&mut body[got..]) {
            Ok(0) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(body)
}

/// Makes a body some zeros longer, in memory that grows with what has come.
fn grow(body: &mut Vec<u8>, length: usize) -> Result<()> {
    let wanted = length.min(body.len() + ZEROED);
    if wanted > body.capacity() {
        let step = (length - body.len()).min(body.len().max(FIRST_ALLOCATION));
        body.try_reserve_exact(step)
            .map_err(|_| Error::new(ErrorKind::OutOfMemory, format!("no memory for a frame of {length} bytes")))?;
    }
    body.resize(wanted, 0);
    Ok(())
}

/// Writes a frame.
///
/// # Errors
/// `LimitExceeded` for a body above `most` bytes, with nothing written; `Io`.
///
/// # Panics
/// If the bytes of a tensor are not as many as its shape says.
pub fn write_frame(writer: &mut impl Write, role: Role, json: &str, tensors: &[TensorRef], most: u64) -> Result<()> {
    let head = head(role, json, tensors);
    let data: usize = tensors.iter().map(|tensor| tensor.bytes.len()).sum();
    let length = head.len() as u64 + data as u64;
    check_at_most("bytes in a frame", length, most.min(u64::from(u32::MAX)))?;
    let mut start = (length as u32).to_be_bytes().to_vec();
    start.extend_from_slice(&head);
    let mut write = || {
        if data <= ONE_WRITE {
            tensors.iter().for_each(|tensor| start.extend_from_slice(tensor.bytes));
            writer.write_all(&start)?;
        } else {
            writer.write_all(&start)?;
            tensors.iter().try_for_each(|tensor| writer.write_all(tensor.bytes))?;
        }
        writer.flush()
    };
    write().map_err(failed)
}

/// A frame whose tensors' bytes lie in shared memory.
///
/// # Panics
/// If the bytes of a tensor are not as many as its shape says.
pub fn shared_frame(role: Role, json: &str, tensors: &[TensorRef], place: &SharedPlace) -> Vec<u8> {
    let head = shared_head(role, json, tensors, place);
    let mut frame = (head.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&head);
    frame
}

/// What failed on a stream in mid-frame.
pub(crate) fn failed(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::new(ErrorKind::Io, "the connection ended within a frame").source(error),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            Error::new(ErrorKind::Io, "the other side took too long for a frame").source(error)
        }
        _ => Error::io("use the connection", error),
    }
}

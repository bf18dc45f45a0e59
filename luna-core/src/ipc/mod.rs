//! Frames between processes. Enters: streams, requests and replies with tensors. Leaves: the same on the other side. On
//! one machine, where the system can, the bytes of large tensors lie in memory that both sides have mapped, and the
//! stream carries the header alone. It knows no command.
//!
//! A segment of shared memory belongs to the side that made it, which writes tensors into it when its first word is
//! `FREE`; the other side sets that word when it needs the tensors no more. Segments are anonymous: when both sides
//! have closed them, or died, nothing of them is left.

mod eager;
mod receiver;
mod sender;
mod stream;

#[cfg(not(target_os = "linux"))]
#[path = "elsewhere.rs"]
mod system;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod system;

pub use receiver::Receiver;
pub use sender::Sender;
pub use stream::Stream;
pub use system::AVAILABLE;

/// Where data begins in a segment: before it stands the word.
const HEAD: usize = 64;
/// The segment's word while its maker may write.
const FREE: u32 = 0;
/// The segment's word while the other side reads.
const TAKEN: u32 = 1;
/// Fewer bytes of tensors than these go with the stream: it is as fast.
const LEAST: usize = 64 << 10;
/// The most bytes of segments of one side of a connection; what is beyond goes with the stream.
const MOST: usize = 256 << 20;
/// The most segments of one side of a connection.
const SEGMENTS: usize = 64;

#[cfg(all(test, target_os = "linux"))]
mod tests;

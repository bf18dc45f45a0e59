//! The wire between a daemon and its clients. Enters: requests, replies and events as values, or bytes from a socket.
//! Leaves: bytes, or checked values. It knows no tensor library, no model, no socket and no other room's types.
//!
//! A frame is a length and a body ([`read_body`], [`write_frame`]); the body is a safetensors file whose `__metadata__`
//! carries JSON ([`Message`]); the JSON is a [`Request`], a reply ([`ReplyHead`] and a command's own fields, or a
//! [`Fault`]) or an [`Event`]. PROTOCOL.md tells it in full.
// A fault is made once a request, and only where something went wrong: a box for it would be noise.
#![allow(clippy::result_large_err)]

mod body;
mod command;
mod control;
mod fault;
mod frame;
mod head;
mod message;
mod models;
mod text;
mod vae;

pub use body::{Dtype, Role, TensorRef};
pub use command::{Command, Empty, Request};
pub use control::{Cancel, Cancelled, Echo, Echoed, Hello, Info, Pong, PoolInfo, Reset, ResetDone, Shutdown, Welcome};
pub use control::{GetInfo, GetStatus, Ping};
pub use fault::{Fault, Reason};
pub use frame::{FrameLimits, read_body, read_length, read_rest, write_frame};
pub use head::{Event, EventKind, Notice, ReplyHead, RequestHead};
pub use message::{Message, Tensor};
pub use models::{ListModels, ModelInfo, Models, RegisterModel, RegisterModelByPath, UnloadModels, Unloaded};
pub use text::{
    ClipEncode, ClipEncodeFromTokens, ClipEncodeSdxl, ClipTokenize, TextEncoded, TextWish, TokenPlace, Tokens,
    ZimageEncode,
};
pub use vae::{TilingInfo, VaeDecode, VaeDecoded, VaeEncode, VaeEncoded, VaeInfo, VaeReport};

/// The version of this protocol. A daemon answers only clients that speak it.
pub const VERSION: u32 = 1;

/// The TCP port that clients try if they are told no other.
pub const DEFAULT_PORT: u16 = 19283;

#[cfg(test)]
mod tests;

//! The wire between a daemon and its clients. Enters: requests, replies and events as values, or bytes from a socket.
//! Leaves: bytes, or checked values. It knows no tensor library, no model and no socket; of other rooms it knows plain
//! data only, such as a LoRA's coverage.
//!
//! A frame is a length and a body ([`read_body`], [`write_frame`]); the body is a safetensors file whose `__metadata__`
//! carries JSON ([`Message`]); the JSON is a [`Request`], a reply ([`ReplyHead`] and a command's own fields, or a
//! [`Fault`]) or an [`Event`]. PROTOCOL.md tells it in full.
// A fault is made once a request, and only where something went wrong: a box for it would be noise.
#![allow(clippy::result_large_err)]

mod body;
mod command;
mod control;
mod diffusion;
mod fault;
mod frame;
mod head;
mod lora;
mod message;
mod models;
mod save;
mod text;
mod vae;
mod vision;

pub use body::{Dtype, Role, SharedPlace, TensorRef};
pub use command::{Command, Empty, Request};
pub use control::{Cancel, Cancelled, Echo, Echoed, Hello, Info, Pong, PoolInfo, Reset, ResetDone, Shutdown, Welcome};
pub use control::{GetInfo, GetStatus, IpcOffer, NegotiateIpc, Ping};
pub use diffusion::{
    AttentionModeSet, CacheOutcome, DenoiserInfo, ForwardCache, ForwardReport, Forwarded, ModelForward,
    SetAttentionMode,
};
pub use fault::{Fault, Reason};
pub(crate) use frame::failed;
pub use frame::{FrameLimits, read_body, read_length, read_rest, shared_frame, write_frame};
pub use head::{Event, EventKind, Notice, ReplyHead, RequestHead};
pub use lora::{
    LoraCacheCheck, LoraCacheGet, LoraCachePut, LoraCacheStats, LoraChecked, LoraInfo, LoraOutcome, LoraStats, LoraUse,
    TextLoraOutcome,
};
pub use message::{Message, SharedBytes, Tensor};
pub use models::{ListModels, ModelInfo, Models, RegisterModel, RegisterModelByPath, UnloadModels, Unloaded};
pub use save::{
    JobAccepted, JobCancel, JobState, JobStatus, PictureState, SaveImageWish, SaveImagesAsync, SaveValues, SavedFile,
    SubmitAsync, TaskName,
};
pub use text::{
    ClipEncode, ClipEncodeFromTokens, ClipEncodeSdxl, ClipTokenize, PromptReport, TextEncoded, TextEncoderInfo,
    TextProblem, TextWish, TokenPlace, Tokens, ZimageEncode,
};
pub use vae::{TilingInfo, VaeDecode, VaeDecoded, VaeEncode, VaeEncoded, VaeInfo, VaeReport};
pub use vision::{
    ChatContent, ChatTurn, EncodeVision, SamplingWish, VisionEncoded, VisionModelInfo, VlmGenerate, VlmGenerated,
    VlmModelInfo,
};

/// The version of this protocol. A daemon answers only clients that speak it.
pub const VERSION: u32 = 1;

/// The TCP port that clients try if they are told no other.
pub const DEFAULT_PORT: u16 = 19283;

#[cfg(test)]
mod tests;

//! The C ABI of Luna. Enters: handles, numbers and pointers of a caller in any language. Leaves: handles, numbers and
//! pointers to what Luna owns. It computes nothing itself: `luna-core` does.
//!
//! The contract stands on the first page of `include/luna.h`, which is generated from this crate. Pointers are followed
//! in `handle.rs` and nowhere else.
// The names are those of the header.
#![allow(non_camel_case_types)]
// What pointers must be is told once, at the top of the header, not at each function.
#![allow(clippy::missing_safety_doc)]

mod call;
mod coverage;
mod daemon;
mod dlpack;
mod embedded;
mod error;
mod handle;
mod inspect;
mod list;
mod lora;
mod model;
mod options;
mod picture;
mod sampling;
mod save;
mod save_status;
mod session;
mod status;
mod table;
mod tensor;
mod text;
mod tokens;
mod types;
mod vae;
mod version;
mod view;
mod vision;
mod vlm;

pub use call::*;
pub use coverage::*;
pub use dlpack::*;
pub use error::*;
pub use inspect::*;
pub use list::*;
pub use lora::*;
pub use model::*;
pub use options::*;
pub use picture::*;
pub use sampling::*;
pub use save::*;
pub use save_status::*;
pub use session::*;
pub use status::*;
pub use tensor::*;
pub use text::*;
pub use tokens::*;
pub use types::*;
pub use vae::*;
pub use version::*;
pub use view::*;
pub use vision::*;
pub use vlm::*;

//! The handle types of the header: numbers, of which only the table knows what they stand for.

use crate::table::Key;

/// One copy of each model, or a connection to the daemon that has them. Given by `luna_open`, freed by `luna_close`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct luna_session {
    /// Not for callers.
    pub table: u64,
    /// Not for callers.
    pub slot: u32,
    /// Not for callers.
    pub generation: u32,
}

/// What a caller holds on to while calls run: cancellation, progress and log. Given by `luna_call_new`, freed by
/// `luna_call_free`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct luna_call {
    /// Not for callers.
    pub table: u64,
    /// Not for callers.
    pub slot: u32,
    /// Not for callers.
    pub generation: u32,
}

/// A VAE: pictures to latents and back. Given by `luna_vae_load`, freed by `luna_vae_free`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct luna_vae {
    /// Not for callers.
    pub table: u64,
    /// Not for callers.
    pub slot: u32,
    /// Not for callers.
    pub generation: u32,
}

/// Text encoders that work together for one diffusion model. Given by `luna_text_load`, freed by `luna_text_free`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct luna_text {
    /// Not for callers.
    pub table: u64,
    /// Not for callers.
    pub slot: u32,
    /// Not for callers.
    pub generation: u32,
}

/// A denoiser: one step of a sampler at a time. Given by `luna_model_load`, freed by `luna_model_free`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct luna_model {
    /// Not for callers.
    pub table: u64,
    /// Not for callers.
    pub slot: u32,
    /// Not for callers.
    pub generation: u32,
}

/// A stack of LoRAs with their strengths. Given by `luna_loras_new`, freed by `luna_loras_free`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct luna_loras {
    /// Not for callers.
    pub table: u64,
    /// Not for callers.
    pub slot: u32,
    /// Not for callers.
    pub generation: u32,
}

/// A vision encoder: pictures to embeddings. Given by `luna_vision_load`, freed by `luna_vision_free`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct luna_vision {
    /// Not for callers.
    pub table: u64,
    /// Not for callers.
    pub slot: u32,
    /// Not for callers.
    pub generation: u32,
}

/// A vision-language model: pictures and a prompt to text. Given by `luna_vlm_load`, freed by `luna_vlm_free`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct luna_vlm {
    /// Not for callers.
    pub table: u64,
    /// Not for callers.
    pub slot: u32,
    /// Not for callers.
    pub generation: u32,
}

/// Numbers that Luna owns: the result of a call. Freed by `luna_tensor_free`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct luna_tensor {
    /// Not for callers.
    pub table: u64,
    /// Not for callers.
    pub slot: u32,
    /// Not for callers.
    pub generation: u32,
}

/// Several of the same that Luna tells of, with the texts in them. Freed by `luna_list_free`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct luna_list {
    /// Not for callers.
    pub table: u64,
    /// Not for callers.
    pub slot: u32,
    /// Not for callers.
    pub generation: u32,
}

/// The handles of this file, each in one place: numbers that callers pass and get, made of a key and turned into one.
macro_rules! handles {
    ($($name:ident),* $(,)?) => {$(
        crate::handle::plain!($name);

        impl From<Key> for $name {
            fn from(Key { table, slot, generation }: Key) -> Self {
                Self { table, slot, generation }
            }
        }

        impl From<$name> for Key {
            fn from($name { table, slot, generation }: $name) -> Self {
                Self { table, slot, generation }
            }
        }

        impl $name {
            /// The handle that stands for none.
            pub const NONE: Self = Self { table: 0, slot: 0, generation: 0 };
        }
    )*};
}

handles!(
    luna_session,
    luna_call,
    luna_vae,
    luna_text,
    luna_model,
    luna_loras,
    luna_vision,
    luna_vlm,
    luna_tensor,
    luna_list,
);

//! What the tests share: where the workspace lies, files made on the spot, models whose weights follow from their names.
//! Enters: nothing from outside the repository. Leaves: paths, bytes and expectations for tests.

pub mod conformance;
pub mod diffusion;
pub mod fuzz;
pub mod gguf_file;
pub mod hostile;
pub mod lora;
pub mod markdown;
pub mod model_case;
pub mod object_server;
pub mod random;
pub mod safetensors_file;
pub mod text;
pub mod vae;
pub mod vlm_gguf;
pub mod workspace;

/// The Rust blocks of the README are compiled as doctests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

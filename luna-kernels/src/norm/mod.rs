//! Norms: group norm per channel, layer and root-mean-square norm per row.
//!
//! Enters: channels-last activations. Leaves: normalised activations, or what a convolution needs to normalise as it reads.

pub(crate) mod group;
pub(crate) mod rows;

pub use group::{ChannelAffine, GroupMoments, GroupNorm, apply_affine, group_norm_affine};
pub use rows::{RowNorm, layer_norm, rms_norm};

/// Elements of one task.
const CHUNK: usize = 1 << 15;

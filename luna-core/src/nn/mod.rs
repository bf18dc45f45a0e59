//! Building blocks of models, each once. Enters: tensors `[batch, …, channels]` (channels last) and a [`Pass`].
//! Leaves: tensors. Layers are frozen: they take `&self`, and what a request brings travels in its pass.
//!
//! On the CPU a layer calls `luna-kernels`; on other devices it composes tensor-library operations ([`portable`]).

mod attention;
mod bands;
mod block_tail;
mod buffers;
mod chain;
mod conv;
mod cpu;
mod decoder_block;
mod doubled_block;
mod embedding;
mod encoder_block;
mod frozen;
mod gated_mlp;
mod geglu;
mod join;
mod kv_cache;
mod linear;
mod modulation;
mod norm;
mod parameter;
mod part;
mod pass;
mod patch;
mod plain_mlp;
mod portable;
mod relu_block;
mod resnet_block;
mod rotary;
mod spared_block;
mod weights;

pub(crate) use attention::{AttentionCall, SelfAttention, attention};
pub(crate) use bands::BandSizes;
pub(crate) use block_tail::{BlockTail, FeedForward};
pub(crate) use buffers::Buffers;
pub(crate) use chain::{Chain, Chained};
pub(crate) use conv::{Conv2d, ConvCall, ConvSpec};
pub(crate) use decoder_block::{DecoderBlock, DecoderBlockCall, DecoderBlockSpec};
pub(crate) use embedding::Embedding;
pub(crate) use encoder_block::{EncoderBlock, EncoderBlockCall, EncoderBlockSpec, tokens_at};
pub(crate) use frozen::{FrozenLayer, FrozenWeights, Identity, LayerRole};
pub(crate) use gated_mlp::GatedMlp;
pub(crate) use geglu::geglu;
pub(crate) use join::join_channels;
pub(crate) use kv_cache::KvCache;
pub(crate) use linear::{Linear, LinearCall};
pub(crate) use luna_kernels::Activation;
pub(crate) use modulation::{ModulatedNorm, add, scale_and_shift};
pub(crate) use norm::{GroupNorm, RowNorm};
pub(crate) use parameter::Parameter;
pub(crate) use pass::Pass;
pub(crate) use patch::{Delta, LayerPatch, LowRank, add_product};
pub use patch::{LayerRuns, PatchedRuns, Patches};
pub(crate) use plain_mlp::PlainMlp;
pub(crate) use relu_block::ReluBlock;
pub(crate) use resnet_block::ResnetBlock;
pub(crate) use rotary::{RotaryLayout, RotaryTable};
pub(crate) use weights::{StoredTensor, Weights};

/// Activations of a model.
pub(crate) type Tensor = candle_core::Tensor;

/// Applies an activation; on the CPU in the memory of its input, which nothing else may use.
pub(crate) fn activate(x: Tensor, activation: Activation, pass: &Pass) -> crate::Result<Tensor> {
    if x.device().is_cpu() { cpu::activate(x, activation, pass) } else { portable::activate(&x, activation) }
}

/// `x ⊙ y`; on the CPU in the memory of `x`, which nothing else may use.
pub(crate) fn multiply(x: Tensor, y: &Tensor, pass: &Pass) -> crate::Result<Tensor> {
    let product = if x.device().is_cpu() { cpu::multiply(x, y, pass)? } else { (x * y)? };
    pass.check()?;
    Ok(product)
}

#[cfg(test)]
mod tests;

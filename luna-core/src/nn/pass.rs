//! One forward pass: what a request brings along through all layers.

use super::{
    Buffers, Tensor, cpu,
    frozen::FrozenLayer,
    patch::{Patch, Patches},
};
use crate::{AttentionMode, Call, Error, Progress, Result, Runtime};
use luna_kernels::Context;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Cancellation, progress, recycled buffers and patches of one pass through a model.
pub(crate) struct Pass<'a> {
    call: &'a Call,
    runtime: &'a Runtime,
    attention: AttentionMode,
    patches: Option<&'a Patches>,
    done: AtomicUsize,
    total: usize,
}

impl<'a> Pass<'a> {
    /// A pass that will report `total` steps.
    pub(crate) fn new(runtime: &'a Runtime, call: &'a Call, total: usize) -> Self {
        Self { call, runtime, attention: AttentionMode::Auto, patches: None, done: AtomicUsize::new(0), total }
    }

    /// The same with another way to compute attention.
    pub(crate) fn with_attention(self, attention: AttentionMode) -> Self {
        Self { attention, ..self }
    }

    /// The same with what a request adds to the model's weights.
    pub(crate) fn with_patches(self, patches: Option<&'a Patches>) -> Self {
        Self { patches: patches.filter(|patches| !patches.is_empty()), ..self }
    }

    /// What is added to a layer.
    pub(super) fn patch(&self, layer: &FrozenLayer) -> Option<Patch<'a>> {
        self.patches.and_then(|patches| patches.of(layer))
    }

    pub(super) fn attention_mode(&self) -> AttentionMode {
        self.attention
    }

    pub(super) fn buffers(&self) -> &Buffers {
        self.runtime.buffers()
    }

    /// What kernels run with.
    pub(super) fn cx(&self) -> Context<'_> {
        Context::new(self.runtime.workspace()).with_interrupt(self.call.cancel_token())
    }

    /// Fails once the caller has cancelled. Layers ask after every kernel, whose output is then not valid.
    pub(crate) fn check(&self) -> Result<()> {
        if self.call.cancel_token().is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Counts one step and tells the caller.
    pub(crate) fn step(&self) -> Result<()> {
        self.check()?;
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        self.call.report(Progress { done: done.min(self.total), total: self.total });
        Ok(())
    }

    /// Hands back the buffer of a tensor that is not needed any more, so that the next layer can write into it.
    pub(crate) fn recycle(&self, tensor: Tensor) {
        cpu::recycle(tensor, self.buffers());
    }
}

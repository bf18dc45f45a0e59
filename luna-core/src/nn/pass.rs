//! One forward pass: what a request brings along through all layers.

use super::{
    Buffers, Tensor,
    bands::BandSizes,
    cpu,
    frozen::{FrozenLayer, FrozenWeights},
    patch::{LayerRuns, Patch, PatchedRun, PatchedRuns, Patches},
};
use crate::{AttentionMode, Call, Error, Progress, Result, Runtime};
use luna_kernels::Context;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

/// Cancellation, progress, recycled buffers and patches of one pass through a model.
pub(crate) struct Pass<'a> {
    call: &'a Call,
    runtime: &'a Runtime,
    attention: AttentionMode,
    bands: BandSizes,
    patches: Option<&'a Patches>,
    /// How each patched layer ran, by its number.
    runs: Mutex<BTreeMap<usize, LayerRuns>>,
    done: AtomicUsize,
    total: usize,
}

impl<'a> Pass<'a> {
    /// A pass that will report `total` steps.
    pub(crate) fn new(runtime: &'a Runtime, call: &'a Call, total: usize) -> Self {
        Self {
            call,
            runtime,
            attention: AttentionMode::Auto,
            bands: BandSizes::WHOLE,
            patches: None,
            runs: Mutex::default(),
            done: AtomicUsize::new(0),
            total,
        }
    }

    /// The same with another way to compute attention.
    pub(crate) fn with_attention(self, attention: AttentionMode) -> Self {
        Self { attention, ..self }
    }

    /// The same with large images of residual blocks made a band at a time.
    pub(crate) fn with_bands(self, bands: BandSizes) -> Self {
        Self { bands, ..self }
    }

    /// From which sizes on images are made in bands.
    pub(super) fn bands(&self) -> &BandSizes {
        &self.bands
    }

    /// The same with what a request adds to the model's weights.
    pub(crate) fn with_patches(self, patches: Option<&'a Patches>) -> Self {
        Self { patches: patches.filter(|patches| !patches.is_empty()), ..self }
    }

    /// What is added to a layer.
    pub(super) fn patch(&self, layer: &FrozenLayer) -> Option<Patch<'a>> {
        self.patches.and_then(|patches| patches.of(layer))
    }

    /// Notes how a patched layer runs.
    pub(super) fn note(&self, layer: &FrozenLayer, run: PatchedRun) {
        self.lock().entry(layer.index).or_default().count(run);
    }

    /// How the patched layers of `model` ran so far.
    pub(crate) fn patched_runs(&self, model: &FrozenWeights) -> PatchedRuns {
        let mut patched = PatchedRuns::default();
        for (&index, runs) in &*self.lock() {
            patched.layers.insert(model.layers()[index].path.clone(), *runs);
        }
        patched
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, LayerRuns>> {
        // Counts are changed one by one: a panic leaves them sound.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Runs a layer on `rows` rows: tokens, or pixels of the output. Notes its time where the caller asked for it.
    pub(super) fn timed<T>(&self, layer: &FrozenLayer, rows: usize, run: impl FnOnce() -> Result<T>) -> Result<T> {
        self.timed_as(&layer.path, layer.operations(rows), run)
    }

    /// The same for what is no layer with weights.
    pub(super) fn timed_as<T>(
        &self,
        name: impl fmt::Display,
        operations: usize,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(times) = self.call.times() else { return run() };
        let start = Instant::now();
        let value = run()?;
        times.add(name.to_string(), operations as u64, start.elapsed());
        Ok(value)
    }

    /// Runs two parts of a layer that do not need each other. Threads wait for each other at the end of a product, which
    /// counts where there are few rows: there the parts run at once, unless each one's time is wanted.
    pub(super) fn both<A: Send, B: Send>(
        &self,
        rows: usize,
        first: impl FnOnce() -> Result<A> + Send,
        second: impl FnOnce() -> Result<B> + Send,
    ) -> Result<(A, B)> {
        /// A chunk of a prompt.
        const FEW: usize = 80;
        if rows > FEW || self.call.times().is_some() || !self.runtime.handle().is_cpu() {
            return Ok((first()?, second()?));
        }
        let (first, second) = rayon::join(first, second);
        Ok((first?, second?))
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
